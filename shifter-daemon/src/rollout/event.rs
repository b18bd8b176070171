//! What a rollout hears, and what it wants done.

use serde::{Deserialize, Serialize};
use shifter_common::steering::Slot;

use super::{gate::GatePoint, label::Label, share::Share};
use crate::analysis::Judgement;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants something.
    Command(Command),
    /// Time has passed.
    Tick,
    /// An effect was carried out.
    EffectDone {
        /// Its number.
        id: u64,
        /// Why it was not, if it was not.
        result: Result<(), String>,
    },
    /// A gate answered.
    GateAnswered {
        /// The effect's number.
        id: u64,
        /// The answer.
        answer: GateAnswer,
    },
    /// Which versions may get new flows.
    Readiness {
        /// The version on trial.
        is_canary_ready: bool,
        /// The version that was there before.
        is_baseline_ready: bool,
    },
    /// Live flows.
    Flows(SlotFlows),
    /// The analysis judged a window.
    Judged(Judgement),
    /// The kernel took the traffic back by itself.
    Tripped,
    /// Another version was started.
    Superseded {
        /// Which.
        by: Label,
    },
    /// The daemon begins to live; what the rollout was told before comes from a disk.
    Restarted {
        /// Whether the host began anew since the rollout was kept last: the boot id that was kept with
        /// it is another one.
        is_rebooted: bool,
        /// What the kernel does.
        seen: Seen,
    },
}

/// Live flows by version; `None` where they could not be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotFlows {
    /// Of the slot of the version on trial.
    pub canary_count: Option<u64>,
    /// Of the slot of the version that was there before.
    pub baseline_count: Option<u64>,
}

/// What the kernel was found doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The weight of the version on trial, basis points.
    pub weight_bp: u16,
    /// Whether named clients get it.
    pub has_targets: bool,
    /// Whether the traffic was taken back since a share was last given: the latch that a rollback
    /// leaves in the steering word, and a trip.
    pub is_taken_back: bool,
    /// Whether the version on trial is the baseline already, by the kernel or the record.
    pub is_committed: bool,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who.
    pub by: String,
    /// What.
    pub verb: Verb,
}

/// What an operator may want of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Go on where the plan asks for a person. With a step, only if that is the one that is over, so
    /// that a repeated command does not go on twice.
    Promote {
        /// From 0.
        step: Option<u16>,
    },
    /// Leave this step now, whatever its bake and judgement. Repeated, it stays one step.
    SkipStep {
        /// From 0; the present one unless given.
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

impl Verb {
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
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
        }
    }
}

/// What became of something that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was done, or noted.
    Changed,
    /// It had been done before.
    Already(String),
}

/// A gate's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateAnswer {
    /// Yes.
    Yes,
    /// No, or none in time, with what it said.
    No(String),
}

/// Something to be done, exactly as it says. Doing it twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Its number; the result comes back under it.
    pub id: u64,
    /// What.
    pub act: Act,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Forget the latch that the rollback of another rollout left, before there is a share.
    Arm,
    /// Give the version on trial this share of new flows.
    Give(Share),
    /// Take its share back, in one store, and leave the latch.
    TakeBack,
    /// Make the version on trial the baseline.
    Commit,
    /// Start the version in a slot, if it does not run.
    Start(Slot),
    /// Stop the version in a slot.
    Stop(Slot),
    /// Reset the flows of a slot that takes no new ones.
    ResetFlows(Slot),
    /// Ask a gate.
    Ask {
        /// Its name.
        gate: String,
        /// When.
        at: GatePoint,
        /// Time for the answer, milliseconds.
        timeout_ms: u64,
    },
}

/// What comes first, the disk or the deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A decision that cannot be kept is not carried out.
    DiskFirst,
    /// Taking traffic back waits for nothing.
    DeedFirst,
}

impl Act {
    /// What comes first.
    pub const fn order(&self) -> Order {
        match self {
            Self::TakeBack => Order::DeedFirst,
            Self::Arm
            | Self::Give(_)
            | Self::Commit
            | Self::Start(_)
            | Self::Stop(_)
            | Self::ResetFlows(_)
            | Self::Ask { .. } => Order::DiskFirst,
        }
    }
}

/// A change of phase, for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// Why.
    pub why: String,
    /// The share in force before.
    pub share_before: Share,
    /// The share that is asked for now.
    pub share_after: Share,
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Arm => f.write_str("arm"),
            Self::Give(share) => write!(f, "give {share}"),
            Self::TakeBack => f.write_str("take back"),
            Self::Commit => f.write_str("make it the baseline"),
            Self::Start(slot) => write!(f, "start slot {slot}"),
            Self::Stop(slot) => write!(f, "stop slot {slot}"),
            Self::ResetFlows(slot) => write!(f, "reset the flows of slot {slot}"),
            Self::Ask { gate, at, .. } => write!(f, "ask gate {gate} at {at}"),
        }
    }
}
