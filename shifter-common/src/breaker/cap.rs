//! What one prefix may add to one excursion: a quarter of its threshold.
//!
//! A cell of a small table belongs to a keyed hash of the prefix, so prefixes that meet in a cell share
//! its quarter. That can delay a trip, never cause one: a gain is only ever made smaller.

use super::arm::{ArmWord, Thresholds, threshold};

/// What the prefixes of a cell have added: Q8.24 in the lower half, in the excursion in the upper half.
/// A word of another excursion counts as nothing, so nobody has to clear the table.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapWord(pub u64);

impl CapWord {
    /// What was added in this excursion.
    #[inline(always)]
    pub const fn used(self, excursion: u32) -> u32 {
        if (self.0 >> 32) as u32 == excursion {
            self.0 as u32
        } else {
            0
        }
    }

    /// The word after `gain` more.
    #[must_use]
    #[inline(always)]
    pub const fn with(self, excursion: u32, gain: u32) -> Self {
        let used = self.used(excursion).saturating_add(gain);
        Self(((excursion as u64) << 32) | used as u64)
    }
}

/// The most that a canary error of this cell may add at `word`, from which debts are already taken.
#[inline(always)]
pub const fn allowance(word: ArmWord, cell: CapWord, thresholds: &Thresholds) -> u32 {
    let excursion = word.next_excursion();
    // Rounded up, so that four prefixes suffice.
    let quarter = (threshold(thresholds, excursion) as u64 + 3) >> 2;
    (quarter as u32).saturating_sub(cell.used(excursion))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::arm::{Increments, ONE, Side, step};

    #[test]
    fn four_cells_suffice_whatever_the_threshold() {
        for odd in 0..4 {
            let thresholds = [10 * ONE + odd; 32];
            let quarter = allowance(ArmWord::default(), CapWord::default(), &thresholds);
            assert!(4 * quarter >= thresholds[0], "{odd}");
            assert!(4 * quarter < thresholds[0] + 4, "{odd}");
        }
    }

    #[test]
    fn one_cell_supplies_a_quarter_an_excursion() {
        let thresholds = [10 * ONE; 32];
        let increments = Increments {
            gain: 3 * ONE,
            loss: ONE,
        };
        let mut word = ArmWord::default();
        let mut cell = CapWord::default();
        for _ in 0..1_000 {
            let most = allowance(word, cell, &thresholds);
            let before = word;
            let stepped = step(word, Side::Canary, increments, 0, most, &thresholds);
            word = stepped.word;
            cell = cell.with(word.excursion(), word.sum() - before.sum());
            assert!(!stepped.reached);
        }
        assert_eq!(word, ArmWord::new(10 * ONE / 4, 1));
        assert_eq!(
            allowance(word, CapWord::default(), &thresholds),
            10 * ONE / 4
        );
        // The next excursion knows nothing of it.
        assert_eq!(
            allowance(ArmWord::new(0, 1), cell, &thresholds),
            10 * ONE / 4
        );
    }
}
