//! What the breaker's maps hold.

use super::{
    arm::{ARM_COUNT, Thresholds},
    source::SOURCE_CELLS,
};

/// Cohorts of a service; the number of a steering word's cohort is the place.
pub const COHORT_COUNT: u32 = 256;

/// Names of the maps, as pinned.
pub mod map {
    /// `Array<BreakerRules>` by service: what the daemon decides.
    pub const BREAKER_RULES: &str = "BREAKER_RULES";
    /// `Array<BreakerState>` by service: the arms, changed by the kernel.
    pub const BREAKER_STATE: &str = "BREAKER_STATE";
    /// `Array<CohortRow>` by `service * COHORT_COUNT + cohort`.
    pub const COHORTS: &str = "COHORTS";
    /// `Array<CellWords>` by `service * SOURCE_CELLS + cell`.
    pub const BREAKER_CELLS: &str = "BREAKER_CELLS";
    /// `LruHashMap<TargetKey, u32>`: the step in which an error of a client last counted, for services
    /// with client affinity. The key's scope is the service index.
    pub const BREAKER_CLIENTS: &str = "BREAKER_CLIENTS";
    /// `LpmTrie<TargetKey, u32>`: origins whose every flow is a source of its own. The scope of a key is
    /// as in the target rules.
    pub const TRUSTED: &str = "TRUSTED";
    /// `PerCpuArray<BreakerCounters>` by service.
    pub const BREAKER_COUNTERS: &str = "BREAKER_COUNTERS";
    /// `Array<Trip>` by service: the last trip.
    pub const TRIPS: &str = "TRIPS";
    /// `RingBuf`: the service index of each trip, to wake the daemon.
    pub const TRIP_EVENTS: &str = "TRIP_EVENTS";
    /// All maps, in the order they are pinned.
    pub const ALL: [&str; 9] = [
        BREAKER_RULES,
        BREAKER_STATE,
        COHORTS,
        BREAKER_CELLS,
        BREAKER_CLIENTS,
        TRUSTED,
        BREAKER_COUNTERS,
        TRIPS,
        TRIP_EVENTS,
    ];
}

/// Clients that are remembered, of all services together.
pub const CLIENTS_COUNT: u32 = 65_536;
/// Trusted prefixes of all services.
pub const TRUSTED_COUNT: u32 = 4_096;
/// Bytes of the ring of trips.
pub const TRIP_EVENTS_LEN_BYTES: u32 = 4_096;

/// What the kernel does when a threshold is reached; values of [`BreakerRules::mode`].
pub mod mode {
    /// Nothing is judged.
    pub const OFF: u32 = 0;
    /// The trip is noted and not executed.
    pub const DRY_RUN: u32 = 1;
    /// The canary's weight becomes 0.
    pub const ARMED: u32 = 2;
}

/// What the daemon decides for one service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Key of the hashes of origins; drawn for each trial, secret.
    pub key: u64,
    /// When the weight was last changed, ticks of the boot clock: flows that are selected soon after
    /// belong to no cohort.
    pub changed_ticks: u32,
    /// How long that is, ticks.
    pub settle_ticks: u32,
    /// One of [`mode`].
    pub mode: u32,
    /// Distinct canary sources that a trip takes.
    pub min_sources: u32,
    /// Thresholds by arm.
    pub thresholds: [Thresholds; ARM_COUNT],
}
const _: () = assert!(size_of::<BreakerRules>() == 24 + 256);

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            key: 0,
            changed_ticks: 0,
            settle_ticks: 0,
            mode: mode::OFF,
            min_sources: 0,
            thresholds: [[0; super::arm::THRESHOLD_COUNT]; ARM_COUNT],
        }
    }
}

/// The words of one arm, see [`super::Arm`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmState {
    /// An [`super::ArmWord`].
    pub word: u64,
    /// Q8.24.
    pub debt: u64,
    /// A bitmap of sources.
    pub sources: u64,
}

/// What the kernel has seen of one service's trial.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerState {
    /// The arms.
    pub arms: [ArmState; ARM_COUNT],
    /// A [`super::QuotaWord`]: errors of everybody that counted.
    pub heard: u64,
}
const _: () = assert!(size_of::<BreakerState>() == 56);

/// What is kept of the prefixes of one cell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellWords {
    /// A [`super::CapWord`] for each arm.
    pub caps: [u64; ARM_COUNT],
    /// A [`super::QuotaWord`].
    pub heard: u64,
}
const _: () = assert!(size_of::<CellWords>() == 24 && SOURCE_CELLS == 128);

/// Errors of one service by what became of them. Only armed services count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerCounters {
    /// Of the canary, counted.
    pub canary: u64,
    /// Of the baseline, counted.
    pub baseline: u64,
    /// Of flows outside any trial: targeted ones, those selected soon after a change of the weight, and
    /// those at weights that leave nothing to compare.
    pub no_cohort: u64,
    /// Of prefixes that had supplied their share.
    pub unheard: u64,
    /// Of clients that had counted in this step.
    pub repeated: u64,
    /// Of the canary, that lost every try.
    pub dropped: u64,
    /// Of the baseline, that the next error absorbs.
    pub owed: u64,
    /// Trips executed.
    pub trips: u64,
    /// Trips noted and not executed, because that was asked for or no baseline could take the flows.
    pub trips_held: u64,
    /// Trips of which the daemon could not be told at once, because the ring was full.
    pub untold: u64,
}
const _: () = assert!(size_of::<BreakerCounters>() == 80);

/// Why a trip was or was not executed; values of [`Trip::result`].
pub mod trip_result {
    /// There was none.
    pub const NONE: u8 = 0;
    /// The weight became 0.
    pub const EXECUTED: u8 = 1;
    /// It was asked for to be noted only.
    pub const DRY_RUN: u8 = 2;
    /// The baseline could take no flows.
    pub const NO_BASELINE: u8 = 3;
}

/// A trip, as the kernel saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trip {
    /// When the deciding error was seen, ns of the boot clock.
    pub decided_ns: u64,
    /// When the weight was 0, ns of the boot clock.
    pub flipped_ns: u64,
    /// Sum of the arm, Q8.24.
    pub sum: u32,
    /// Threshold it reached, Q8.24.
    pub threshold: u32,
    /// Excursion, from 1.
    pub excursion: u32,
    /// Generation of the steering word before.
    pub generation: u32,
    /// Weight before, basis points.
    pub weight_bp: u16,
    /// Weight of the deciding flow's cohort, basis points.
    pub cohort_weight_bp: u16,
    /// Which arm: 0 for errors 3 times as frequent, 1 for 30 times.
    pub arm: u8,
    /// Distinct canary sources of the excursion, at most 64.
    pub sources: u8,
    /// One of [`trip_result`].
    pub result: u8,
    /// Zero.
    pub pad: u8,
}
const _: () = assert!(size_of::<Trip>() == 40);

#[cfg(feature = "user")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one comment stands for all of them"
)]
mod pod {
    use super::*;
    // SAFETY: all of these are repr(C), have explicit padding (see the size assertions), contain
    // integers only, and every bit pattern is valid.
    unsafe impl aya::Pod for BreakerRules {}
    unsafe impl aya::Pod for BreakerState {}
    unsafe impl aya::Pod for CellWords {}
    unsafe impl aya::Pod for BreakerCounters {}
    unsafe impl aya::Pod for Trip {}
    unsafe impl aya::Pod for super::super::CohortRow {}
}
