//! The state machine.

mod advance;
mod back;
mod commands;
mod gates;
mod restart;
mod results;
mod waiting;
mod watches;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use shifter_common::steering::Slot;

pub use self::waiting::Waiting;
use self::{
    gates::{Alarm, Asking},
    watches::Watches,
};
use super::{
    event::{Act, Done, Effect, Event, Order, SlotFlows, Transition},
    fault::{Fault, is_seeded},
    label::Label,
    phase::{Phase, Resumption, WarmStage},
    plan::{FrozenPlan, Plan},
    refused::Refused,
    share::Share,
    time::Now,
};
use crate::analysis::Judgement;

/// Time before something that failed is tried again, milliseconds.
pub(super) const RETRY_MS: u64 = 10_000;
/// Time before a rollback that failed is tried again, milliseconds.
pub(super) const RETRY_BACK_MS: u64 = 1_000;

/// What a rollout is about; fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutParts {
    /// Its number in the service's history.
    pub id: u64,
    /// The service.
    pub service: String,
    /// The version on trial.
    pub version: Label,
    /// The version that was there before, if it is known.
    pub old_version: Option<Label>,
    /// The slot of the version on trial.
    pub canary: Slot,
}

/// A rollout. What is kept on a disk is enough to go on with after a crash: effects that were under
/// way are asked for again, questions are asked again, and what was seen of the world counts as
/// unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    parts: RolloutParts,
    plan: FrozenPlan,
    phase: Phase,
    attempt: u32,
    /// The share that is known to be in force.
    share: Share,
    /// The share that was asked for last; set before it can be in force.
    asked: Share,
    /// Where Warming leads.
    aim: Resumption,
    /// Whether the old version may have been stopped.
    is_old_stopped: bool,
    /// Whether the present bake was extended.
    is_extended: bool,
    /// The version that takes this one's place when the traffic is back.
    superseded_by: Option<Label>,
    watches: Watches,
    asking: Option<Asking>,
    /// The gate a person answered last, and how.
    answered: Option<(String, bool)>,
    next_id: u64,
    #[serde(skip)]
    alarm: Alarm,
    #[serde(skip)]
    outstanding: Option<Effect>,
    /// When what failed is tried again, monotonic milliseconds.
    #[serde(skip)]
    retry_at_ms: Option<u64>,
    #[serde(skip)]
    trouble: Option<String>,
    #[serde(skip)]
    effects: VecDeque<Effect>,
    #[serde(skip)]
    transitions: Vec<Transition>,
    #[serde(skip)]
    is_canary_ready: Option<bool>,
    #[serde(skip)]
    is_baseline_ready: Option<bool>,
    #[serde(skip)]
    flows: SlotFlows,
    #[serde(skip)]
    judgement: Option<Judgement>,
}

impl Rollout {
    /// A rollout that has not begun. Whether it may begin is for [`super::admit`] to say.
    pub fn new(parts: RolloutParts, plan: FrozenPlan) -> Self {
        let aim = first_aim(plan.plan());
        Self {
            parts,
            plan,
            phase: Phase::Pending,
            attempt: 1,
            share: Share::NONE,
            asked: Share::NONE,
            aim,
            is_old_stopped: false,
            is_extended: false,
            superseded_by: None,
            watches: Watches::default(),
            asking: None,
            answered: None,
            next_id: 1,
            alarm: Alarm::default(),
            outstanding: None,
            retry_at_ms: None,
            trouble: None,
            effects: VecDeque::new(),
            transitions: Vec::new(),
            is_canary_ready: None,
            is_baseline_ready: None,
            flows: SlotFlows::default(),
            judgement: None,
        }
    }

    /// What it is about.
    pub fn parts(&self) -> &RolloutParts {
        &self.parts
    }

