//! What the sessions play on: a client, a host with shifterd and two versions that listen there.

use std::{
    net::SocketAddr,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use shifter_common::wire::{ServiceStatus, Slot, SlotStatus};
use shifter_daemon::model::{HookSpec, Plane, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service},
    load::{self, ErrorKind, Plan, Report},
    world::{Family, OTHER, Options, VIP, World},
};

/// Name of the service.
pub const ORDERS: &str = "orders";
/// Port of the VIP.
pub const PORT: u16 = 80;
/// Port of version a.
pub const PORT_A: u16 = 8_081;
/// Port of version b.
pub const PORT_B: u16 = 8_082;

/// Clients that connect at the same time in [`Stage::churn_beside`], of each family.
pub const CLIENTS: usize = 32;

/// The stage, set.
pub struct Stage {
    pub daemon: Daemon,
    pub _a: Backend,
    pub b: Backend,
    // Dropped last: everything above runs in it.
    pub world: World,
}

/// The service of most sessions. Probes are patient, because the machine may be busy.
pub fn orders(a: &[SocketAddr], b: &[SocketAddr]) -> ServiceSpec {
    let mut spec = service(ORDERS, &VIP.ports(PORT), a, b);
    spec.plane = Plane::Socket;
    spec.readiness.interval = Duration::from_millis(500);
    spec.readiness.timeout = Duration::from_millis(500);
    spec.readiness.failure_threshold = 4;
    spec
}

impl Stage {
    /// Both versions listen on an address of the host in both families and are ready; all new flows
    /// go to version a.
    pub fn new() -> Self {
        let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
        Self::with(&a, &b, orders(&a, &b))
    }

    /// Servers at other addresses, and a service of one's own.
    pub fn with(a: &[SocketAddr], b: &[SocketAddr], spec: ServiceSpec) -> Self {
        Self::serving(Spec::new("a", a), Spec::new("b", b), spec)
    }

    /// Servers and a service of one's own.
    pub fn serving(a: Spec, b: Spec, spec: ServiceSpec) -> Self {
        let world = World::pair(Options::default());
        let server = |server: Spec| Spec {
            logs: spec.observe.http,
            ..server
        };
        let a = Backend::start(world.host(), server(a));
        let b = Backend::start(world.host(), server(b));
        let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec]);
        let stage = Self {
            daemon,
            _a: a,
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
    pub fn wait(&self, what: &str, is_so: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let service = self.service();
            if is_so(&service) {
                return service;
            }
            assert!(
                Instant::now() < end,
                "never saw that {what}: {service:#?}\n{}",
                self.daemon.logs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Load from the client, waited for.
    pub fn load(&self, plan: &Plan) -> Report {
        load::run(&self.world.client().inside(), plan)
    }

    /// New connections to the VIP of each family, so many a second, beside whatever else happens.
    pub fn churn_beside(&self, rate_per_s: f64, time: Duration) -> [JoinHandle<Report>; 2] {
        Family::ALL.map(|family| {
            self.load_beside(Plan {
                rate_per_s: Some(rate_per_s),
                ..Plan::churn(vip(family), CLIENTS, time)
            })
        })
    }

    /// Load from the client beside whatever else happens.
    pub fn load_beside(&self, plan: Plan) -> JoinHandle<Report> {
        let client = self.world.client().inside();
        std::thread::spawn(move || load::run(&client, &plan))
    }
}

/// Waits for loads in which no connection was refused or remained without an answer; gives what went
/// wrong on open connections, which end with the process that had accepted them or had them queued.
#[track_caller]
pub fn cut_off(loads: impl IntoIterator<Item = JoinHandle<Report>>) -> (u64, Vec<Report>) {
    let loads = loads.into_iter().map(|load| load.join().expect("it ran"));
    let reports: Vec<Report> = loads.collect();
    let mut cut_off_count = 0;
    for report in &reports {
        let cut_off = report.errors(ErrorKind::Reset) + report.errors(ErrorKind::Closed);
        assert_eq!(report.errors_count(), cut_off, "{report:#?}");
        assert!(report.requests > 0, "{report:#?}");
        cut_off_count += cut_off;
    }
    (cut_off_count, reports)
}

/// The VIP of a family.
pub fn vip(family: Family) -> SocketAddr {
    VIP.port(family, PORT)
}

/// A slot of a status.
pub fn slot(service: &ServiceStatus, slot: Slot) -> &SlotStatus {
    &service.slots[slot.index() as usize]
}

/// A counter of a slot on the socket plane.
#[track_caller]
pub fn counter(service: &ServiceStatus, which: Slot, name: &str) -> u64 {
    let counters = &slot(service, which).socket;
    let found = counters.iter().find(|(n, _)| n == name);
    found
        .unwrap_or_else(|| panic!("no counter {name} in {counters:?}"))
        .1
}

/// Ids of the programs of all links that are pinned in a directory.
pub fn linked_programs(dir: &std::path::Path) -> Vec<u32> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let link = aya::programs::links::PinnedLink::from_pin(path).expect("a link");
            let link = aya::programs::links::FdLink::from(link);
            link.info().expect("the kernel knows it").program_id()
        })
        .collect()
}

/// No connection looked for a listener in vain, or went elsewhere than it was sent.
#[track_caller]
pub fn assert_nothing_missed(stage: &Stage) -> ServiceStatus {
    let service = stage.service();
    for which in Slot::ALL {
        for name in ["no_listener", "other_slot", "other_backend", "unserved"] {
            assert_eq!(counter(&service, which, name), 0, "{which:?} {name}");
        }
    }
    service
}
