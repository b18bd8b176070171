//! What operators ask of a rollout.

use std::time::Instant;

use shifter_common::{
    steering::Slot,
    wire::{Changed, EstablishedPolicy, Refusal, Rollback, RolloutCommand, RolloutReply},
};

use super::{
    super::{
        Driver,
        commands::{Order, took_ns},
        refusal::refusal,
        unix_ms,
    },
    start::no_rollout,
};
use crate::rollout::{Command, Done, Event, Phase, Ran, Refused, RestoreStage, Verb};

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
        self.refuse_foreign_weight(service, &verb)?;
        let is_retry = verb == Verb::Retry;
        let is_abort = verb == Verb::Abort;
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
        if is_abort {
            self.take_back_by_hand(service)?;
        }
        Ok(ran)
    }

    /// A weight that was given by hand during a pause is none that the engine knows of: when the rollout
    /// goes back it is taken back all the same.
    fn take_back_by_hand(&mut self, service: &str) -> Result<(), Refusal> {
        let Some(live) = self.rollouts.live.get(service) else {
            return Ok(());
        };
        let (canary, is_over) = (live.rollout.parts().canary, live.rollout.phase().is_final());
        let record = self.known(service)?.record();
        if !is_over || record.weight_bp == 0 || record.baseline == canary {
            return Ok(());
        }
        let by = record.weight_by.clone();
        let taken = self.alter(service, Order::KernelFirst, |control| {
            control.take_back_latched(&by, unix_ms());
        });
        taken.map_err(|why| {
            refusal(
                "kernel",
                format!("the weight of {service} could not be taken back: {why}"),
                format!("shifterctl rollback {service}"),
            )
        })?;
        self.rollouts.note_latch(service, true);
        self.tripped.insert(service.to_owned());
        Ok(())
    }

    /// A rollout does not go on from a weight that it has not given: it would judge what it does not know,
    /// and move traffic where nobody asked for.
    fn refuse_foreign_weight(&self, service: &str, verb: &Verb) -> Result<(), Refusal> {
        let goes_on = matches!(
            verb,
            Verb::Resume
                | Verb::Retry
                | Verb::Promote { .. }
                | Verb::SkipStep { .. }
                | Verb::PromoteFull
        );
        let (Some(live), Some(control)) =
            (self.rollouts.live.get(service), self.services.get(service))
        else {
            return Ok(());
        };
        let rollout = &live.rollout;
        let record = control.record();
        let is_ours = if record.baseline == rollout.parts().canary || *verb == Verb::Retry {
            record.weight_bp == 0
        } else {
            [rollout.share(), rollout.asked()]
                .iter()
                .any(|share| share.weight_bp == record.weight_bp)
        };
        if !goes_on || is_ours {
            return Ok(());
        }
        Err(refusal(
            "rollout",
            format!(
                "{service} has a weight of {} % by {}, and its rollout has given {} %",
                percent(record.weight_bp),
                record.weight_by,
                percent(rollout.share().weight_bp)
            ),
            format!(
                "give it that weight again with: shifterctl set-weight {service} {}%; or take the traffic \
                 back: shifterctl rollback {service}",
                percent(rollout.share().weight_bp)
            ),
        ))
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
        if let Some(live) = self.rollouts.live.get(service)
            && matches!(
                live.rollout.phase(),
                Phase::RollingBack {
                    stage: RestoreStage::Taking,
                    ..
                }
            )
        {
            let why = live.rollout.trouble().unwrap_or("it is not done yet");
            return Err(refusal(
                "kernel",
                format!("the traffic of {service} is not taken back yet: {why}"),
                format!(
                    "it is tried again each second; what becomes of it: shifterctl status {service}"
                ),
            ));
        }
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
        if is_weaker(body.established, of_plan) {
            notes.push(
                "its connections are reset all the same: the plan of its rollout says so (rollback.established)"
                    .into(),
            );
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
        // The plan's own policy is carried out by the rollout; a stronger one is added to it.
        let policy = match (body.established, of_plan) {
            (
                Some(EstablishedPolicy::Reset),
                EstablishedPolicy::Drain | EstablishedPolicy::ResetIdle,
            ) => EstablishedPolicy::Reset,
            (Some(EstablishedPolicy::ResetIdle), EstablishedPolicy::Drain) => {
                EstablishedPolicy::ResetIdle
            }
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

/// Whether somebody asked for less than the plan does with the connections of what goes back.
fn is_weaker(asked: Option<EstablishedPolicy>, of_plan: EstablishedPolicy) -> bool {
    matches!(
        (asked, of_plan),
        (
            Some(EstablishedPolicy::Drain),
            EstablishedPolicy::Reset | EstablishedPolicy::ResetIdle
        ) | (Some(EstablishedPolicy::ResetIdle), EstablishedPolicy::Reset)
    )
}

fn percent(bp: u16) -> f64 {
    f64::from(bp) / 100.0
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
