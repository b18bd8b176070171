//! One arm of the test: its sum and its excursions in one word, and the step on one error.

/// Arms of a test: likelihood ratios for errors 3 and 30 times as frequent on the canary.
pub const ARM_COUNT: usize = 2;
/// Bits behind the point of sums, increments and thresholds: Q8.24, so 0 to just below 256.
pub const FRACTION_BITS: u32 = 24;
/// The number 1 in fixed point.
pub const ONE: u32 = 1 << FRACTION_BITS;
/// Thresholds of an arm: one for each power of two of the number of excursions.
pub const THRESHOLD_COUNT: usize = 32;

/// Thresholds of an arm by ⌊log₂ excursion⌋, Q8.24, rounded up by whoever made them. They never fall.
pub type Thresholds = [u32; THRESHOLD_COUNT];

/// Whose error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The version on trial.
    Canary,
    /// The version serving now.
    Baseline,
}

/// What an error adds to an arm's sum, by the weight of its cohort, as magnitudes in Q8.24.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increments {
    /// ln ρ − ln(1 + w(ρ−1)), rounded down: what a canary error adds.
    pub gain: u32,
    /// ln(1 + w(ρ−1)), rounded up: what a baseline error takes away.
    pub loss: u32,
}
const _: () = assert!(size_of::<Increments>() == 8);

impl Increments {
    /// Errors that count for nothing.
    pub const NONE: Self = Self { gain: 0, loss: 0 };
}

/// An arm's state: the sum S in Q8.24 in the lower half, the number of excursions in the upper.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmWord(pub u64);

impl ArmWord {
    /// Puts a word together.
    #[inline(always)]
    pub const fn new(sum: u32, excursion: u32) -> Self {
        Self(((excursion as u64) << 32) | sum as u64)
    }

    /// The sum, Q8.24.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        self.0 as u32
    }

    /// How often the sum has left zero; stays at its greatest value.
    #[inline(always)]
    pub const fn excursion(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word after `debt` was taken from the sum.
    #[inline(always)]
    pub const fn less(self, debt: u64) -> Self {
        let sum = self.sum() as u64;
        Self::new(sum.saturating_sub(debt) as u32, self.excursion())
    }

    /// The excursion to which a canary error at this word belongs: the current one, or the next.
    #[inline(always)]
    pub const fn next_excursion(self) -> u32 {
        if self.sum() == 0 {
            self.excursion().saturating_add(1)
        } else {
            self.excursion()
        }
    }
}

/// The threshold in excursion `excursion`, counted from 1.
#[inline(always)]
pub const fn threshold(thresholds: &Thresholds, excursion: u32) -> u32 {
    // VERIFIER: the mask bounds the index where the kernel cannot see that log₂ of a u32 is below 32. The
    // compiler can, and would leave the mask out.
    let log2 = core::hint::black_box(31 - (excursion | 1).leading_zeros());
    thresholds[(log2 as usize) & (THRESHOLD_COUNT - 1)]
}

/// What one error did to an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// The word to store.
    pub word: ArmWord,
    /// Whether an excursion began with this error.
    pub began: bool,
    /// Whether the sum has reached its threshold. Only a canary error says so.
    pub reached: bool,
}

