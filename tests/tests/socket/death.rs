//! A version dies under load: new connections go elsewhere with their first packet.

use std::time::{Duration, Instant};

use shifter_common::wire::Slot;
use shifter_tests::{
    load::{ErrorKind, Plan, Report},
    world::Family,
};

use crate::stage::{Stage, counter, slot, vip};

fn churn(time: Duration) -> Plan {
    Plan {
        rate_per_s: Some(6_000.0),
        ..Plan::churn(vip(Family::V4), 64, time)
    }
}

/// What must never be: a connection that nobody takes. What died with the process (accepted, queued
/// or half-open there) shows as a reset or an end on an open connection.
fn assert_none_refused(report: &Report) {
    for kind in [ErrorKind::Refused, ErrorKind::ConnectTimeout] {
        assert_eq!(report.errors(kind), 0, "{kind:?}: {report:#?}");
    }
}

/// `kill -9` of the new version, all traffic on it: not one new connection is refused or times out.
#[test]
fn killed_under_load() {
    let mut stage = Stage::new();
    stage.set_weight(10_000);
    let load = stage.load_beside(churn(Duration::from_secs(6)));
    std::thread::sleep(Duration::from_secs(2));
    stage.b.kill();
    let report = load.join().expect("the load ran");
    assert_none_refused(&report);
    eprintln!(
        "{} connections in 6 s; died with version b: {:?}",
        report.connections, report.errors
    );
    assert!(report.backend("a").requests > 1_000, "{report:#?}");
    assert!(report.backend("b").requests > 1_000, "{report:#?}");
    // At most what b had open at once: 64 clients, each with one connection.
    assert!(report.errors_count() <= 64, "{report:#?}");
    let service = stage.wait("slot b is out", |s| !slot(s, Slot::B).eligible);
    // The kernel moved what came before the daemon knew, and blames the version that was chosen.
    assert_eq!(counter(&service, Slot::A, "no_listener"), 0);
    assert_eq!(counter(&service, Slot::A, "unserved"), 0);
    assert_eq!(counter(&service, Slot::B, "unserved"), 0);
    assert!(
        slot(&service, Slot::B)
            .reason
            .contains("nobody listens there")
    );
}

/// The new version is stopped and started again and again under load, faster than any probe.
#[test]
fn restarted_in_a_loop() {
    let mut stage = Stage::new();
    stage.set_weight(5_000);
    let load = stage.load_beside(churn(Duration::from_secs(14)));
    let end = Instant::now() + Duration::from_secs(12);
    let mut rounds_count = 0;
    while Instant::now() < end {
        stage.b.kill();
        std::thread::sleep(Duration::from_millis(200));
        stage.b.start_again();
        std::thread::sleep(Duration::from_millis(200));
        rounds_count += 1;
    }
    let report = load.join().expect("the load ran");
    assert_none_refused(&report);
    assert!(rounds_count >= 5, "{rounds_count} rounds");
    eprintln!("{rounds_count} rounds, {:?}", report.errors);
    // Version a never died.
    assert_eq!(
        report.errors_count(),
        report.errors(ErrorKind::Reset) + report.errors(ErrorKind::Closed),
        "{report:#?}"
    );
    let service = stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    assert!(counter(&service, Slot::B, "captured") >= rounds_count);
    assert_eq!(counter(&service, Slot::B, "unserved"), 0);
}

/// With `readmit = "probe"` a version that listens again waits for its probe while the daemon lives,
/// and for nobody once it is dead.
#[test]
fn readmission_waits_for_the_probe_while_there_is_one() {
    let mut stage = Stage::new();
    stage.set_weight(10_000);
    stage.b.kill();
    stage.wait("slot b is out", |s| !slot(s, Slot::B).eligible);
    stage.daemon.kill9();
    // The lease is over when the daemon has been away for five seconds.
    std::thread::sleep(Duration::from_secs(7));
    stage.b.start_again();
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    // The slot was published as out, so the kernel keeps it out: it has no other word.
    assert_eq!(report.backend("b").requests, 0);
    stage.daemon.start_again();
    stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    // Closed and back before any probe: captured at listen(), admitted by the lack of a daemon.
    stage.daemon.kill9();
    std::thread::sleep(Duration::from_secs(7));
    stage.b.kill();
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("a").requests, 200);
    stage.b.start_again();
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("b").requests, 200, "{report:#?}");
}

/// A planned stop loses nothing: drained, its accept queue empty for longer than a SYN/ACK waits,
/// then stopped.
#[test]
fn a_planned_stop_loses_nothing() {
    let mut stage = Stage::new();
    stage.set_weight(5_000);
    let load = stage.load_beside(churn(Duration::from_secs(8)));
    std::thread::sleep(Duration::from_secs(2));
    stage
        .daemon
        .drain("orders", Slot::B, false)
        .expect("drains");
    stage.wait("version b is empty", |s| {
        slot(s, Slot::B).live_flows_count == 0 && slot(s, Slot::B).accept_queue_count == 0
    });
    std::thread::sleep(Duration::from_millis(1_100));
    stage.b.stop();
    let report = load.join().expect("the load ran");
    report.assert_clean();
    assert!(report.backend("b").requests > 0);
    let service = stage.service();
    assert_eq!(counter(&service, Slot::B, "no_listener"), 0);
    assert_eq!(counter(&service, Slot::B, "aborted"), 0);
}
