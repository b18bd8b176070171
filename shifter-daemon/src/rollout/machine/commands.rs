//! What operators ask for.

use super::{Rollout, first_aim};
use crate::rollout::{
    event::{Command, Done, GateAnswer, Verb},
    gate::{GateCheck, GatePoint},
    phase::{Cause, PauseReason, Phase, PhaseKind, RestoreStage, Resumption, WatchStage},
    refused::Refused,
    time::Now,
};

/// The outcome of a command.
type Outcome = Result<Done, Refused>;

impl Rollout {
    pub(super) fn command(&mut self, command: Command, now: Now) -> Outcome {
        let Command { by, verb } = command;
        match verb {
            Verb::Promote { step } => self.promote(step, &by, now),
            Verb::SkipStep { step } => self.skip_step(step, &by, now),
            Verb::PromoteFull => self.promote_full(&by, now),
            Verb::Pause => self.pause_for(by, now),
            Verb::Resume => self.resume(&by, now),
            Verb::Abort => self.abort(by, now),
            Verb::Retry => self.retry(&by, now),
            Verb::Approve { gate } => self.answer(&gate, true, &by),
            Verb::Reject { gate } => self.answer(&gate, false, &by),
        }
    }

    fn service(&self) -> &str {
        &self.parts.service
    }

    /// Why nothing can be asked of a rollout that is over or goes back.
    fn must_run(&self) -> Result<Resumption, Refused> {
        match self.resumption() {
            Some(resumption) => Ok(resumption),
            None if self.phase.is_final() => Err(Refused::over(self.service(), &self.phase)),
            None => Err(Refused::going_back(self.service())),
        }
    }

    /// The step a rollout is at, or has just left for a person's word.
    pub(super) fn present_step(&self) -> Option<u16> {
        match &self.phase {
            Phase::Paused {
                reason: PauseReason::Step { step },
                ..
            } => Some(*step),
            _ => match self.resumption()? {
                Resumption::Shifting(step) | Resumption::Baking(step) => Some(step),
                Resumption::Pending
                | Resumption::Gated
                | Resumption::Warming
                | Resumption::Promoting
                | Resumption::Draining
                | Resumption::Watching => None,
            },
        }
    }

    /// Whether a step named by a command has been left before. A step to come is refused.
    fn is_left(&self, named: Option<u16>, present: Option<u16>) -> Result<bool, Refused> {
        let (Some(named), Some(present)) = (named, present) else {
            return Ok(false);
        };
        if named > present {
            return Err(Refused::new(
                format!(
                    "the rollout of {} is at step {}",
                    self.service(),
                    present + 1
                ),
                format!("name that one, not {}", named + 1),
            ));
        }
        Ok(named < present)
    }

    fn promote(&mut self, named: Option<u16>, by: &str, now: Now) -> Outcome {
        self.must_run()?;
        let present = self.present_step();
        if self.is_left(named, present)? {
            return Ok(Done::Already("that step was left before".into()));
        }
        match self.phase.clone() {
            Phase::Paused {
                reason: PauseReason::Step { .. },
                back,
            } => self.go(back, by, now),
            Phase::Paused {
                reason: PauseReason::Inconclusive | PauseReason::NoData,
                back: Resumption::Baking(step),
            } => self.go(self.after_step(step), by, now),
            Phase::Paused {
                reason: PauseReason::Gate { .. },
                ..
            } if named.is_none() => self.enter(Phase::Watching(WatchStage::Committing), by, now),
            Phase::Promoting(_)
            | Phase::Draining
            | Phase::Watching(_)
            | Phase::Paused {
                reason: PauseReason::Gate { .. },
                ..
            } if named.is_some() => {
                return Ok(Done::Already("that step was left before".into()));
            }
            Phase::Paused { reason, .. } => return Err(self.paused(&reason)),
            Phase::Pending | Phase::Gated | Phase::Warming(_) => return Err(self.before_traffic()),
            _ => {
                let service = self.service();
                return Err(Refused::new(
                    format!(
                        "the rollout of {service} waits for nobody's word: it is in {}",
                        self.phase
                    ),
                    format!(
                        "to leave the step now: shifterctl promote --skip-step {service}; for \
                         everything now: shifterctl promote --full {service}"
                    ),
                ));
            }
        }
        Ok(Done::Changed)
    }

