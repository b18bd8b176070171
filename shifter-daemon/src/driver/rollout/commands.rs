//! What operators ask of a rollout.

use std::time::Instant;

use shifter_common::{
    steering::Slot,
    wire::{Changed, EstablishedPolicy, Refusal, Rollback, RolloutCommand, RolloutReply},
};

use super::{
    super::{Driver, commands::took_ns, refusal::refusal},
    start::no_rollout,
};
use crate::rollout::{Command, Done, Event, Ran, Refused, Verb};

impl Driver {
    /// `promote`, `pause`, `resume`, `abort`, `retry`, `undo`, `approve`, `reject`
    pub(in super::super) fn command_rollout(
        &mut self,
        service: &str,
        command: &RolloutCommand,
        by: &str,
    ) -> Result<RolloutReply, Refusal> {
        self.known(service)?;
        let done = match verb(command)? {
            None => self.undo(service, by)?,
            Some(verb) => self.tell_command(service, verb, by)?.done,
        };
        self.rollout_reply(service, done)
            .ok_or_else(|| no_rollout(service))
    }

    fn tell_command(&mut self, service: &str, verb: Verb, by: &str) -> Result<Ran, Refusal> {
        let is_retry = verb == Verb::Retry;
        let command = Command {
            by: by.to_owned(),
            verb,
        };
        let told = self.tell(service, Event::Command(command), by);
        let ran = told.ok_or_else(|| no_rollout(service))?.map_err(refused)?;
        if is_retry && let Some(live) = self.rollouts.live.get_mut(service) {
            // What was told to the last attempt is forgotten with it.
            live.told_ready = None;
            live.evidence = None;
        }
        Ok(ran)
    }

    /// `rollback` while a rollout is under way: it ends with that. Gives the slot that lost its share,
    /// and what becomes of its flows beside what the plan says.
    pub(in super::super) fn abort_rollout(
        &mut self,
        service: &str,
        body: &Rollback,
        by: &str,
        arrived: Instant,
    ) -> Result<(Slot, EstablishedPolicy, Changed), Refusal> {
        let control = self.known(service)?;
        let weight_before_bp = control.record().weight_bp;
        let rollout = self.rollouts.under_way(service);
        let rollout = rollout.ok_or_else(|| no_rollout(service))?;
        let canary = rollout.parts().canary;
        let of_plan = rollout.plan().plan().established;
        let ran = self.tell_command(service, Verb::Abort, by)?;
        let control = self.known(service)?;
        let mut notes = control.notes();
        if let Done::Already(why) = ran.done {
            notes.push(why);
        }
        if let Some(why) = ran.not_kept {
            notes.push(format!(
                "it is in force, but not on disk ({why}): free space, then repeat it"
            ));
        }
        let weight_bp = control.record().weight_bp;
        let word = self.words.get(service).copied().unwrap_or_default();
        let changed = Changed {
            service: service.to_owned(),
            weight_before_bp,
            weight_bp,
            generation: word.generation(),
            took_ns: took_ns(arrived, Some(Instant::now())),
            flows_reset_count: 0,
            notes,
        };
        // The plan's own policy is carried out by the rollout.
        let policy = match (body.established, of_plan) {
            (Some(EstablishedPolicy::Reset), EstablishedPolicy::Drain) => EstablishedPolicy::Reset,
            _ => EstablishedPolicy::Drain,
        };
        Ok((canary, policy, changed))
    }

    /// A weight by hand is refused while a rollout moves it.
    pub(in super::super) fn refuse_weight_in_rollout(&self, service: &str) -> Result<(), Refusal> {
        match self.rollouts.under_way(service) {
            Some(rollout) if !rollout.allows_weight_by_hand() => Err(refusal(
                "rollout",
                format!(
                    "the rollout of version {} moves the weight of {service}: it is in {}",
                    rollout.parts().version,
                    rollout.phase()
                ),
                format!(
                    "first: shifterctl pause {service}; to take the traffic back: shifterctl abort \
                     {service}"
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// The engine's verb; `None` for `undo`, which is a rollout of its own.
fn verb(command: &RolloutCommand) -> Result<Option<Verb>, Refusal> {
    // People count from 1.
    let from_0 = |step: Option<u16>| match step {
        Some(0) => Err(refusal(
            "bad_request",
            "steps are counted from 1, and 0 was named".into(),
            "name the step as status shows it".into(),
        )),
        step => Ok(step.map(|step| step - 1)),
    };
    Ok(Some(match command {
        RolloutCommand::Promote { step } => Verb::Promote {
            step: from_0(*step)?,
        },
        RolloutCommand::SkipStep { step } => Verb::SkipStep {
            step: from_0(*step)?,
        },
        RolloutCommand::PromoteFull => Verb::PromoteFull,
        RolloutCommand::Pause => Verb::Pause,
        RolloutCommand::Resume => Verb::Resume,
        RolloutCommand::Abort => Verb::Abort,
        RolloutCommand::Retry => Verb::Retry,
        RolloutCommand::Undo => return Ok(None),
        RolloutCommand::Approve { gate } => Verb::Approve { gate: gate.clone() },
        RolloutCommand::Reject { gate } => Verb::Reject { gate: gate.clone() },
    }))
}

fn refused(refused: Refused) -> Refusal {
    refusal("rollout", refused.message, refused.help)
}
