//! What a rollout waits for, and what moves it.

use super::Rollout;
use crate::rollout::{
    freeze::FreezeWindow,
    phase::{
        BakeStage, MoveStage, PauseReason, Phase, RestoreStage, Resumption, WarmStage, WatchStage,
    },
    time::Now,
};

/// What is waited for, and the command that does not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What.
    pub on: String,
    /// The command that moves it.
    pub moves: String,
}

impl Rollout {
    /// What it waits for; `None` when it is over and waits for nothing.
    pub fn waiting_on(&self, now: Now) -> Option<Waiting> {
        let service = &self.parts.service;
        let command = |verb: &str| format!("shifterctl {verb} {service}");
        let waiting = |on: String, verb: &str| {
            Some(Waiting {
                on: match &self.trouble {
                    Some(trouble) => format!("{on}; {trouble}, tried again"),
                    None => on,
                },
                moves: command(verb),
            })
        };
        let limits = self.spec().limits;
        let watches = &self.watches;
        let is_unready = self.is_canary_ready != Some(true);
        if let Some(waiting) = self.waiting_on_gate() {
            return Some(waiting);
        }
        match &self.phase {
            Phase::Pending => {
                let on = match FreezeWindow::in_force(&self.spec().freezes, now.unix_ms) {
                    Some(window) => format!(
                        "the freeze ({}), for another {}",
                        window.reason,
                        seconds(window.until_unix_ms - now.unix_ms)
                    ),
                    None => match self.flows.canary_count {
                        None => format!("a count of the flows in slot {}", self.parts.canary),
                        Some(count) => format!(
                            "the last {count} flows in slot {}, of the version that was there",
                            self.parts.canary
                        ),
                    },
                };
                waiting(on, "abort")
            }
            Phase::Gated => waiting("the gates at confirm-start".into(), "abort"),
            Phase::Warming(stage) => {
                let on = match stage {
                    WarmStage::StoppingOld => "the old version to stop".into(),
                    WarmStage::Starting => "the new version to start".into(),
                    WarmStage::Arming => "the packet path".into(),
                    WarmStage::Probing => format!(
                        "the new version to be ready, for another {} at most",
                        seconds(limits.warm_ms.saturating_sub(watches.warm.ran_ms()))
                    ),
                    WarmStage::Testing => "the gates at pre-traffic".into(),
                };
                waiting(on, "abort")
            }
            Phase::Shifting { stage, .. } | Phase::Promoting(stage) => {
                let on = match stage {
                    MoveStage::Confirming if is_unready => "the new version to be ready",
                    MoveStage::Confirming => "the gates before it",
                    MoveStage::Storing => "the packet path",
                };
                waiting(on.into(), "abort")
            }
            Phase::Baking { step, stage } => {
                let left_ms = self
                    .bake_limit_ms(*step)
                    .saturating_sub(watches.bake.ran_ms());
                let on = match stage {
                    BakeStage::Observing if is_unready => {
                        "the new version to be ready: the bake stands still".into()
                    }
                    BakeStage::Observing => {
                        format!("another {} of observed time", seconds(left_ms))
                    }
                    BakeStage::Testing => "the gates at each-step".into(),
                };
                // With its step named the command may be repeated.
                let step = step.saturating_add(1);
                waiting(on, &format!("promote --skip-step --step {step}"))
            }
            Phase::Draining => {
                let left_ms = limits.drain_ms.saturating_sub(watches.drain.ran_ms());
                let flows = match self.flows.baseline_count {
                    Some(count) => format!("{count} flows of the old version"),
                    None => "the old version's flows".into(),
                };
                waiting(
                    format!("{flows} to end, for another {} at most", seconds(left_ms)),
                    "promote --skip-step",
                )
            }
            Phase::Watching(stage) => {
                let left_ms = self.spec().watch_ms.saturating_sub(watches.watch.ran_ms());
                let on = match stage {
                    WatchStage::Observing if is_unready => {
                        "the new version to be ready: the watch stands still".into()
                    }
                    WatchStage::Observing => format!("another {} of the watch", seconds(left_ms)),
                    WatchStage::Testing => "the gates at post-rollout".into(),
                    WatchStage::Committing => "the packet path".into(),
                };
                waiting(on, "promote --skip-step")
            }
            Phase::Paused { reason, back } => self.waiting_paused(reason, *back),
            Phase::RollingBack { stage, .. } => {
                let on = match stage {
                    RestoreStage::Taking => "the packet path",
                    RestoreStage::StartingOld => "the old version to start",
                    RestoreStage::Resetting => "its flows to be reset",
                    RestoreStage::Done => "the record",
                };
                waiting(on.into(), "status --wait")
            }
            Phase::Succeeded {
                warm_until_unix_ms: Some(until_ms),
            } => {
                let on = match until_ms.saturating_sub(now.unix_ms) {
                    0 => "the old version's last flows to end, then it is stopped".into(),
                    left_ms => format!("another {} with the old version warm", seconds(left_ms)),
                };
                waiting(on, "undo")
            }
            Phase::RolledBack {
                since_unix_ms,
                cooldown_ms,
                ..
            } => {
                let passed_ms = now.unix_ms.saturating_sub(*since_unix_ms);
                match cooldown_ms.saturating_sub(passed_ms) {
                    0 => None,
                    left_ms => {
                        waiting(format!("another {} of cooldown", seconds(left_ms)), "retry")
                    }
                }
            }
            Phase::Succeeded {
                warm_until_unix_ms: None,
            }
            | Phase::Failed { .. }
            | Phase::Superseded { .. } => None,
        }
    }

