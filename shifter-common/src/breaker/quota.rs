//! What share of all errors one prefix may supply.
//!
//! The cap on gains does not keep a prefix from pulling the sum down with errors on the baseline.
//! Dropping only those would turn the test against the canary, so whether an error counts is decided
//! before its side is looked at: a prefix that has supplied more than an eighth of what counted lately
//! (and more than a small start) is not heard at all, on either side. Counts are halved every
//! 69 seconds, so a service with few prefixes is heard more slowly, never not at all.

/// A prefix may supply one in this many errors that count.
pub const QUOTA_SHARE: u32 = 8;
/// Errors a table counts as there from the beginning, so the first ones are heard.
pub const QUOTA_START: u32 = 16;
/// Counts are halved once in 2^36 ns, 68.7 s.
pub const EPOCH_SHIFT_NS: u32 = 36;

/// The epoch of an instant of the kernel's monotonic clock.
#[inline(always)]
pub const fn epoch(now_ns: u64) -> u32 {
    (now_ns >> EPOCH_SHIFT_NS) as u32
}

/// Errors that counted: their number in the lower half, as of the epoch in the upper half.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaWord(pub u64);

impl QuotaWord {
    /// The number, halved for each epoch that has gone by.
    #[inline(always)]
    pub const fn count(self, epoch: u32) -> u32 {
        let age = epoch.wrapping_sub((self.0 >> 32) as u32);
        if age > 31 { 0 } else { self.0 as u32 >> age }
    }

    /// The word after one more.
    #[must_use]
    #[inline(always)]
    pub const fn with_one(self, epoch: u32) -> Self {
        Self(((epoch as u64) << 32) | self.count(epoch).saturating_add(1) as u64)
    }
}

/// Whether an error of a prefix counts: `cell` has counted its prefix, `all` has counted everybody.
#[inline(always)]
pub const fn admits(cell: QuotaWord, all: QuotaWord, epoch: u32) -> bool {
    let all = all.count(epoch) as u64 + QUOTA_START as u64;
    cell.count(epoch) as u64 * QUOTA_SHARE as u64 <= all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of `prefixes` cells in turn; how many of `rounds` rounds each cell was heard.
    fn heard(prefixes: usize, rounds: u32, epoch_of: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut cells = vec![QuotaWord::default(); prefixes];
        let mut heard = vec![0; prefixes];
        let mut all = QuotaWord::default();
        for round in 0..rounds {
            let now = epoch_of(round);
            for (cell, heard) in cells.iter_mut().zip(&mut heard) {
                if admits(*cell, all, now) {
                    *cell = cell.with_one(now);
                    all = all.with_one(now);
                    *heard += 1;
                }
            }
        }
        heard
    }

    #[test]
    fn many_prefixes_are_heard_in_full_and_a_single_one_is_not() {
        assert_eq!(heard(16, 1_000, |_| 0), vec![1_000; 16]);
        assert_eq!(heard(8, 1_000, |_| 0), vec![1_000; 8]);
        assert_eq!(heard(4, 1_000, |_| 0), vec![5; 4]);
        assert_eq!(heard(1, 1_000, |_| 0), vec![3]);
    }

    #[test]
    fn a_single_prefix_is_heard_again_in_time() {
        let heard = heard(1, 1_000, |round| round / 100);
        assert!((10..=30).contains(&heard[0]), "{heard:?}");
    }

    #[test]
    fn counts_are_halved_with_each_epoch() {
        let word = QuotaWord((7 << 32) | 100);
        for (epoch, expected) in [
            (7, 100),
            (8, 50),
            (9, 25),
            (13, 1),
            (14, 0),
            (7 + 40, 0),
            (6, 0),
        ] {
            assert_eq!(word.count(epoch), expected, "epoch {epoch}");
        }
        assert_eq!(word.with_one(8), QuotaWord((8 << 32) | 51));
    }
}
