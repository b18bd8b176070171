//! Faults put in on purpose: each must be found.

use super::{
    super::super::fault::{Fault, seed},
    Hits, simulate,
};

/// Rollouts after which a fault must have been found.
const SOON_COUNT: u64 = 10_000;

#[test]
fn every_seeded_fault_is_found() {
    let faults = [
        (Fault::BakesUnseen, "baked"),
        (Fault::RollbackWaitsForDisk, "a rollback waits for the disk"),
        (Fault::ForgetsTakenBack, "taken back"),
        (Fault::PauseIgnoresTrip, "a trip left it in Paused"),
        (Fault::StopsBusySlot, "was stopped with"),
        (Fault::BelievesLateAnswer, "did not say yes"),
    ];
    for (fault, what) in faults {
        seed(Some(fault));
        let found = (1..=SOON_COUNT).find_map(|number| {
            let error = simulate(number, &mut Hits::new()).err()?;
            Some((number, error))
        });
        seed(None);
        let Some((number, error)) = found else {
            panic!("{fault:?} was not found in {SOON_COUNT} rollouts");
        };
        assert!(
            error.contains(what),
            "{fault:?} shows as something else:\n{error}"
        );
        println!("{fault:?} was found in rollout {number}");
    }
}
