//! Statistics of a rollout: counts in, judgements out. Pure.
//!
//! [`BreakerPlan`] turns the accepted rate of false rollbacks into the kernel's integers. [`Metric`]
//! looks at one metric of a rollout tick by tick and answers with a [`Verdict`]; inside it,
//! [`RollbackTest`] decides whether the canary is worse and [`PromotionTest`] whether it is not. What
//! they promise, and why, is in `docs/statistics.md`.

mod breaker_plan;
mod counts;
mod evidence;
mod judgement;
mod latency;
mod limit;
mod logarithm;
mod metric;
mod preset;
mod promotion;
mod reach;
mod reading;
mod rollback;
mod share;
mod verdict;

pub use breaker_plan::{ARM_RATIOS, BreakerBudget, BreakerPlan, BudgetError};
pub use counts::{CohortCounts, Totals, difference};
pub use evidence::{Counted, EvidencePlan};
pub use judgement::Judgement;
pub use latency::Histogram;
pub use limit::{Limit, Measure, Rule};
pub use metric::{Action, Ask, Holds, Metric, MetricSpec, PromoteOn};
pub use preset::{PRESETS, Preset, preset};
pub use promotion::{PROMOTION_ERROR, PromotionTest};
pub use reach::{PlannedStep, caught_increase, reachable_margin, required_canary_flows};
pub use reading::{CohortSample, Quarantine, Reading, Sample};
pub use rollback::{BASE_RATIO, RATIOS, RollbackTest, TickErrors};
pub use share::share_is_off;
pub use verdict::{Reason, Summary, Verdict, summarize};
