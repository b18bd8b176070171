//! The steering word: everything the kernel needs to choose a version, in one aligned `u64`.
//!
//! ```text
//!  63            32 31    29  28    27  26    25  24   23   16  15   14    13        0
//! ┌────────────────┬───────┬─────┬────┬────┬─────┬─────┬───────┬────┬─────┬───────────┐
//! │ generation     │held,tr│armed│bk b│bk a│el. b│el. a│cohort │base│affin│ weight_bp │
//! └────────────────┴───────┴─────┴────┴────┴─────┴─────┴───────┴────┴─────┴───────────┘
//! ```
//!
//! Bit 29 is the trip, bit 30 holds target rules back, bit 31 is reserved and zero. The packet path reads the word with one load; the daemon
//! changes it with one compare-and-swap, so a reader never sees half of a change.

/// The full weight: the canary takes every new flow.
pub const WEIGHT_FULL_BP: u16 = 10_000;

const WEIGHT_MASK: u64 = 0x3fff;
const AFFINITY_CLIENT: u64 = 1 << 14;
const BASELINE_B: u64 = 1 << 15;
const COHORT_SHIFT: u32 = 16;
const COHORT_MASK: u64 = 0xff << COHORT_SHIFT;
const ELIGIBLE_SHIFT: u32 = 24;
const BANK_SHIFT: u32 = 26;
const ARMED: u64 = 1 << 28;
const TRIPPED: u64 = 1 << 29;
const HELD: u64 = 1 << 30;
const GENERATION_SHIFT: u32 = 32;

/// One of the two places a version can occupy on this host.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "wire", serde(rename_all = "lowercase"))]
pub enum Slot {
    /// The first slot.
    A = 0,
    /// The second slot.
    B = 1,
}

impl Slot {
    /// Both slots, in order.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other slot.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Index into per-slot arrays: 0 or 1.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The slot with this index; only the lowest bit counts.
    #[inline(always)]
    pub const fn from_index(index: u32) -> Self {
        if index & 1 == 0 { Self::A } else { Self::B }
    }
}

impl core::fmt::Display for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// What keeps a client on its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "wire", serde(rename_all = "lowercase"))]
pub enum Affinity {
    /// Every connection is selected on its own: the key is the 5-tuple.
    #[default]
    Connection,
    /// All connections of a client address go to one version and backend.
    Client,
}

/// The steering word of one service. Setters return a changed copy; nothing is stored here.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SteeringWord(pub u64);

impl SteeringWord {
    /// The canary's share of new flows in basis points, 0..=10000.
    #[inline(always)]
    pub const fn weight_bp(self) -> u16 {
        (self.0 & WEIGHT_MASK) as u16
    }

    /// Sets the weight; values above [`WEIGHT_FULL_BP`] become full weight.
    #[must_use]
    pub const fn with_weight_bp(self, weight_bp: u16) -> Self {
        let weight = if weight_bp > WEIGHT_FULL_BP {
            WEIGHT_FULL_BP
        } else {
            weight_bp
        };
        Self((self.0 & !WEIGHT_MASK) | weight as u64)
    }

    /// What keeps a client on its version.
    #[inline(always)]
    pub const fn affinity(self) -> Affinity {
        if self.0 & AFFINITY_CLIENT == 0 {
            Affinity::Connection
        } else {
            Affinity::Client
        }
    }

    /// Sets the affinity.
    #[must_use]
    pub const fn with_affinity(self, affinity: Affinity) -> Self {
        self.with_bit(AFFINITY_CLIENT, matches!(affinity, Affinity::Client))
    }

    /// The slot of the version serving now.
    #[inline(always)]
    pub const fn baseline(self) -> Slot {
        if self.0 & BASELINE_B == 0 {
            Slot::A
        } else {
            Slot::B
        }
    }

    /// Sets the baseline slot.
    #[must_use]
    pub const fn with_baseline(self, slot: Slot) -> Self {
        self.with_bit(BASELINE_B, matches!(slot, Slot::B))
    }

    /// The cohort that flows selected under this word carry.
    #[inline(always)]
    pub const fn cohort(self) -> u8 {
        ((self.0 & COHORT_MASK) >> COHORT_SHIFT) as u8
    }

    /// Sets the cohort.
    #[must_use]
    pub const fn with_cohort(self, cohort: u8) -> Self {
        Self((self.0 & !COHORT_MASK) | ((cohort as u64) << COHORT_SHIFT))
    }

    /// Whether the kernel may select this slot.
    #[inline(always)]
    pub const fn eligible(self, slot: Slot) -> bool {
        self.0 & (1 << (ELIGIBLE_SHIFT + slot.index())) != 0
    }

