//! What was seen of a version's answers.

use serde::{Deserialize, Serialize};

/// What was seen in the connections of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedStatus {
    /// From the client's SYN to the backend's answer to it; nat plane.
    pub connect: WaitStatus,
    /// From the client's first data to the backend's first.
    pub first_byte: WaitStatus,
    /// Responses of HTTP/1.x by class: `1xx` to `5xx`, and `unknown`.
    pub responses: Vec<(String, u64)>,
}

/// Durations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitStatus {
    /// How many there are.
    pub count: u64,
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
    /// Half of them were not longer, nanoseconds, off by at most 6.25 %; 0 if there are none.
    pub p50_ns: u64,
    /// 99 of 100 were not longer, in the same way.
    pub p99_ns: u64,
    /// How many were shorter than each of some bounds: nanoseconds, count.
    pub shorter: Vec<(u64, u64)>,
}
