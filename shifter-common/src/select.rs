//! Selection of the version, then of the backend, for a new flow. Pure; runs in the kernel.

use crate::steering::{Slot, SteeringWord, WEIGHT_FULL_BP};

/// What selection decided about the version. The slot that is wanted is the one a target rule names,
/// or else the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The slot that is wanted, and it is eligible.
    Selected(Slot),
    /// The slot that is wanted is not eligible; this is the other one, which is eligible.
    FailedOver(Slot),
    /// No slot is eligible; this is the one that is wanted.
    Nothing(Slot),
}

/// The bucket of a hash, 0..10000: its upper 32 bits scaled without division.
#[inline(always)]
pub const fn bucket(hash: u64) -> u16 {
    (((hash >> 32) * WEIGHT_FULL_BP as u64) >> 32) as u16
}

/// What a target rule asks for its clients. A role and not a slot: the slots change parts with every
/// release, the rule stays.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The version serving now.
    Baseline = 0,
    /// The version on trial.
    Canary = 1,
}

impl Target {
    /// The target with this number; `None` if there is none.
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Baseline),
            1 => Some(Self::Canary),
            _ => None,
        }
    }

    /// The slot a rule asks for. `None`: the rule is not in force, because its clients were taken
    /// back from the canary with all others, by a rollback or by the kernel itself.
    #[inline(always)]
    pub const fn slot(self, word: SteeringWord) -> Option<Slot> {
        match self {
            Self::Baseline => Some(word.baseline()),
            Self::Canary if word.held() || word.tripped() => None,
            Self::Canary => Some(word.baseline().other()),
        }
    }
}

/// The slot the weight asks for: the canary iff the flow's bucket lies below the weight, so raising
/// the weight only ever adds flows to the canary and lowering it returns exactly those.
#[inline(always)]
pub const fn weighted_slot(word: SteeringWord, hash: u64) -> Slot {
    let baseline = word.baseline();
    if bucket(hash) < word.weight_bp() {
        baseline.other()
    } else {
        baseline
    }
}

/// Chooses the slot for a new flow that no target rule names.
#[inline(always)]
pub const fn choose_slot(word: SteeringWord, hash: u64) -> Choice {
    settle(word, weighted_slot(word, hash))
}

/// The slot a new flow gets that should go to `wanted`.
#[inline(always)]
pub const fn settle(word: SteeringWord, wanted: Slot) -> Choice {
    if word.eligible(wanted) {
        Choice::Selected(wanted)
    } else if word.eligible(wanted.other()) {
        Choice::FailedOver(wanted.other())
    } else {
        Choice::Nothing(wanted)
    }
}

/// The entry of a lookup table of `size` entries for this hash: its lower 32 bits, scaled.
/// `size` 0 gives 0.
#[inline(always)]
pub const fn table_entry(hash: u64, size: u32) -> u32 {
    (((hash & 0xffff_ffff) * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(weight_bp: u16) -> SteeringWord {
        SteeringWord::default()
            .with_weight_bp(weight_bp)
            .with_eligible(Slot::A, true)
            .with_eligible(Slot::B, true)
    }

    proptest! {
        #[test]
        fn raising_the_weight_only_adds_to_the_canary(
            hash: u64, low in 0_u16..=WEIGHT_FULL_BP, high in 0_u16..=WEIGHT_FULL_BP, base: bool,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let baseline = if base { Slot::B } else { Slot::A };
            let canary = Choice::Selected(baseline.other());
            let at = |weight| choose_slot(word(weight).with_baseline(baseline), hash);
            if at(low) == canary {
                prop_assert_eq!(at(high), canary);
            }
            prop_assert_eq!(at(0), Choice::Selected(baseline));
            prop_assert_eq!(at(WEIGHT_FULL_BP), canary);
        }

        #[test]
        fn an_ineligible_slot_is_never_chosen(hash: u64, weight in 0_u16..=WEIGHT_FULL_BP, a: bool, b: bool) {
            let word = word(weight).with_eligible(Slot::A, a).with_eligible(Slot::B, b);
            match choose_slot(word, hash) {
                Choice::Selected(slot) | Choice::FailedOver(slot) => prop_assert!(word.eligible(slot)),
                Choice::Nothing(_) => prop_assert!(!a && !b),
            }
        }

        /// A rule moves nobody past an ineligible slot, and one that names the canary is silent while
        /// it is held back.
        #[test]
        fn a_target_names_a_part_whichever_slot_plays_it(
            weight in 0_u16..=WEIGHT_FULL_BP, base: bool, held: bool,
        ) {
            let baseline = if base { Slot::B } else { Slot::A };
            let word = word(weight).with_baseline(baseline).with_held(held);
            prop_assert_eq!(Target::Baseline.slot(word), Some(baseline));
            let canary = (!held).then_some(baseline.other());
            prop_assert_eq!(Target::Canary.slot(word), canary);
            for wanted in Slot::ALL {
                let without = word.with_eligible(wanted, false);
                prop_assert_eq!(settle(without, wanted), Choice::FailedOver(wanted.other()));
                let neither = without.with_eligible(wanted.other(), false);
                prop_assert_eq!(settle(neither, wanted), Choice::Nothing(wanted));
            }
        }

        #[test]
        fn a_table_entry_lies_inside_the_table(hash: u64, size in 1_u32..) {
            prop_assert!(table_entry(hash, size) < size);
        }
    }

    #[test]
    fn buckets_cover_the_whole_range() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), WEIGHT_FULL_BP - 1);
    }
}