    /// Sets whether the kernel may select this slot.
    #[must_use]
    pub const fn with_eligible(self, slot: Slot, eligible: bool) -> Self {
        self.with_bit(1 << (ELIGIBLE_SHIFT + slot.index()), eligible)
    }

    /// The bank (0 or 1) of this slot's lookup table that is in use.
    #[inline(always)]
    pub const fn bank(self, slot: Slot) -> u32 {
        ((self.0 >> (BANK_SHIFT + slot.index())) & 1) as u32
    }

    /// Sets the bank in use; only the lowest bit counts.
    #[must_use]
    pub const fn with_bank(self, slot: Slot, bank: u32) -> Self {
        self.with_bit(1 << (BANK_SHIFT + slot.index()), bank & 1 == 1)
    }

    /// Whether the kernel's breaker may trip this service.
    #[inline(always)]
    pub const fn armed(self) -> bool {
        self.0 & ARMED != 0
    }

    /// Sets whether the kernel's breaker may trip this service.
    #[must_use]
    pub const fn with_armed(self, armed: bool) -> Self {
        self.with_bit(ARMED, armed)
    }

    /// Sets whether the kernel set the weight to 0 by itself.
    #[must_use]
    pub const fn with_tripped(self, tripped: bool) -> Self {
        self.with_bit(TRIPPED, tripped)
    }

    /// The word after a trip: no new flow for the canary, not by a target rule either, until somebody
    /// gives it a weight again.
    #[must_use]
    #[inline(always)]
    pub const fn after_trip(self) -> Self {
        self.with_weight_bp(0)
            .with_held(true)
            .with_tripped(true)
            .with_generation(self.generation().wrapping_add(1))
    }

    /// Whether the kernel set the weight to 0 by itself.
    #[inline(always)]
    pub const fn tripped(self) -> bool {
        self.0 & TRIPPED != 0
    }

    /// Whether target rules that name the canary are held back: a rollback takes these clients with
    /// it, by the same store.
    #[inline(always)]
    pub const fn held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Sets whether target rules that name the canary are held back.
    #[must_use]
    pub const fn with_held(self, held: bool) -> Self {
        self.with_bit(HELD, held)
    }

    /// Number of the published dataplane state.
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// Sets the generation.
    #[must_use]
    pub const fn with_generation(self, generation: u32) -> Self {
        Self((self.0 & 0xffff_ffff) | ((generation as u64) << GENERATION_SHIFT))
    }

    const fn with_bit(self, bit: u64, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }
}

impl core::fmt::Debug for SteeringWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SteeringWord")
            .field("weight_bp", &self.weight_bp())
            .field("affinity", &self.affinity())
            .field("baseline", &self.baseline())
            .field("cohort", &self.cohort())
            .field("eligible_a", &self.eligible(Slot::A))
            .field("eligible_b", &self.eligible(Slot::B))
            .field("bank_a", &self.bank(Slot::A))
            .field("bank_b", &self.bank(Slot::B))
            .field("armed", &self.armed())
            .field("tripped", &self.tripped())
            .field("held", &self.held())
            .field("generation", &self.generation())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Each field reads back what was written, whatever stood there and in whatever order.
        #[test]
        fn fields_do_not_overlap(
            weight in 0_u16..=WEIGHT_FULL_BP, client: bool, base: bool, cohort: u8,
            eligible: [bool; 2], bank: [u32; 2], held: bool, generation: u32,
        ) {
            let affinity = if client { Affinity::Client } else { Affinity::Connection };
            let baseline = if base { Slot::B } else { Slot::A };
            let word = SteeringWord::default()
                .with_generation(generation)
                .with_bank(Slot::B, bank[1]).with_bank(Slot::A, bank[0])
                .with_eligible(Slot::B, eligible[1]).with_eligible(Slot::A, eligible[0])
                .with_held(held).with_cohort(cohort).with_baseline(baseline).with_affinity(affinity)
                .with_weight_bp(weight);
            prop_assert_eq!(word.weight_bp(), weight);
            prop_assert_eq!(word.affinity(), affinity);
            prop_assert_eq!(word.baseline(), baseline);
            prop_assert_eq!(word.cohort(), cohort);
            prop_assert_eq!(Slot::ALL.map(|slot| word.eligible(slot)), eligible);
            prop_assert_eq!(Slot::ALL.map(|slot| word.bank(slot)), bank.map(|b| b & 1));
            prop_assert_eq!(word.generation(), generation);
            prop_assert!(!word.armed() && !word.tripped());
            prop_assert_eq!(word.held(), held);
            prop_assert_eq!(word.0 >> 31 & 1, 0, "the reserved bit stays zero");
        }
    }

    #[test]
    fn a_weight_above_full_is_full() {
        assert_eq!(
            SteeringWord::default().with_weight_bp(u16::MAX).weight_bp(),
            WEIGHT_FULL_BP
        );
    }
}
