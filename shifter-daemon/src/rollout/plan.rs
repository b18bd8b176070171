//! What a rollout will do, fixed before it begins.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shifter_common::{steering::WEIGHT_FULL_BP, wire::EstablishedPolicy};

use super::{
    freeze::FreezeWindow,
    gate::{Gate, GateCheck, GatePoint},
    share::Share,
};
use crate::analysis::EvidencePlan;

/// Steps a plan may have.
const STEPS_MAX_COUNT: usize = 1_000;

/// Everything a rollout needs to know beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is for.
    pub kind: PlanKind,
    /// The strategy as people call it: `canary`, `blue-green`, a preset's name.
    pub strategy: String,
    /// What happens below 100 %; empty for one cutover.
    pub steps: Vec<Step>,
    /// After 100 %, how long the old version is kept ready to take everything back, milliseconds.
    pub watch_ms: u64,
    /// The old version stops before the new one starts: nobody serves meanwhile.
    pub is_old_first: bool,
    /// How long what may take.
    pub limits: Limits,
    /// What becomes of the old version's flows that have not ended by then.
    pub on_drain_timeout: OnDrainTimeout,
    /// What a rollback does with the new version's flows.
    pub established: EstablishedPolicy,
    /// After a rollback that nobody asked for, how long the same version is refused, milliseconds.
    pub cooldown_ms: u64,
    /// After success, how long the old version keeps running, milliseconds.
    pub keep_warm_ms: u64,
    /// Questions on the way.
    pub gates: Vec<Gate>,
    /// How the analysis takes part; `None` if observed time and readiness alone decide.
    pub analysis: Option<AnalysisPlan>,
    /// When it may not begin.
    pub freezes: Vec<FreezeWindow>,
}

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// A version gets the traffic.
    Release,
    /// The version that was there before gets it back; it may be serving still, so its slot need not
    /// be empty.
    Undo,
    /// The way back is tried without any traffic.
    Rehearsal,
}

/// One planned share of new flows, and how long it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The share.
    pub share: Share,
    /// How long it is observed, milliseconds.
    pub bake_ms: u64,
    /// Afterwards a person decides.
    pub is_manual: bool,
}

/// How long what may take, milliseconds of observed time; none of them runs during a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// From a version's start until it is ready.
    pub warm_ms: u64,
    /// How long a version with traffic may be not ready.
    pub unready_ms: u64,
    /// How long nothing may come about, bakes and waiting for people not counted.
    pub progress_ms: u64,
    /// How long the old version's flows may take to end.
    pub drain_ms: u64,
}

/// What becomes of flows that outlast their drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrainTimeout {
    /// They continue.
    #[default]
    Keep,
    /// They are reset.
    Reset,
}

/// How the analysis takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalysisPlan {
    /// The first step whose judgements count, from 0.
    pub from_step: u16,
    /// What happens when a bake is over and there is no *pass*.
    pub on_inconclusive: OnInconclusive,
    /// What the evidence must say.
    #[serde(default)]
    pub evidence: EvidencePlan,
}

/// What happens when a bake is over and there is no *pass*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnInconclusive {
    /// The bake is held once more, then a person decides.
    #[default]
    Extend,
    /// A person decides.
    Pause,
    /// The traffic goes back; but never for want of data.
    Rollback,
}

/// Why a plan cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More steps than anybody wants.
    #[error("the plan has {0} steps, but at most {STEPS_MAX_COUNT}: make them larger")]
    Steps(usize),
    /// A step with no share or all of it.
    #[error(
        "step {step} has a weight of {weight_bp} bp: a step takes 1 to 9999; everything comes after \
         the last step by itself, to be held there with `watch`"
    )]
    Weight {
        /// From 1.
        step: usize,
        /// Its weight.
        weight_bp: u16,
    },
    /// A step that takes traffic back.
    #[error(
        "step {step} goes down from {before} to {after}: a rollout only adds; to take traffic back: \
         shifterctl rollback"
    )]
    Down {
        /// From 1.
        step: usize,
        /// The share before.
        before: Share,
        /// Its own.
        after: Share,
    },
    /// Two gates with one name.
    #[error("two gates are named {0:?}: give each a name of its own, so that answers find them")]
    GateTwice(String),
    /// A person would be asked all the time.
    #[error(
        "gate {0:?} asks a person whether to roll back: leave it out, shifterctl rollback is there \
         at any time"
    )]
    ManualRollback(String),
    /// A gate that has no time to answer.
    #[error("gate {0:?} has no time to answer: give it a timeout, such as \"30s\"")]
    GateTimeout(String),
    /// Nothing may take no time.
    #[error("`{0}` is 0: give it time, such as \"60s\"")]
    Limit(&'static str),
    /// The analysis would begin after the end.
    #[error(
        "the analysis begins with step {from}, but the plan has {steps}: begin with an earlier one"
    )]
    AnalysisLate {
        /// From 1.
        from: usize,
        /// Steps of the plan.
        steps: usize,
    },
    /// The old version is gone: there is nothing to split.
    #[error(
        "the plan stops the old version first and then has steps, but there is nobody to share with: \
         leave the steps out"
    )]
    OldFirstWithSteps,
    /// The strategy stops all service.
    #[error(
        "recreate stops the old version before the new one starts, so that nobody serves meanwhile: \
         write downtime = \"accepted\", or take blue-green"
    )]
    Downtime,
    /// A client would see both arms.
    #[error(
        "ab splits clients, but this service selects each connection on its own: write affinity = \
         \"client\" in its file"
    )]
    AbAffinity,
    /// Nothing could move.
    #[error(
        "rolling with max_surge {surge} and max_unavailable {unavailable} over {old_count} old and \
         {new_count} new backends moves nothing: allow at least one backend of either"
    )]
    RollingStuck {
        /// As given.
        surge: String,
        /// As given.
        unavailable: String,
        /// Backends of the old version.
        old_count: u32,
        /// Backends of the new version.
        new_count: u32,
    },
    /// A linear strategy that does not move.
    #[error("linear adds {0} bp at a time: add 1 to 9999")]
    Linear(u16),
    /// A holdback that leaves nothing, or nothing to hold back.
    #[error("a holdback of {0} bp: hold back 1 to 9999, 500 is usual")]
    Holdback(u16),
    /// A cohort without anybody.
    #[error("the cohort has no addresses: name the clients, such as \"10.1.0.0/16\"")]
    NoTargets,
    /// Nothing to compose.
    #[error("the plan has no strategy: name one, such as \"canary\"")]
    NoStrategy,
    /// Something follows a strategy that gives everything at once.
    #[error("{0} takes a plan to 100 %, so nothing can come after it: make it the last one")]
    AfterTheEnd(String),
    /// Such a preset is not there.
    #[error("there is no preset {name:?}: {help}")]
    Preset {
        /// As given.
        name: String,
        /// What would be right.
        help: String,
    },
}

