//! Where a rollout stands.

use serde::{Deserialize, Serialize};

use super::{gate::GatePoint, label::Label};

/// Where a rollout stands, down to what it is doing there.
///
/// ```text
///                                       ┌──── next step ────┐
///                                       ▼                   │
///  Pending ─► Gated ─► Warming ─► Shifting(k) ─► Baking(k) ─┴─► Promoting ─► Draining ─► Watching ─► Succeeded
///     │         │         │            │             │              │            │           │
///     └─────────┴─────────┤            └─────────────┴──────┬───────┴────────────┴───────────┘
///       nothing to take   │                                 │ something to take back
///       back              ▼                                 ▼
///                       Failed                         RollingBack ─► RolledBack{cooldown}
///                                                           │
///      any of them but RollingBack ◄─► Paused{reason}       └─► Superseded (also from those with
///                                                               nothing to take back)
/// ```
///
/// A rollback has one step: the share is taken back, and bookkeeping follows. *Retry* leads from
/// Failed and RolledBack to Pending. A rehearsal goes from Warming to RollingBack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Waits until it may begin: no freeze, and no flow left in the slot of the new version.
    Pending,
    /// The questions at `confirm-start` are asked.
    Gated,
    /// The new version is started, probed and tested.
    Warming(WarmStage),
    /// A step's share is put in force.
    Shifting {
        /// From 0.
        step: u16,
        /// How far.
        stage: MoveStage,
    },
    /// A step's share is held.
    Baking {
        /// From 0.
        step: u16,
        /// How far.
        stage: BakeStage,
    },
    /// Everything goes to the new version.
    Promoting(MoveStage),
    /// The old version's flows end.
    Draining,
    /// The new version has everything; the old one is ready to take it back.
    Watching(WatchStage),
    /// Stands still, with all its clocks.
    Paused {
        /// Why.
        reason: PauseReason,
        /// Where it goes on.
        back: Resumption,
    },
    /// The new version is the baseline.
    Succeeded {
        /// Until when the old version keeps running, Unix milliseconds; `None` when it was stopped.
        warm_until_unix_ms: Option<u64>,
    },
    /// The new version loses its traffic, at once.
    RollingBack {
        /// Why.
        cause: Cause,
        /// How far.
        stage: RestoreStage,
    },
    /// The old version has everything.
    RolledBack {
        /// Why.
        cause: Cause,
        /// When it began, Unix milliseconds.
        since_unix_ms: u64,
        /// How long the same version is refused from then, milliseconds.
        cooldown_ms: u64,
    },
    /// It ended before the new version had any traffic.
    Failed {
        /// Why.
        cause: Cause,
    },
    /// Another rollout took its place.
    Superseded {
        /// The version that did.
        by: Label,
    },
}

/// How far Warming is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmStage {
    /// The old version is stopped; only with `recreate`.
    StoppingOld,
    /// The new version is started.
    Starting,
    /// What the kernel remembers of another rollout is forgotten.
    Arming,
    /// Its backends are not ready yet.
    Probing,
    /// The questions at `pre-traffic` are asked.
    Testing,
}

/// How far a change of the share is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveStage {
    /// The questions before it are asked.
    Confirming,
    /// The share is stored.
    Storing,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BakeStage {
    /// Evidence gathers.
    Observing,
    /// The questions at `each-step` are asked.
    Testing,
}

/// How far the watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchStage {
    /// Evidence gathers.
    Observing,
    /// The questions at `post-rollout` are asked.
    Testing,
    /// The new version becomes the baseline.
    Committing,
}

/// How far it is to have everything as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreStage {
    /// The share is taken back.
    Taking,
    /// The old version is started again, because it was stopped.
    StartingOld,
    /// Flows of the new version are reset.
    Resetting,
    /// All is done.
    Done,
}

/// Why a rollout stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseReason {
    /// Somebody asked.
    Operator {
        /// Who.
        by: String,
    },
    /// The plan asks for a person.
    Step {
        /// The step that is over, from 0.
        step: u16,
    },
    /// The bake is over, and the evidence says neither yes nor no.
    Inconclusive,
    /// The bake is over, and there is no evidence.
    NoData,
    /// A question at `post-rollout` was answered with no.
    Gate {
        /// Its name.
        gate: String,
        /// The answer.
        text: String,
    },
    /// It should go back, but nobody is there to take the traffic.
    BaselineDown {
        /// Why it should.
        cause: Cause,
    },
    /// The host was started anew: the old version has everything.
    Rebooted {
        /// How far that is put in force.
        stage: RestoreStage,
    },
}

