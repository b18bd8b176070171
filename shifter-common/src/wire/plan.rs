//! What a rollout would do.

use serde::{Deserialize, Serialize};

use super::Slot;

/// Reply to `GET /v1/services/{service}/plan/{version}`: nothing is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRollout {
    /// The service.
    pub service: String,
    /// The version that would get the traffic.
    pub version: String,
    /// The slot it would take.
    pub slot: Slot,
    /// The strategy, as the file names it.
    pub strategy: String,
    /// SHA-256 of the plan, in hexadecimal digits: the same plan has the same.
    pub hash: String,
    /// The shortest time from the start to the last word, milliseconds.
    pub lasts_ms: u64,
    /// What it would do, in order.
    pub steps: Vec<PlannedStep>,
    /// Remarks a person should read.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One thing a rollout would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The earliest time after the start, milliseconds.
    pub at_ms: u64,
    /// How long it takes at least, milliseconds.
    pub lasts_ms: u64,
    /// What it is.
    pub what: String,
}