    /// Its plan.
    pub fn plan(&self) -> &FrozenPlan {
        &self.plan
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How often it was tried, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The share that is known to be in force.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// The share that was asked for last; it may be in force.
    pub fn asked(&self) -> &Share {
        &self.asked
    }

    /// Whether an operator may set the weight by hand: not while a rollout does.
    pub fn allows_weight_by_hand(&self) -> bool {
        self.phase.is_final() || matches!(self.phase, Phase::Paused { .. })
    }

    /// Observed time of the present bake, milliseconds.
    pub fn baked_ms(&self) -> u64 {
        self.watches.bake.ran_ms()
    }

    /// Takes what happened. Everything but a command is always accepted.
    ///
    /// # Errors
    /// If a command cannot be carried out; nothing has changed then.
    pub fn handle(&mut self, event: Event, now: Now) -> Result<Done, Refused> {
        let is_new_life = matches!(event, Event::Restarted { .. });
        if is_new_life && !is_seeded(Fault::BakesUnseen) {
            // Nobody saw the time between.
            self.watches.rebase(now);
        }
        self.watches.settle(now);
        self.reconsider();
        let mut done = Done::Changed;
        match event {
            Event::Command(command) => done = self.command(command, now)?,
            Event::Tick => {}
            Event::EffectDone { id, result } => self.effect_done(id, result, now),
            Event::GateAnswered { id, answer } => self.gate_answered(id, answer, now),
            Event::Readiness {
                is_canary_ready,
                is_baseline_ready,
            } => {
                self.is_canary_ready = Some(is_canary_ready);
                self.is_baseline_ready = Some(is_baseline_ready);
                if !is_canary_ready {
                    // The other version stands in: what was counted of it is over.
                    self.flows.baseline_count = None;
                }
            }
            Event::Flows(flows) => self.flows = flows,
            Event::Judged(judgement) => self.judged(judgement, now),
            Event::Tripped => self.tripped(now),
            Event::Superseded { by } => self.superseded(by, now),
            Event::Restarted { is_rebooted, seen } => self.restarted(is_rebooted, seen, now),
        }
        self.advance(now);
        self.watch(now);
        Ok(done)
    }

    /// The next thing to be done, if there is one. What takes traffic back comes first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to be done before anything is kept on a disk.
    pub fn poll_urgent(&mut self) -> Option<Effect> {
        let is_urgent = |effect: &Effect| {
            effect.act.order() == Order::DeedFirst && !is_seeded(Fault::RollbackWaitsForDisk)
        };
        self.effects.pop_front_if(|effect| is_urgent(effect))
    }

    /// What has to be kept together with the rollout itself.
    pub fn transitions(&self) -> &[Transition] {
        &self.transitions
    }

    /// To be called when the transitions are on disk.
    pub fn forget_transitions(&mut self) {
        self.transitions.clear();
    }

    /// The slot of the version that was there before.
    fn baseline(&self) -> Slot {
        self.parts.canary.other()
    }

    fn spec(&self) -> &Plan {
        self.plan.plan()
    }

    /// Whether the version on trial has, or may have, a share of new flows.
    fn has_share(&self) -> bool {
        !self.asked.is_none() || !self.share.is_none()
    }

    /// Changes the phase, with a line in the record.
    fn enter(&mut self, phase: Phase, why: impl Into<String>, now: Now) {
        self.transitions.push(Transition {
            unix_ms: now.unix_ms,
            from: self.phase.to_string(),
            to: phase.to_string(),
            why: why.into(),
            share_before: self.share.clone(),
            share_after: self.asked.clone(),
        });
        self.phase = phase;
        self.watches.progress.reset();
        self.asking = None;
        self.outstanding = None;
        self.retry_at_ms = None;
        self.trouble = None;
        let alarm = self.alarm.id();
        self.effects.retain(|effect| Some(effect.id) == alarm);
    }

    /// Goes on where a pause, or Warming, leads.
    fn go(&mut self, to: Resumption, why: impl Into<String>, now: Now) {
        use super::phase::{BakeStage, MoveStage, WatchStage};
        let phase = match to {
            Resumption::Pending => Phase::Pending,
            Resumption::Gated => Phase::Gated,
            Resumption::Warming => {
                self.watches.warm.reset();
                if self.spec().is_old_first {
                    // Before it can be, so that no crash forgets it.
                    self.is_old_stopped = true;
                    Phase::Warming(WarmStage::StoppingOld)
                } else {
                    Phase::Warming(WarmStage::Starting)
                }
            }
            Resumption::Shifting(step) => Phase::Shifting {
                step,
                stage: MoveStage::Confirming,
            },
            Resumption::Baking(step) => Phase::Baking {
                step,
                stage: BakeStage::Observing,
            },
            Resumption::Promoting => Phase::Promoting(MoveStage::Confirming),
            Resumption::Draining => Phase::Draining,
            Resumption::Watching => Phase::Watching(WatchStage::Observing),
        };
        self.enter(phase, why, now);
    }

    /// What follows a step.
    fn after_step(&self, step: u16) -> Resumption {
        let next = step.saturating_add(1);
        if usize::from(next) < self.spec().steps.len() {
            Resumption::Shifting(next)
        } else {
            Resumption::Promoting
        }
    }

    /// Asks for something, unless something is under way or failed a moment ago.
    fn issue(&mut self, act: Act, now: Now) {
        let is_soon = self.retry_at_ms.is_some_and(|at_ms| now.mono_ms < at_ms);
        if self.outstanding.is_some() || is_soon {
            return;
        }
        let effect = Effect {
            id: self.take_id(),
            act,
        };
        self.outstanding = Some(effect.clone());
        match effect.act.order() {
            Order::DeedFirst => self.effects.push_front(effect),
            Order::DiskFirst => self.effects.push_back(effect),
        }
    }

    /// Takes back what was asked for and waits for the disk: what has happened since may speak against
    /// it. If not, it is asked for again.
    fn reconsider(&mut self) {
        let Some(id) = self.outstanding.as_ref().map(|effect| effect.id) else {
            return;
        };
        let before_count = self.effects.len();
        self.effects.retain(|effect| effect.id != id);
        if self.effects.len() < before_count {
            self.outstanding = None;
        }
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Where the present phase would go on after a pause; `None` where there is no pause.
    fn resumption(&self) -> Option<Resumption> {
        Some(match &self.phase {
            Phase::Pending => Resumption::Pending,
            Phase::Gated => Resumption::Gated,
            Phase::Warming(_) => Resumption::Warming,
            Phase::Shifting { step, .. } => Resumption::Shifting(*step),
            Phase::Baking { step, .. } => Resumption::Baking(*step),
            Phase::Promoting(_) => Resumption::Promoting,
            Phase::Draining => Resumption::Draining,
            Phase::Watching(_) => Resumption::Watching,
            Phase::Paused { back, .. } => *back,
            Phase::RollingBack { .. }
            | Phase::Succeeded { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. }
            | Phase::Superseded { .. } => return None,
        })
    }
}

/// Where a plan's traffic begins.
fn first_aim(plan: &Plan) -> Resumption {
    if plan.steps.is_empty() {
        Resumption::Promoting
    } else {
        Resumption::Shifting(0)
    }
}
