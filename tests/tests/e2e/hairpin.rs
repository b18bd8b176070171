//! A backend in a namespace behind the host calls the VIP it serves, by an interface that is hooked.

use shifter_daemon::model::{HookSpec, InterfaceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::{self, Plan},
    world::{BACKEND, Family, HOST_BACKEND_IF, OTHER, Options, VIP, World},
};

use crate::stage::{ORDERS, PORT, PORT_A, PORT_B, orders, vip};

/// Clients come in by both interfaces.
fn node() -> Node {
    let mut node = Node::new(HookSpec::Tc);
    node.interfaces.push(InterfaceSpec {
        name: HOST_BACKEND_IF.into(),
        hook: HookSpec::Tc,
        checksums_complete: false,
    });
    node
}

/// Packets with a verdict.
fn packets(daemon: &Daemon, verdict: &str) -> u64 {
    let verdicts = daemon.status().daemon.verdicts;
    verdicts
        .into_iter()
        .find(|(name, _)| name == verdict)
        .map_or(0, |(_, count)| count)
}

/// With one backend the caller is always selected itself; answers are longer than a packet.
#[test]
fn the_only_backend_calls_itself_through_the_vip() {
    for options in Options::all_offloads() {
        let world = World::routed(options);
        let spec = Spec {
            body_bytes: 60_000,
            ..Spec::new("a", &BACKEND.ports(PORT_A))
        };
        let _a = Backend::start(world.backend(), spec);
        let mut service = orders();
        service.slots[0].backends.truncate(2);
        for (backend, addr) in service.slots[0]
            .backends
            .iter_mut()
            .zip(BACKEND.ports(PORT_A))
        {
            backend.addr = addr;
        }
        service.slots[1].backends.clear();
        let daemon = Daemon::start(world.host(), node(), &[service]);
        daemon.wait_until_ready();
        for family in Family::ALL {
            let plan = Plan {
                requests_per_connection: Some(3),
                ..Plan::connections(vip(family), 4, 40)
            };
            let report = load::run(&world.backend().inside(), &plan);
            report.assert_clean();
            assert_eq!(
                report.backend("a").connections,
                40,
                "{options:?} {family:?}"
            );
            // Everybody else finds it as before.
            let report = load::run(&world.client().inside(), &plan);
            report.assert_clean();
            assert_eq!(
                report.backend("a").connections,
                40,
                "{options:?} {family:?}"
            );
        }
        assert!(packets(&daemon, "steered_turned") > 160 * 4);
        let slot = &daemon.service(ORDERS).expect("known").slots[0];
        assert_eq!(
            (slot.counters.selected, slot.counters.established),
            (160, 160)
        );
        assert_eq!(
            slot.counters.reset_by_backend + slot.counters.refused,
            0,
            "{slot:?}"
        );
    }
}

/// The caller shares its calls by weight like everybody else, with itself and with the other version,
/// and sees the VIP as its peer either way.
#[test]
fn a_backend_is_shared_by_weight_with_itself_and_others() {
    let world = World::routed(Options::default());
    let _a = Backend::start(world.backend(), Spec::new("a", &BACKEND.ports(PORT_A)));
    let _b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(PORT_B)));
    let mut service = orders();
    for (backend, addr) in service.slots[0]
        .backends
        .iter_mut()
        .zip(BACKEND.ports(PORT_A))
    {
        backend.addr = addr;
    }
    let daemon = Daemon::start(world.host(), node(), &[service]);
    daemon.wait_until_ready();
    daemon.set_weight(ORDERS, 5_000).expect("a weight");
    for family in Family::ALL {
        let report = load::run(
            &world.backend().inside(),
            &Plan::connections(vip(family), 8, 400),
        );
        report.assert_clean();
        // Seven standard deviations at one half of 400.
        let share = report.share("b");
        assert!((share - 0.5).abs() < 0.18, "{family:?}: {share}");
        let peer = world.backend().run(|| {
            std::net::TcpStream::connect(VIP.port(family, PORT)).and_then(|s| s.peer_addr())
        });
        assert_eq!(peer.ok(), Some(vip(family)));
    }
    let drops: Vec<_> = daemon
        .status()
        .daemon
        .verdicts
        .into_iter()
        .filter(|(name, count)| name.starts_with("drop_") && *count > 0)
        .collect();
    assert!(drops.is_empty(), "{drops:?}");
}
