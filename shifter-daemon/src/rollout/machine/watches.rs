//! The clocks of a rollout: which run when, and when they are due.

use serde::{Deserialize, Serialize};

use super::Rollout;
use crate::rollout::{
    freeze::FreezeWindow,
    phase::{BakeStage, Phase, WarmStage, WatchStage},
    time::{Now, OBSERVED_GAP_MAX_MS, Stopwatch},
};

/// A rollout with a running clock wants to be looked at this often, milliseconds.
const LOOK_MS: u64 = 10_000;
const _: () = assert!(
    LOOK_MS * 2 < OBSERVED_GAP_MAX_MS,
    "a late look must count in full"
);

/// Everything a rollout measures. None of it runs during a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watches {
    /// A step under observation, with its version ready.
    pub bake: Stopwatch,
    /// The new version under observation with everything.
    pub watch: Stopwatch,
    /// The old version's flows ending.
    pub drain: Stopwatch,
    /// Nothing coming about.
    pub progress: Stopwatch,
    /// The new version not ready although it has a share.
    pub unready: Stopwatch,
    /// The new version becoming ready.
    pub warm: Stopwatch,
}

impl Watches {
    fn all(&mut self) -> [&mut Stopwatch; 6] {
        let Self {
            bake,
            watch,
            drain,
            progress,
            unready,
            warm,
        } = self;
        [bake, watch, drain, progress, unready, warm]
    }

    /// Counts the time up to now.
    pub fn settle(&mut self, now: Now) {
        for watch in self.all() {
            watch.settle(now);
        }
    }

    /// Goes on in another life of the daemon.
    pub fn rebase(&mut self, now: Now) {
        for watch in self.all() {
            watch.rebase(now);
        }
    }

    fn is_any_running(&self) -> bool {
        let mut copy = *self;
        copy.all().iter().any(|watch| watch.is_running())
    }
}

impl Rollout {
    /// Lets the clocks run that the present situation lets run.
    pub(super) fn watch(&mut self, now: Now) {
        let is_ready = self.is_canary_ready == Some(true);
        let is_unready = self.is_canary_ready == Some(false);
        let is_moving = match &self.phase {
            Phase::Gated
            | Phase::Warming(_)
            | Phase::Shifting { .. }
            | Phase::Promoting(_)
            | Phase::Baking {
                stage: BakeStage::Testing,
                ..
            } => !self.is_asking_a_person(),
            Phase::Pending
            | Phase::Baking { .. }
            | Phase::Draining
            | Phase::Watching(_)
            | Phase::Paused { .. }
            | Phase::RollingBack { .. }
            | Phase::Succeeded { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. }
            | Phase::Superseded { .. } => false,
        };
        let is_baking = matches!(
            self.phase,
            Phase::Baking {
                stage: BakeStage::Observing,
                ..
            }
        );
        let is_watching = matches!(self.phase, Phase::Watching(WatchStage::Observing));
        let is_probing = matches!(self.phase, Phase::Warming(WarmStage::Probing));
        let may_be_unready = self.has_share()
            && !self.phase.is_final()
            && !matches!(
                self.phase,
                Phase::Paused { .. } | Phase::RollingBack { .. } | Phase::Warming(_)
            );
        let is_unready = is_unready && may_be_unready;
        let is_paused = matches!(self.phase, Phase::Paused { .. });
        if !is_unready && !is_paused {
            self.watches.unready.reset();
        }
        let Watches {
            bake,
            watch,
            drain,
            progress,
            unready,
            warm,
        } = &mut self.watches;
        bake.set_running(is_baking && is_ready, now);
        watch.set_running(is_watching && is_ready, now);
        drain.set_running(matches!(self.phase, Phase::Draining), now);
        progress.set_running(is_moving, now);
        unready.set_running(is_unready, now);
        warm.set_running(is_probing, now);
    }

    /// When it wants to be looked at again, monotonic milliseconds, whatever else happens; `None` if
    /// it waits for an event alone.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let limits = self.spec().limits;
        let of_unix = |unix_ms: u64| {
            let left_ms = unix_ms.checked_sub(now.unix_ms)?;
            Some(now.mono_ms.saturating_add(left_ms))
        };
        let bake_ms = match &self.phase {
            Phase::Baking { step, .. } => self.bake_limit_ms(*step),
            _ => 0,
        };
        let of_phase = match &self.phase {
            Phase::Pending => FreezeWindow::in_force(&self.spec().freezes, now.unix_ms)
                .and_then(|window| of_unix(window.until_unix_ms)),
            // Once the time is over it waits for flows alone.
            Phase::Succeeded { warm_until_unix_ms } => warm_until_unix_ms
                .and_then(of_unix)
                .filter(|at_ms| *at_ms > now.mono_ms),
            _ => None,
        };
        let look = self
            .watches
            .is_any_running()
            .then_some(now.mono_ms.saturating_add(LOOK_MS));
        [
            self.watches.bake.due_ms(bake_ms),
            self.watches.watch.due_ms(self.spec().watch_ms),
            self.watches.drain.due_ms(limits.drain_ms),
            self.watches.progress.due_ms(limits.progress_ms),
            self.watches.unready.due_ms(limits.unready_ms),
            self.watches.warm.due_ms(limits.warm_ms),
            self.asking.as_ref().and_then(|asking| asking.due_ms()),
            self.alarm_due_ms(),
            self.retry_at_ms,
            of_phase,
            look,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at_ms| at_ms.max(now.mono_ms + 1))
    }
}
