//! Strategies become steps.

use serde::{Deserialize, Serialize};
use shifter_common::steering::{Affinity, WEIGHT_FULL_BP};

use super::{
    cidr::Cidr,
    plan::{Plan, PlanError, Step},
    rolling::{Portion, batches},
    share::Share,
};

/// A way to bring a version to its traffic. Several make one plan, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Growing shares, each observed.
    Canary(Vec<Step>),
    /// Equal additions at equal intervals.
    Linear {
        /// Added each time, basis points, 1..=9999.
        add_bp: u16,
        /// How long each is held, milliseconds.
        every_ms: u64,
    },
    /// Warm up, test, then everything at once.
    BlueGreen,
    /// Backend by backend.
    Rolling {
        /// How many backends there may be beyond the usual number.
        max_surge: Portion,
        /// How many of the usual number may be missing.
        max_unavailable: Portion,
        /// How long each batch is held, milliseconds.
        bake_ms: u64,
    },
    /// Stop the old version, start the new one.
    Recreate {
        /// Whether an operator accepted that nobody serves meanwhile.
        is_downtime_accepted: bool,
    },
    /// A fixed split of clients until a person decides.
    Ab {
        /// The new version's arm, basis points, 1..=9999.
        weight_bp: u16,
    },
    /// Named clients first.
    Cohort {
        /// Who.
        targets: Vec<Cidr>,
        /// How long they are observed, milliseconds.
        bake_ms: u64,
        /// Afterwards a person decides.
        is_manual: bool,
    },
}

impl Strategy {
    /// What the file calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Canary(_) => "canary",
            Self::Linear { .. } => "linear",
            Self::BlueGreen => "blue-green",
            Self::Rolling { .. } => "rolling",
            Self::Recreate { .. } => "recreate",
            Self::Ab { .. } => "ab",
            Self::Cohort { .. } => "cohort",
        }
    }
}

/// What strategies need to know of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceShape {
    /// What keeps a client on its version.
    pub affinity: Affinity,
    /// Backends of the old version's slot.
    pub old_count: u32,
    /// Backends of the new version's slot.
    pub new_count: u32,
}

/// Strategies as steps, ready to be put into a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// Names of the strategies, joined by ` + `.
    pub name: String,
    /// What happens below 100 %.
    pub steps: Vec<Step>,
    /// See [`Plan::is_old_first`].
    pub is_old_first: bool,
}

impl Composed {
    /// Holds back a part of the new flows for the last bake, so that there is something to compare
    /// with: a last step at all but `holdback_bp`.
    ///
    /// # Errors
    /// If the part is nothing or everything.
    pub fn hold_back(mut self, holdback_bp: u16, bake_ms: u64) -> Result<Self, PlanError> {
        if holdback_bp == 0 || holdback_bp >= WEIGHT_FULL_BP {
            return Err(PlanError::Holdback(holdback_bp));
        }
        let weight_bp = WEIGHT_FULL_BP - holdback_bp;
        let last_bp = self.steps.last().map_or(0, |step| step.share.weight_bp);
        if last_bp < weight_bp && !self.is_old_first {
            self.steps.push(Step {
                share: Share {
                    weight_bp,
                    ..Share::NONE
                },
                bake_ms,
                is_manual: false,
            });
        }
        Ok(self)
    }

    /// Puts the steps into a plan.
    #[must_use]
    pub fn into_plan(self, rest: Plan) -> Plan {
        Plan {
            strategy: self.name,
            steps: self.steps,
            is_old_first: self.is_old_first,
            ..rest
        }
    }
}

/// Makes steps of strategies, one after the other. Each may only add to what the one before gave.
///
/// # Errors
/// The first strategy that does not fit the service, or its place.
pub fn compose(strategies: &[Strategy], shape: &ServiceShape) -> Result<Composed, PlanError> {
    let Some((last, before)) = strategies.split_last() else {
        return Err(PlanError::NoStrategy);
    };
    for strategy in before {
        match strategy {
            Strategy::Canary(_)
            | Strategy::Linear { .. }
            | Strategy::Ab { .. }
            | Strategy::Cohort { .. } => {}
            Strategy::BlueGreen | Strategy::Rolling { .. } | Strategy::Recreate { .. } => {
                return Err(PlanError::AfterTheEnd(strategy.name().into()));
            }
        }
    }
    let names: Vec<_> = strategies.iter().map(Strategy::name).collect();
    let mut composed = Composed {
        name: names.join(" + "),
        ..Composed::default()
    };
    for strategy in strategies {
        composed.steps.extend(steps(strategy, shape)?);
    }
    composed.is_old_first = matches!(last, Strategy::Recreate { .. });
    Ok(composed)
}

fn steps(strategy: &Strategy, shape: &ServiceShape) -> Result<Vec<Step>, PlanError> {
    let step = |share, bake_ms| Step {
        share,
        bake_ms,
        is_manual: false,
    };
    let of_weight = |weight_bp| Share {
        weight_bp,
        ..Share::NONE
    };
    match strategy {
        Strategy::Canary(steps) => Ok(steps.clone()),
        Strategy::Linear { add_bp, every_ms } => {
            if !(1..WEIGHT_FULL_BP).contains(add_bp) {
                return Err(PlanError::Linear(*add_bp));
            }
            let weights = (*add_bp..WEIGHT_FULL_BP).step_by(usize::from(*add_bp));
            Ok(weights
                .map(|weight_bp| step(of_weight(weight_bp), *every_ms))
                .collect())
        }
        Strategy::BlueGreen => Ok(Vec::new()),
        Strategy::Rolling {
            max_surge,
            max_unavailable,
            bake_ms,
        } => {
            let (new_count, old_count) = (shape.new_count, shape.old_count);
            let batches = batches(new_count, old_count, *max_surge, *max_unavailable);
            let batches = batches.ok_or_else(|| PlanError::RollingStuck {
                surge: max_surge.to_string(),
                unavailable: max_unavailable.to_string(),
                old_count,
                new_count,
            })?;
            Ok(batches
                .into_iter()
                .map(|batch| {
                    let share = Share {
                        weight_bp: batch.weight_bp(),
                        targets: Vec::new(),
                        batch: Some(batch),
                    };
                    step(share, *bake_ms)
                })
                .collect())
        }
        Strategy::Recreate {
            is_downtime_accepted,
        } => match is_downtime_accepted {
            true => Ok(Vec::new()),
            false => Err(PlanError::Downtime),
        },
        Strategy::Ab { weight_bp } => match shape.affinity {
            Affinity::Client => Ok(vec![Step {
                share: of_weight(*weight_bp),
                bake_ms: 0,
                is_manual: true,
            }]),
            Affinity::Connection => Err(PlanError::AbAffinity),
        },
        Strategy::Cohort {
            targets,
            bake_ms,
            is_manual,
        } => {
            if targets.is_empty() {
                return Err(PlanError::NoTargets);
            }
            let share = Share {
                targets: targets.clone(),
                ..Share::NONE
            };
            Ok(vec![Step {
                share,
                bake_ms: *bake_ms,
                is_manual: *is_manual,
            }])
        }
    }
}
