//! A version dies under load: new connections go elsewhere with their first packet.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use shifter_common::wire::Slot;
use shifter_tests::{
    backend::{Backend, Spec},
    load::Plan,
    world::{Family, OTHER},
};

use crate::stage::{CLIENTS, ORDERS, PORT_A, PORT_B, Stage, counter, cut_off, orders, slot, vip};

/// A client that has not got the SYN/ACK, or whose ACK is lost, hears of it again within this time.
const SYN_ACK_TIMEOUT: Duration = Duration::from_millis(1_100);
/// New connections a second, of each family.
const RATE_PER_S: f64 = 3_000.0;

/// `kill -9` of the new version, all traffic on it: not one new connection is refused or times out.
#[test]
fn killed_under_load() {
    let mut stage = Stage::new();
    stage.set_weight(10_000);
    let loads = stage.churn_beside(RATE_PER_S, Duration::from_secs(6));
    sleep(Duration::from_secs(2));
    let established = |stage: &Stage| -> u64 {
        let service = stage.service();
        let counted = Slot::ALL.map(|s| slot(&service, s).counters.established);
        counted.iter().sum()
    };
    let (before, begin) = (established(&stage), Instant::now());
    sleep(Duration::from_millis(500));
    let rate_per_s = (established(&stage) - before) as f64 / begin.elapsed().as_secs_f64();
    stage.b.kill();
    // At most what b had open at once: one connection of each client.
    let (cut_off_count, reports) = cut_off(loads);
    assert!(cut_off_count <= 2 * CLIENTS as u64, "{cut_off_count}");
    eprintln!("{cut_off_count} cut off, at {rate_per_s:.0} connections a second");
    for report in &reports {
        assert!(report.backend("a").requests > 1_000, "{report:#?}");
        assert!(report.backend("b").requests > 1_000, "{report:#?}");
    }
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
    let loads = stage.churn_beside(RATE_PER_S, Duration::from_secs(62));
    let end = Instant::now() + Duration::from_secs(60);
    let mut rounds_count = 0;
    while Instant::now() < end {
        stage.b.kill();
        sleep(Duration::from_millis(200));
        stage.b.start_again();
        sleep(Duration::from_millis(200));
        rounds_count += 1;
    }
    let (cut_off_count, _) = cut_off(loads);
    assert!(rounds_count >= 5, "{rounds_count} rounds");
    assert!(cut_off_count <= rounds_count * 2 * CLIENTS as u64);
    eprintln!("{rounds_count} rounds cut {cut_off_count} off");
    // Version a never died.
    let service = stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    assert!(counter(&service, Slot::B, "captured") >= rounds_count);
    assert_eq!(counter(&service, Slot::A, "no_listener"), 0);
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
    sleep(Duration::from_secs(7));
    stage.b.start_again();
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    // The slot was published as out, so the kernel keeps it out: it has no other word.
    assert_eq!(report.backend("b").requests, 0);
    stage.daemon.start_again();
    stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    // Closed and back before any probe: captured at listen(), admitted by the lack of a daemon.
    stage.daemon.kill9();
    sleep(Duration::from_secs(7));
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
    let loads = stage.churn_beside(RATE_PER_S, Duration::from_secs(8));
    sleep(Duration::from_secs(2));
    stage.daemon.drain(ORDERS, Slot::B, false).expect("drains");
    stage.wait("version b is empty", |s| {
        slot(s, Slot::B).live_flows_count == 0 && slot(s, Slot::B).accept_queue_count == 0
    });
    sleep(SYN_ACK_TIMEOUT);
    stage.b.stop();
    let (cut_off_count, reports) = cut_off(loads);
    assert_eq!(cut_off_count, 0, "{reports:#?}");
    assert!(
        reports
            .iter()
            .all(|report| report.backend("b").requests > 0)
    );
    let service = stage.service();
    assert_eq!(counter(&service, Slot::B, "no_listener"), 0);
    assert_eq!(counter(&service, Slot::B, "aborted"), 0);
}

/// The same for one backend of a version, taken out of its file.
#[test]
fn a_removed_backend_is_stopped_without_loss() {
    const PORT_C: u16 = 8_083;
    let (a, b, c) = (
        OTHER.ports(PORT_A),
        OTHER.ports(PORT_B),
        OTHER.ports(PORT_C),
    );
    let with_c = orders(&a, &[b.clone(), c.clone()].concat());
    let stage = Stage::with(&a, &b, with_c);
    let mut removed = Backend::start(stage.world.host(), Spec::new("c", &c));
    stage.wait("every backend is ready", |service| {
        slot(service, Slot::B).backends.iter().all(|b| b.ready)
    });
    stage.set_weight(10_000);
    let loads = stage.churn_beside(RATE_PER_S, Duration::from_secs(7));
    sleep(Duration::from_secs(2));
    stage.daemon.write_service(&orders(&a, &b));
    let report = stage.daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    let filter = format!("sport = :{PORT_C}");
    let is_queue_empty = || {
        let listed = stage.world.host().tool("ss", &["-Hltn", &filter]);
        let mut queues = listed.lines().map(|line| line.split_whitespace().nth(1));
        queues.all(|queued| queued == Some("0"))
    };
    while !is_queue_empty() {
        sleep(Duration::from_millis(5));
    }
    sleep(SYN_ACK_TIMEOUT);
    removed.stop();
    let (cut_off_count, reports) = cut_off(loads);
    assert_eq!(cut_off_count, 0, "{reports:#?}");
    for report in &reports {
        assert!(report.backend("b").requests > 0 && report.backend("c").requests > 0);
        assert_eq!(report.backend("a").requests, 0, "{report:#?}");
    }
    let service = stage.service();
    assert_eq!(counter(&service, Slot::B, "no_listener"), 0);
    assert_eq!(counter(&service, Slot::B, "other_slot"), 0);
}
