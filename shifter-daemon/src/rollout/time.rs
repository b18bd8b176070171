//! The two clocks a rollout lives by, and the watches that read them.

use serde::{Deserialize, Serialize};

/// The longest stretch between two events that counts as observed, milliseconds. The driver looks
/// every ten seconds; whoever was away for longer has not seen what happened meanwhile.
pub const OBSERVED_GAP_MAX_MS: u64 = 30_000;

/// The time of an event, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, milliseconds; begins anew with every start of the daemon.
    pub mono_ms: u64,
    /// Unix time, milliseconds; may jump.
    pub unix_ms: u64,
}

/// Adds up the time during which it runs and somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopwatch {
    ran_ms: u64,
    /// Monotonic time up to which `ran_ms` counts; `None` while stopped.
    counted_to_ms: Option<u64>,
}

impl Stopwatch {
    /// Observed time so far, milliseconds.
    pub const fn ran_ms(&self) -> u64 {
        self.ran_ms
    }

    /// Whether it runs.
    pub const fn is_running(&self) -> bool {
        self.counted_to_ms.is_some()
    }

    /// Counts the time up to now, at most [`OBSERVED_GAP_MAX_MS`] of it.
    pub fn settle(&mut self, now: Now) {
        if let Some(from_ms) = &mut self.counted_to_ms {
            let gap_ms = now.mono_ms.saturating_sub(*from_ms);
            self.ran_ms = self.ran_ms.saturating_add(gap_ms.min(OBSERVED_GAP_MAX_MS));
            *from_ms = now.mono_ms;
        }
    }

    /// Runs from now on, or stands still. What was counted stays.
    pub fn set_running(&mut self, is_running: bool, now: Now) {
        self.settle(now);
        self.counted_to_ms = is_running.then_some(now.mono_ms);
    }

    /// Begins anew at nothing, and stands still.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Goes on in another life of the daemon: the time between counts for nothing.
    pub fn rebase(&mut self, now: Now) {
        if let Some(from_ms) = &mut self.counted_to_ms {
            *from_ms = now.mono_ms;
        }
    }

    /// When it will have run for so long, monotonic milliseconds; `None` while it stands still.
    pub fn due_ms(&self, limit_ms: u64) -> Option<u64> {
        let from_ms = self.counted_to_ms?;
        Some(from_ms.saturating_add(limit_ms.saturating_sub(self.ran_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            unix_ms: 0,
        }
    }

    #[test]
    fn only_observed_time_counts() {
        let mut watch = Stopwatch::default();
        watch.settle(at(5_000));
        assert_eq!(watch.ran_ms(), 0, "it does not run yet");
        watch.set_running(true, at(5_000));
        assert_eq!(watch.due_ms(12_000), Some(17_000));
        watch.settle(at(10_000));
        assert_eq!(watch.ran_ms(), 5_000);
        watch.set_running(false, at(12_000));
        watch.settle(at(90_000));
        assert_eq!(watch.ran_ms(), 7_000, "it stood still");
        assert_eq!(watch.due_ms(12_000), None);
        watch.set_running(true, at(100_000));
        watch.settle(at(100_000 + OBSERVED_GAP_MAX_MS + 1));
        assert_eq!(watch.ran_ms(), 7_000 + OBSERVED_GAP_MAX_MS, "nobody looked");
    }

    #[test]
    fn another_life_of_the_daemon_begins_where_it_begins() {
        let mut watch = Stopwatch::default();
        watch.set_running(true, at(1_000_000));
        watch.settle(at(1_005_000));
        watch.rebase(at(7));
        watch.settle(at(1_007));
        assert_eq!(watch.ran_ms(), 6_000);
        watch.settle(at(3));
        assert_eq!(
            watch.ran_ms(),
            6_000,
            "a clock that steps back adds nothing"
        );
    }
}
