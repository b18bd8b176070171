//! Selection of the version, then of the backend, for a new flow. Pure; runs in the kernel.

use crate::steering::{Slot, SteeringWord, WEIGHT_FULL_BP};

/// What selection decided about the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The slot the weight asks for, and it is eligible.
    Selected(Slot),
    /// The slot the weight asks for is not eligible; this is the other one, which is eligible.
    FailedOver(Slot),
    /// No slot is eligible; this is the one the weight asks for.
    Nothing(Slot),
}

/// The bucket of a hash, 0..10000: its upper 32 bits scaled without division.
#[inline(always)]
pub const fn bucket(hash: u64) -> u16 {
    (((hash >> 32) * WEIGHT_FULL_BP as u64) >> 32) as u16
}

/// Chooses the slot for a new flow: the canary iff its bucket lies below the weight, so raising the
/// weight only ever adds flows to the canary and lowering it returns exactly those.
#[inline(always)]
pub const fn choose_slot(word: SteeringWord, hash: u64) -> Choice {
    let baseline = word.baseline();
    let wanted = if bucket(hash) < word.weight_bp() {
        baseline.other()
    } else {
        baseline
    };
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
