//! What must survive a reboot: the operators' decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shifter_common::steering::Slot;

use crate::rollout::{Batch, Label};

/// The decisions about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRecord {
    /// The slot serving now.
    pub baseline: Slot,
    /// The canary's weight, basis points.
    pub weight_bp: u16,
    /// Who set it.
    pub weight_by: String,
    /// When, milliseconds of Unix time.
    pub weight_set_unix_ms: u64,
    /// Whether traffic was taken back from the canary by a rollback, with the clients that target
    /// rules send there; until a weight is set again.
    #[serde(default)]
    pub held: bool,
    /// Slots that operators took out, with who and when.
    #[serde(default)]
    pub drained: BTreeMap<Slot, Drained>,
    /// Who sent new connections around shifter, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypassed: Option<Drained>,
    /// The version in each slot, where a rollout put one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<Slot, Label>,
    /// How many backends of either version take part; all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// A drain, or a bypass, asked for by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drained {
    /// Who.
    pub by: String,
    /// When, milliseconds of Unix time.
    pub since_unix_ms: u64,
}