    fn skip_step(&mut self, named: Option<u16>, by: &str, now: Now) -> Outcome {
        self.must_run()?;
        let present = self.present_step();
        if self.is_left(named, present)? {
            return Ok(Done::Already("that step was left before".into()));
        }
        match self.phase.clone() {
            Phase::Shifting { step, .. } | Phase::Baking { step, .. } => {
                self.go(self.after_step(step), by, now);
            }
            Phase::Paused { reason, .. } => match reason {
                PauseReason::Step { .. }
                | PauseReason::Inconclusive
                | PauseReason::NoData
                | PauseReason::Gate { .. } => return self.promote(named, by, now),
                reason => return Err(self.paused(&reason)),
            },
            _ if named.is_some() && present.is_none() && self.has_share() => {
                return Ok(Done::Already("that step was left before".into()));
            }
            Phase::Draining => self.begin_watch(by, now),
            Phase::Watching(WatchStage::Observing | WatchStage::Testing) => {
                self.enter(Phase::Watching(WatchStage::Committing), by, now);
            }
            Phase::Watching(WatchStage::Committing) => {
                return Ok(Done::Already("it is being made the baseline".into()));
            }
            Phase::Promoting(_) => {
                return Ok(Done::Already(
                    "everything is on its way to the new version".into(),
                ));
            }
            _ => return Err(self.before_traffic()),
        }
        Ok(Done::Changed)
    }

    fn promote_full(&mut self, by: &str, now: Now) -> Outcome {
        if matches!(self.phase, Phase::Succeeded { .. }) {
            return Ok(Done::Already("the new version has everything".into()));
        }
        match self.must_run()? {
            Resumption::Draining | Resumption::Watching => {
                return Ok(Done::Already("the new version has everything".into()));
            }
            Resumption::Promoting if matches!(self.phase, Phase::Promoting(_)) => {
                return Ok(Done::Already(
                    "everything is on its way to the new version".into(),
                ));
            }
            Resumption::Promoting | Resumption::Shifting(_) | Resumption::Baking(_) => {}
            Resumption::Pending | Resumption::Gated | Resumption::Warming => {
                return match self.phase.clone() {
                    Phase::Paused { reason, .. } => Err(self.paused(&reason)),
                    _ => Err(self.before_traffic()),
                };
            }
        }
        if let Phase::Paused { reason, .. } = self.phase.clone() {
            match reason {
                PauseReason::Step { .. } | PauseReason::Inconclusive | PauseReason::NoData => {}
                PauseReason::Operator { .. }
                | PauseReason::Gate { .. }
                | PauseReason::BaselineDown { .. }
                | PauseReason::Rebooted { .. } => return Err(self.paused(&reason)),
            }
        }
        self.go(Resumption::Promoting, by, now);
        Ok(Done::Changed)
    }

    fn paused(&self, reason: &PauseReason) -> Refused {
        let service = self.service();
        Refused::new(
            format!("the rollout of {service} is paused ({reason})"),
            format!("first: shifterctl resume {service}"),
        )
    }

    fn before_traffic(&self) -> Refused {
        let service = self.service();
        Refused::new(
            format!(
                "the rollout of {service} has no step to leave yet: it is in {}",
                self.phase
            ),
            format!("see what it waits for: shifterctl status {service}"),
        )
    }

    fn pause_for(&mut self, by: String, now: Now) -> Outcome {
        let back = self.must_run()?;
        if let Phase::Paused { reason, .. } = &self.phase {
            return Ok(Done::Already(format!("it is paused: {reason}")));
        }
        self.pause(PauseReason::Operator { by }, back, now);
        Ok(Done::Changed)
    }

    fn resume(&mut self, by: &str, now: Now) -> Outcome {
        self.must_run()?;
        let Phase::Paused { reason, back } = self.phase.clone() else {
            return Ok(Done::Already("it is not paused".into()));
        };
        match reason {
            PauseReason::Rebooted { stage } => match stage {
                RestoreStage::Done => {}
                RestoreStage::Taking | RestoreStage::StartingOld | RestoreStage::Resetting => {
                    let service = self.service();
                    return Err(Refused::new(
                        format!(
                            "the old version of {service} is being started after the boot of the \
                             host"
                        ),
                        format!("wait until it serves: shifterctl status {service}"),
                    ));
                }
            },
            // The same again would only lead back here.
            PauseReason::Inconclusive | PauseReason::NoData => {
                self.watches.bake.reset();
                self.is_extended = false;
            }
            PauseReason::Operator { .. }
            | PauseReason::Step { .. }
            | PauseReason::Gate { .. }
            | PauseReason::BaselineDown { .. } => {}
        }
        self.go(back, by, now);
        Ok(Done::Changed)
    }

