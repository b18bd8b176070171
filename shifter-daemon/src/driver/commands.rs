//! What operators ask for: refused with the reason, or done, on disk and recorded.

use std::time::{Duration, Instant};

use shifter_common::{
    steering::{Slot, WEIGHT_FULL_BP},
    wire::{
        ApplyReport, Changed, ConfigChange, Detach, Detached, Diagnostic, Drain, Effect,
        EstablishedPolicy, Refusal, Rollback, SetWeight,
    },
};
use tokio::sync::oneshot;

use super::{Actor, Call, Driver, Reply, Request, lost_file_reason, nanos, unix_ms};
use crate::{
    config::{self, LoadedServices},
    config_files,
    control::{ServiceControl, ServiceRecord},
    dataplane::FlowTable,
};

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

impl Driver {
    pub(super) fn handle_call(&mut self, call: Call) {
        let Call { request, actor, arrived, reply } = call;
        let by = actor.as_ref().map_or_else(|| "SIGHUP".to_owned(), Actor::to_string);
        match request {
            Request::Status => self.answer_status(reply),
            Request::Service(name) => self.answer_service(&name, reply),
            Request::Flows(name, limit) => self.answer_flows(&name, limit, reply),
            Request::Apply => send(reply, Ok(Reply::Applied(self.apply(&by, arrived)))),
            Request::SetWeight(name, body) => {
                let result = self.set_weight(&name, &body, &by, arrived);
                send(reply, result.map(Reply::Changed));
            }
            Request::Rollback(name, body) => self.rollback(&name, &body, &by, arrived, reply),
            Request::Drain(name, body) => {
                let result = self.drain(&name, &body, &by, arrived);
                send(reply, result.map(Reply::Changed));
            }
            Request::Detach(body) => {
                let result = self.detach(&body, &by);
                send(reply, result.map(Reply::Detached));
            }
        }
    }

