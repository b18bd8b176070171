//! Durations as counts in log-linear buckets.

use shifter_common::histogram::{BUCKET_COUNT, bucket, lower_bound_ns};

/// How many durations fell into each bucket of [`shifter_common::histogram`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKET_COUNT],
        }
    }
}

impl Histogram {
    /// From the counts of the buckets, as the kernel has them. Counts past the last bucket are dropped.
    pub fn from_counts(counts: &[u64]) -> Self {
        let mut this = Self::default();
        for (to, from) in this.counts.iter_mut().zip(counts) {
            *to = *from;
        }
        this
    }

    /// Counts `count` durations.
    pub fn add(&mut self, duration_ns: u64, count: u64) {
        if let Some(cell) = self.counts.get_mut(bucket(duration_ns)) {
            *cell += count;
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many lie in buckets from that of `duration_ns` up: exact where it begins a bucket.
    pub fn at_least(&self, duration_ns: u64) -> u64 {
        self.counts.iter().skip(bucket(duration_ns)).sum()
    }

    /// The duration, in nanoseconds, that a share `quantile` (0 to 1) of all stays below: the middle of
    /// its bucket, off by at most 6.25 %. `None` if there are none.
    pub fn quantile_ns(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile * self.total() as f64).ceil().max(1.0);
        let mut below = 0;
        let index = self.counts.iter().position(|count| {
            below += count;
            below as f64 >= rank
        })?;
        let (low, high) = (lower_bound_ns(index), lower_bound_ns(index + 1));
        Some(f64::midpoint(low as f64, high as f64))
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to += from;
        }
    }

    /// What came on top of `before`. Counters that went back count as unchanged.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().zip(&before.counts);
        Self {
            counts: counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }
}

/// The least bucket border that is not below `duration_ns`.
pub(super) fn border_ns(duration_ns: u64) -> u64 {
    let index = bucket(duration_ns);
    let low = lower_bound_ns(index);
    if low >= duration_ns {
        low
    } else {
        lower_bound_ns(index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_ns(0.5), None);
        assert_eq!(Histogram::default().total(), 0);
    }

    #[test]
    fn counts_come_as_the_kernel_has_them() {
        let mut counts = vec![0; BUCKET_COUNT + 5];
        counts[10] = 7;
        let histogram = Histogram::from_counts(&counts);
        assert_eq!(histogram.total(), 7);
        assert_eq!(histogram.at_least(lower_bound_ns(10)), 7);
        assert_eq!(histogram.at_least(lower_bound_ns(11)), 0);
        let mut both = histogram.clone();
        both.merge(&histogram);
        assert_eq!(both.since(&histogram), histogram);
        assert_eq!(histogram.since(&both).total(), 0);
    }

    proptest! {
        #[test]
        fn quantiles_are_off_by_a_sixteenth_at_most(
            mut values in proptest::collection::vec(MS / 10..60_000 * MS, 1..200), q in 0.01_f64..1.0,
        ) {
            let mut histogram = Histogram::default();
            for &value in &values {
                histogram.add(value, 1);
            }
            values.sort_unstable();
            let exact = values[((q * values.len() as f64).ceil() as usize).max(1) - 1] as f64;
            let found = histogram.quantile_ns(q).expect("values");
            prop_assert!((found / exact - 1.0).abs() <= 0.0626, "{} for {}", found, exact);
        }

        #[test]
        fn a_border_is_the_next_one(duration_ns in 0..60_000 * MS) {
            let border = border_ns(duration_ns);
            prop_assert!(border >= duration_ns);
            prop_assert_eq!(lower_bound_ns(bucket(border)), border);
            prop_assert!(border == 0 || bucket(border - 1) <= bucket(duration_ns));
        }
    }
}
