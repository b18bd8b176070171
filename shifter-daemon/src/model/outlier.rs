//! When a backend that fails where its peers do not is left out for a while.

use std::time::Duration;

/// The limits of `[outlier]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierSpec {
    /// Errors in a row that eject a backend, 1..=1000.
    pub consecutive_errors: u32,
    /// Whether backends are compared with each other as well.
    pub compare_peers: bool,
    /// Flows of a backend in an interval below which it is not compared.
    pub min_flows: u32,
    /// Time over which backends are compared.
    pub interval: Duration,
    /// How long a first ejection lasts; the second lasts twice that, and so on.
    pub ejection: Duration,
    /// How long an ejection lasts at most.
    pub max_ejection: Duration,
    /// The largest share of a slot's backends that may be ejected at a time, percent, 1..=100.
    pub max_ejected_percent: u32,
}
