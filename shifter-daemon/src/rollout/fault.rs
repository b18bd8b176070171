//! Faults that the simulation must find. No fault is ever on outside tests.

/// A place in this room where a mistake is easy to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Time without a daemon counts as observed.
    BakesUnseen,
    /// The disk comes before a rollback.
    RollbackWaitsForDisk,
    /// What was taken back while the disk refused is given again after a crash.
    ForgetsTakenBack,
    /// A trip is ignored while the rollout is paused.
    PauseIgnoresTrip,
    /// A version is stopped although it has flows.
    StopsBusySlot,
    /// A late answer counts for a question that was asked anew.
    BelievesLateAnswer,
}

/// Whether a fault was put in by a test.
#[cfg(not(test))]
pub(super) const fn is_seeded(_: Fault) -> bool {
    false
}

#[cfg(test)]
pub(super) use seeding::{is_seeded, seed};

#[cfg(test)]
mod seeding {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static SEEDED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether a fault was put in by this thread.
    pub(in super::super) fn is_seeded(fault: Fault) -> bool {
        SEEDED.get() == Some(fault)
    }

    /// Puts a fault in, or takes it out.
    pub(in super::super) fn seed(fault: Option<Fault>) {
        SEEDED.set(fault);
    }
}