    /// Whether nothing goes on without a person's word.
    pub fn waits_for_person(&self) -> bool {
        match &self.phase {
            Phase::Paused { reason, .. } => match reason {
                PauseReason::Operator { .. }
                | PauseReason::Step { .. }
                | PauseReason::Inconclusive
                | PauseReason::NoData
                | PauseReason::Gate { .. } => true,
                PauseReason::Rebooted { stage } => *stage == RestoreStage::Done,
                PauseReason::BaselineDown { .. } => false,
            },
            _ => self.is_asking_a_person(),
        }
    }

    /// The step it is at, from 0.
    pub fn step(&self) -> Option<u16> {
        self.present_step()
    }

    /// What failed and is tried again.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The gate that is being asked, if one is.
    fn waiting_on_gate(&self) -> Option<Waiting> {
        let service = &self.parts.service;
        let gate = self.asked_gate()?;
        if self.is_asking_a_person() {
            return Some(Waiting {
                on: format!("a person's word on gate {}", gate.name),
                moves: format!("shifterctl approve {service} {}", gate.name),
            });
        }
        let said = match self.last_no() {
            Some(no) => format!(", which said: {no}"),
            None => String::new(),
        };
        Some(Waiting {
            on: format!("gate {} at {}{said}", gate.name, gate.at),
            moves: format!("shifterctl abort {service}"),
        })
    }

    fn waiting_paused(&self, reason: &PauseReason, back: Resumption) -> Option<Waiting> {
        let service = &self.parts.service;
        let (on, verb) = match reason {
            PauseReason::Operator { .. } => (format!("a person: {reason}"), "resume"),
            PauseReason::Step { .. } => (format!("a person: {reason}"), "promote"),
            PauseReason::Inconclusive | PauseReason::NoData | PauseReason::Gate { .. } => {
                (format!("a person: {reason}"), "promote")
            }
            PauseReason::BaselineDown { .. } => {
                (format!("the old version to be ready: {reason}"), "abort")
            }
            PauseReason::Rebooted { stage } => match stage {
                RestoreStage::Done => (format!("a person: {reason}"), "resume"),
                RestoreStage::Taking | RestoreStage::StartingOld | RestoreStage::Resetting => {
                    (format!("the old version to start: {reason}"), "abort")
                }
            },
        };
        let trouble = match &self.trouble {
            Some(trouble) => format!("; {trouble}, tried again"),
            None => String::new(),
        };
        Some(Waiting {
            on: format!("{on} (then {back}){trouble}"),
            moves: format!("shifterctl {verb} {service}"),
        })
    }
}

/// Milliseconds as people read them.
fn seconds(ms: u64) -> String {
    let s = ms.div_ceil(1_000);
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s.div_ceil(60)),
        _ => format!("{} h", s.div_ceil(3_600)),
    }
}
