//! A version that is bad, or not wanted any more, loses its traffic in one step.

use std::{thread::sleep, time::Duration};

use shifter_common::wire::{RolloutCommand, RolloutOutcome, Slot};
use shifter_daemon::model::{BreakerMode, ProbeCheck};
use shifter_tests::load::Plan;

use crate::stage::{ORDERS, Stage, orders, slot, vip};

const LONG: &str = "steps = [{ weight = 20, bake = \"5m\" }, { weight = 50, bake = \"5m\" }]";

/// What must be so after every rollback: one store, no step in between, and the old version serves.
#[track_caller]
fn is_back(stage: &Stage, cause: &str) {
    let service = stage.wait_for("RolledBack");
    let rollout = service.rollout.as_ref().expect("a rollout");
    assert!(rollout.detail.contains(cause), "{rollout:?}");
    assert_eq!(rollout.outcome, RolloutOutcome::Back);
    assert_eq!((service.baseline, service.weight_bp), (Slot::A, 0));
    assert_eq!(service.effective_bp, 0);
    let transitions = stage.transitions();
    let back = transitions
        .iter()
        .rposition(|t| t.contains("-> RollingBack"));
    let back = back.unwrap_or_else(|| panic!("{transitions:#?}"));
    assert!(
        transitions[back..]
            .iter()
            .all(|t| !t.contains("-> Shifting")),
        "{transitions:#?}"
    );
    assert!(
        !transitions.iter().any(|t| t.contains("Shifting(2")),
        "it never came further: {transitions:#?}"
    );
    let after = stage.load(&Plan::connections(vip(), 4, 200));
    after.assert_clean();
    assert_eq!(
        after.backend("a").requests,
        200,
        "the old version serves everybody"
    );
}

/// The kernel's breaker is first; the rollout ends with that, and the version is refused for a while.
#[test]
fn a_version_that_stops_listening_is_rolled_back_by_the_kernel() {
    let mut stage = Stage::new(LONG);
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    stage.load(&Plan::connections(vip(), 4, 200)).assert_clean();
    stage.b.kill();
    let during = stage.load(&Plan::connections(vip(), 2, 400));
    assert!((1..=30).contains(&during.errors_count()), "{during:#?}");
    is_back(&stage, "the kernel tripped");
    let service = stage.service();
    assert!(service.breaker.tripped);
    let (code, text) = stage.shifterctl(&["status", "--wait", ORDERS]);
    assert_eq!(code, 1, "{text}");
    let refusal = stage
        .daemon
        .start_rollout(ORDERS, "3.2.0")
        .expect_err("cooldown");
    assert_eq!(refusal.code, "rollout");
    assert!(
        refusal
            .message
            .contains("was rolled back (the kernel tripped), and is refused for another"),
        "{refusal:?}"
    );
    let refusal = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Retry)
        .expect_err("cooldown");
    assert!(
        refusal.message.contains("is refused for another"),
        "{refusal:?}"
    );
    // A version that is mended may come at once.
    stage.b.start_again();
    stage.start("3.2.1");
    let service = stage.wait_for("Baking(1");
    assert!(!service.breaker.tripped, "its trial is its own");
    assert_eq!(service.effective_bp, 2_000);
}

/// Where the kernel's breaker is off, the analysis sees the same, and where nothing else does.
#[test]
fn a_version_that_fails_is_rolled_back_by_the_analysis() {
    let mut spec = orders();
    spec.breaker.mode = BreakerMode::Off;
    spec.readiness.check = ProbeCheck::None;
    let mut stage = Stage::with(&spec, &format!("{LONG}\n[analysis]"));
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    stage.load(&Plan::connections(vip(), 2, 200)).assert_clean();
    stage.b.kill();
    let bad = stage.load_beside(Plan {
        rate_per_s: Some(50.0),
        ..Plan::churn(vip(), 2, Duration::from_secs(6))
    });
    is_back(&stage, "the analysis found the new version worse");
    let bad = bad.join().expect("it ran");
    assert!((1..=60).contains(&bad.errors_count()), "{bad:#?}");
    assert!(!stage.service().breaker.tripped);
}

