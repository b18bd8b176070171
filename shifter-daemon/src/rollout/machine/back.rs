//! The way back.

use shifter_common::wire::EstablishedPolicy;

use super::Rollout;
use crate::{
    analysis::Judgement,
    rollout::{
        event::Act,
        fault::{Fault, is_seeded},
        label::Label,
        phase::{Cause, PauseReason, Phase, RestoreStage, Resumption, WatchStage},
        share::Share,
        time::Now,
    },
};

impl Rollout {
    /// Takes the traffic back, if there is any to take back, and ends.
    pub(super) fn back(&mut self, cause: Cause, now: Now) {
        let Some(resumption) = self.resumption() else {
            return;
        };
        let is_rehearsal = cause == Cause::Rehearsal;
        if !self.has_share() && !self.is_old_stopped && !is_rehearsal {
            let why = cause.to_string();
            let phase = match cause {
                Cause::Superseded { by } => Phase::Superseded { by },
                cause => Phase::Failed { cause },
            };
            return self.enter(phase, why, now);
        }
        // What has happened already needs nobody's leave, nor what a person asks for.
        let may_wait = cause.is_automatic()
            && !matches!(cause, Cause::Tripped | Cause::FoundTakenBack)
            && !self.is_old_stopped;
        if may_wait && self.is_baseline_ready == Some(false) {
            let is_waiting = matches!(
                self.phase,
                Phase::Paused {
                    reason: PauseReason::BaselineDown { .. },
                    ..
                }
            );
            if !is_waiting {
                self.pause(PauseReason::BaselineDown { cause }, resumption, now);
            }
            return;
        }
        self.begin_back(cause, now);
    }

    /// One store, whatever the step; bookkeeping follows.
    pub(super) fn begin_back(&mut self, cause: Cause, now: Now) {
        let why = cause.to_string();
        let stage = RestoreStage::Taking;
        // So that the record says what it goes back to. What it has is in `share` until it is taken.
        self.asked = Share::NONE;
        self.enter(Phase::RollingBack { cause, stage }, why, now);
    }

    pub(super) fn advance_back(&mut self, cause: Cause, stage: RestoreStage, now: Now) {
        match stage {
            RestoreStage::Taking => self.issue(Act::TakeBack, now),
            RestoreStage::StartingOld => self.issue(Act::Start(self.baseline()), now),
            RestoreStage::Resetting => {
                let is_wanted = match self.spec().established {
                    EstablishedPolicy::Reset => cause != Cause::Rehearsal,
                    // Whoever falls silent is reset beside the rollout, which does not wait for it.
                    EstablishedPolicy::Drain | EstablishedPolicy::ResetIdle => false,
                };
                // Without the old version its clients would come back to where they are.
                if is_wanted && self.is_baseline_ready == Some(true) {
                    self.issue(Act::ResetFlows(self.parts.canary), now);
                } else {
                    self.end_back(cause, "the old version has everything", now);
                }
            }
            RestoreStage::Done => self.end_back(cause, "the old version has everything", now),
        }
    }

    pub(super) fn end_back(&mut self, cause: Cause, why: &str, now: Now) {
        if let Some(by) = self.superseded_by.take() {
            return self.enter(Phase::Superseded { by }, why, now);
        }
        let cooldown_ms = if cause.is_automatic() {
            self.spec().cooldown_ms
        } else {
            0
        };
        let phase = Phase::RolledBack {
            cause,
            since_unix_ms: now.unix_ms,
            cooldown_ms,
        };
        self.enter(phase, why, now);
    }

    pub(super) fn pause(&mut self, reason: PauseReason, back: Resumption, now: Now) {
        let why = reason.to_string();
        self.enter(Phase::Paused { reason, back }, why, now);
    }

    /// Takes a judgement. *Fail* counts in every phase with a share from the first step that is
    /// judged on, paused ones too.
    pub(super) fn judged(&mut self, judgement: Judgement, now: Now) {
        let Some(analysis) = self.spec().analysis else {
            return;
        };
        let counts = match self.resumption() {
            Some(Resumption::Shifting(step) | Resumption::Baking(step)) => {
                step >= analysis.from_step
            }
            Some(Resumption::Promoting | Resumption::Draining | Resumption::Watching) => true,
            Some(Resumption::Pending | Resumption::Gated | Resumption::Warming) | None => false,
        };
        if !counts || !self.has_share() {
            return;
        }
        self.judgement = Some(judgement);
        match judgement {
            Judgement::Fail => self.back(Cause::Judged, now),
            Judgement::Pass | Judgement::Inconclusive | Judgement::NoData => {}
        }
    }

    /// The kernel has taken the traffic back already.
    pub(super) fn tripped(&mut self, now: Now) {
        let is_ignored =
            matches!(self.phase, Phase::Paused { .. }) && is_seeded(Fault::PauseIgnoresTrip);
        if self.has_share() && !is_ignored {
            self.back(Cause::Tripped, now);
        }
    }

    /// Another version is wanted. One that has everything stays: the other one follows it.
    pub(super) fn superseded(&mut self, by: Label, now: Now) {
        match self.resumption() {
            Some(Resumption::Draining | Resumption::Watching) => {
                let why = format!("version {by} is to follow it");
                self.superseded_by = Some(by);
                let is_committing = self.phase == Phase::Watching(WatchStage::Committing);
                if !is_committing {
                    self.enter(Phase::Watching(WatchStage::Committing), why, now);
                }
            }
            Some(_) => {
                self.superseded_by = Some(by.clone());
                self.back(Cause::Superseded { by }, now);
            }
            None => match &self.phase {
                Phase::RollingBack { .. } => self.superseded_by = Some(by),
                // Its old version's slot belongs to the other rollout from now on.
                Phase::Succeeded {
                    warm_until_unix_ms: Some(_),
                } => {
                    let phase = Phase::Succeeded {
                        warm_until_unix_ms: None,
                    };
                    self.enter(
                        phase,
                        format!("version {by} takes the old version's slot"),
                        now,
                    );
                }
                _ => {}
            },
        }
    }
}
