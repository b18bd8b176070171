//! What operators ask for: refused with the reason, or done, on disk and recorded.

use std::time::{Duration, Instant};

use shifter_common::{
    steering::Slot,
    wire::{AuditRecord, Changed, Refusal},
};

use super::{
    Actor, Call, Driver, Reply, Request, TICK_INTERVAL,
    breaker::LearntFrom,
    events::Happening,
    nanos,
    refusal::{kernel, refusal},
    send, unix_ms,
};
use crate::{
    control::{ServiceControl, ServiceRecord},
    dataplane::{DataplaneError, Publication},
    rollout::Label,
    store::StoreError,
};

/// A change of what is decided about a service.
pub struct Change<'a> {
    /// The service.
    pub service: &'a str,
    /// The kind of change, in the words of [`shifter_common::wire::Event::what`].
    pub what: &'static str,
    /// The slot concerned, if one.
    pub slot: Option<Slot>,
    /// Who asks.
    pub by: &'a str,
    /// When the request arrived.
    pub arrived: Instant,
    /// What comes first.
    pub order: Order,
}

/// Whether a decision goes to the disk or to the kernel first. The answer waits for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A decision that cannot be kept is not carried out.
    DiskFirst,
    /// Taking a version out of traffic does not wait for a disk, least of all one that the version
    /// has filled.
    KernelFirst,
}

impl Driver {
    pub(super) fn handle_call(&mut self, call: Call) {
        let Call {
            request,
            actor,
            arrived,
            reply,
        } = call;
        let by = actor
            .as_ref()
            .map_or_else(|| "SIGHUP".to_owned(), Actor::to_string);
        self.acting = actor;
        match request {
            Request::Status => self.answer_status(reply),
            Request::Service(name) => self.answer_service(&name, reply),
            Request::Flows(name, limit) => self.answer_flows(&name, limit, reply),
            Request::Plan(name, version) => {
                let result = self.plan(&name, &version);
                send(reply, result.map(|plan| Reply::Planned(Box::new(plan))));
            }
            Request::Audit(query) => send(reply, self.audit(&query).map(Reply::Audit)),
            Request::History(name) => {
                let result = self.history(&name);
                send(
                    reply,
                    result.map(|history| Reply::History(Box::new(history))),
                );
            }
            Request::Deployment(name, rollout) => {
                let result = self.deployment(&name, rollout);
                send(
                    reply,
                    result.map(|record| Reply::Deployment(Box::new(record))),
                );
            }
            Request::Apply => {
                let report = self.apply(&by, arrived);
                self.write_audit();
                send(reply, Ok(Reply::Applied(report)));
            }
            Request::SetWeight(name, body) => {
                let result = self.set_weight(&name, &body, &by, arrived);
                send(reply, result.map(Reply::Changed));
            }
            Request::Rollback(name, body) => self.rollback(&name, &body, &by, arrived, reply),
            Request::Drain(name, body) => {
                let result = self.drain(&name, &body, &by, arrived);
                send(reply, result.map(Reply::Changed));
            }
            Request::Bypass(name, body) => {
                let result = self.bypass(&name, &body, &by, arrived);
                send(reply, result.map(Reply::Changed));
            }
            Request::Detach(body) => {
                let result = self.detach(&body, &by);
                send(reply, result.map(Reply::Detached));
            }
            Request::Start(name, body) => {
                let result = self.start_rollout(&name, &body, &by);
                send(reply, result.map(|done| Reply::Rollout(Box::new(done))));
            }
            Request::Command(name, command) => {
                let result = self.command_rollout(&name, &command, &by);
                send(reply, result.map(|done| Reply::Rollout(Box::new(done))));
            }
            Request::LookAtListeners => {
                self.look_at_listeners();
                send(reply, Ok(Reply::Looked));
            }
            Request::LookForTrips => {
                self.look_for_trips(LearntFrom::Kernel);
                send(reply, Ok(Reply::Looked));
            }
        }
        self.acting = None;
    }

    /// Carries out a decision, on disk and in the kernel. If the kernel refuses, nothing has changed,
    /// nor if the disk does and comes first. `describe` puts what was decided into words, from the
    /// record before and after.
    pub(super) fn change(
        &mut self,
        change: &Change<'_>,
        decide: impl FnOnce(&mut ServiceControl, u64),
        describe: impl FnOnce(&ServiceRecord, &ServiceRecord) -> String,
    ) -> Result<Changed, Refusal> {
        let Change {
            service: name,
            what,
            slot,
            by,
            arrived,
            order,
        } = *change;
        let before_bp = self.in_force_bp(name);
        let Some(control) = self.services.get_mut(name) else {
            return Err(self.unknown(name));
        };
        let old = control.record().clone();
        decide(control, unix_ms());
        let (new, plan) = (control.record().clone(), control.plan());
        let words = describe(&old, &new);
        let happening = |detail, took_ns| Happening {
            service: name,
            by,
            what,
            slot,
            detail,
            before_bp,
            took_ns,
        };
        if order == Order::DiskFirst {
            let intent = AuditRecord {
                weight_after_bp: new.weight_bp,
                ..self.audit_record(&happening(words.clone(), 0))
            };
            if let Err(error) = self.state.decide(name, &new, intent) {
                self.restore(name, &old);
                return Err(refusal(
                    "state",
                    format!("{error}; nothing was changed"),
                    "free space or mend the state directory, then try again".into(),
                ));
            }
        }
        let publication = match self.publish(&plan) {
            Ok(publication) => publication,
            Err(error) => return Err(self.take_back(change, &old, &error)),
        };
        let mut notes = self.known(name)?.notes();
        let took_ns = took_ns(arrived, publication.stored_at);
        let generation = publication.word.generation();
        self.record(happening(
            format!("{words}, generation {generation}"),
            took_ns,
        ));
        if let Err(error) = self.state.save(name, &new) {
            notes.push(self.not_kept(change, &new, &error));
        }
        if publication.stored_at.is_none() {
            notes.push("nothing had to change".into());
        }
        Ok(Changed {
            service: name.to_owned(),
            weight_before_bp: old.weight_bp,
            weight_bp: new.weight_bp,
            generation,
            took_ns,
            flows_reset_count: 0,
            notes,
        })
    }

