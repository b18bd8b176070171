//! Rollouts: what is asked of them, and where they stand.

use serde::{Deserialize, Serialize};

use super::Slot;

/// `POST /v1/services/{service}/rollout`: a version shall get the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    /// The label of the version.
    pub version: String,
    /// The name of another strategy than the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Other steps than the file's, below 100 %.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StartStep>,
    /// How long steps are held that do not say it themselves, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_ms: Option<u64>,
}

/// One step of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartStep {
    /// The share of new flows, 1..=9999 basis points.
    pub weight_bp: u16,
    /// How long it is held, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_ms: Option<u64>,
    /// Whether a person decides afterwards.
    #[serde(default)]
    pub pause: bool,
}

/// `POST /v1/services/{service}/rollout/command`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RolloutCommand {
    /// Go on where the plan asks for a person.
    Promote {
        /// Only from this step, from 1, so that a repeated command does not go on twice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u16>,
    },
    /// Leave the present step now.
    SkipStep {
        /// Only this step, from 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u16>,
    },
    /// Everything to the new version now.
    PromoteFull,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take the traffic back and end.
    Abort,
    /// Try the same again.
    Retry,
    /// Go back to the version before the one that serves.
    Undo,
    /// Yes to a gate.
    Approve {
        /// Its name.
        gate: String,
    },
    /// No to a gate.
    Reject {
        /// Its name.
        gate: String,
    },
}

impl RolloutCommand {
    /// What `shifterctl` calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Promote { .. } => "promote",
            Self::SkipStep { .. } => "promote --skip-step",
            Self::PromoteFull => "promote --full",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Undo => "undo",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
        }
    }
}

/// Reply to what was asked of a rollout. On disk when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReply {
    /// The service.
    pub service: String,
    /// Why nothing had to be done, if nothing had.
    pub already: Option<String>,
    /// Where it stands now.
    pub rollout: RolloutStatus,
}

/// How a rollout ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutOutcome {
    /// It goes on.
    UnderWay,
    /// Nothing goes on without a person's word.
    WaitsForPerson,
    /// The version serves.
    Succeeded,
    /// The version does not: the one before does.
    Back,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Its number in the service's history, from 1.
    pub id: u64,
    /// The version on trial.
    pub version: String,
    /// The version that was there before, if it is known.
    pub old_version: Option<String>,
    /// The slot of the version on trial.
    pub slot: Slot,
    /// The strategy, as the file or the command names it.
    pub strategy: String,
    /// SHA-256 of its plan.
    pub hash: String,
    /// How often it was tried, from 1.
    pub attempt: u32,
    /// The phase alone: `Baking`.
    pub phase: String,
    /// The phase with its particulars: `Baking(2, observing)`.
    pub detail: String,
    /// How it ended, or that it has not.
    pub outcome: RolloutOutcome,
    /// The step it is at, from 1.
    pub step: Option<u16>,
    /// Steps of its plan below 100 %.
    pub steps_count: u16,
    /// What it waits for, in words.
    pub waiting_on: Option<String>,
    /// The command that does not wait for it.
    pub next_command: Option<String>,
    /// The version that begins when this one is over.
    pub next_version: Option<String>,
    /// Why it is not on disk as shown, if it is not.
    pub not_kept: Option<String>,
}
