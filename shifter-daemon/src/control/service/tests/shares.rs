//! What a rollout asks for, as the steering word has it.

use super::*;
use crate::rollout::{Batch, Share};

fn share(weight_bp: u16) -> Share {
    Share {
        weight_bp,
        ..Share::NONE
    }
}

fn ready(spec: ServiceSpec) -> ServiceControl {
    let mut control = ServiceControl::new(spec, None, None);
    for (slot, addr) in control.backends() {
        control.set_health(slot, addr, BackendHealth::ready());
    }
    control
}

/// Between two looks of the daemon the kernel may have tripped. The next step of a rollout does not undo
/// that; only arming does, and a weight by hand.
#[test]
fn a_share_is_not_given_over_a_trip() {
    let tripped = SteeringWord::default().with_weight_bp(500).after_trip();
    let mut control = ready(spec(V4, ONE_EACH[0], ONE_EACH[1]));
    control.give(&share(2_000), "a rollout", 1);
    let word = control.plan().steer(tripped);
    assert!(word.tripped() && word.held());
    assert_eq!(word.weight_bp(), 0);
    control.arm("a rollout", 2);
    let armed = control.plan().steer(tripped);
    assert_eq!(
        (armed.tripped(), armed.held(), armed.weight_bp()),
        (false, true, 0)
    );
    control.note_in_force();
    control.give(&share(2_000), "a rollout", 3);
    let given = control.plan().steer(armed);
    assert_eq!(
        (given.tripped(), given.held(), given.weight_bp()),
        (false, false, 2_000)
    );
    control.set_weight(300, "root", 4);
    assert_eq!(control.plan().steer(tripped).weight_bp(), 300);
}

/// What a rollout takes back leaves the latch, whatever is published afterwards, until it is armed.
#[test]
fn what_is_taken_back_stays_so() {
    let mut control = ready(spec(V4, ONE_EACH[0], ONE_EACH[1]));
    control.give(&share(2_000), "a rollout", 1);
    let given = control.plan().steer(SteeringWord::default());
    assert_eq!((given.weight_bp(), given.tripped()), (2_000, false));
    control.take_back_latched("a rollout", 2);
    let taken = control.plan().steer(given);
    assert_eq!(
        (taken.weight_bp(), taken.tripped(), taken.held()),
        (0, true, true)
    );
    control.note_in_force();
    let later = control.plan().steer(taken);
    assert!(later.tripped(), "any other publication keeps it");
    // One that was decided and not published is forgotten with the decision.
    control.take_back_latched("a rollout", 3);
    control.restore(control.record().clone());
    assert!(!control.plan().steer(given).tripped());
}

/// A commit moves nobody: who had everything is the baseline.
#[test]
fn a_commit_turns_the_parts_around() {
    let mut control = ready(spec(V4, ONE_EACH[0], ONE_EACH[1]));
    control.give(&Share::FULL, "a rollout", 1);
    control.commit(Slot::B, "a rollout", 2);
    let word = control.plan().steer(SteeringWord::default());
    assert_eq!(
        (word.baseline(), word.weight_bp(), word.held()),
        (Slot::B, 0, true)
    );
    // So does holding a slot for a version when the canary has everything by hand.
    control.set_weight(10_000, "root", 3);
    control.hold("root", 4);
    let word = control.plan().steer(word);
    assert_eq!(
        (word.baseline(), word.weight_bp(), word.held()),
        (Slot::A, 0, true)
    );
}

/// Of a rolling update the first new backends take part and the last old ones; if none of those can serve,
/// all do.
#[test]
fn a_batch_takes_part() {
    let old: &[&str] = &["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"];
    let new: &[&str] = &["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80"];
    let mut control = ready(spec(V4, old, new));
    let part = |control: &ServiceControl| {
        Slot::ALL.map(|slot| {
            let plan = control.plan();
            let backends = plan.slot(slot).backends.iter();
            backends
                .map(|of| if of.ready { 'x' } else { '.' })
                .collect::<String>()
        })
    };
    let batch = |new_count, old_count| Share {
        weight_bp: 3_333,
        batch: Some(Batch {
            new_count,
            old_count,
        }),
        ..Share::NONE
    };
    control.give(&batch(1, 2), "a rollout", 1);
    assert_eq!(part(&control), [".xx", "x.."]);
    control.give(&batch(2, 1), "a rollout", 2);
    assert_eq!(part(&control), ["..x", "xx."]);
    control.set_health(
        Slot::B,
        addr("10.2.0.1:80"),
        BackendHealth::not_ready("gone"),
    );
    assert_eq!(part(&control), ["..x", ".x."]);
    control.set_health(
        Slot::B,
        addr("10.2.0.2:80"),
        BackendHealth::not_ready("gone"),
    );
    assert_eq!(part(&control), ["..x", "..x"], "somebody must serve");
    control.take_back_latched("a rollout", 3);
    assert_eq!(part(&control), ["xxx", "..x"]);
}
