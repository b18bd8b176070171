//! Backends that fail and return, and what the service does meanwhile.

use std::time::Duration;

use shifter_common::wire::{Drain, Slot};
use shifter_daemon::model::{HookSpec, ServiceSpec};
use shifter_tests::{
    load::{ErrorKind, Plan},
    world::Family,
};

use crate::stage::{ORDERS, Stage, orders, slot, vip};

/// Probes that notice quickly.
fn quick() -> ServiceSpec {
    let mut spec = orders();
    spec.readiness.interval = Duration::from_millis(100);
    spec.readiness.timeout = Duration::from_millis(100);
    spec.readiness.failure_threshold = 3;
    spec
}

fn stage() -> Stage {
    Stage::with(HookSpec::Tc, Default::default(), quick())
}

/// The daemon takes a failing version out unasked and says so; when it is ready again it gets its
/// share back. No request fails: the version still answers those it has.
#[test]
fn a_canary_that_is_not_ready_loses_its_traffic() {
    let stage = stage();
    stage.set_weight(5_000);
    let time = Duration::from_secs(6);
    let plan = Plan {
        rate_per_s: Some(1_000.0),
        ..Plan::churn(vip(Family::V4), 16, time)
    };
    let load = stage.load_beside(plan);
    std::thread::sleep(Duration::from_millis(500));
    stage.b.set_ready(false);
    let service = stage.wait("b is out", |service| !slot(service, Slot::B).eligible);
    assert_eq!((service.weight_bp, service.effective_bp), (5_000, 0));
    assert!(
        slot(&service, Slot::B).reason.contains("status 503"),
        "{service:?}"
    );
    let before = slot(&service, Slot::B).counters.selected;
    let fresh = stage.load(&Plan::connections(vip(Family::V6), 4, 300));
    fresh.assert_clean();
    assert_eq!(fresh.backend("b").connections, 0);
    let service = stage.service();
    assert_eq!(slot(&service, Slot::B).counters.selected, before);
    let event = stage
        .daemon
        .status()
        .events
        .into_iter()
        .find(|event| event.what == "not ready" && event.effective_before_bp == 5_000)
        .expect("the event is kept");
    assert_eq!((event.by.as_str(), event.slot), ("shifterd", Some(Slot::B)));
    assert_eq!(
        (event.effective_before_bp, event.effective_after_bp),
        (5_000, 0)
    );
    assert!(
        event.took_ns > 0 && event.detail.contains("503"),
        "{event:?}"
    );
    stage.b.set_ready(true);
    stage.wait("b is back", |service| service.effective_bp == 5_000);
    let fresh = stage.load(&Plan::connections(vip(Family::V6), 4, 300));
    fresh.assert_clean();
    assert!(
        (90..210).contains(&fresh.backend("b").connections),
        "{fresh:?}"
    );
    load.join().expect("the load ran").assert_clean();
}

/// With neither version ready new flows are dropped and counted, established ones go on, and when one
/// returns everything works again.
#[test]
fn with_neither_ready_new_flows_wait_and_old_ones_go_on() {
    let stage = stage();
    let time = Duration::from_secs(5);
    let alive = Plan {
        rate_per_s: Some(200.0),
        ..Plan::keep_alive(vip(Family::V4), 4, time)
    };
    let load = stage.load_beside(alive);
    stage.wait("4 flows live", |service| {
        slot(service, Slot::A).live_flows_count == 4
    });
    stage.a.set_ready(false);
    let service = stage.wait("a is out", |service| !slot(service, Slot::A).eligible);
    assert_eq!(
        service.effective_bp, 10_000,
        "slot b is ready and takes over"
    );
    let fresh = stage.load(&Plan::connections(vip(Family::V4), 4, 100));
    fresh.assert_clean();
    assert_eq!(fresh.backend("b").connections, 100);
    assert_eq!(slot(&stage.service(), Slot::A).failed_over_count, 100);
    stage.b.set_ready(false);
    let service = stage.wait("b is out too", |service| !slot(service, Slot::B).eligible);
    assert!(
        service.notes[0].contains("no slot is eligible"),
        "{service:?}"
    );
    let refused = stage.load(&Plan {
        connect_timeout: Duration::from_millis(300),
        ..Plan::connections(vip(Family::V4), 5, 5)
    });
    assert_eq!(refused.errors(ErrorKind::ConnectTimeout), 5, "{refused:?}");
    assert_eq!(slot(&stage.service(), Slot::A).unserved_count, 5);
    stage.a.set_ready(true);
    stage.wait("a is back", |service| slot(service, Slot::A).eligible);
    stage
        .load(&Plan::connections(vip(Family::V4), 4, 100))
        .assert_clean();
    let report = load.join().expect("the load ran");
    report.assert_clean();
    assert_eq!(report.connections, 4);
}

/// A backend process that dies: handshakes that get no answer or a refusal until the probes notice are
/// the only ones lost, and all later ones are served.
#[test]
fn a_killed_version_is_taken_out() {
    let mut stage = stage();
    stage.set_weight(5_000);
    stage.b.kill();
    stage.wait("b is out", |service| !slot(service, Slot::B).eligible);
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 500));
    report.assert_clean();
    assert_eq!(report.backend("a").connections, 500);
    assert_eq!(stage.daemon.service(ORDERS).expect("known").effective_bp, 0);
    stage.b.start_again();
    stage.wait("b is back", |service| service.effective_bp == 5_000);
    stage
        .load(&Plan::connections(vip(Family::V4), 8, 500))
        .assert_clean();
}

/// `drain` takes a slot out by hand, keeps its flows, and refuses to leave a service with nothing.
#[test]
fn a_drained_slot_gets_nothing_new() {
    let stage = stage();
    stage.set_weight(5_000);
    stage.daemon.drain(ORDERS, Slot::B, false).expect("drains");
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 300));
    report.assert_clean();
    assert_eq!(report.backend("a").connections, 300);
    let refusal = stage
        .daemon
        .drain(ORDERS, Slot::A, false)
        .expect_err("the only one left");
    assert_eq!(refusal.code, "not_eligible");
    assert!(
        refusal.message.contains("drained by root (uid 0)"),
        "{refusal:?}"
    );
    let body = Drain {
        slot: Slot::B,
        undo: true,
    };
    stage
        .daemon
        .drain(ORDERS, body.slot, body.undo)
        .expect("takes it back");
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 300));
    report.assert_clean();
    assert!(report.backend("b").connections > 90, "{report:?}");
}