/// The kernel needs no daemon for that, and the daemon finds what it did.
#[test]
fn a_version_that_fails_without_a_daemon_is_found_rolled_back() {
    let mut stage = Stage::new(LONG);
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    stage.daemon.kill9();
    stage.b.kill();
    let during = stage.load(&Plan::connections(vip(), 2, 400));
    assert!((1..=30).contains(&during.errors_count()), "{during:#?}");
    stage.load(&Plan::connections(vip(), 4, 200)).assert_clean();
    stage.daemon.start_again();
    is_back(&stage, "taken back before");
    assert!(stage.service().breaker.tripped);
}

/// Nobody notices an abort, whoever asks for it and however often.
#[test]
fn abort_retry_and_rollback_under_load() {
    let stage = Stage::new(LONG);
    let churn = stage.load_beside(Plan {
        rate_per_s: Some(300.0),
        ..Plan::churn(vip(), 8, Duration::from_secs(12))
    });
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    sleep(Duration::from_secs(1));
    for is_first in [true, false] {
        let done = stage
            .daemon
            .rollout(ORDERS, &RolloutCommand::Abort)
            .expect("accepted");
        assert_eq!(done.already.is_none(), is_first, "{done:?}");
    }
    let service = stage.wait_for("RolledBack");
    assert!(
        !service.breaker.tripped,
        "the latch of a rollout is no trip"
    );
    assert_eq!(service.notes, [""; 0], "{:?}", service.notes);
    // Nobody's fault: no cooldown.
    let done = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Retry)
        .expect("accepted");
    assert_eq!(done.rollout.attempt, 2);
    let service = stage.wait_for("Baking(1");
    assert_eq!(service.effective_bp, 2_000);
    let changed = stage.daemon.rollback(ORDERS, None).expect("accepted");
    assert_eq!((changed.weight_before_bp, changed.weight_bp), (2_000, 0));
    is_back(&stage, "root");
    churn.join().expect("it ran").assert_clean();
}

/// Undo is one store while the old version is warm.
#[test]
fn undo_gives_the_traffic_back() {
    let stage = Stage::new("strategy = \"blue-green\"\nwatch = \"0s\"");
    stage.start("3.1.0");
    let service = stage.wait_for("Succeeded");
    assert_eq!(service.baseline, Slot::B);
    // Nobody told what was in slot a before.
    let refusal = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Undo)
        .expect_err("unknown");
    assert!(
        refusal
            .message
            .contains("nobody told which version is in slot a"),
        "{refusal:?}"
    );
    stage.start("3.2.0");
    let service = stage.wait("3.2.0 serves", |service| {
        service.baseline == Slot::A
            && service
                .rollout
                .as_ref()
                .is_some_and(|of| of.outcome == RolloutOutcome::Succeeded)
    });
    assert_eq!(slot(&service, Slot::A).version.as_deref(), Some("3.2.0"));
    let churn = stage.load_beside(Plan {
        rate_per_s: Some(300.0),
        ..Plan::churn(vip(), 8, Duration::from_secs(5))
    });
    let done = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Undo)
        .expect("accepted");
    assert_eq!(done.rollout.version, "3.1.0");
    assert_eq!(
        stage.service().effective_bp,
        10_000,
        "at once: {:?}",
        done.rollout
    );
    let service = stage.wait_for("Succeeded");
    assert_eq!(service.baseline, Slot::B);
    let again = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Undo)
        .expect("idempotent");
    assert!(again.already.is_some(), "{again:?}");
    churn.join().expect("it ran").assert_clean();
    let after = stage.load(&Plan::connections(vip(), 4, 200));
    assert_eq!(after.backend("b").requests, 200);
}
