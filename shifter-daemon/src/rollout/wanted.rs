//! What somebody asked for.

use serde::{Deserialize, Serialize};

use super::{label::Label, plan::PlanKind, strategy::Strategy};

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