    pub(super) fn known(&self, name: &str) -> Result<&ServiceControl, Refusal> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
            refusal(
                "unknown_service",
                format!("there is no service {name}"),
                if names.is_empty() {
                    format!(
                        "write a file to {} and run: shifterctl apply",
                        self.node.services_dir.display()
                    )
                } else {
                    format!("services are: {}", names.join(", "))
                },
            )
        })
    }

    fn set_weight(
        &mut self,
        name: &str,
        body: &SetWeight,
        by: &str,
        arrived: Instant,
    ) -> Result<Changed, Refusal> {
        let control = self.known(name)?;
        if body.weight_bp > WEIGHT_FULL_BP {
            return Err(refusal(
                "bad_request",
                format!("weight_bp is {}, but at most {WEIGHT_FULL_BP}", body.weight_bp),
                "a weight is given in basis points: 500 is 5 %".into(),
            ));
        }
        let canary = control.canary();
        if body.weight_bp > 0 && control.spec().slot(canary).backends.is_empty() {
            return Err(refusal(
                "not_eligible",
                format!("slot {canary} of {name} has no backends to send traffic to"),
                format!("add [slot.{canary}] to its file, then: shifterctl apply"),
            ));
        }
        let changed = self.change(name, "weight", None, by, arrived, |control, unix_ms| {
            control.set_weight(body.weight_bp, by, unix_ms);
        })?;
        Ok(changed)
    }

    fn rollback(
        &mut self,
        name: &str,
        body: &Rollback,
        by: &str,
        arrived: Instant,
        reply: Answer,
    ) {
        let done = self.known(name).map(|control| {
            let policy = body.established.unwrap_or(control.spec().rollback_established);
            (control.canary(), policy)
        });
        let done = done.and_then(|(canary, policy)| {
            let what = "rollback";
            self.change(name, what, Some(canary), by, arrived, |control, unix_ms| {
                control.set_weight(0, by, unix_ms);
            })
            .map(|changed| (canary, policy, changed))
        });
        let (canary, policy, mut changed) = match done {
            Ok(done) => done,
            Err(refused) => return send(reply, Err(refused)),
        };
        match policy {
            EstablishedPolicy::Drain => send(reply, Ok(Reply::Changed(changed))),
            EstablishedPolicy::Reset => {
                // New flows go elsewhere already; the old ones are reset beside the loop.
                let (table, name) = (self.flow_table(), name.to_owned());
                tokio::task::spawn_blocking(move || {
                    match table.reset(&name, canary) {
                        Ok(count) => changed.flows_reset_count = count,
                        Err(error) => changed.notes.push(format!(
                            "the weight is 0, but its flows could not be reset: {error}"
                        )),
                    }
                    send(reply, Ok(Reply::Changed(changed)));
                    reset_again(&*table, &name, canary);
                });
            }
        }
    }

    fn drain(
        &mut self,
        name: &str,
        body: &Drain,
        by: &str,
        arrived: Instant,
    ) -> Result<Changed, Refusal> {
        let control = self.known(name)?;
        let other = body.slot.other();
        if !body.undo && control.drained(body.slot).is_none()
            && let Some(reason) = control.ineligible_reason(other)
        {
            return Err(refusal(
                "not_eligible",
                format!(
                    "slot {other} of {name} is not eligible ({reason}): draining slot {} would \
                     leave new flows nowhere to go",
                    body.slot
                ),
                format!("make slot {other} ready first; see: shifterctl status {name}"),
            ));
        }
        let what = if body.undo { "drain undone" } else { "drain" };
        self.change(name, what, Some(body.slot), by, arrived, |control, unix_ms| {
            control.set_drained(body.slot, !body.undo, by, unix_ms);
        })
    }

    /// Carries out a decision: first on disk, then in the kernel. If either fails nothing has
    /// changed.
    fn change(
        &mut self,
        name: &str,
        what: &str,
        slot: Option<Slot>,
        by: &str,
        arrived: Instant,
        decide: impl FnOnce(&mut ServiceControl, u64),
    ) -> Result<Changed, Refusal> {
        self.known(name)?;
        let Some(control) = self.services.get_mut(name) else { return Err(lost(name)) };
        let (old, before) = (control.record().clone(), control.effective_bp());
        decide(control, unix_ms());
        let (new, after) = (control.record().clone(), control.effective_bp());
        let (plan, mut notes) = (control.plan(), control.notes());
        if let Err(error) = self.state.save(name, &new) {
            self.restore(name, &old);
            return Err(refusal(
                "state",
                format!("{error}; nothing was changed"),
                "free space or mend the state directory, then try again".into(),
            ));
        }
        let publication = match self.dataplane.publish(&plan) {
            Ok(publication) => publication,
            Err(error) => {
                self.restore(name, &old);
                let back = self.publish(name).is_some() || !self.unpublished.contains(name);
                let kept = self.state.save(name, &old).is_ok();
                tracing::error!(service = name, back, kept, "{what} of {name} failed: {error}");
                return Err(refusal(
                    "kernel",
                    format!("{error}; {name} is as it was before"),
                    "see: shifterctl doctor".into(),
                ));
            }
        };
        self.unpublished.remove(name);
        self.words.insert(name.to_owned(), publication.word);
        let took_ns = publication
            .stored_at
            .map_or(0, |at| nanos(at.checked_duration_since(arrived).unwrap_or(Duration::ZERO)));
        if publication.stored_at.is_none() {
            notes.push("nothing had to change".into());
        }
        let detail = format!(
            "weight {} -> {}, generation {}",
            percent(old.weight_bp),
            percent(new.weight_bp),
            publication.word.generation()
        );
        self.record(name, by, what, slot, (before, after), took_ns, detail);
        Ok(Changed {
            service: name.to_owned(),
            weight_before_bp: old.weight_bp,
            weight_bp: new.weight_bp,
            generation: publication.word.generation(),
            took_ns,
            flows_reset_count: 0,
            notes,
        })
    }

    fn restore(&mut self, name: &str, record: &ServiceRecord) {
        if let Some(control) = self.services.get_mut(name) {
            control.restore(record.clone());
        }
    }

    /// Reads the files again and puts in force what has changed. Never moves a weight.
    fn apply(&mut self, by: &str, arrived: Instant) -> ApplyReport {
        let mut loaded = config_files::load_services(&self.node.services_dir);
        let in_force = self.services.iter().map(|(name, c)| (name.clone(), c.spec().clone()));
        loaded.keep(&in_force.collect());
        let mut report = ApplyReport {
            diagnostics: std::mem::take(&mut loaded.diagnostics),
            ..ApplyReport::default()
        };
        self.apply_node(&mut report);
        let mut named = std::collections::BTreeSet::new();
        for (name, spec) in std::mem::take(&mut loaded.services) {
            named.insert(name.clone());
            let is_new = !self.services.contains_key(&name);
            let before = self.services.get(&name).map_or(0, ServiceControl::effective_bp);
            let old = self.services.get(&name).cloned();
            let mut changes = match self.services.get_mut(&name) {
                Some(control) => control.respec(spec),
                None => {
                    let record = self.state.service(&name).cloned();
                    self.services.insert(name.clone(), ServiceControl::new(spec, record, None));
                    vec![new_service(&name)]
                }
            };
            let was_adrift = old.as_ref().is_some_and(|old| old.detached_reason.is_some());
            if changes.is_empty() && !was_adrift {
                continue;
            }
            let plan = self.services.get(&name).map(ServiceControl::plan);
            match plan.map(|plan| self.dataplane.publish(&plan)) {
                Some(Ok(publication)) => {
                    self.unpublished.remove(&name);
                    self.words.insert(name.clone(), publication.word);
                    let took_ns = publication.stored_at.map_or(0, |at| {
                        nanos(at.checked_duration_since(arrived).unwrap_or(Duration::ZERO))
                    });
                    let after = self.services.get(&name).map_or(0, ServiceControl::effective_bp);
                    let detail = if is_new {
                        "new service".into()
                    } else {
                        format!("{} changed", keys(&changes))
                    };
                    self.record(&name, by, "apply", None, (before, after), took_ns, detail);
                }
                Some(Err(error)) => {
                    for change in &mut changes {
                        change.effect = Effect::Refused;
                        change.reason = error.to_string();
                    }
                    match old {
                        Some(old) => {
                            self.services.insert(name.clone(), old);
                            self.publish(&name);
                        }
                        None => {
                            self.services.remove(&name);
                        }
                    }
                }
                None => {}
            }
            report.changes.extend(changes);
        }
        self.find_orphans(&loaded, &named, &mut report);
        self.update_probes();
        report
    }

    /// Names the services that have no good file any more; they are steered on.
    fn find_orphans(
        &mut self,
        loaded: &LoadedServices,
        named: &std::collections::BTreeSet<String>,
        report: &mut ApplyReport,
    ) {
        for (name, control) in &mut self.services {
            if named.contains(name) {
                continue;
            }
            control.detached_reason = Some(lost_file_reason(loaded, name).to_owned());
            if loaded.dir_read && !loaded.refused.contains(name) {
                report.orphaned.push(name.clone());
            }
        }
    }

    fn apply_node(&self, report: &mut ApplyReport) {
        match config_files::load_node(&self.node_file) {
            Ok(node) => report.changes.extend(config::diff_node(&self.node, &node)),
            Err(diagnostics) => {
                report.diagnostics.splice(0..0, diagnostics);
            }
        }
    }

    fn detach(&mut self, body: &Detach, by: &str) -> Result<Detached, Refusal> {
        let census = self.flow_table().sweep().map_err(|error| {
            refusal("kernel", error.to_string(), "see: shifterctl doctor".into())
        })?;
        let live_count: u64 = census.live.values().sum();
        if live_count > 0 && !body.force {
            return Err(refusal(
                "flows_open",
                format!("{live_count} live flows would break"),
                "drain them first, or: shifterctl detach --force".into(),
            ));
        }
        let interfaces = self.dataplane.detach().map_err(|error| {
            refusal("kernel", error.to_string(), "see: shifterctl doctor".into())
        })?;
        tracing::info!(by, live_count, ?interfaces, "detached; shifterd stops");
        self.is_detached = true;
        Ok(Detached { interfaces, flows_broken_count: live_count })
    }
}

