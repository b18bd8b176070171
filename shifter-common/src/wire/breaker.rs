//! What the breaker of a service shows.

use serde::{Deserialize, Serialize};

/// The breaker of a service, as part of its status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// `armed`, `dry-run` or `off`, as the file has it.
    pub mode: String,
    /// Whether the kernel has taken the canary out of traffic and nobody has given it a weight since.
    pub tripped: bool,
    /// Errors by what became of them, by name, since the dataplane was built.
    pub errors: Vec<(String, u64)>,
    /// The arms of the trial that is under way, or was last.
    pub arms: Vec<ArmStatus>,
    /// Distinct clients of the canary whose flows must have failed.
    pub min_sources: u32,
    /// The trial's trip, executed or noted.
    pub trip: Option<TripStatus>,
}

/// One arm of the test. Evidence and thresholds are in thousandths of a natural logarithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmStatus {
    /// Errors this many times as frequent on the canary are what the arm looks for.
    pub ratio: u32,
    /// The evidence now.
    pub evidence_milli: u64,
    /// The evidence that trips.
    pub threshold_milli: u64,
    /// How often the evidence has left zero.
    pub excursions_count: u32,
}

/// A trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripStatus {
    /// `executed`, `dry-run` (asked for to be noted only) or `no-baseline` (the baseline could take no
    /// flows).
    pub result: String,
    /// The ratio of the arm.
    pub ratio: u32,
    /// The evidence, thousandths.
    pub evidence_milli: u64,
    /// The threshold it reached, thousandths.
    pub threshold_milli: u64,
    /// The excursion, from 1.
    pub excursion: u32,
    /// Distinct clients whose flows had failed on the canary, at most 64.
    pub sources_count: u32,
    /// The weight before, basis points.
    pub weight_bp: u16,
    /// The weight at which the deciding flow was selected, basis points.
    pub cohort_weight_bp: u16,
    /// From the deciding error to weight 0, both stamped by the kernel, nanoseconds.
    pub took_ns: u64,
    /// How long ago, milliseconds.
    pub age_ms: u64,
}
