//! What a service's file says about its rollouts.

use std::slice;

use super::{
    plan::{FrozenPlan, Plan, PlanError},
    preset::preset,
    strategy::{ServiceShape, Strategy, compose},
};

/// How a version gets its traffic unless the file names another way.
const STRATEGY_DEFAULT: &str = "5-20-50";

/// How long a step is observed whose length nobody gave, milliseconds.
pub const BAKE_DEFAULT_MS: u64 = 300_000;

/// The plan of a service's rollouts, before the service's backends are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSpec {
    /// The strategy as the file names it.
    pub name: String,
    /// The strategy.
    pub strategy: Strategy,
    /// Everything else; it has no steps yet.
    pub rest: Plan,
}

impl RolloutSpec {
    /// The plan for a service of this shape, checked.
    ///
    /// # Errors
    /// Why the strategy does not fit the service, or the plan cannot be carried out.
    pub fn plan(&self, shape: &ServiceShape) -> Result<FrozenPlan, PlanError> {
        let composed = compose(slice::from_ref(&self.strategy), shape)?;
        let plan = composed.into_plan(self.rest.clone());
        Plan {
            strategy: self.name.clone(),
            ..plan
        }
        .freeze()
    }
}

impl Default for RolloutSpec {
    /// As a file that says nothing.
    fn default() -> Self {
        let steps = preset(STRATEGY_DEFAULT, BAKE_DEFAULT_MS);
        Self {
            name: STRATEGY_DEFAULT.to_owned(),
            strategy: steps.map_or(Strategy::BlueGreen, |preset| preset.strategy),
            rest: Plan::cutover(STRATEGY_DEFAULT),
        }
    }
}
