//! The kernel takes a bad version out of traffic by itself, whether shifterd lives or not.

use std::time::Duration;

use nix::sys::signal::Signal;
use shifter_common::wire::{ServiceStatus, Slot};
use shifter_daemon::model::{HookSpec, Prefix, ProbeCheck, ServiceSpec};
use shifter_tests::{
    load::Plan,
    world::{Family, Options},
};

use crate::stage::{ORDERS, PORT_B, Stage, orders, slot, vip};

/// Nothing but the kernel notices a version that stops listening, and flows count from the first one on.
/// The clients of these worlds are one network.
fn unprobed() -> ServiceSpec {
    let mut spec = orders();
    spec.readiness.check = ProbeCheck::None;
    spec.breaker.settle = Duration::ZERO;
    spec.breaker.trusted = [
        Prefix::of([10, 0, 0, 0].into(), 8).expect("a prefix"),
        Prefix::of("2001:db8::".parse().expect("an address"), 32).expect("a prefix"),
    ]
    .into();
    spec
}

fn counted(service: &ServiceStatus, name: &str) -> u64 {
    let errors = service.breaker.errors.iter();
    errors
        .filter(|(of, _)| of == name)
        .map(|(_, count)| count)
        .sum()
}

/// What the daemon is doing while the version goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Running,
    Stopped,
    Dead,
}

/// The new version stops listening at this weight. So many clients are refused, and from the next one on
/// all go to the old version.
fn goes_bad(weight_bp: u16, most_errors: u64, family: Family, daemon: Daemon) {
    let name = format!("{weight_bp} bp, {family:?}, daemon {daemon:?}");
    let mut stage = Stage::with(HookSpec::Tc, Options::default(), unprobed());
    stage.set_weight(weight_bp);
    let good = stage.load(&Plan::connections(vip(family), 4, 400));
    good.assert_clean();
    match daemon {
        Daemon::Running => {}
        Daemon::Stopped => stage.daemon.signal(Signal::SIGSTOP),
        Daemon::Dead => stage.daemon.kill9(),
    }
    stage.b.kill();
    // One after the other, so that no client is on its way while the kernel decides.
    let mut refused = 0;
    let mut quiet = 0;
    for _ in 0..60 {
        let report = stage.load(&Plan::connections(vip(family), 1, 100));
        refused += report.errors_count();
        quiet = if report.errors_count() == 0 && refused > 0 {
            quiet + 1
        } else {
            0
        };
        if quiet == 5 {
            break;
        }
    }
    assert!(
        (1..=most_errors).contains(&refused),
        "{name}: {refused} refused"
    );
    assert_eq!(quiet, 5, "{name}: the old version serves everybody");
    match daemon {
        Daemon::Running => {}
        Daemon::Stopped => stage.daemon.signal(Signal::SIGCONT),
        Daemon::Dead => {
            stage.daemon.start_again();
        }
    }
    let service = stage.wait("the trip is known", |service| {
        service.breaker.tripped && service.weight_by == "the breaker"
    });
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0), "{name}");
    assert_eq!(counted(&service, "canary"), refused, "{name}");
    assert_eq!(counted(&service, "trips"), 1, "{name}");
    let trip = service.breaker.trip.as_ref().expect("a record");
    assert_eq!(trip.result, "executed");
    assert_eq!(trip.weight_bp, weight_bp, "{name}");
    assert!(
        trip.evidence_milli >= trip.threshold_milli,
        "{name}: {trip:?}"
    );
    assert!(trip.took_ns > 0, "{name}: {trip:?}");
    eprintln!(
        "{name}: {refused} refused, {} ns from the last to weight 0",
        trip.took_ns
    );
    let note = format!("see why: shifterctl explain {ORDERS}");
    assert!(
        service.notes.iter().any(|n| n.contains(&note)),
        "{:?}",
        service.notes
    );
    let events = stage.daemon.status().events;
    let tripped: Vec<_> = events
        .iter()
        .filter(|event| event.what == "tripped")
        .collect();
    assert_eq!(tripped.len(), 1, "{name}: {events:?}");
    assert_eq!(tripped[0].by, "the breaker");
    assert_eq!(tripped[0].effective_after_bp, 0);
    if daemon == Daemon::Running {
        let logs = stage.daemon.logs();
        assert!(
            logs.contains("the kernel tells of a trip"),
            "{name}: {logs}"
        );
        assert_eq!(counted(&service, "untold"), 0, "{name}");
    }
    // Mended, and given a weight: it serves again.
    stage.b.start_again();
    stage.set_weight(5_000);
    let report = stage.load(&Plan::connections(vip(family), 4, 400));
    report.assert_clean();
    assert!(report.backend("b").requests > 100, "{name}");
    assert!(!stage.service().breaker.tripped);
}

#[test]
fn a_version_that_stops_listening_is_out_after_a_handful_of_errors() {
    goes_bad(100, 6, Family::V4, Daemon::Running);
    goes_bad(500, 6, Family::V6, Daemon::Running);
    goes_bad(5_000, 20, Family::V4, Daemon::Running);
}

#[test]
fn also_while_shifterd_is_stopped() {
    goes_bad(500, 6, Family::V4, Daemon::Stopped);
}

#[test]
fn also_after_shifterd_was_killed() {
    goes_bad(500, 6, Family::V4, Daemon::Dead);
}

/// Nobody is blamed for what both suffer, and a pinned client that tries forever trips nothing: neither is
/// in favour of going back.
#[test]
fn a_fault_of_both_versions_trips_nothing() {
    let mut stage = Stage::with(HookSpec::Tc, Options::default(), unprobed());
    stage.set_weight(2_000);
    stage.a.kill();
    stage.b.kill();
    let report = stage.load(&Plan::connections(vip(Family::V4), 4, 600));
    assert_eq!(report.errors_count(), 600);
    let service = stage.service();
    assert!(!service.breaker.tripped, "{:?}", service.breaker);
    assert_eq!(
        counted(&service, "canary") + counted(&service, "baseline"),
        600
    );
    assert_eq!(service.effective_bp, 2_000);
    let refused = |of| slot(&service, of).counters.refused;
    assert_eq!(refused(Slot::A) + refused(Slot::B), 600);
}

/// A version that answers no more, not even with a refusal: its clients' second attempt counts, and from the
/// trip on nobody waits.
#[test]
fn a_version_that_hangs_is_out_too() {
    let stage = Stage::with(HookSpec::Tc, Options::default(), unprobed());
    stage.set_weight(5_000);
    let host = stage.world.host().inside();
    // What reaches the version is thrown away, behind the packet path.
    let script = format!(
        "add table inet hang\nadd chain inet hang in {{ type filter hook input priority 0 ; }}\n\
         add rule inet hang in tcp dport {PORT_B} drop\n"
    );
    host.tool_with_input("nft", &["-f", "-"], &script);
    let load = stage.load_beside(Plan::churn(vip(Family::V4), 40, Duration::from_secs(6)));
    let service = stage.wait("the trip is known", |service| service.breaker.tripped);
    let counters = &slot(&service, Slot::B).counters;
    assert!(counters.unanswered >= 17, "{counters:?}");
    assert_eq!((counters.refused, counters.reset_by_backend), (0, 0));
    assert_eq!(slot(&service, Slot::A).counters.unanswered, 0);
    assert_eq!(counted(&service, "baseline"), 0);
    let waiting = load.join().expect("the load ran");
    assert!(waiting.backend("a").requests > 1_000, "{waiting:#?}");
    let after = stage.load(&Plan::connections(vip(Family::V4), 8, 400));
    after.assert_clean();
    assert_eq!(after.backend("a").requests, 400);
}
