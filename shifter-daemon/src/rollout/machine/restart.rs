//! Going on after a crash, a stop or a boot.

use super::Rollout;
use crate::rollout::{
    event::Seen,
    fault::{Fault, is_seeded},
    phase::{Cause, PauseReason, Phase, RestoreStage, Resumption},
    share::Share,
    time::Now,
};

impl Rollout {
    /// Must be the first event after the rollout was read from the disk.
    pub(super) fn restarted(&mut self, is_rebooted: bool, seen: Seen, now: Now) {
        if !is_seeded(Fault::BakesUnseen) {
            self.watches.rebase(now);
        }
        self.forget_questions();
        self.outstanding = None;
        self.retry_at_ms = None;
        self.effects.clear();
        self.is_canary_ready = None;
        self.is_baseline_ready = None;
        self.judgement = None;
        self.flows = Default::default();
        if is_rebooted {
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
        let is_lost = !self.share.is_none() && !seen.has_share;
        let is_forgotten = is_seeded(Fault::ForgetsTakenBack);
        if self.has_share() && !is_known && (seen.is_taken_back || is_lost) && !is_forgotten {
            self.back(Cause::FoundTakenBack, now);
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
