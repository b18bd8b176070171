//! A histogram of durations, log-linear: no value is off by more than 1/32.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of equal width in each power of two.
const LINEAR: usize = 32;
const LINEAR_BITS: u32 = LINEAR.trailing_zeros();

/// Counts of durations in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; as long as the greatest value needs.
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// A histogram's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values there were.
    pub count: u64,
    /// Half took no longer, microseconds.
    pub p50_us: u64,
    /// 99 % took no longer, microseconds.
    pub p99_us: u64,
    /// 99.9 % took no longer, microseconds.
    pub p999_us: u64,
    /// None took longer, microseconds.
    pub max_us: u64,
}

impl Histogram {
    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(us);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds everything another histogram holds.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The least value, microseconds, that at least this share (per mille) of all does not exceed;
    /// at most 1/32 too great, 0 if there are none.
    pub fn quantile_us(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        bucket.map_or(0, |bucket| greatest(bucket).min(self.max_us))
    }

    /// The usual figures.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.count,
            p50_us: self.quantile_us(500),
            p99_us: self.quantile_us(990),
            p999_us: self.quantile_us(999),
            max_us: self.max_us,
        }
    }
}

/// The bucket of a value: itself below 2·32, then 32 buckets for each power of two.
fn bucket(us: u64) -> usize {
    let shift = (u64::BITS - us.leading_zeros()).saturating_sub(LINEAR_BITS + 1);
    shift as usize * LINEAR + (us >> shift) as usize
}

/// The greatest value of a bucket.
fn greatest(bucket: usize) -> u64 {
    let shift = (bucket / LINEAR).saturating_sub(1) as u32;
    let step = (bucket - shift as usize * LINEAR) as u64;
    (((u128::from(step) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values_us: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for us in values_us {
            histogram.record(Duration::from_micros(*us));
        }
        histogram
    }

    #[test]
    fn small_values_are_exact() {
        let histogram = of(&(1..=50).collect::<Vec<_>>());
        let Quantiles {
            count,
            p50_us,
            p99_us,
            p999_us,
            max_us,
        } = histogram.quantiles();
        assert_eq!(
            (count, p50_us, p99_us, p999_us, max_us),
            (50, 25, 50, 50, 50)
        );
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
    }

    proptest! {
        #[test]
        fn quantiles_are_near(
            values in prop::collection::vec(0_u64..1 << 40, 1..300), per_mille in 1_u64..=1000,
        ) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = (values.len() as u64 * per_mille).div_ceil(1000) as usize;
            let exact = sorted[rank - 1];
            let seen = of(&values).quantile_us(per_mille);
            prop_assert!(seen >= exact && seen - exact <= exact / 32, "{} for {}", seen, exact);
        }

        #[test]
        fn merging_equals_recording_all(
            one in prop::collection::vec(any::<u64>(), 0..50),
            other in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }

        #[test]
        fn buckets_are_dense_and_ordered(us: u64) {
            let own = bucket(us);
            prop_assert!(us <= greatest(own));
            prop_assert!(own == 0 || us > greatest(own - 1));
        }
    }
}
