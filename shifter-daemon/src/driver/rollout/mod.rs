//! Rollouts that move traffic: what happened goes into the engine, what it wants done is carried out.

mod commands;
mod evidence;
mod files;
mod hand;
mod news;
mod restart;
mod start;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use tokio::{sync::mpsc, time::Instant};

use self::{
    evidence::{Evidence, metric},
    hand::Hand,
};
use super::{Driver, SHIFTERD, unix_ms};
use crate::rollout::{Event, Now, Ran, Refused, Rollout, SlotFlows, Wanted, run};

/// What happened to a rollout, told by who works beside the loop.
#[derive(Debug)]
pub struct News {
    /// Its service.
    pub service: String,
    /// Its number: by now the service may have another one, whose effects have the same numbers.
    pub rollout: u64,
    /// What happened.
    pub event: Event,
}

/// News that may wait; whoever has more waits.
const NEWS_WAITING_COUNT: usize = 64;

/// Time before a rollout that could not be kept is kept again, milliseconds.
const KEEP_AGAIN_MS: u64 = 1_000;

/// The last rollout of each service that had one, and how to hear of them.
pub struct Rollouts {
    live: BTreeMap<String, Live>,
    /// Services whose latch in the packet path is a rollout's, not a trip of the kernel's.
    latched: BTreeSet<String>,
    born: Instant,
    news: mpsc::Sender<News>,
    /// Until the loop takes it.
    heard: Option<mpsc::Receiver<News>>,
}

/// A rollout, over or not.
pub struct Live {
    rollout: Rollout,
    next: Option<Wanted>,
    /// When it wants to be looked at, monotonic milliseconds.
    due_ms: Option<u64>,
    told_ready: Option<[bool; 2]>,
    told_flows: SlotFlows,
    not_kept: Option<String>,
    evidence: Option<Evidence>,
}

impl Live {
    fn new(rollout: Rollout) -> Self {
        Self {
            rollout,
            next: None,
            due_ms: None,
            told_ready: None,
            told_flows: SlotFlows::default(),
            not_kept: None,
            evidence: None,
        }
    }
}

impl Rollouts {
    /// None yet. Must be called within a tokio runtime.
    pub fn new() -> Self {
        let (news, heard) = mpsc::channel(NEWS_WAITING_COUNT);
        Self {
            live: BTreeMap::new(),
            latched: BTreeSet::new(),
            born: Instant::now(),
            news,
            heard: Some(heard),
        }
    }

    /// What is heard of rollouts. To be taken once.
    pub fn heard(&mut self) -> mpsc::Receiver<News> {
        self.heard.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    fn now(&self) -> Now {
        let mono_ms = self.born.elapsed().as_millis();
        Now {
            mono_ms: u64::try_from(mono_ms).unwrap_or(u64::MAX),
            unix_ms: unix_ms(),
        }
    }

    /// The rollout of a service that is not over.
    pub fn under_way(&self, service: &str) -> Option<&Rollout> {
        let live = self.live.get(service)?;
        Some(&live.rollout).filter(|rollout| !rollout.phase().is_final())
    }

    /// Whether the latch of a service was left by a rollout.
    pub fn is_latch_own(&self, service: &str) -> bool {
        self.latched.contains(service)
    }

    /// Notes what the latch of a service is.
    pub fn note_latch(&mut self, service: &str, is_own: bool) {
        if is_own {
            self.latched.insert(service.to_owned());
        } else {
            self.latched.remove(service);
        }
    }
}

impl Driver {
    /// Tells the rollout of a service what happened, and does what it wants done. `None` if the
    /// service has no rollout.
    pub(super) fn tell(
        &mut self,
        service: &str,
        event: Event,
        by: &str,
    ) -> Option<Result<Ran, Refused>> {
        let mut live = self.rollouts.live.remove(service)?;
        let next = live.next.clone();
        let evidence = live.evidence.as_ref();
        let metrics =
            evidence.map_or_else(Vec::new, |of| of.verdicts().iter().map(metric).collect());
        let mut hand = Hand::new(self, service, by, next, metrics, &live.rollout);
        let ran = run(&mut live.rollout, event, &mut hand);
        let now = self.rollouts.now();
        live.due_ms = live.rollout.next_deadline(now);
        if let Ok(ran) = &ran {
            if let Some(why) = &ran.not_kept {
                live.due_ms = Some(now.mono_ms + KEEP_AGAIN_MS);
                if live.not_kept.as_ref() != Some(why) {
                    tracing::error!(service, "the rollout is not on disk: {why}");
                }
            }
            live.not_kept.clone_from(&ran.not_kept);
        }
        self.rollouts.live.insert(service.to_owned(), live);
        Some(ran)
    }

    /// Tells something that is no command; it is never refused.
    pub(super) fn tell_news(&mut self, service: &str, event: Event) {
        if let Some(Err(refused)) = self.tell(service, event, SHIFTERD) {
            tracing::error!(service, "the rollout did not take what happened: {refused}");
        }
    }

    /// Tells what somebody beside the loop has to say, unless the rollout that it is about is no more.
    pub(super) fn hear_news(&mut self, news: News) {
        let live = self.rollouts.live.get(&news.service);
        if live.is_some_and(|live| live.rollout.parts().id == news.rollout) {
            self.tell_news(&news.service, news.event);
        } else {
            tracing::info!(
                service = news.service,
                rollout = news.rollout,
                "an answer came after its rollout was over"
            );
        }
    }

    /// What follows for the rollouts from whatever has happened: to be called after every input.
    pub(super) fn follow_rollouts(&mut self) {
        let names: Vec<String> = self.rollouts.live.keys().cloned().collect();
        for name in names {
            self.tell_readiness(&name);
            self.tell_time(&name);
            self.begin_next(&name);
        }
    }

    fn tell_readiness(&mut self, service: &str) {
        let (Some(live), Some(control)) = (
            self.rollouts.live.get_mut(service),
            self.services.get(service),
        ) else {
            return;
        };
        let canary = live.rollout.parts().canary;
        let ready = [canary, canary.other()].map(|slot| control.is_eligible(slot));
        if live.told_ready == Some(ready) {
            return;
        }
        live.told_ready = Some(ready);
        let [is_canary_ready, is_baseline_ready] = ready;
        self.tell_news(
            service,
            Event::Readiness {
                is_canary_ready,
                is_baseline_ready,
            },
        );
    }

    fn tell_time(&mut self, service: &str) {
        let now = self.rollouts.now();
        let due_ms = self.rollouts.live.get(service).and_then(|live| live.due_ms);
        if due_ms.is_some_and(|due_ms| due_ms <= now.mono_ms) {
            self.tell_news(service, Event::Tick);
        }
    }
}
