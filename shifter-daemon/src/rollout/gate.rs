//! Questions that are asked on the way, as values. Who asks them is not here.

use serde::{Deserialize, Serialize};

/// The user a gate's program runs as unless the file names another.
pub const GATE_USER_DEFAULT: &str = "nobody";

/// A question whose answer a rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Its name, unlike that of every other gate of the plan.
    pub name: String,
    /// When it is asked.
    pub at: GatePoint,
    /// What is asked.
    pub check: GateCheck,
    /// Time after which an answer has failed, milliseconds.
    pub timeout_ms: u64,
    /// How often it is asked again after a failure before the failure counts. A confirmation is
    /// asked until it is given.
    pub retries_count: u32,
    /// The user a program runs as.
    #[serde(default = "nobody")]
    pub user: String,
}

/// Who has no rights anywhere.
fn nobody() -> String {
    GATE_USER_DEFAULT.into()
}

/// What a gate asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum GateCheck {
    /// A GET of this URL must answer with a status of 200 to 299.
    Http(String),
    /// A program with its arguments must end with 0; `{{version}}` stands for the label.
    Exec(Vec<String>),
    /// A file must exist.
    File(String),
    /// A person says yes or no.
    Manual,
}

/// When a gate is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatePoint {
    /// Before anything is started.
    ConfirmStart,
    /// When the new version is ready, before its first traffic.
    PreTraffic,
    /// After each step's bake.
    EachStep,
    /// Before each step but the first.
    ConfirmIncrease,
    /// Before everything goes to the new version.
    ConfirmPromote,
    /// When all is done but the last word.
    PostRollout,
    /// Again and again while the new version has traffic; a *yes* takes the traffic back.
    Rollback,
}

impl GatePoint {
    /// All, in the order of a rollout.
    pub const ALL: [Self; 7] = [
        Self::ConfirmStart,
        Self::PreTraffic,
        Self::EachStep,
        Self::ConfirmIncrease,
        Self::ConfirmPromote,
        Self::PostRollout,
        Self::Rollback,
    ];

    /// Whether a *no* means "not yet".
    pub const fn is_confirmation(self) -> bool {
        match self {
            Self::ConfirmStart | Self::ConfirmIncrease | Self::ConfirmPromote => true,
            Self::PreTraffic | Self::EachStep | Self::PostRollout | Self::Rollback => false,
        }
    }
}

impl std::fmt::Display for GatePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::ConfirmStart => "confirm-start",
            Self::PreTraffic => "pre-traffic",
            Self::EachStep => "each-step",
            Self::ConfirmIncrease => "confirm-increase",
            Self::ConfirmPromote => "confirm-promote",
            Self::PostRollout => "post-rollout",
            Self::Rollback => "rollback",
        })
    }
}
