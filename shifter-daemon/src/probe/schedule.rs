//! When a target is asked. Pure: instants are arguments, the spread comes from the target's hash.

use std::time::{Duration, Instant};

/// The first probe of a target starts within this time.
pub const FIRST_WITHIN: Duration = Duration::from_millis(50);
/// Until its first verdict a target is asked at least this often.
pub const UNDECIDED_INTERVAL: Duration = Duration::from_millis(200);

/// Start times of one target's probes: two grids, a fast one until the first verdict and one of the
/// configured interval after it. Both are shifted by the target's hash, so that targets with the
/// same interval are spread over it. A start that was missed is skipped.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begin: Instant,
    interval: Duration,
    hash: u64,
}

impl Schedule {
    /// Starts at `begin`; an interval below 1 ms counts as 1 ms.
    pub fn new(begin: Instant, interval: Duration, hash: u64) -> Self {
        Self {
            begin,
            interval: interval.max(Duration::from_millis(1)),
            hash,
        }
    }

    /// Start of the first probe.
    pub fn first(&self) -> Instant {
        self.begin + self.shift(FIRST_WITHIN.min(self.interval))
    }

    /// Start of the next probe after `now`.
    pub fn next(&self, decided: bool, now: Instant) -> Instant {
        let (origin, period) = if decided {
            (self.begin + self.shift(self.interval), self.interval)
        } else {
            (self.first(), UNDECIDED_INTERVAL.min(self.interval))
        };
        let Some(passed) = now.checked_duration_since(origin) else {
            return origin;
        };
        let into_period_ns = passed.as_nanos() % period.as_nanos();
        // The remainder is below the period, so it fits wherever the period does.
        let into_period = Duration::from_nanos(u64::try_from(into_period_ns).unwrap_or(u64::MAX));
        now + period.saturating_sub(into_period)
    }

    /// A part of `range` that belongs to this target alone.
    fn shift(&self, range: Duration) -> Duration {
        let range_ns = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.hash % range_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 30_000_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn starts_follow_the_grid_and_skip_what_was_missed() {
        let begin = Instant::now();
        #[rustfmt::skip]
        let rows: &[(&str, u64, u64, bool, u64, u64)] = &[
            // what,                         interval, hash in ms, decided, now, next
            ("undecided: every 200 ms",          1000,  30, false,   30,   230),
            ("undecided: missed starts skipped", 1000,  30, false,  700,   830),
            ("undecided: on the start itself",   1000,  30, false,  230,   430),
            ("undecided, interval shorter",       100,  30, false,   31,   130),
            ("decided: the interval's own grid", 1000, 730, true,   431,   730),
            ("decided: one interval on",         1000, 730, true,   730,  1730),
            ("decided: a slow probe skips",      1000, 730, true,  3900,  4730),
        ];
        for (what, interval, hash, decided, now, next) in rows {
            let schedule = Schedule::new(begin, ms(*interval), hash * 1_000_000);
            let at = schedule
                .next(*decided, begin + ms(*now))
                .duration_since(begin);
            assert_eq!(at, ms(*next), "{what}");
        }
    }

    #[test]
    fn the_first_start_is_within_50_ms_and_spread() {
        let begin = Instant::now();
        let first = |hash| {
            Schedule::new(begin, ms(1000), hash)
                .first()
                .duration_since(begin)
        };
        assert_eq!(first(HASH), ms(30));
        assert_eq!(first(0), ms(0));
        for hash in [49_999_999, 50_000_000, u64::MAX] {
            assert!(first(hash) < FIRST_WITHIN, "{hash}");
        }
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn an_interval_of_zero_makes_no_busy_loop() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, Duration::ZERO, HASH);
        assert_eq!(schedule.next(true, begin), begin + ms(1));
    }
}