    fn abort(&mut self, by: String, now: Now) -> Outcome {
        match self.phase.kind() {
            PhaseKind::RollingBack => return Ok(Done::Already("it goes back".into())),
            PhaseKind::RolledBack | PhaseKind::Failed | PhaseKind::Superseded => {
                return Ok(Done::Already("it is over".into()));
            }
            PhaseKind::Succeeded => return Err(Refused::over(self.service(), &self.phase)),
            PhaseKind::Pending
            | PhaseKind::Gated
            | PhaseKind::Warming
            | PhaseKind::Shifting
            | PhaseKind::Baking
            | PhaseKind::Promoting
            | PhaseKind::Draining
            | PhaseKind::Watching
            | PhaseKind::Paused => {}
        }
        self.back(Cause::Operator { by }, now);
        Ok(Done::Changed)
    }

    fn retry(&mut self, by: &str, now: Now) -> Outcome {
        match &self.phase {
            Phase::RolledBack {
                cause,
                since_unix_ms,
                cooldown_ms,
            } => {
                // A clock that stepped back makes no cooldown longer than it was.
                let passed_ms = now.unix_ms.saturating_sub(*since_unix_ms);
                let left_ms = cooldown_ms.saturating_sub(passed_ms);
                if left_ms > 0 {
                    let service = self.service();
                    return Err(Refused::new(
                        format!(
                            "version {} of {service} was rolled back ({cause}), and is refused for \
                             another {} s",
                            self.parts.version,
                            left_ms.div_ceil(1_000)
                        ),
                        format!(
                            "wait, or start a version that is mended: shifterctl start {service} \
                             VERSION"
                        ),
                    ));
                }
            }
            Phase::Failed { .. } => {}
            Phase::Succeeded { .. } | Phase::Superseded { .. } => {
                return Err(Refused::over(self.service(), &self.phase));
            }
            Phase::RollingBack { .. } => return Err(Refused::going_back(self.service())),
            Phase::Pending
            | Phase::Gated
            | Phase::Warming(_)
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Promoting(_)
            | Phase::Draining
            | Phase::Watching(_)
            | Phase::Paused { .. } => {
                return Ok(Done::Already("it is under way".into()));
            }
        }
        self.attempt += 1;
        self.aim = first_aim(self.spec());
        self.is_old_stopped = false;
        self.is_extended = false;
        self.watches = Default::default();
        self.answered = None;
        self.judgement = None;
        self.flows = Default::default();
        self.go(Resumption::Pending, by, now);
        Ok(Done::Changed)
    }

    fn answer(&mut self, name: &str, is_yes: bool, by: &str) -> Outcome {
        let service = self.service();
        let manual = |at: &GatePoint, check: &GateCheck| {
            *check == GateCheck::Manual && *at != GatePoint::Rollback
        };
        let gates = self.spec().gates.iter();
        let names: Vec<&str> = gates
            .filter(|gate| manual(&gate.at, &gate.check))
            .map(|gate| gate.name.as_str())
            .collect();
        if !names.contains(&name) {
            let help = if names.is_empty() {
                "its plan asks no person; see: shifterctl plan".to_owned()
            } else {
                format!("those that ask a person are: {}", names.join(", "))
            };
            let message = format!("the rollout of {service} has no gate {name:?} to answer");
            return Err(Refused::new(message, help));
        }
        let is_asked = self.asked_gate().is_some_and(|gate| gate.name == name);
        if is_asked {
            self.say(if is_yes {
                GateAnswer::Yes
            } else {
                GateAnswer::No(format!("rejected by {by}"))
            });
            self.answered = Some((name.to_owned(), is_yes));
            return Ok(Done::Changed);
        }
        if self.answered == Some((name.to_owned(), is_yes)) {
            return Ok(Done::Already("it was answered so before".into()));
        }
        Err(Refused::new(
            format!(
                "gate {name} of {service} is not being asked: the rollout is in {}",
                self.phase
            ),
            format!("see what it waits for: shifterctl status {service}"),
        ))
    }
}