impl Plan {
    /// A plan of one cutover, with the limits of a file that says nothing.
    pub fn cutover(strategy: &str) -> Self {
        const MINUTE_MS: u64 = 60_000;
        Self {
            kind: PlanKind::Release,
            strategy: strategy.to_owned(),
            steps: Vec::new(),
            watch_ms: 60 * MINUTE_MS,
            is_old_first: false,
            limits: Limits {
                warm_ms: 5 * MINUTE_MS,
                unready_ms: MINUTE_MS,
                progress_ms: 120 * MINUTE_MS,
                drain_ms: MINUTE_MS,
            },
            on_drain_timeout: OnDrainTimeout::Keep,
            established: EstablishedPolicy::Drain,
            cooldown_ms: 30 * MINUTE_MS,
            keep_warm_ms: 24 * 60 * MINUTE_MS,
            gates: Vec::new(),
            analysis: None,
            freezes: Vec::new(),
        }
    }

    /// The way back to the version before, at once: no steps, no gates, no watch.
    #[must_use]
    pub fn undo(&self) -> Self {
        Self {
            kind: PlanKind::Undo,
            strategy: "undo".into(),
            steps: Vec::new(),
            watch_ms: 0,
            is_old_first: false,
            gates: Vec::new(),
            analysis: None,
            freezes: Vec::new(),
            ..self.clone()
        }
    }

    /// The same up to the first traffic, and from there the way back.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self {
            kind: PlanKind::Rehearsal,
            is_old_first: false,
            ..self.clone()
        }
    }

    /// Checks the plan and fixes it for good.
    ///
    /// # Errors
    /// The first reason why it cannot be carried out.
    pub fn freeze(self) -> Result<FrozenPlan, PlanError> {
        self.check()?;
        let hash = self.hash();
        Ok(FrozenPlan { plan: self, hash })
    }

    fn check(&self) -> Result<(), PlanError> {
        if self.steps.len() > STEPS_MAX_COUNT {
            return Err(PlanError::Steps(self.steps.len()));
        }
        if self.is_old_first && !self.steps.is_empty() {
            return Err(PlanError::OldFirstWithSteps);
        }
        let mut before = &Share::NONE;
        for (step, number) in self.steps.iter().zip(1..) {
            let after = &step.share;
            if after.is_none() || after.weight_bp >= WEIGHT_FULL_BP {
                return Err(PlanError::Weight {
                    step: number,
                    weight_bp: after.weight_bp,
                });
            }
            if after.weight_bp < before.weight_bp {
                return Err(PlanError::Down {
                    step: number,
                    before: before.clone(),
                    after: after.clone(),
                });
            }
            before = after;
        }
        self.check_gates()?;
        let limits = [
            ("warm", self.limits.warm_ms),
            ("unready", self.limits.unready_ms),
            ("progress_deadline", self.limits.progress_ms),
            ("drain.timeout", self.limits.drain_ms),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, limit_ms)| *limit_ms == 0) {
            return Err(PlanError::Limit(name));
        }
        match &self.analysis {
            // Without steps there is only the watch, in which every judgement counts.
            Some(analysis)
                if !self.steps.is_empty()
                    && usize::from(analysis.from_step) >= self.steps.len() =>
            {
                Err(PlanError::AnalysisLate {
                    from: usize::from(analysis.from_step) + 1,
                    steps: self.steps.len(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_gates(&self) -> Result<(), PlanError> {
        let mut names = BTreeSet::new();
        for gate in &self.gates {
            if !names.insert(&gate.name) {
                return Err(PlanError::GateTwice(gate.name.clone()));
            }
            if gate.check == GateCheck::Manual {
                if gate.at == GatePoint::Rollback {
                    return Err(PlanError::ManualRollback(gate.name.clone()));
                }
            } else if gate.timeout_ms == 0 {
                return Err(PlanError::GateTimeout(gate.name.clone()));
            }
        }
        Ok(())
    }

    /// SHA-256 of the plan in JSON, as hexadecimal digits.
    fn hash(&self) -> String {
        // Serialisation of this type cannot fail: no maps with keys that are not strings.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// A plan that passed its checks and changes no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenPlan {
    plan: Plan,
    hash: String,
}

impl FrozenPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its SHA-256, as hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether a plan that was read from a disk is the one that was written.
    pub fn is_intact(&self) -> bool {
        self.plan.check().is_ok() && self.plan.hash() == self.hash
    }
}
