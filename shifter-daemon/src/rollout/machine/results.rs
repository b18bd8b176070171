//! What became of effects.

use super::{RETRY_BACK_MS, RETRY_MS, Rollout};
use crate::rollout::{
    event::{Act, Order, SlotFlows},
    phase::{BakeStage, Cause, PauseReason, Phase, RestoreStage, WarmStage},
    share::Share,
    time::Now,
};

impl Rollout {
    /// Takes a result. One of an effect that is not waited for any more is ignored.
    pub(super) fn effect_done(&mut self, id: u64, result: Result<(), String>, now: Now) {
        let Some(effect) = self.outstanding.take_if(|effect| effect.id == id) else {
            return;
        };
        match result {
            Ok(()) => {
                self.trouble = None;
                self.succeeded_in(effect.act, now);
            }
            Err(text) => self.failed_in(&effect.act, text, now),
        }
    }

    pub(super) fn succeeded_in(&mut self, act: Act, now: Now) {
        match act {
            Act::Arm => self.enter(Phase::Warming(WarmStage::Probing), "armed", now),
            Act::Give(share) => self.given(share, now),
            Act::TakeBack => {
                self.share = Share::NONE;
                self.asked = Share::NONE;
                self.restored(RestoreStage::Taking, "taken back", now);
            }
            Act::Commit => {
                self.share = Share::NONE;
                self.asked = Share::NONE;
                let until_ms = now.unix_ms.saturating_add(self.spec().keep_warm_ms);
                self.flows = SlotFlows::default();
                // The slot of the old version belongs to the one that follows, if one does.
                let is_warm = self.superseded_by.is_none() && !self.is_old_stopped;
                let warm_until_unix_ms = is_warm.then_some(until_ms);
                self.is_old_stopped = false;
                self.enter(
                    Phase::Succeeded { warm_until_unix_ms },
                    "it is the baseline",
                    now,
                );
            }
            Act::Start(slot) if slot == self.parts.canary => {
                self.enter(Phase::Warming(WarmStage::Arming), "started", now);
            }
            Act::Start(_) => {
                self.is_old_stopped = false;
                self.restored(RestoreStage::StartingOld, "the old version is started", now);
            }
            Act::Stop(_) => match &self.phase {
                Phase::Succeeded { .. } => {
                    let phase = Phase::Succeeded {
                        warm_until_unix_ms: None,
                    };
                    self.enter(phase, "the old version is stopped", now);
                }
                _ => self.enter(
                    Phase::Warming(WarmStage::Starting),
                    "the old version is stopped",
                    now,
                ),
            },
            Act::ResetFlows(_) => match self.phase.clone() {
                Phase::RollingBack { cause, .. } => {
                    self.end_back(cause, "its flows were reset", now);
                }
                _ => self.begin_watch("the old version's last flows were reset", now),
            },
            // Gates answer by an event of their own.
            Act::Ask { .. } => {}
        }
    }

    fn given(&mut self, share: Share, now: Now) {
        self.share = share;
        self.judgement = None;
        // What was counted before says nothing about what comes.
        self.flows = SlotFlows::default();
        match self.phase {
            Phase::Shifting { step, .. } => {
                self.watches.bake.reset();
                self.is_extended = false;
                let stage = BakeStage::Observing;
                self.enter(Phase::Baking { step, stage }, "in force", now);
            }
            _ => {
                self.watches.drain.reset();
                self.enter(Phase::Draining, "in force", now);
            }
        }
    }

    /// One stage of the way back is done.
    fn restored(&mut self, stage: RestoreStage, why: &str, now: Now) {
        let next = match stage {
            RestoreStage::Taking if self.is_old_stopped => RestoreStage::StartingOld,
            RestoreStage::Taking | RestoreStage::StartingOld => RestoreStage::Resetting,
            RestoreStage::Resetting | RestoreStage::Done => RestoreStage::Done,
        };
        match self.phase.clone() {
            Phase::RollingBack { cause, .. } => {
                self.enter(Phase::RollingBack { cause, stage: next }, why, now);
            }
            Phase::Paused { back, .. } => {
                let reason = PauseReason::Rebooted { stage: next };
                self.enter(Phase::Paused { reason, back }, why, now);
            }
            _ => {}
        }
    }

    fn failed_in(&mut self, act: &Act, text: String, now: Now) {
        match act {
            Act::Start(slot) if *slot == self.parts.canary => {
                return self.back(Cause::Start { text }, now);
            }
            // What is left of them ends by itself.
            Act::ResetFlows(_) => {
                let why = format!("flows were not reset: {text}");
                return match self.phase.clone() {
                    Phase::RollingBack { cause, .. } => self.end_back(cause, &why, now),
                    _ => self.begin_watch(why, now),
                };
            }
            Act::Arm
            | Act::Give(_)
            | Act::TakeBack
            | Act::Commit
            | Act::Start(_)
            | Act::Stop(_)
            | Act::Ask { .. } => {}
        }
        self.trouble = Some(format!("{act} failed: {text}"));
        let pause_ms = match act.order() {
            Order::DeedFirst => RETRY_BACK_MS,
            Order::DiskFirst => RETRY_MS,
        };
        self.retry_at_ms = Some(now.mono_ms.saturating_add(pause_ms));
    }
}
