//! What a plan asks of the evidence, in whole numbers, so that it can be kept and compared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    limit::{Limit, Measure, Rule},
    metric::{Action, Holds, Metric, MetricSpec, PromoteOn},
};

const MILLION: f64 = 1_000_000.0;

/// When the outcome of a flow is known at the latest: a client gives up after about two minutes, but
/// what the packet path counts it counts within seconds.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// What counts as an error of a flow, of what the packet path counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Refused, reset by the backend, not answered, or gone to another version for want of this one.
    Errors,
    /// Reset by the backend.
    Resets,
}

impl Counted {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Errors, Self::Resets];

    /// What files call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Resets => "resets",
        }
    }
}

/// What a plan asks of the evidence. Shares are millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidencePlan {
    /// The accepted probability of a false rollback by the whole rollout; half of it is the kernel's.
    pub false_rollback_ppm: u32,
    /// What promotions take.
    pub promote_on: PromoteOn,
    /// Canary flows a step must have had before it is left.
    pub min_samples: u32,
    /// Flows a minute of both versions a step must have had.
    pub min_per_minute: u32,
    /// The most the old version may fail for the comparison to mean anything.
    pub baseline_max_error_ppm: u32,
    /// By how much the share of [`Counted::Errors`] may be higher; `None` if it is not looked at.
    pub errors_ppm: Option<u32>,
    /// By how much the share of [`Counted::Resets`] may be higher; `None` if it is not looked at.
    pub resets_ppm: Option<u32>,
}

impl Default for EvidencePlan {
    fn default() -> Self {
        Self {
            false_rollback_ppm: 10_000,
            promote_on: PromoteOn::Auto,
            min_samples: 50,
            min_per_minute: 100,
            baseline_max_error_ppm: 50_000,
            errors_ppm: Some(5_000),
            resets_ppm: None,
        }
    }
}

impl EvidencePlan {
    /// By how much a metric may be worse, 0 to 1; `None` if it is not looked at.
    pub fn margin(&self, counted: Counted) -> Option<f64> {
        let ppm = match counted {
            Counted::Errors => self.errors_ppm,
            Counted::Resets => self.resets_ppm,
        };
        ppm.map(|ppm| f64::from(ppm) / MILLION)
    }

    /// The metrics at the beginning of a rollout. They share the analysis' half of the accepted false
    /// rollbacks.
    pub fn metrics(&self) -> Vec<(Counted, Metric)> {
        let wanted: Vec<(Counted, f64)> = Counted::ALL
            .into_iter()
            .filter_map(|counted| Some((counted, self.margin(counted)?)))
            .collect();
        let alpha = f64::from(self.false_rollback_ppm) / MILLION / 2.0 / wanted.len().max(1) as f64;
        wanted
            .into_iter()
            .map(|(counted, margin)| {
                let spec = MetricSpec {
                    name: counted.name().to_owned(),
                    measure: Measure::Errors,
                    limit: Limit::Increase(margin),
                    rule: Rule::Sequential,
                    alpha,
                    holds: Holds {
                        min_samples: self.min_samples.into(),
                        min_per_minute: self.min_per_minute.into(),
                        baseline_max_error: f64::from(self.baseline_max_error_ppm) / MILLION,
                    },
                    outcome_timeout: OUTCOME_TIMEOUT,
                    scrape_interval: None,
                    dry_run: false,
                    action: Action::RollBack,
                };
                (counted, Metric::new(spec))
            })
            .collect()
    }
}
