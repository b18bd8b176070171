//! What follows by itself from where a rollout stands and what it has seen.

use super::{Rollout, gates::Asked};
use crate::{
    analysis::Judgement,
    rollout::{
        event::Act,
        fault::{Fault, is_seeded},
        freeze::FreezeWindow,
        gate::GatePoint,
        phase::{
            BakeStage, Cause, MoveStage, PauseReason, Phase, RestoreStage, Resumption, WarmStage,
            WatchStage,
        },
        plan::{OnDrainTimeout, OnInconclusive, PlanKind},
        share::Share,
        time::Now,
    },
};

/// Phases and stages a rollout may run through at one event: fewer than there are.
const ADVANCES_MAX_COUNT: usize = 32;

impl Rollout {
    /// Goes as far as it can go without hearing more.
    pub(super) fn advance(&mut self, now: Now) {
        for _ in 0..ADVANCES_MAX_COUNT {
            let before = self.phase.clone();
            self.check_limits(now);
            self.advance_once(now);
            if self.phase == before {
                break;
            }
        }
        self.ask_alarms(now);
    }

    fn check_limits(&mut self, now: Now) {
        let limits = self.spec().limits;
        if self.watches.progress.is_running()
            && self.watches.progress.ran_ms() >= limits.progress_ms
        {
            self.back(
                Cause::Deadline {
                    phase: self.phase.kind(),
                },
                now,
            );
        }
        let is_too_late = |ran_ms, limit_ms| ran_ms >= limit_ms;
        if self.watches.unready.is_running()
            && is_too_late(self.watches.unready.ran_ms(), limits.unready_ms)
        {
            self.back(Cause::NotReady, now);
        }
    }

    fn advance_once(&mut self, now: Now) {
        match self.phase.clone() {
            Phase::Pending => self.advance_pending(now),
            Phase::Gated => self.on_answer(GatePoint::ConfirmStart, now, |this, now| {
                this.go(Resumption::Warming, "confirmed", now);
            }),
            Phase::Warming(stage) => self.advance_warming(stage, now),
            Phase::Shifting { step, stage } => self.advance_shifting(step, stage, now),
            Phase::Baking { step, stage } => self.advance_baking(step, stage, now),
            Phase::Promoting(stage) => self.advance_promoting(stage, now),
            Phase::Draining => self.advance_draining(now),
            Phase::Watching(stage) => self.advance_watching(stage, now),
            Phase::Paused { reason, back } => self.advance_paused(reason, back, now),
            Phase::Succeeded { warm_until_unix_ms } => {
                self.advance_succeeded(warm_until_unix_ms, now);
            }
            Phase::RollingBack { cause, stage } => self.advance_back(cause, stage, now),
            Phase::RolledBack { .. } | Phase::Failed { .. } | Phase::Superseded { .. } => {}
        }
    }

    /// Asks, and goes on with a yes; a no takes back what there is to take back.
    fn on_answer(&mut self, at: GatePoint, now: Now, go_on: impl FnOnce(&mut Self, Now)) {
        match self.ask(at, now) {
            Asked::Yes => go_on(self, now),
            Asked::No { gate, text } => self.back(Cause::Gate { at, gate, text }, now),
            Asked::Waiting => {}
        }
    }

    fn advance_pending(&mut self, now: Now) {
        let is_frozen = FreezeWindow::in_force(&self.spec().freezes, now.unix_ms).is_some();
        let needs_empty_slot = match self.spec().kind {
            PlanKind::Release | PlanKind::Rehearsal => true,
            PlanKind::Undo => false,
        };
        if !is_frozen && (!needs_empty_slot || self.flows.canary_count == Some(0)) {
            self.enter(Phase::Gated, "its slot is free", now);
        }
    }

