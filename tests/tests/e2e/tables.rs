//! Large lookup tables, swapped under load.

use std::{net::SocketAddr, time::Duration};

use shifter_daemon::model::{BackendSpec, HookSpec, ProbeCheck, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::{self, Plan},
    world::{Family, OTHER, Options, VIP, World},
};

use crate::stage::{ORDERS, PORT, orders, vip};

/// Ports of the thousand backends; two nginx listen on a thousand ports each.
const FIRST_PORT: u16 = 20_000;
const COUNT: u16 = 1_000;

fn addresses(first: u16) -> Vec<SocketAddr> {
    (first..first + COUNT)
        .map(|port| OTHER.port(Family::V4, port))
        .collect()
}

fn spec(first: u16, weight: u16) -> ServiceSpec {
    let mut spec = orders();
    spec.vips = vec![VIP.port(Family::V4, PORT)];
    // What is tested is the table; a thousand probes every half second would be the load.
    spec.readiness.check = ProbeCheck::None;
    spec.slots[0].backends = addresses(first)
        .into_iter()
        .enumerate()
        .map(|(i, addr)| BackendSpec {
            addr,
            weight: if i % 2 == 0 { weight } else { 100 },
        })
        .collect();
    spec.slots[1].backends.clear();
    spec
}

/// A slot of a thousand backends changes its weights and then all of its backends, again and again:
/// no connection fails or changes its backend.
#[test]
fn a_thousand_backends_are_swapped_under_load() {
    let world = World::pair(Options::default());
    // Clients of the host itself must not take the ports the backends are about to listen on.
    world
        .host()
        .sysctl("net.ipv4.ip_local_port_range", "40000 60999");
    let _old = Backend::start(world.host(), Spec::new("old", &addresses(FIRST_PORT)));
    let _new = Backend::start(
        world.host(),
        Spec::new("new", &addresses(FIRST_PORT + COUNT)),
    );
    let daemon = Daemon::start(
        world.host(),
        Node::new(HookSpec::Tc),
        &[spec(FIRST_PORT, 100)],
    );
    let client = world.client().inside();
    let time = Duration::from_secs(10);
    let plans = [
        Plan {
            rate_per_s: Some(1_000.0),
            ..Plan::churn(vip(Family::V4), 16, time)
        },
        Plan {
            rate_per_s: Some(300.0),
            ..Plan::keep_alive(vip(Family::V4), 16, time)
        },
    ];
    let loads = plans.map(|plan| {
        let client = client.clone();
        std::thread::spawn(move || load::run(&client, &plan))
    });
    for round in 0..10_u16 {
        let first = if round % 2 == 0 {
            FIRST_PORT + COUNT
        } else {
            FIRST_PORT
        };
        daemon.write_service(&spec(first, 100 + round * 20));
        let report = daemon.apply().expect("applies");
        assert!(report.diagnostics.is_empty(), "{report:?}");
        assert!(!report.changes.is_empty(), "round {round}");
        std::thread::sleep(Duration::from_millis(500));
    }
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 1_000, "{report:?}");
    }
    // Every backend of the last table gets flows.
    let report = load::run(&client, &Plan::connections(vip(Family::V4), 32, 20_000));
    report.assert_clean();
    let service = daemon.service(ORDERS).expect("known");
    let idle = service.slots[0]
        .backends
        .iter()
        .filter(|b| b.counters.selected == 0)
        .count();
    assert!(idle < 10, "{idle} of {COUNT} backends never got a flow");
}
