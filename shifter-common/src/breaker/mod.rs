//! The breaker: the sequential test by which the kernel takes the canary out of traffic by itself.
//!
//! It looks at error events only. Each belongs to a flow whose version was drawn at admission with
//! the weight of the flow's cohort, so while the canary is no worse than the baseline an error is the
//! canary's with at most that probability, whatever else happens to the service. For each of two arms
//! the test adds the logarithm of a likelihood ratio to a sum that never falls below zero, and trips
//! when the sum reaches a threshold that grows with the number of excursions from zero. What that
//! promises, and why, is in `docs/statistics.md`.
//!
//! Everything here is integer arithmetic on words: the kernel, the daemon and the simulation run the
//! same functions. The logarithms are taken by the daemon, which rounds gains down, losses up and
//! thresholds up: each rounding makes a trip rarer.
//!
//! An error is judged in this order: [`cohort`] (does the flow count, and with which increments),
//! [`quota`] (is its prefix within its share), [`record`](record()) for each arm (add, and see whether
//! the threshold is reached).

mod abi;
mod arm;
mod cap;
mod cohort;
mod quota;
mod record;
mod source;

pub use abi::{
    ArmState, BreakerCounters, BreakerRules, BreakerState, CLIENTS_COUNT, COHORT_COUNT, CellWords,
    TRIP_EVENTS_LEN_BYTES, TRUSTED_COUNT, Trip, map, mode, trip_result,
};
pub use arm::{
    ARM_COUNT, ArmWord, FRACTION_BITS, Increments, ONE, Side, Stepped, THRESHOLD_COUNT, Thresholds,
    step, threshold,
};
pub use cap::{CapWord, allowance};
pub use cohort::{COHORT_NONE, CohortRow, cohort_of, first_of_client};
pub use quota::{EPOCH_SHIFT_NS, QUOTA_SHARE, QUOTA_START, QuotaWord, admits, epoch};
pub use record::{Arm, Event, Recorded, TRIES, Word, record};
pub use source::{Origin, SOURCE_CELLS, cell, distinct, origin, origin_of_trusted, seen};