    fn advance_warming(&mut self, stage: WarmStage, now: Now) {
        match stage {
            WarmStage::StoppingOld => self.issue(Act::Stop(self.baseline()), now),
            WarmStage::Starting => self.issue(Act::Start(self.parts.canary), now),
            WarmStage::Arming => self.issue(Act::Arm, now),
            WarmStage::Probing => {
                if self.is_canary_ready == Some(true) {
                    self.enter(Phase::Warming(WarmStage::Testing), "it is ready", now);
                } else if self.watches.warm.ran_ms() >= self.spec().limits.warm_ms {
                    self.back(Cause::NotReady, now);
                }
            }
            WarmStage::Testing => {
                if self.is_canary_ready == Some(false) {
                    self.enter(
                        Phase::Warming(WarmStage::Probing),
                        "it is not ready any more",
                        now,
                    );
                    return;
                }
                self.on_answer(GatePoint::PreTraffic, now, |this, now| {
                    match this.spec().kind {
                        PlanKind::Rehearsal => this.back(Cause::Rehearsal, now),
                        PlanKind::Release | PlanKind::Undo => {
                            this.go(this.aim, "it is warm", now);
                        }
                    }
                });
            }
        }
    }

    fn advance_shifting(&mut self, step: u16, stage: MoveStage, now: Now) {
        match stage {
            MoveStage::Confirming => {
                let storing = move |this: &mut Self, now| {
                    let stage = MoveStage::Storing;
                    this.store(Phase::Shifting { step, stage }, this.share_of(step), now);
                };
                if self.is_canary_ready != Some(true) {
                    return;
                }
                // Before the first step it was `pre-traffic` that was asked.
                if step == 0 {
                    storing(self, now);
                } else {
                    self.on_answer(GatePoint::ConfirmIncrease, now, storing);
                }
            }
            MoveStage::Storing => self.issue(Act::Give(self.asked.clone()), now),
        }
    }

    fn advance_promoting(&mut self, stage: MoveStage, now: Now) {
        match stage {
            MoveStage::Confirming => {
                if self.is_canary_ready != Some(true) {
                    return;
                }
                self.on_answer(GatePoint::ConfirmPromote, now, |this, now| {
                    this.store(Phase::Promoting(MoveStage::Storing), Share::FULL, now);
                });
            }
            MoveStage::Storing => self.issue(Act::Give(Share::FULL), now),
        }
    }

    /// From here on the share may be in force.
    fn store(&mut self, phase: Phase, share: Share, now: Now) {
        let why = format!("to {share}");
        self.asked = share;
        self.enter(phase, why, now);
    }

    fn share_of(&self, step: u16) -> Share {
        let step = self.spec().steps.get(usize::from(step));
        step.map_or(Share::FULL, |step| step.share.clone())
    }

    /// How long a step is observed, milliseconds.
    pub(super) fn bake_limit_ms(&self, step: u16) -> u64 {
        let step = self.spec().steps.get(usize::from(step));
        let bake_ms = step.map_or(0, |step| step.bake_ms);
        bake_ms.saturating_mul(if self.is_extended { 2 } else { 1 })
    }

    fn advance_baking(&mut self, step: u16, stage: BakeStage, now: Now) {
        match stage {
            BakeStage::Observing => {
                let is_over = self.watches.bake.ran_ms() >= self.bake_limit_ms(step);
                if is_over && self.is_canary_ready == Some(true) {
                    self.end_bake(step, now);
                }
            }
            BakeStage::Testing => self.on_answer(GatePoint::EachStep, now, |this, now| {
                let is_manual = this
                    .spec()
                    .steps
                    .get(usize::from(step))
                    .is_some_and(|step| step.is_manual);
                let next = this.after_step(step);
                if is_manual {
                    let reason = PauseReason::Step { step };
                    this.pause(reason, next, now);
                } else {
                    this.go(next, "the step is over", now);
                }
            }),
        }
    }

