//! Whether a rollout may begin.

use shifter_common::steering::Slot;

use crate::rollout::{
    Admission, Cause, Command, Event, FreezeWindow, Label, Last, MigrationPhase, Now, OldVersion,
    Plan, Rollout, RolloutParts, Seen, Situation, SlotFlows, Verb, admit,
};

const NOW: Now = Now {
    mono_ms: 1_000,
    unix_ms: 1_000_000,
};

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

fn rollout(version: &str) -> Rollout {
    let parts = RolloutParts {
        id: 1,
        service: "orders".into(),
        version: label(version),
        old_version: None,
        canary: Slot::B,
    };
    Rollout::new(parts, Plan::cutover("blue-green").freeze().expect("a plan"))
}

/// A rollout that was tripped with everything, and is or is not back yet.
fn tripped(version: &str, is_back: bool) -> Rollout {
    let mut rollout = rollout(version);
    let ready = Event::Readiness {
        is_canary_ready: true,
        is_baseline_ready: true,
    };
    let flows = Event::Flows(SlotFlows {
        canary_count: Some(0),
        baseline_count: Some(1),
    });
    let give = |rollout: &mut Rollout, event| rollout.handle(event, NOW).expect("accepted");
    let done = |rollout: &mut Rollout| {
        let id = rollout.poll_effect().expect("something is asked for").id;
        rollout
            .handle(Event::EffectDone { id, result: Ok(()) }, NOW)
            .expect("accepted");
    };
    give(&mut rollout, ready);
    give(&mut rollout, flows);
    // Start, arm, give.
    for _ in 0..3 {
        done(&mut rollout);
    }
    give(&mut rollout, Event::Tripped);
    if is_back {
        done(&mut rollout);
    }
    rollout
}

#[test]
fn starts_and_refusals() {
    let serving = label("3.1.0");
    let frozen = [FreezeWindow {
        from_unix_ms: 0,
        until_unix_ms: NOW.unix_ms + 60_000,
        reason: "holidays".into(),
    }];
    let old = OldVersion {
        version: label("3.0.0"),
        live_count: Some(2),
        last_flow_unix_ms: Some(NOW.unix_ms),
    };
    let (pending, back, going) = (
        rollout("3.2.0"),
        tripped("3.2.0", true),
        tripped("3.2.0", false),
    );
    let base = Situation {
        service: "orders",
        serving: Some(&serving),
        canary: Slot::B,
        backends_count: 1,
        last: None,
        freezes: &[],
        old: Some(&old),
        rollback_window_ms: 3_600_000,
    };
    let with = |last| Situation {
        last: Some(last),
        ..base.clone()
    };
    let later = Now {
        unix_ms: NOW.unix_ms + 1_800_000,
        ..NOW
    };
    let ok = |text: &str| Ok(text.to_owned());
    let err = |text: &str| Err(text.to_owned());
    let rows = [
        ("3.2.0", None, base.clone(), NOW, ok("begin")),
        ("3.1.0", None, base.clone(), NOW, ok("already: it serves")),
        (
            "3.2.0",
            None,
            with(Last::from(&pending)),
            NOW,
            ok("already: it is under way: Pending"),
        ),
        (
            "3.3.0",
            None,
            with(Last::from(&pending)),
            NOW,
            ok("supersede"),
        ),
        (
            "3.1.0",
            None,
            with(Last::from(&pending)),
            NOW,
            ok("supersede"),
        ),
        (
            "3.3.0",
            None,
            with(Last::from(&going)),
            NOW,
            ok("supersede"),
        ),
        (
            "3.2.0",
            None,
            with(Last::from(&going)),
            NOW,
            err(
                "version 3.2.0 of orders goes back right now; wait for its end: shifterctl status \
                 --wait orders",
            ),
        ),
        (
            "3.2.0",
            None,
            with(Last::from(&back)),
            NOW,
            err(
                "version 3.2.0 of orders was rolled back (the kernel tripped), and is refused for \
                 another 1800 s; wait, or start a version that is mended",
            ),
        ),
        ("3.2.0", None, with(Last::from(&back)), later, ok("begin")),
        ("3.2.1", None, with(Last::from(&back)), NOW, ok("begin")),
        (
            "3.2.0",
            None,
            Situation {
                backends_count: 0,
                ..base.clone()
            },
            NOW,
            err(
                "slot b of orders has no backends, and the next version goes there; add [slot.b] to \
                 its file, then: shifterctl apply",
            ),
        ),
        (
            "3.2.0",
            None,
            Situation {
                freezes: &frozen,
                ..base.clone()
            },
            NOW,
            err(
                "orders is frozen for another 60 s (holidays); wait, or lift it: shifterctl unfreeze",
            ),
        ),
        (
            "3.2.0",
            Some(MigrationPhase::Contract),
            base.clone(),
            NOW,
            err(
                "a contracting migration would break version 3.0.0, which has 2 connections on this \
                 host: wait until they have ended, or reset them (shifterctl flows)",
            ),
        ),
        (
            "3.2.0",
            Some(MigrationPhase::Expand),
            base.clone(),
            NOW,
            ok("begin"),
        ),
    ];
    for (version, migration, situation, now, expected) in rows {
        let found = admit(&label(version), migration, &situation, now);
        let found = found
            .map(|admission| match admission {
                Admission::Begin => "begin".into(),
                Admission::Supersede => "supersede".into(),
                Admission::Already(text) => format!("already: {text}"),
            })
            .map_err(|error| error.to_string());
        assert_eq!(found, expected, "{version} {situation:?}");
    }
}

#[test]
fn causes_are_said_in_words() {
    let rows = [
        (Cause::Tripped, "the kernel tripped"),
        (Cause::Judged, "the analysis found the new version worse"),
        (Cause::Inconclusive, "the evidence stayed inconclusive"),
        (
            Cause::NotReady,
            "the new version was not ready for too long",
        ),
        (
            Cause::Start {
                text: "exit code 1".into(),
            },
            "the new version did not start: exit code 1",
        ),
        (
            Cause::Superseded { by: label("3.3.0") },
            "version 3.3.0 is wanted instead",
        ),
        (
            Cause::Operator {
                by: "root (uid 0)".into(),
            },
            "root (uid 0) asked",
        ),
        (
            Cause::FoundTakenBack,
            "the kernel held no share for it any more: it was taken back before",
        ),
    ];
    for (cause, text) in rows {
        assert_eq!(cause.to_string(), text);
    }
}

#[test]
fn only_a_rollout_at_rest_leaves_the_weight_to_hands() {
    let mut under_way = tripped("3.2.0", true);
    assert!(under_way.allows_weight_by_hand(), "it is over");
    let mut fresh = rollout("3.2.0");
    assert!(!fresh.allows_weight_by_hand());
    let pause = Event::Command(Command {
        by: "ada".into(),
        verb: Verb::Pause,
    });
    fresh.handle(pause, NOW).expect("accepted");
    assert!(fresh.allows_weight_by_hand());
    let seen = Seen {
        weight_bp: 0,
        has_targets: false,
        is_taken_back: true,
        is_committed: false,
    };
    let restarted = Event::Restarted {
        is_rebooted: false,
        seen,
    };
    under_way.handle(restarted, NOW).expect("accepted");
    assert!(under_way.phase().is_final(), "it stays over");
}
