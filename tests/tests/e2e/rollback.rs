//! Taking a version out of traffic, with its established flows or without.

use std::time::{Duration, Instant};

use shifter_common::wire::{EstablishedPolicy, Slot};
use shifter_daemon::model::HookSpec;
use shifter_tests::{
    load::{ErrorKind, Plan},
    world::{CLIENT, Family},
};

use crate::stage::{ORDERS, Stage, slot, vip};

/// The client's address as `ss` writes it.
fn client(family: Family) -> String {
    CLIENT.ip(family).to_string()
}

/// A client with few ports, so that each is used again at once: after a rollback every new connection
/// reaches the baseline, whatever the same port carried before.
#[test]
fn a_port_used_again_after_a_rollback_reaches_the_baseline() {
    let stage = Stage::new(HookSpec::Tc);
    stage
        .world
        .client()
        .sysctl("net.ipv4.ip_local_port_range", "40000 40063");
    stage.world.client().sysctl("net.ipv4.tcp_tw_reuse", "1");
    for family in Family::ALL {
        stage.set_weight(10_000);
        let report = stage.load(&Plan::connections(vip(family), 8, 400));
        assert!(
            report.errors_count() == report.errors(ErrorKind::NoPort),
            "{report:?}"
        );
        assert!(report.backend("b").connections > 0 && report.backend("a").connections == 0);
        stage.daemon.rollback(ORDERS, None).expect("rolls back");
        let report = stage.load(&Plan::connections(vip(family), 8, 400));
        assert!(
            report.errors_count() == report.errors(ErrorKind::NoPort),
            "{report:?}"
        );
        assert!(report.backend("a").connections > 0, "{report:?}");
        assert_eq!(report.backend("b").connections, 0, "{report:?}");
    }
}

/// Policy drain: established connections go on with the version they are on, none is lost, and the
/// live count falls to zero when they end.
#[test]
fn drained_flows_go_on_until_they_end() {
    let stage = Stage::new(HookSpec::Tc);
    stage.set_weight(10_000);
    let time = Duration::from_secs(3);
    let plan = Plan {
        rate_per_s: Some(400.0),
        ..Plan::keep_alive(vip(Family::V4), 12, time)
    };
    let load = stage.load_beside(plan);
    stage.wait("12 flows live on b", |service| {
        slot(service, Slot::B).live_flows_count == 12
    });
    let changed = stage
        .daemon
        .rollback(ORDERS, Some(EstablishedPolicy::Drain))
        .expect("rolls back");
    assert_eq!((changed.weight_before_bp, changed.weight_bp), (10_000, 0));
    assert_eq!(changed.flows_reset_count, 0);
    let fresh = stage.load(&Plan::connections(vip(Family::V4), 4, 200));
    fresh.assert_clean();
    assert_eq!(fresh.backend("a").connections, 200);
    assert_eq!(slot(&stage.service(), Slot::B).live_flows_count, 12);
    let report = load.join().expect("the load ran");
    report.assert_clean();
    assert_eq!(report.backend("b").connections, 12);
    assert_eq!(report.connections, 12, "no connection was opened again");
    stage.wait("b is drained", |service| {
        slot(service, Slot::B).live_flows_count == 0
    });
}

/// Policy reset, busy and idle connections: each is reset once, none is left, and clients that connect
/// again reach the baseline.
#[test]
fn reset_flows_end_at_both_ends() {
    for family in Family::ALL {
        let stage = Stage::new(HookSpec::Tc);
        stage.set_weight(10_000);
        let busy = Plan {
            rate_per_s: Some(300.0),
            ..Plan::keep_alive(vip(family), 6, Duration::from_secs(4))
        };
        let load = stage.load_beside(busy);
        let idle = stage.world.client().run(|| {
            (0..5)
                .map(|_| std::net::TcpStream::connect(vip(family)).expect("connects"))
                .collect::<Vec<_>>()
        });
        stage.wait("11 flows live on b", |service| {
            slot(service, Slot::B).live_flows_count == 11
        });
        let changed = stage
            .daemon
            .rollback(ORDERS, Some(EstablishedPolicy::Reset))
            .expect("rolls back");
        assert_eq!(changed.flows_reset_count, 11, "{family:?}");
        for mut stream in idle {
            use std::io::Read as _;
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a socket");
            let error = stream
                .read(&mut [0; 1])
                .expect_err("the connection was reset");
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{family:?}: {error}"
            );
        }
        let report = load.join().expect("the load ran");
        let resets = report.errors(ErrorKind::Reset) + report.errors(ErrorKind::Closed);
        assert_eq!(resets, report.errors_count(), "{family:?}: {report:?}");
        assert!((1..=6).contains(&resets), "{family:?}: {report:?}");
        assert_eq!(report.backend("a").connections, 6, "{family:?}: {report:?}");
        assert_eq!(slot(&stage.service(), Slot::B).live_flows_count, 0);
        // The backend's own sockets go as well: those of idle flows at once, those that were just
        // sending with their next retransmission.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let filter = ["-Htn", "state", "established", "( sport = :8082 )"];
            let sockets = stage.world.host().tool("ss", &filter);
            let left = sockets
                .lines()
                .filter(|line| line.contains(&client(family)))
                .count();
            if left == 0 {
                break;
            }
            assert!(Instant::now() < end, "{family:?}:\n{sockets}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
