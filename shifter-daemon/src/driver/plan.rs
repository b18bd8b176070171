//! What a rollout would do, without starting it.

use shifter_common::{
    steering::WEIGHT_FULL_BP,
    wire::{PlannedRollout, PlannedStep, Refusal},
};

use super::{Driver, refusal::refusal};
use crate::rollout::{Label, forecast};

impl Driver {
    /// The plan of a rollout that would bring a version to its traffic.
    pub(super) fn plan(&self, service: &str, version: &Label) -> Result<PlannedRollout, Refusal> {
        let control = self.known(service)?;
        let spec = control.spec();
        let record = control.record();
        // A weight set by hand may have brought everything to the canary: then that one serves.
        let slot = if record.weight_bp == WEIGHT_FULL_BP {
            record.baseline
        } else {
            record.baseline.other()
        };
        let frozen = spec.rollout_plan(slot).map_err(|error| {
            let text = error.to_string();
            let (message, help) = text.split_once(": ").unwrap_or((&text, ""));
            refusal("not_eligible", message.to_owned(), help.to_owned())
        })?;
        let plan = frozen.plan();
        let steps: Vec<_> = forecast(plan, version.as_str())
            .into_iter()
            .map(|step| PlannedStep {
                at_ms: step.at_ms,
                lasts_ms: step.lasts_ms,
                what: step.what,
            })
            .collect();
        let mut notes = Vec::new();
        if spec.slot(slot).backends.is_empty() {
            notes.push(format!("slot {slot} has no backend in the file"));
        }
        if (1..WEIGHT_FULL_BP).contains(&record.weight_bp) {
            notes.push(format!(
                "slot {slot} has {} % of new flows now, set by {}",
                f64::from(record.weight_bp) / 100.0,
                record.weight_by
            ));
        }
        Ok(PlannedRollout {
            service: service.to_owned(),
            version: version.to_string(),
            slot,
            strategy: plan.strategy.clone(),
            hash: frozen.hash().to_owned(),
            lasts_ms: steps.last().map_or(0, |last| last.at_ms),
            steps,
            notes,
        })
    }
}
