//! What status shows of a rollout.

use shifter_common::wire::{RolloutOutcome, RolloutReply, RolloutStatus};

use super::super::Driver;
use crate::rollout::{Done, PhaseKind, Rollout};

impl Driver {
    /// Where the last rollout of a service stands.
    pub(in super::super) fn rollout_status(&self, service: &str) -> Option<RolloutStatus> {
        let live = self.rollouts.live.get(service)?;
        let rollout = &live.rollout;
        let parts = rollout.parts();
        let plan = rollout.plan();
        let waiting = rollout.waiting_on(self.rollouts.now());
        let (waiting_on, next_command) = waiting.map_or((None, None), |waiting| {
            (Some(waiting.on), Some(waiting.moves))
        });
        Some(RolloutStatus {
            id: parts.id,
            version: parts.version.to_string(),
            old_version: parts.old_version.as_ref().map(ToString::to_string),
            slot: parts.canary,
            strategy: plan.plan().strategy.clone(),
            hash: plan.hash().to_owned(),
            attempt: rollout.attempt(),
            phase: rollout.phase().kind().to_string(),
            detail: rollout.phase().to_string(),
            outcome: outcome(rollout),
            step: rollout.step().map(|step| step.saturating_add(1)),
            steps_count: u16::try_from(plan.plan().steps.len()).unwrap_or(u16::MAX),
            waiting_on,
            next_command,
            next_version: live.next.as_ref().map(|next| next.version.to_string()),
            not_kept: live.not_kept.clone(),
        })
    }

    /// The answer to what was asked of a rollout.
    pub(super) fn rollout_reply(&self, service: &str, done: Done) -> Option<RolloutReply> {
        Some(RolloutReply {
            service: service.to_owned(),
            already: match done {
                Done::Changed => None,
                Done::Already(why) => Some(why),
            },
            rollout: self.rollout_status(service)?,
        })
    }
}

fn outcome(rollout: &Rollout) -> RolloutOutcome {
    match rollout.phase().kind() {
        PhaseKind::Succeeded => RolloutOutcome::Succeeded,
        PhaseKind::RolledBack | PhaseKind::Failed | PhaseKind::Superseded => RolloutOutcome::Back,
        _ if rollout.waits_for_person() => RolloutOutcome::WaitsForPerson,
        _ => RolloutOutcome::UnderWay,
    }
}