    /// What a person should know of a change that is in force and could not be written.
    fn not_kept(&self, change: &Change<'_>, new: &ServiceRecord, error: &StoreError) -> String {
        let Change {
            service: name,
            what,
            ..
        } = *change;
        if self.state.service(name) == Some(new) {
            tracing::error!(
                service = name,
                "{what} of {name} is in force and on disk, but not in the audit: {error}"
            );
            return format!(
                "it is in force and on disk, but not in the audit ({error}): shifterd writes it there \
                 when it can"
            );
        }
        tracing::error!(
            service = name,
            "{what} of {name} is in force, but not on disk: {error}"
        );
        format!(
            "it is in force, but not on disk ({error}): the next start of shifterd may undo it; free \
             space, then repeat it"
        )
    }

    /// Undoes a decision that the packet path refused, everywhere, and says how far that went.
    fn take_back(
        &mut self,
        change: &Change<'_>,
        old: &ServiceRecord,
        error: &DataplaneError,
    ) -> Refusal {
        let Change {
            service: name,
            what,
            by,
            ..
        } = *change;
        self.restore(name, old);
        let back = self.put_in_force(name);
        let record = self.audit_record(&Happening {
            service: name,
            by,
            what,
            slot: change.slot,
            detail: format!("the kernel refused it: {error}"),
            before_bp: self.in_force_bp(name),
            took_ns: 0,
        });
        self.state.note(record);
        let kept = self.state.save(name, old).or_else(|error| {
            // Without a disk the audit waits; the decision never got there.
            let is_old = self.state.service(name).is_none_or(|kept| kept == old);
            if is_old { Ok(()) } else { Err(error) }
        });
        tracing::error!(service = name, by, "{what} failed: {error}");
        match (back, kept) {
            (Ok(_), Ok(())) => kernel(format!("{error}; {name} is as it was before")),
            (Err(again), Ok(())) => kernel(format!(
                "{error}; what was decided before could not be put in force again either \
                 ({again}); shifterd tries it every {} s",
                TICK_INTERVAL.as_secs()
            )),
            (_, Err(state)) => refusal(
                "state",
                format!(
                    "{error}; and the refused change could not be taken out of the state file \
                     ({state}): the next start of shifterd would put it in force"
                ),
                "free space or mend the state directory, then set what you want again".into(),
            ),
        }
    }

    /// Changes what is decided about a service for its rollout, on disk and in the packet path. What
    /// the disk or the packet path refuse has not changed; what comes to the packet path first is
    /// tried again until it is in force.
    pub(super) fn alter(
        &mut self,
        name: &str,
        order: Order,
        decide: impl FnOnce(&mut ServiceControl),
    ) -> Result<Publication, String> {
        let control = self.services.get_mut(name);
        let control = control.ok_or_else(|| format!("there is no service {name}"))?;
        let old = control.record().clone();
        decide(control);
        let new = control.record().clone();
        match order {
            Order::KernelFirst => {
                let publication = self.put_in_force(name)?;
                if let Err(error) = self.state.save(name, &new) {
                    // The kernel's word counts more than the disk at the next start.
                    tracing::error!(service = name, "it is in force, but not on disk: {error}");
                }
                Ok(publication)
            }
            Order::DiskFirst => {
                if let Err(error) = self.state.save(name, &new) {
                    self.restore(name, &old);
                    return Err(error.to_string());
                }
                let plan = self.services.get(name).map(ServiceControl::plan);
                let plan = plan.ok_or_else(|| format!("there is no service {name}"))?;
                self.publish(&plan).map_err(|error| {
                    self.restore(name, &old);
                    // Failures are noted where they happen; the next attempt mends both.
                    let _ = self.put_in_force(name);
                    let _ = self.state.save(name, &old);
                    error.to_string()
                })
            }
        }
    }

    /// Notes on disk which version a slot holds. Another one than before gets a number of its own: what the
    /// version before it has left open does not count for it.
    pub(super) fn note_version(
        &mut self,
        name: &str,
        slot: Slot,
        version: Label,
    ) -> Result<(), String> {
        let control = self.services.get_mut(name);
        let control = control.ok_or_else(|| format!("there is no service {name}"))?;
        let old = control.record().clone();
        let is_another = control.version(slot) != Some(&version);
        control.set_version(slot, version);
        let new = control.record().clone();
        if let Err(error) = self.state.save(name, &new) {
            self.restore(name, &old);
            return Err(error.to_string());
        }
        if is_another {
            let version_id = self.next_version_id();
            if let Some(control) = self.services.get_mut(name) {
                control.give_slot(slot, version_id);
            }
        }
        Ok(())
    }

    fn restore(&mut self, name: &str, record: &ServiceRecord) {
        if let Some(control) = self.services.get_mut(name) {
            control.restore(record.clone());
        }
    }
}

/// Time from a request's arrival to the store; 0 if nothing was stored.
pub fn took_ns(arrived: Instant, stored_at: Option<Instant>) -> u64 {
    let took = stored_at.and_then(|at| at.checked_duration_since(arrived));
    nanos(took.unwrap_or(Duration::ZERO))
}
