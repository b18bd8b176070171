//! What the rollouts play on: a client, a host with shifterd and two versions of a service.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use shifter_common::wire::{ServiceStatus, Slot, SlotStatus};
use shifter_daemon::model::{HookSpec, Prefix, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service, service_toml, shifterd},
    load::{self, Plan, Report},
    world::{Family, OTHER, Options, VIP, World},
};

/// Name of the service.
pub const ORDERS: &str = "orders";
const PORT: u16 = 80;
const PORT_A: u16 = 8_081;
const PORT_B: u16 = 8_082;

/// Patience with whatever must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stage, set.
pub struct Stage {
    pub daemon: Daemon,
    pub a: Backend,
    pub b: Backend,
    // Dropped last: everything above runs in it.
    pub world: World,
}

/// The service, whose clients are one network.
pub fn orders() -> ServiceSpec {
    let mut spec = service(
        ORDERS,
        &VIP.ports(PORT),
        &OTHER.ports(PORT_A),
        &OTHER.ports(PORT_B),
    );
    spec.readiness.interval = Duration::from_millis(500);
    spec.readiness.timeout = Duration::from_millis(500);
    spec.readiness.failure_threshold = 4;
    spec.breaker.settle = Duration::ZERO;
    spec.breaker.trusted = [
        Prefix::of([10, 0, 0, 0].into(), 8).expect("a prefix"),
        Prefix::of("2001:db8::".parse().expect("an address"), 32).expect("a prefix"),
    ]
    .into();
    spec
}

impl Stage {
    /// Both versions run, all new flows go to version a, and the file has this `[rollout]`.
    pub fn new(rollout: &str) -> Self {
        Self::with(&orders(), rollout)
    }

    /// As [`Stage::new`], with a service of one's own.
    pub fn with(spec: &ServiceSpec, rollout: &str) -> Self {
        let world = World::pair(Options::default());
        let a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
        let b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(PORT_B)));
        let mut daemon = Daemon::prepare(world.host(), Node::new(HookSpec::Tc), &[]);
        let file = format!("{}[rollout]\n{rollout}\n", service_toml(spec));
        daemon.write_service_text(ORDERS, &file);
        daemon.start_again();
        let stage = Self {
            daemon,
            a,
            b,
            world,
        };
        stage.wait("both slots are eligible", |service| {
            service.slots.iter().all(|s| s.eligible)
        });
        stage
    }

    pub fn service(&self) -> ServiceStatus {
        self.daemon.service(ORDERS).expect("the service is known")
    }

    #[track_caller]
    pub fn start(&self, version: &str) {
        let done = self.daemon.start_rollout(ORDERS, version);
        done.unwrap_or_else(|refusal| panic!("{version}: {refusal:?}"));
    }

    /// Waits until the service is as it must become.
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&ServiceStatus) -> bool) -> ServiceStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let service = self.service();
            if is_so(&service) {
                return service;
            }
            assert!(Instant::now() < end, "never saw that {what}: {service:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the rollout is in a phase, named with or without its particulars.
    #[track_caller]
    pub fn wait_for(&self, phase: &str) -> ServiceStatus {
        self.wait(phase, |service| {
            service
                .rollout
                .as_ref()
                .is_some_and(|of| of.phase == phase || of.detail.starts_with(phase))
        })
    }

    /// What the rollout went through, oldest first.
    pub fn transitions(&self) -> Vec<String> {
        let events = self.daemon.status().events;
        let of_rollout = events.into_iter().filter(|event| event.what == "rollout");
        of_rollout.map(|event| event.detail).collect()
    }

    /// Load from the client, waited for.
    pub fn load(&self, plan: &Plan) -> Report {
        load::run(&self.world.client().inside(), plan)
    }

    /// Load from the client beside whatever else happens.
    pub fn load_beside(&self, plan: Plan) -> JoinHandle<Report> {
        let client = self.world.client().inside();
        std::thread::spawn(move || load::run(&client, &plan))
    }

    /// Runs shifterctl; gives its exit code and everything it printed.
    pub fn shifterctl(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(shifterctl())
            .arg("--socket")
            .arg(self.daemon.socket())
            .args(arguments)
            .output()
            .expect("shifterctl runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }
}

fn shifterctl() -> PathBuf {
    shifterd().with_file_name("shifterctl")
}

/// The VIP.
pub fn vip() -> SocketAddr {
    VIP.port(Family::V4, PORT)
}

/// A backend of version b.
pub fn backend_b() -> SocketAddr {
    OTHER.port(Family::V4, PORT_B)
}

/// A slot of a status.
pub fn slot(service: &ServiceStatus, slot: Slot) -> &SlotStatus {
    &service.slots[slot.index() as usize]
}
