//! The engine's hand: what it wants kept and done.

use std::time::Duration;

use shifter_common::{
    steering::Slot,
    wire::{AuditMetric, EstablishedPolicy},
};
use tokio::task::spawn_blocking;

use super::super::{
    Driver, breaker::LearntFrom, commands::Order, events::Happening, rollback::reset_again, unix_ms,
};
use super::News;
use crate::{
    control::ServiceControl,
    dataplane::Publication,
    gates::Question,
    rollout::{
        Act, Effect, Event, Gate, GateAnswer, Now, PlanKind, Rollout, RolloutParts, Shell, Wanted,
    },
    store::{self, Revision},
};

/// The outside world of one rollout, while an event is dealt with.
pub struct Hand<'a> {
    driver: &'a mut Driver,
    service: &'a str,
    by: &'a str,
    next: Option<Wanted>,
    parts: RolloutParts,
    gates: Vec<Gate>,
    is_undo: bool,
    /// What the analysis has counted, for the record.
    metrics: Vec<AuditMetric>,
    /// What becomes of its connections if it goes back.
    established: EstablishedPolicy,
    /// What gave the share, as status shows it.
    weight_by: String,
}

impl<'a> Hand<'a> {
    pub fn new(
        driver: &'a mut Driver,
        service: &'a str,
        by: &'a str,
        next: Option<Wanted>,
        metrics: Vec<AuditMetric>,
        rollout: &Rollout,
    ) -> Self {
        let parts = rollout.parts().clone();
        Self {
            driver,
            service,
            by,
            next,
            metrics,
            weight_by: format!("the rollout of {}", parts.version),
            established: rollout.plan().plan().established,
            gates: rollout.plan().plan().gates.clone(),
            is_undo: rollout.plan().plan().kind == PlanKind::Undo,
            parts,
        }
    }

    fn alter(
        &mut self,
        order: Order,
        decide: impl FnOnce(&mut ServiceControl, &str, u64),
    ) -> Result<Publication, String> {
        let weight_by = self.weight_by.clone();
        self.driver.alter(self.service, order, |control| {
            decide(control, &weight_by, unix_ms());
        })
    }

    fn take_back(&mut self) -> Result<(), String> {
        // A trip that nobody has seen yet must not be taken for this latch.
        self.driver.look_for_trips(LearntFrom::Look);
        let is_tripped = self.driver.is_tripped(self.service);
        self.alter(Order::KernelFirst, ServiceControl::take_back_latched)?;
        if !is_tripped {
            self.driver.rollouts.note_latch(self.service, true);
        }
        self.driver.tripped.insert(self.service.to_owned());
        if self.established == EstablishedPolicy::ResetIdle {
            self.driver.reset_when_idle(self.service, self.parts.canary);
        }
        Ok(())
    }

    /// The rollout's place in the history of its service.
    fn revision(&self, rollout: &Rollout) -> Revision {
        let parts = rollout.parts();
        Revision {
            service: parts.service.clone(),
            number: 0,
            slot: parts.canary,
            version: parts.version.to_string(),
            config_hash: rollout.plan().hash().to_owned(),
            rollout: Some(parts.id),
            unix_ms: unix_ms(),
            actor: self.by.to_owned(),
            outcome: rollout.phase().to_string(),
        }
    }

    /// What was found ready before was another version. One that goes back to its traffic has not
    /// changed, and one that stands in for the other keeps it.
    fn probe_anew(&mut self, slot: Slot) -> bool {
        !self.is_undo && self.driver.probe_anew(self.service, slot)
    }

    /// Asks a gate beside the loop; its answer comes as news.
    fn ask(&self, id: u64, gate: &str, timeout_ms: u64) {
        // The plan is the engine's own: it asks for none that is not there.
        let Some(gate) = self.gates.iter().find(|of| of.name == gate) else {
            return;
        };
        let question = Question {
            check: gate.check.clone(),
            user: gate.user.clone(),
            version: self.parts.version.to_string(),
            service: self.service.to_owned(),
            timeout: Duration::from_millis(timeout_ms),
        };
        let (service, name) = (self.service.to_owned(), gate.name.clone());
        let rollout = self.parts.id;
        let news = self.driver.rollouts.news.clone();
        tokio::spawn(async move {
            let answer = question.ask().await;
            match &answer {
                GateAnswer::Yes => tracing::info!(service, gate = name, "the gate said yes"),
                GateAnswer::No(why) => {
                    tracing::info!(service, gate = name, "the gate said no: {why}");
                }
            }
            // Without a loop there is nobody to tell.
            let event = Event::GateAnswered { id, answer };
            let _ = news
                .send(News {
                    service,
                    rollout,
                    event,
                })
                .await;
        });
    }