/// Repeats resets after the ends have had time to retransmit: what they then acknowledge is exactly
/// what they will believe. Linux retransmits after 200 ms at the earliest (TCP_RTO_MIN).
fn reset_again(table: &dyn FlowTable, service: &str, slot: Slot) {
    for pause_ms in [300, 400, 800, 1_600] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        if let Err(error) = table.reset_again(service, slot) {
            tracing::warn!(service, "repeating resets: {error}");
            return;
        }
    }
}

/// An answer nobody waits for any more is dropped; what was done stays done.
pub(super) fn send(reply: Answer, answer: Result<Reply, Refusal>) {
    let _ = reply.send(answer);
}

pub(super) fn refusal(code: &str, message: String, help: String) -> Refusal {
    Refusal { code: code.into(), message, help }
}

fn lost(name: &str) -> Refusal {
    refusal("unknown_service", format!("there is no service {name}"), String::new())
}

fn new_service(name: &str) -> ConfigChange {
    ConfigChange {
        service: name.to_owned(),
        key: "service.name".into(),
        before: String::new(),
        after: name.to_owned(),
        effect: Effect::Now,
        reason: String::new(),
    }
}

fn keys(changes: &[ConfigChange]) -> String {
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
}

/// Basis points as people read them: `5 %`, `0.5 %`.
fn percent(bp: u16) -> String {
    let (whole, part) = (bp / 100, bp % 100);
    match part {
        0 => format!("{whole} %"),
        part if part % 10 == 0 => format!("{whole}.{} %", part / 10),
        part => format!("{whole}.{part:02} %"),
    }
}

/// Diagnostics as one text for the log.
pub fn describe(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}