    /// Observed long enough: on, unless the evidence holds it.
    fn end_bake(&mut self, step: u16, now: Now) {
        let analysis = self
            .spec()
            .analysis
            .filter(|analysis| step >= analysis.from_step);
        let testing = Phase::Baking {
            step,
            stage: BakeStage::Testing,
        };
        let Some(analysis) = analysis else {
            return self.enter(testing, "observed", now);
        };
        let reason = match self.judgement {
            Some(Judgement::Pass) => return self.enter(testing, "observed and judged good", now),
            Some(Judgement::Fail) => return self.back(Cause::Judged, now),
            Some(Judgement::Inconclusive) => PauseReason::Inconclusive,
            Some(Judgement::NoData) | None => PauseReason::NoData,
        };
        match analysis.on_inconclusive {
            OnInconclusive::Extend if !self.is_extended => {
                self.is_extended = true;
                let stage = BakeStage::Observing;
                self.enter(
                    Phase::Baking { step, stage },
                    format!("extended: {reason}"),
                    now,
                );
            }
            OnInconclusive::Rollback if reason == PauseReason::Inconclusive => {
                self.back(Cause::Inconclusive, now);
            }
            OnInconclusive::Extend | OnInconclusive::Pause | OnInconclusive::Rollback => {
                self.pause(reason, Resumption::Baking(step), now);
            }
        }
    }

    fn advance_draining(&mut self, now: Now) {
        if self.flows.baseline_count == Some(0) {
            self.begin_watch("the old version has no flow left", now);
        } else if self.watches.drain.ran_ms() >= self.spec().limits.drain_ms {
            match self.spec().on_drain_timeout {
                OnDrainTimeout::Keep => {
                    self.begin_watch("the old version's last flows may continue", now);
                }
                OnDrainTimeout::Reset => self.issue(Act::ResetFlows(self.baseline()), now),
            }
        }
    }

    pub(super) fn begin_watch(&mut self, why: impl Into<String>, now: Now) {
        self.watches.watch.reset();
        self.go(Resumption::Watching, why, now);
    }

    fn advance_watching(&mut self, stage: WatchStage, now: Now) {
        match stage {
            WatchStage::Observing => {
                let is_over = self.watches.watch.ran_ms() >= self.spec().watch_ms;
                if is_over && self.is_canary_ready == Some(true) {
                    self.enter(Phase::Watching(WatchStage::Testing), "watched", now);
                }
            }
            WatchStage::Testing => match self.ask(GatePoint::PostRollout, now) {
                Asked::Yes => self.enter(Phase::Watching(WatchStage::Committing), "done", now),
                Asked::No { gate, text } => {
                    self.pause(PauseReason::Gate { gate, text }, Resumption::Watching, now);
                }
                Asked::Waiting => {}
            },
            WatchStage::Committing => self.issue(Act::Commit, now),
        }
    }

    fn advance_paused(&mut self, reason: PauseReason, back: Resumption, now: Now) {
        match reason {
            PauseReason::Rebooted { stage } => match stage {
                RestoreStage::Taking => self.issue(Act::TakeBack, now),
                RestoreStage::StartingOld => self.issue(Act::Start(self.baseline()), now),
                RestoreStage::Resetting => {
                    let stage = RestoreStage::Done;
                    self.pause(PauseReason::Rebooted { stage }, back, now);
                }
                RestoreStage::Done => {}
            },
            PauseReason::BaselineDown { cause } => {
                if self.is_baseline_ready == Some(true) {
                    self.back(cause, now);
                }
            }
            PauseReason::Operator { .. }
            | PauseReason::Step { .. }
            | PauseReason::Inconclusive
            | PauseReason::NoData
            | PauseReason::Gate { .. } => {}
        }
    }

    /// The old version is stopped when its time is over, nobody uses it, and it need not stand in for
    /// the new one.
    fn advance_succeeded(&mut self, warm_until_unix_ms: Option<u64>, now: Now) {
        let is_over = warm_until_unix_ms.is_some_and(|until_ms| now.unix_ms >= until_ms);
        let is_unused = self.flows.baseline_count == Some(0) || is_seeded(Fault::StopsBusySlot);
        if is_over && is_unused && self.is_canary_ready == Some(true) {
            self.issue(Act::Stop(self.baseline()), now);
        }
    }
}
