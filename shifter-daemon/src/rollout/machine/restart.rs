//! Going on after a crash, a stop or a boot.

use super::Rollout;
use crate::rollout::{
    event::{Act, Seen},
    fault::{Fault, is_seeded},
    phase::{Cause, PauseReason, Phase, RestoreStage, Resumption, WarmStage, WatchStage},
    plan::PlanKind,
    share::Share,
    time::Now,
};

impl Rollout {
    /// Must be the first event after the rollout was read from the disk.
    pub(super) fn restarted(&mut self, is_rebooted: bool, seen: Seen, now: Now) {
        self.forget_questions();
        self.outstanding = None;
        self.retry_at_ms = None;
        self.effects.clear();
        self.is_canary_ready = None;
        self.is_baseline_ready = None;
        self.judgement = None;
        self.flows = Default::default();
        if seen.is_committed && self.phase == Phase::Watching(WatchStage::Committing) {
            // The last deed was done, and only word of it was lost.
            self.succeeded_in(Act::Commit, now);
        } else if is_rebooted {
            self.rebooted(now);
        } else {
            self.crashed(seen, now);
        }
    }

    /// The host is as before. What the kernel was told and the disk was not is a rollback.
    fn crashed(&mut self, seen: Seen, now: Now) {
        let is_known = match &self.phase {
            Phase::Paused { reason, .. } => matches!(reason, PauseReason::Rebooted { .. }),
            phase => phase.is_final() || matches!(phase, Phase::RollingBack { .. }),
        };
        let has_share = seen.weight_bp > 0 || seen.has_targets;
        let is_lost = !self.share.is_none() && !has_share;
        if has_share
            && seen.weight_bp == self.asked.weight_bp
            && seen.has_targets != self.asked.targets.is_empty()
        {
            // It was given, and word of it was lost.
            self.share = self.asked.clone();
        }
        let is_forgotten = is_seeded(Fault::ForgetsTakenBack);
        let is_found = seen.is_taken_back && self.is_latch_own() || is_lost;
        if is_found && !is_known && !is_forgotten {
            self.back(Cause::FoundTakenBack, now);
        }
    }

    /// Whether a latch in the kernel is of this rollout: others were forgotten when it was armed.
    fn is_latch_own(&self) -> bool {
        // A rehearsal has nothing that could be given by mistake, and takes back again.
        if self.spec().kind == PlanKind::Rehearsal {
            return false;
        }
        match self.resumption() {
            Some(
                Resumption::Shifting(_)
                | Resumption::Baking(_)
                | Resumption::Promoting
                | Resumption::Draining
                | Resumption::Watching,
            ) => true,
            Some(Resumption::Warming) => matches!(
                self.phase,
                Phase::Warming(WarmStage::Probing | WarmStage::Testing)
            ),
            Some(Resumption::Pending | Resumption::Gated) | None => false,
        }
    }

    /// The kernel knows nothing any more, and no version runs but those that start by themselves.
    fn rebooted(&mut self, now: Now) {
        let Some(resumption) = self.resumption() else {
            if let Phase::RollingBack { cause, .. } = self.phase.clone() {
                self.is_old_stopped = true;
                self.begin_back(cause, now);
            }
            return;
        };
        self.share = Share::NONE;
        if let Phase::Paused {
            reason: PauseReason::BaselineDown { cause },
            ..
        } = self.phase.clone()
        {
            self.is_old_stopped = true;
            return self.begin_back(cause, now);
        }
        let back = match resumption {
            Resumption::Pending => Resumption::Pending,
            Resumption::Gated => Resumption::Gated,
            Resumption::Warming => Resumption::Warming,
            Resumption::Shifting(step) | Resumption::Baking(step) => {
                self.aim = Resumption::Shifting(step);
                Resumption::Warming
            }
            Resumption::Promoting | Resumption::Draining | Resumption::Watching => {
                self.aim = Resumption::Promoting;
                Resumption::Warming
            }
        };
        self.is_old_stopped = true;
        let stage = RestoreStage::Taking;
        self.pause(PauseReason::Rebooted { stage }, back, now);
    }
}
