//! The choice of the plane, and its change under load.

use std::time::Duration;

use shifter_common::wire::Slot;
use shifter_daemon::model::Plane;
use shifter_tests::{
    load::Plan,
    world::{BACKEND, Family, OTHER},
};

use crate::stage::{ORDERS, PORT_A, PORT_B, Stage, orders, slot, vip};

/// A live service changes its plane back and forth: no connection fails, those that are open stay
/// where they are.
#[test]
fn a_live_service_changes_its_plane() {
    let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
    let mut spec = orders(&a, &b);
    spec.plane = Plane::Nat;
    let stage = Stage::with(&a, &b, spec.clone());
    stage.set_weight(5_000);
    let time = Duration::from_secs(10);
    let loads = [
        Plan {
            rate_per_s: Some(1_500.0),
            ..Plan::churn(vip(Family::V4), 16, time)
        },
        Plan {
            rate_per_s: Some(400.0),
            ..Plan::keep_alive(vip(Family::V4), 8, time)
        },
        Plan {
            rate_per_s: Some(400.0),
            ..Plan::keep_alive(vip(Family::V6), 8, time)
        },
    ]
    .map(|plan| stage.load_beside(plan));
    for plane in [
        Plane::Socket,
        Plane::Nat,
        Plane::Auto,
        Plane::Nat,
        Plane::Socket,
    ] {
        std::thread::sleep(Duration::from_millis(1_500));
        spec.plane = plane;
        stage.daemon.write_service(&spec);
        let report = stage.daemon.apply().expect("applies");
        assert!(report.diagnostics.is_empty(), "{report:?}");
        let name = if plane == Plane::Nat { "nat" } else { "socket" };
        stage.wait("the plane is the one asked for", |s| s.plane == name);
    }
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 500, "{report:?}");
    }
    let status = stage.daemon.status();
    let verdict = |name: &str| {
        let found = status.daemon.verdicts.iter().find(|(n, _)| n == name);
        found.map_or(0, |(_, count)| *count)
    };
    assert!(verdict("steered_new") > 100 && verdict("pass_socket_plane") > 100);
    for drop in status
        .daemon
        .verdicts
        .iter()
        .filter(|(n, _)| n.starts_with("drop_"))
    {
        assert_eq!(drop.1, 0, "{}", drop.0);
    }
}

/// `auto` takes the socket plane where every backend is an address of the host, and says why not.
#[test]
fn auto_explains_itself() {
    let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
    let mut spec = orders(&a, &b);
    spec.plane = Plane::Auto;
    let stage = Stage::with(&a, &b, spec.clone());
    let service = stage.service();
    assert_eq!(
        (service.plane.as_str(), service.plane_reason.as_str()),
        (
            "socket",
            "TCP, and every backend is an address of this host"
        )
    );
    let far = BACKEND.port(Family::V4, 8_081);
    spec.slots[1].backends[0].addr = far;
    stage.daemon.write_service(&spec);
    stage.daemon.apply().expect("applies");
    let service = stage.wait("the nat plane steers", |s| s.plane == "nat");
    let reason = format!("backend {far} is no address of this host");
    assert_eq!(service.plane_reason, reason);
    assert!(slot(&service, Slot::A).eligible);
    // Asked for, it is refused; what is in force stays.
    spec.plane = Plane::Socket;
    stage.daemon.write_service(&spec);
    let report = stage.daemon.apply().expect("answers");
    let text = format!("{report:?}");
    assert!(
        text.contains("no address of this host: bring the address up"),
        "{text}"
    );
    assert_eq!(stage.service().plane, "nat");
}

/// With no daemon traffic is steered on; the next one finds all of it and changes nothing.
#[test]
fn steered_without_a_daemon_and_adopted_exactly() {
    let mut stage = Stage::new();
    stage.set_weight(3_000);
    let before = stage.service();
    stage.daemon.kill9();
    let report = stage.load(&Plan::connections(vip(Family::V4), 16, 4_000));
    report.assert_clean();
    assert!((0.26..0.34).contains(&report.share("b")), "{report:#?}");
    stage.daemon.start_again();
    let after = stage.service();
    assert_eq!(
        (after.plane.as_str(), after.generation),
        ("socket", before.generation)
    );
    let established = |of: &shifter_common::wire::ServiceStatus| -> u64 {
        Slot::ALL
            .map(|s| slot(of, s).counters.established)
            .iter()
            .sum()
    };
    assert_eq!(established(&after) - established(&before), 4_000);
    let report = stage.load(&Plan::connections(vip(Family::V6), 16, 1_000));
    report.assert_clean();
    assert!(stage.daemon.status().daemon.adopted);
}

/// A rollback with reset ends exactly the version's connections through the VIP: those of the other
/// version and direct ones to the server's own address stay.
#[test]
fn a_reset_ends_the_versions_connections_and_nothing_else() {
    let stage = Stage::new();
    stage.set_weight(0);
    let time = Duration::from_secs(6);
    let alive = |target| Plan {
        rate_per_s: Some(100.0),
        ..Plan::keep_alive(target, 4, time)
    };
    let of_a = stage.load_beside(alive(vip(Family::V4)));
    let direct = stage.load_beside(alive(OTHER.port(Family::V4, PORT_B)));
    stage.wait("version a has its connections", |s| {
        slot(s, Slot::A).live_flows_count == 4
    });
    stage.set_weight(10_000);
    let of_b = stage.load_beside(Plan {
        rate_per_s: Some(100.0),
        ..Plan::keep_alive(vip(Family::V6), 8, time)
    });
    stage.wait("version b has its connections", |s| {
        slot(s, Slot::B).live_flows_count == 8
    });
    let flows = stage.daemon.flows(ORDERS, 100).expect("listed");
    assert_eq!(flows.total_count, 12, "{flows:?}");
    let changed = stage
        .daemon
        .rollback(ORDERS, Some(shifter_common::wire::EstablishedPolicy::Reset))
        .expect("rolls back");
    assert_eq!(changed.flows_reset_count, 8, "{changed:?}");
    of_a.join().expect("ran").assert_clean();
    direct.join().expect("ran").assert_clean();
    let report = of_b.join().expect("ran");
    assert!(report.errors_count() >= 8, "{report:#?}");
    // Whoever was reset came back to version a.
    assert!(report.backend("a").requests > 0, "{report:#?}");
}

/// `detach` takes every program off, also those that the whole host would go on running.
#[test]
fn detach_leaves_nothing() {
    let mut stage = Stage::new();
    let links = stage.daemon.bpffs().join(format!(
        "shifter/v{}/sockets",
        shifter_common::abi::ABI_VERSION
    ));
    let pins = || {
        let names = std::fs::read_dir(&links).map(|dir| dir.count());
        names.unwrap_or(0)
    };
    assert_eq!(pins(), 4);
    let ids = crate::stage::linked_programs(&links);
    assert_eq!(ids.len(), 4);
    // The VIP has no listener of its own, so what is steered to it is lost.
    stage.daemon.detach(true).expect("detaches");
    assert_eq!(stage.daemon.wait(), Some(0));
    assert_eq!(pins(), 0);
    for id in ids {
        let is_loaded = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .any(|program| program.id() == id);
        assert!(!is_loaded, "program {id} is still there");
    }
    // Nobody listens on the VIP itself.
    let report = stage.load(&Plan::connections(vip(Family::V4), 1, 5));
    assert_eq!(report.errors_count(), 5, "{report:?}");
}