/// Where a paused rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resumption {
    /// At the beginning.
    Pending,
    /// With the questions at `confirm-start`.
    Gated,
    /// With the start of the new version.
    Warming,
    /// With this step's share, from 0.
    Shifting(u16),
    /// With this step's bake, from 0.
    Baking(u16),
    /// With everything for the new version.
    Promoting,
    /// With the drain.
    Draining,
    /// With the watch.
    Watching,
}

/// Why a rollout goes back, or ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody asked.
    Operator {
        /// Who.
        by: String,
    },
    /// The kernel took the traffic back by itself.
    Tripped,
    /// The analysis found the new version worse.
    Judged,
    /// The bake is over without a *pass*, and the plan says to go back then.
    Inconclusive,
    /// A question was answered with no.
    Gate {
        /// When it was asked.
        at: GatePoint,
        /// Its name.
        gate: String,
        /// The answer.
        text: String,
    },
    /// The new version was not ready for too long.
    NotReady,
    /// Nothing came about for too long.
    Deadline {
        /// Where.
        phase: PhaseKind,
    },
    /// The new version could not be started.
    Start {
        /// Why.
        text: String,
    },
    /// The kernel was told so, and the disk was not.
    FoundTakenBack,
    /// Another version is wanted.
    Superseded {
        /// Which.
        by: Label,
    },
    /// It was a rehearsal.
    Rehearsal,
}

impl Cause {
    /// Whether nobody asked for it, so that the same version should not come again at once.
    pub const fn is_automatic(&self) -> bool {
        match self {
            Self::Tripped
            | Self::Judged
            | Self::Inconclusive
            | Self::Gate { .. }
            | Self::NotReady
            | Self::Deadline { .. }
            | Self::Start { .. }
            | Self::FoundTakenBack => true,
            Self::Operator { .. } | Self::Superseded { .. } | Self::Rehearsal => false,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator { by } => write!(f, "{by} asked"),
            Self::Tripped => f.write_str("the kernel tripped"),
            Self::Judged => f.write_str("the analysis found the new version worse"),
            Self::Inconclusive => f.write_str("the evidence stayed inconclusive"),
            Self::Gate { at, gate, text } => write!(f, "gate {gate} at {at}: {text}"),
            Self::NotReady => f.write_str("the new version was not ready for too long"),
            Self::Deadline { phase } => write!(f, "nothing came about in {phase} for too long"),
            Self::Start { text } => write!(f, "the new version did not start: {text}"),
            Self::FoundTakenBack => {
                f.write_str("the kernel held no share for it any more: it was taken back before")
            }
            Self::Superseded { by } => write!(f, "version {by} is wanted instead"),
            Self::Rehearsal => f.write_str("it was a rehearsal"),
        }
    }
}

impl std::fmt::Display for PauseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator { by } => write!(f, "{by} asked"),
            Self::Step { step } => write!(f, "the plan asks for a person after step {}", step + 1),
            Self::Inconclusive => f.write_str("the evidence says neither yes nor no"),
            Self::NoData => f.write_str("there is no evidence"),
            Self::Gate { gate, text } => write!(f, "gate {gate} at post-rollout: {text}"),
            Self::BaselineDown { cause } => {
                write!(
                    f,
                    "{cause}, but the old version is not ready to take the traffic"
                )
            }
            Self::Rebooted { .. } => f.write_str("the host was started anew"),
        }
    }
}

/// A phase without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseKind {
    /// [`Phase::Pending`]
    Pending,
    /// [`Phase::Gated`]
    Gated,
    /// [`Phase::Warming`]
    Warming,
    /// [`Phase::Shifting`]
    Shifting,
    /// [`Phase::Baking`]
    Baking,
    /// [`Phase::Promoting`]
    Promoting,
    /// [`Phase::Draining`]
    Draining,
    /// [`Phase::Watching`]
    Watching,
    /// [`Phase::Paused`]
    Paused,
    /// [`Phase::Succeeded`]
    Succeeded,
    /// [`Phase::RollingBack`]
    RollingBack,
    /// [`Phase::RolledBack`]
    RolledBack,
    /// [`Phase::Failed`]
    Failed,
    /// [`Phase::Superseded`]
    Superseded,
}

