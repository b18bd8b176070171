//! Several people at once, and people who change their minds.

use std::time::Duration;

use shifter_common::wire::{RolloutCommand, RolloutOutcome, Slot};
use shifter_tests::load::Plan;

use crate::stage::{ORDERS, Stage, slot, vip};

/// Of many who say the same at once, one moves the rollout, and it moves once.
#[test]
fn of_two_operators_one_wins() {
    let stage = Stage::new(
        "steps = [{ weight = 5, bake = \"0s\" }, { pause = true }, { weight = 20, bake = \"5m\" }, \
         { pause = true }]",
    );
    let at_once = |command: &RolloutCommand| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (client, command) = (stage.daemon.client().clone(), command.clone());
                std::thread::spawn(move || client.rollout(ORDERS, &command))
            })
            .collect();
        let mut changed = 0;
        for thread in threads {
            match thread.join().expect("it ran") {
                Ok(done) => changed += u32::from(done.already.is_none()),
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        changed
    };
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let client = stage.daemon.client().clone();
            std::thread::spawn(move || client.start_rollout(ORDERS, "3.2.0"))
        })
        .collect();
    let starts = starts
        .into_iter()
        .map(|start| start.join().expect("it ran"));
    let begun = starts.filter(|start| start.as_ref().is_ok_and(|done| done.already.is_none()));
    assert_eq!(begun.count(), 1);
    stage.wait_for("Paused");
    assert_eq!(at_once(&RolloutCommand::Promote { step: Some(1) }), 1);
    let service = stage.wait_for("Baking(2");
    assert_eq!(service.effective_bp, 2_000);
    assert_eq!(at_once(&RolloutCommand::Pause), 1);
    assert_eq!(at_once(&RolloutCommand::Resume), 1);
    assert_eq!(at_once(&RolloutCommand::Abort), 1);
    assert_eq!(stage.wait_for("RolledBack").effective_bp, 0);
}

/// Another version takes the place of the one on trial, which goes back first.
#[test]
fn another_version_supersedes_the_one_on_trial() {
    let stage = Stage::new("steps = [{ weight = 20, bake = \"1s\" }]\nwatch = \"0s\"");
    stage
        .daemon
        .start_rollout(ORDERS, "3.2.0")
        .expect("accepted");
    stage.wait_for("Baking(1");
    let paused = stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Pause)
        .expect("accepted");
    assert_eq!(paused.rollout.outcome, RolloutOutcome::WaitsForPerson);
    let churn = stage.load_beside(Plan {
        rate_per_s: Some(200.0),
        ..Plan::churn(vip(), 8, Duration::from_secs(8))
    });
    stage.start("3.3.0");
    let again = stage
        .daemon
        .start_rollout(ORDERS, "3.3.0")
        .expect("idempotent");
    assert!(again.already.is_some(), "{again:?}");
    let service = stage.wait("3.3.0 serves", |service| {
        let rollout = service.rollout.as_ref();
        rollout.is_some_and(|of| of.version == "3.3.0" && of.phase == "Succeeded")
    });
    assert_eq!(service.baseline, Slot::B);
    assert_eq!(slot(&service, Slot::B).version.as_deref(), Some("3.3.0"));
    let transitions = stage.transitions();
    assert!(
        transitions
            .iter()
            .any(|t| t.starts_with("3.2.0: RollingBack") && t.contains("-> Superseded")),
        "{transitions:#?}"
    );
    churn.join().expect("it ran").assert_clean();
}

/// A weight by hand and the weight of a rollout do not mix.
#[test]
fn a_weight_by_hand_is_refused_unless_paused() {
    let stage = Stage::new("steps = [{ weight = 20, bake = \"5m\" }]");
    stage
        .daemon
        .set_weight(ORDERS, 300)
        .expect("nobody else moves it");
    let refusal = stage
        .daemon
        .start_rollout(ORDERS, "3.2.0")
        .expect_err("a share by hand");
    assert!(
        refusal
            .message
            .contains("has a share of new flows already, set by root"),
        "{refusal:?}"
    );
    stage.daemon.rollback(ORDERS, None).expect("accepted");
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    let refusal = stage
        .daemon
        .set_weight(ORDERS, 300)
        .expect_err("a rollout moves it");
    assert_eq!(refusal.code, "rollout");
    let (code, text) = stage.shifterctl(&["set-weight", ORDERS, "3"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("shifterctl pause orders"), "{text}");
    stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Pause)
        .expect("accepted");
    stage.daemon.set_weight(ORDERS, 300).expect("paused");
    assert_eq!(stage.service().effective_bp, 300);
    stage
        .daemon
        .rollout(ORDERS, &RolloutCommand::Abort)
        .expect("accepted");
    assert_eq!(stage.wait_for("RolledBack").effective_bp, 0);
}