/// One error. `debt` is what earlier baseline errors could not take away (Q8.24, absorbed first);
/// `most` is the most a canary error may add (Q8.24), see [`super::allowance`].
#[inline(always)]
pub const fn step(
    word: ArmWord,
    side: Side,
    increments: Increments,
    debt: u64,
    most: u32,
    thresholds: &Thresholds,
) -> Stepped {
    let word = word.less(debt);
    match side {
        Side::Baseline => Stepped {
            word: word.less(increments.loss as u64),
            began: false,
            reached: false,
        },
        Side::Canary => {
            let gain = if increments.gain < most {
                increments.gain
            } else {
                most
            };
            let began = word.sum() == 0 && gain > 0;
            let excursion = if began {
                word.next_excursion()
            } else {
                word.excursion()
            };
            let sum = word.sum().saturating_add(gain);
            Stepped {
                word: ArmWord::new(sum, excursion),
                began,
                reached: sum > 0 && sum >= threshold(thresholds, excursion),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Thresholds 10, 11, 12, …
    fn thresholds() -> Thresholds {
        core::array::from_fn(|m| (10 + m as u32) * ONE)
    }

    const INCREMENTS: Increments = Increments {
        gain: 3 * ONE,
        loss: ONE,
    };

    /// `c` and `b` are errors of the two sides; after each: sum in whole numbers, excursion, reached.
    #[test]
    fn a_sequence_of_errors_moves_the_sum() {
        use Side::{Baseline as B, Canary as C};
        let rows = [
            (B, 0, 0, false),
            (C, 3, 1, false),
            (B, 2, 1, false),
            (C, 5, 1, false),
            (C, 8, 1, false),
            (B, 7, 1, false),
            (C, 10, 1, true),
            (B, 9, 1, false),
            (C, 12, 1, true),
        ];
        let mut word = ArmWord::default();
        for (row, (side, sum, excursion, reached)) in rows.into_iter().enumerate() {
            let stepped = step(word, side, INCREMENTS, 0, u32::MAX, &thresholds());
            let began = side == C && word.sum() == 0;
            let expected = Stepped {
                word: ArmWord::new(sum * ONE, excursion),
                began,
                reached,
            };
            assert_eq!(stepped, expected, "row {row}");
            word = stepped.word;
        }
    }

    #[test]
    fn an_excursion_ends_at_zero_and_the_next_has_its_own_threshold() {
        let word = ArmWord::new(ONE / 2, 1);
        let ended = step(word, Side::Baseline, INCREMENTS, 0, u32::MAX, &thresholds()).word;
        assert_eq!(ended, ArmWord::new(0, 1));
        let begun = step(ended, Side::Canary, INCREMENTS, 0, u32::MAX, &thresholds());
        assert_eq!(begun.word, ArmWord::new(3 * ONE, 2));
        assert!(begun.began);
        let below = ArmWord::new(10 * ONE - 1 - INCREMENTS.gain, 1);
        let reached =
            |word| step(word, Side::Canary, INCREMENTS, 0, u32::MAX, &thresholds()).reached;
        assert!(!reached(below));
        assert!(reached(ArmWord::new(below.sum() + 1, 1)));
        assert!(!reached(ArmWord::new(below.sum() + 1, 2)), "the bar rose");
    }

    #[test]
    fn the_bar_rises_at_each_power_of_two() {
        let rows = [
            (1, 10),
            (2, 11),
            (3, 11),
            (4, 12),
            (7, 12),
            (8, 13),
            (u32::MAX, 41),
        ];
        for (excursion, expected) in rows {
            assert_eq!(
                threshold(&thresholds(), excursion),
                expected * ONE,
                "{excursion}"
            );
        }
    }

    #[test]
    fn errors_that_count_for_nothing_change_nothing() {
        for word in [ArmWord::default(), ArmWord::new(5 * ONE, 3)] {
            for side in [Side::Canary, Side::Baseline] {
                let stepped = step(word, side, Increments::NONE, 0, u32::MAX, &thresholds());
                assert_eq!(stepped.word, word);
                assert!(!stepped.began && !stepped.reached);
            }
        }
    }

    #[test]
    fn the_ends_of_the_ranges_hold() {
        let full = ArmWord::new(u32::MAX, u32::MAX);
        let stepped = step(full, Side::Canary, INCREMENTS, 0, u32::MAX, &thresholds());
        assert_eq!(stepped.word, full);
        assert!(stepped.reached);
        let last = ArmWord::new(0, u32::MAX);
        let stepped = step(last, Side::Canary, INCREMENTS, 0, u32::MAX, &thresholds());
        assert_eq!(stepped.word, ArmWord::new(3 * ONE, u32::MAX));
        let empty = step(full, Side::Baseline, INCREMENTS, u64::MAX, 0, &thresholds());
        assert_eq!(empty.word, ArmWord::new(0, u32::MAX));
    }

    proptest! {
        /// A debt that is absorbed late leaves the sum no higher than the loss in its place would have.
        #[test]
        fn a_late_loss_never_favours_a_trip(sum in 0..=200 * ONE, loss: u32, gain in 0..=4 * ONE) {
            let increments = Increments { gain, loss };
            let at = |word, side, debt| step(word, side, increments, debt, u32::MAX, &thresholds()).word;
            let word = ArmWord::new(sum, 1);
            let in_order = at(at(word, Side::Baseline, 0), Side::Canary, 0);
            let absorbed = at(word, Side::Canary, loss.into());
            let late = at(at(word, Side::Canary, 0), Side::Baseline, 0);
            prop_assert_eq!(absorbed, in_order);
            prop_assert!(late.sum() <= in_order.sum());
        }
    }
}
