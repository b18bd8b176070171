//! What the sessions play on: a client, a host with shifterd and two versions of a service.

use std::{
    net::SocketAddr,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use shifter_common::wire::{ServiceStatus, Slot};
use shifter_daemon::model::{HookSpec, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service},
    load::{self, Plan, Report},
    world::{Family, OTHER, Options, VIP, World},
};

/// Name of the service.
pub const ORDERS: &str = "orders";
/// Port of the VIP.
pub const PORT: u16 = 80;
/// Port of version a's backends.
pub const PORT_A: u16 = 8_081;
/// Port of version b's backends.
pub const PORT_B: u16 = 8_082;

/// The stage, set.
pub struct Stage {
    pub daemon: Daemon,
    pub a: Backend,
    pub b: Backend,
    // Dropped last: everything above runs in it.
    pub world: World,
}

/// The service as most sessions have it. Probes are patient, because the machine may be busy.
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
    spec
}

impl Stage {
    /// Both versions run and are ready, all new flows go to version a.
    pub fn new(hook: HookSpec) -> Self {
        Self::with(hook, Options::default(), orders())
    }

    /// As [`Stage::new`], with offloads and a service of one's own.
    pub fn with(hook: HookSpec, options: Options, spec: ServiceSpec) -> Self {
        Self::on(Node::new(hook), options, spec)
    }

    /// As [`Stage::with`], with a node of one's own.
    pub fn on(node: Node, options: Options, spec: ServiceSpec) -> Self {
        let world = World::pair(options);
        let server = |name, port| Spec {
            logs: spec.observe.http,
            ..Spec::new(name, &OTHER.ports(port))
        };
        let a = Backend::start(world.host(), server("a", PORT_A));
        let b = Backend::start(world.host(), server("b", PORT_B));
        let daemon = Daemon::start(world.host(), node, &[spec]);
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

    pub fn set_weight(&self, weight_bp: u16) {
        self.daemon
            .set_weight(ORDERS, weight_bp)
            .expect("a weight is accepted");
    }

    /// Waits until the service is as it must become.
    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&ServiceStatus) -> bool) -> ServiceStatus {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let service = self.service();
            if is_so(&service) {
                return service;
            }
            assert!(Instant::now() < end, "never saw that {what}: {service:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
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
}

/// The VIP of a family.
pub fn vip(family: Family) -> SocketAddr {
    VIP.port(family, PORT)
}

/// A slot of a status.
pub fn slot(service: &ServiceStatus, slot: Slot) -> &shifter_common::wire::SlotStatus {
    &service.slots[slot.index() as usize]
}

/// A reproducible sequence of numbers (xorshift64*, Vigna 2016), seeded by the caller and printed by
/// the test.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        eprintln!("seed {seed}");
        Self(seed | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
