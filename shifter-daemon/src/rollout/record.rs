//! What is kept of a service's rollout.

use serde::{Deserialize, Serialize};

use super::{label::Label, machine::Rollout, plan::PlanKind, strategy::Strategy};

/// A rollout on disk, with what the engine does not know of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRecord {
    /// The rollout.
    pub rollout: Rollout,
    /// The boot of the host in which it was kept.
    pub boot_id: String,
    /// The version that begins when this one is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Wanted>,
}

/// A rollout that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The version.
    pub version: Label,
    /// What for.
    pub kind: PlanKind,
    /// Another strategy than the file's, with its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<(String, Strategy)>,
    /// Who wants it.
    pub by: String,
}