    fn reset_flows(&self, id: u64, slot: Slot) {
        let (table, news) = (self.driver.flow_table(), self.driver.rollouts.news.clone());
        let service = self.service.to_owned();
        let rollout = self.parts.id;
        let again = tokio::runtime::Handle::current();
        spawn_blocking(move || {
            let result = match table.reset(&service, slot) {
                Ok(count) => {
                    tracing::info!(service, %slot, count, "live flows were reset");
                    again.spawn(reset_again(table, service.clone(), slot));
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
            // Without a loop there is nobody to tell.
            let event = Event::EffectDone { id, result };
            let _ = news.blocking_send(News {
                service,
                rollout,
                event,
            });
        });
    }
}

impl Shell for Hand<'_> {
    fn keep(&mut self, rollout: &Rollout) -> Result<(), String> {
        let mut records = store::records(rollout);
        for record in &mut records {
            record.actor = self.driver.actor(self.by);
            record.metrics.clone_from(&self.metrics);
            self.driver.complete(record);
        }
        let revision = self.revision(rollout);
        let next = self.next.as_ref();
        let kept = self
            .driver
            .state
            .keep_rollout(rollout, next, records, Some(&revision));
        kept.map_err(|error| error.to_string())?;
        for transition in rollout.transitions() {
            let detail = format!(
                "{}: {} -> {} ({})",
                rollout.parts().version,
                transition.from,
                transition.to,
                transition.why
            );
            let before_bp = self.driver.in_force_bp(self.service);
            self.driver.show(Happening {
                service: self.service,
                by: self.by,
                what: "rollout",
                slot: Some(rollout.parts().canary),
                detail,
                before_bp,
                took_ns: 0,
            });
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: &Effect) -> Option<Result<(), String>> {
        let done = match &effect.act {
            Act::Arm => self
                .alter(Order::DiskFirst, ServiceControl::arm)
                .map(|_| ()),
            Act::Give(share) => {
                let given = self.alter(Order::DiskFirst, |control, by, unix_ms| {
                    control.give(share, by, unix_ms);
                });
                given.and_then(|publication| match publication.word.tripped() {
                    true => Err("the kernel has taken it out of traffic".to_owned()),
                    false => Ok(()),
                })
            }
            Act::TakeBack => self.take_back(),
            Act::Commit => {
                let canary = self.parts.canary;
                let committed = self.alter(Order::DiskFirst, |control, by, unix_ms| {
                    control.commit(canary, by, unix_ms);
                });
                committed.map(|_| ())
            }
            Act::Start(slot) if *slot == self.parts.canary => {
                let version = self.parts.version.clone();
                let noted = self.driver.note_version(self.service, *slot, version);
                if noted.is_ok() && self.probe_anew(*slot) {
                    // Word of it comes after the news that nothing is ready yet.
                    let done = Event::EffectDone {
                        id: effect.id,
                        result: Ok(()),
                    };
                    let news = News {
                        service: self.service.to_owned(),
                        rollout: self.parts.id,
                        event: done,
                    };
                    if self.driver.rollouts.news.try_send(news).is_ok() {
                        return None;
                    }
                }
                noted
            }
            Act::Start(_) => Ok(()),
            // Whoever runs the version stops it: no unit is known.
            Act::Stop(_) => Ok(()),
            Act::ResetFlows(slot) => {
                self.reset_flows(effect.id, *slot);
                return None;
            }
            Act::Ask {
                gate, timeout_ms, ..
            } => {
                self.ask(effect.id, gate, *timeout_ms);
                return None;
            }
        };
        if let Err(why) = &done {
            tracing::error!(service = self.service, "{} failed: {why}", effect.act);
        }
        Some(done)
    }

    fn now(&mut self) -> Now {
        self.driver.rollouts.now()
    }
}