impl PhaseKind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Gated,
        Self::Warming,
        Self::Shifting,
        Self::Baking,
        Self::Promoting,
        Self::Draining,
        Self::Watching,
        Self::Paused,
        Self::Succeeded,
        Self::RollingBack,
        Self::RolledBack,
        Self::Failed,
        Self::Superseded,
    ];

    /// Whether the rollout has come to its end.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::RolledBack | Self::Failed | Self::Superseded => true,
            Self::Pending
            | Self::Gated
            | Self::Warming
            | Self::Shifting
            | Self::Baking
            | Self::Promoting
            | Self::Draining
            | Self::Watching
            | Self::Paused
            | Self::RollingBack => false,
        }
    }
}

impl std::fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::Gated => "Gated",
            Self::Warming => "Warming",
            Self::Shifting => "Shifting",
            Self::Baking => "Baking",
            Self::Promoting => "Promoting",
            Self::Draining => "Draining",
            Self::Watching => "Watching",
            Self::Paused => "Paused",
            Self::Succeeded => "Succeeded",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
            Self::Superseded => "Superseded",
        })
    }
}

impl Phase {
    /// Without particulars.
    pub const fn kind(&self) -> PhaseKind {
        match self {
            Self::Pending => PhaseKind::Pending,
            Self::Gated => PhaseKind::Gated,
            Self::Warming(_) => PhaseKind::Warming,
            Self::Shifting { .. } => PhaseKind::Shifting,
            Self::Baking { .. } => PhaseKind::Baking,
            Self::Promoting(_) => PhaseKind::Promoting,
            Self::Draining => PhaseKind::Draining,
            Self::Watching(_) => PhaseKind::Watching,
            Self::Paused { .. } => PhaseKind::Paused,
            Self::Succeeded { .. } => PhaseKind::Succeeded,
            Self::RollingBack { .. } => PhaseKind::RollingBack,
            Self::RolledBack { .. } => PhaseKind::RolledBack,
            Self::Failed { .. } => PhaseKind::Failed,
            Self::Superseded { .. } => PhaseKind::Superseded,
        }
    }

    /// Whether the rollout has come to its end.
    pub const fn is_final(&self) -> bool {
        self.kind().is_final()
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind();
        match self {
            Self::Warming(stage) => {
                let stage = match stage {
                    WarmStage::StoppingOld => "stopping old",
                    WarmStage::Starting => "starting",
                    WarmStage::Arming => "arming",
                    WarmStage::Probing => "probing",
                    WarmStage::Testing => "testing",
                };
                write!(f, "{kind}({stage})")
            }
            Self::Shifting { step, stage } => write!(f, "{kind}({}, {stage})", step + 1),
            Self::Baking { step, stage } => {
                let stage = match stage {
                    BakeStage::Observing => "observing",
                    BakeStage::Testing => "testing",
                };
                write!(f, "{kind}({}, {stage})", step + 1)
            }
            Self::Promoting(stage) => write!(f, "{kind}({stage})"),
            Self::Watching(stage) => {
                let stage = match stage {
                    WatchStage::Observing => "observing",
                    WatchStage::Testing => "testing",
                    WatchStage::Committing => "committing",
                };
                write!(f, "{kind}({stage})")
            }
            Self::Paused { reason, back } => write!(f, "{kind}({reason}; then {back})"),
            Self::RollingBack { cause, stage } => {
                let stage = match stage {
                    RestoreStage::Taking => "taking back",
                    RestoreStage::StartingOld => "starting old",
                    RestoreStage::Resetting => "resetting",
                    RestoreStage::Done => "done",
                };
                write!(f, "{kind}({cause}; {stage})")
            }
            Self::RolledBack { cause, .. } | Self::Failed { cause } => write!(f, "{kind}({cause})"),
            Self::Superseded { by } => write!(f, "{kind}(by {by})"),
            Self::Succeeded { warm_until_unix_ms } => match warm_until_unix_ms {
                Some(_) => write!(f, "{kind}(old version warm)"),
                None => write!(f, "{kind}"),
            },
            Self::Pending | Self::Gated | Self::Draining => write!(f, "{kind}"),
        }
    }
}

impl std::fmt::Display for MoveStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Confirming => "confirming",
            Self::Storing => "storing",
        })
    }
}

impl std::fmt::Display for Resumption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Gated => f.write_str("Gated"),
            Self::Warming => f.write_str("Warming"),
            Self::Shifting(step) => write!(f, "Shifting({})", step + 1),
            Self::Baking(step) => write!(f, "Baking({})", step + 1),
            Self::Promoting => f.write_str("Promoting"),
            Self::Draining => f.write_str("Draining"),
            Self::Watching => f.write_str("Watching"),
        }
    }
}
