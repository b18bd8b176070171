//! Files that change while a rollout goes on.

use shifter_common::wire::{ConfigChange, Effect};

use super::super::Driver;

/// Keys a rollout stands on: another value would pull the ground from under it.
const FROZEN: [&str; 6] = [
    "service.vip",
    "service.protocol",
    "service.plane",
    "service.affinity",
    "slot.a.backends",
    "slot.b.backends",
];

/// Keys a rollout has taken into its plan at its start.
const PLANNED: [&str; 7] = [
    "rollout",
    "analysis",
    "gate",
    "drain.timeout",
    "rollback.established",
    "rollback.cooldown",
    "rollback.keep_warm",
];

impl Driver {
    /// Why changes of a service's file must wait for the end of its rollout, if they must; else each
    /// change says when it takes effect.
    pub(in super::super) fn time_changes(
        &self,
        service: &str,
        changes: &mut [ConfigChange],
    ) -> Result<(), String> {
        let Some(rollout) = self.rollouts.under_way(service) else {
            return Ok(());
        };
        let version = &rollout.parts().version;
        if let Some(change) = changes.iter().find(|of| FROZEN.contains(&of.key.as_str())) {
            return Err(format!(
                "the rollout of {version} stands on `{}`: let it end, or shifterctl abort {service}; \
                 then: shifterctl apply",
                change.key
            ));
        }
        for change in changes {
            if PLANNED.contains(&change.key.as_str()) {
                change.effect = Effect::NextRollout;
                change.reason = format!("the rollout of {version} keeps the plan it began with");
            }
        }
        Ok(())
    }
}
