//! shifterd is killed in every phase: traffic does not notice, and the rollout goes on where it was.

use std::time::Duration;

use shifter_common::wire::{RolloutCommand, Slot};
use shifter_tests::load::Plan;

use crate::stage::{ORDERS, Stage, vip};

impl Stage {
    /// Kills shifterd, starts it again, and sees that the rollout is where it was, with its traffic.
    #[track_caller]
    fn crash_in(&mut self, phase: &str) {
        let before = self.wait_for(phase);
        self.daemon.kill9();
        self.daemon.start_again();
        let after = self.service();
        let (old, new) = (
            before.rollout.expect("a rollout"),
            after.rollout.expect("a rollout"),
        );
        assert_eq!((old.id, &old.hash), (new.id, &new.hash), "{phase}");
        assert!(
            new.phase == phase || new.detail.starts_with(phase),
            "{phase}, and after the crash {}",
            new.detail
        );
        assert_eq!(before.weight_bp, after.weight_bp, "{phase}");
        assert_eq!(before.baseline, after.baseline, "{phase}");
    }

    #[track_caller]
    fn command(&self, command: &RolloutCommand) {
        let done = self.daemon.rollout(ORDERS, command);
        let done = done.unwrap_or_else(|refusal| panic!("{command:?}: {refusal:?}"));
        assert_eq!(done.already, None, "{command:?}");
        let again = self.daemon.rollout(ORDERS, command);
        // What was done is said to be done, or there is nothing to do any more: never done twice.
        if let Ok(again) = again {
            assert!(again.already.is_some(), "{command:?}: {again:?}");
        }
    }
}

#[test]
fn a_crash_in_any_phase_changes_nothing() {
    let mut stage = Stage::new(
        "steps = [{ weight = 20, bake = \"2s\" }, { pause = true }]\nwatch = \"2s\"\n\
         [[gate]]\nname = \"go\"\nat = \"confirm-start\"\nmanual = true\n\
         [[gate]]\nname = \"fine\"\nat = \"post-rollout\"\nmanual = true",
    );
    let churn = stage.load_beside(Plan {
        rate_per_s: Some(200.0),
        ..Plan::churn(vip(), 8, Duration::from_secs(30))
    });
    // These keep the old version in its drain for a while.
    let held = stage.load_beside(Plan {
        rate_per_s: Some(20.0),
        ..Plan::keep_alive(vip(), 4, Duration::from_secs(24))
    });
    stage.b.kill();
    stage.start("3.2.0");
    stage.crash_in("Gated");
    let (code, text) = stage.shifterctl(&["status", "--wait", ORDERS]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("shifterctl approve orders go"), "{text}");
    let go = RolloutCommand::Approve { gate: "go".into() };
    stage.command(&go);
    stage.crash_in("Warming(probing");
    stage.b.start_again();
    stage.crash_in("Baking(1, observing");
    stage.crash_in("Paused");
    let (code, text) = stage.shifterctl(&["status", "--wait", ORDERS]);
    assert_eq!(code, 4, "{text}");
    // What was acknowledged is not lost, though nobody has seen its effect yet.
    let promote = RolloutCommand::Promote { step: Some(1) };
    let done = stage.daemon.rollout(ORDERS, &promote).expect("accepted");
    assert_eq!(done.already, None);
    stage.daemon.kill9();
    stage.daemon.start_again();
    let again = stage.daemon.rollout(ORDERS, &promote).expect("idempotent");
    assert!(again.already.is_some(), "{again:?}");
    stage.crash_in("Draining");
    assert_eq!(stage.service().effective_bp, 10_000);
    stage.crash_in("Watching(observing");
    stage.crash_in("Watching(testing");
    stage.command(&RolloutCommand::Approve {
        gate: "fine".into(),
    });
    stage.crash_in("Succeeded");
    assert_eq!(stage.service().baseline, Slot::B);
    held.join().expect("it ran").assert_clean();
    let churn = churn.join().expect("it ran");
    churn.assert_clean();
    assert!(churn.backend("b").requests > 100, "{churn:#?}");
    let (code, text) = stage.shifterctl(&["status", "--wait", ORDERS]);
    assert_eq!(code, 0, "{text}");
}

/// A rollback stays one, whenever the daemon dies.
#[test]
fn a_crash_after_a_rollback_gives_nothing_back() {
    let mut stage = Stage::new("steps = [{ weight = 20, bake = \"5m\" }]");
    stage.start("3.2.0");
    stage.wait_for("Baking(1");
    stage.command(&RolloutCommand::Abort);
    stage.crash_in("RolledBack");
    let service = stage.service();
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
    assert!(
        !service.breaker.tripped,
        "the latch of a rollout is no trip"
    );
    let events = stage.daemon.status().events;
    assert!(
        !events.iter().any(|event| event.what == "tripped"),
        "{events:?}"
    );
}
