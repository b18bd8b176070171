//! What happens: one line in the log, the newest ones for `status`, and what changes anything for the audit.

use std::collections::VecDeque;

use shifter_common::{
    audit,
    steering::Slot,
    wire::{AuditActor, AuditRecord, Event},
};

use super::{Driver, SHIFTERD, unix_ms};
use crate::control::BREAKER;

const KEPT: usize = 100;

/// Hexadecimal digits of the digest of all programs.
const TAG_LEN: usize = 16;

/// Something that happened to a service, and is in force or was refused by the kernel by now.
pub struct Happening<'a> {
    /// The service.
    pub service: &'a str,
    /// Who.
    pub by: &'a str,
    /// What, in the words of [`Event::what`].
    pub what: &'a str,
    /// The slot concerned, if one.
    pub slot: Option<Slot>,
    /// In words, with the numbers.
    pub detail: String,
    /// Canary's share that was in force before, basis points.
    pub before_bp: u16,
    /// From the cause to the store that the kernel reads, nanoseconds.
    pub took_ns: u64,
}

impl Driver {
    /// Records what happened, with the share that is in force now. Its record in the audit is on disk
    /// before the loop turns to anything else, if the disk takes it.
    pub(super) fn record(&mut self, happening: Happening<'_>) {
        let record = self.audit_record(&happening);
        // Backends come and go without moving any traffic from one version to the other.
        let is_health = ["ready", "not ready"].contains(&happening.what);
        if !is_health || record.weight_before_bp != record.weight_after_bp {
            self.state.note(record);
        }
        self.show(happening);
    }

    /// Shows what happened to whoever reads the log and `status`; its record in the audit is kept with
    /// something else.
    pub(super) fn show(&mut self, happening: Happening<'_>) {
        let Happening {
            service,
            by,
            what,
            slot,
            detail,
            before_bp,
            took_ns,
        } = happening;
        let event = Event {
            seq: 0,
            unix_ms: unix_ms(),
            service: service.to_owned(),
            by: by.to_owned(),
            what: what.to_owned(),
            slot,
            detail,
            effective_before_bp: before_bp,
            effective_after_bp: self.in_force_bp(service),
            took_ns,
        };
        self.events.record(event);
    }

    /// The record of something that is in force by now.
    pub(super) fn audit_record(&self, happening: &Happening<'_>) -> AuditRecord {
        let service = happening.service;
        let word = self.words.get(service).copied().unwrap_or_default();
        AuditRecord {
            unix_ms: unix_ms(),
            service: service.to_owned(),
            config_hash: self.file_hashes.get(service).cloned().unwrap_or_default(),
            actor: self.actor(happening.by),
            verb: happening.what.to_owned(),
            slot: happening.slot,
            reason: happening.detail.clone(),
            weight_before_bp: happening.before_bp,
            weight_after_bp: self.in_force_bp(service),
            program_tag: self.program_tag.clone(),
            generation: word.generation(),
            took_ns: happening.took_ns,
            ..AuditRecord::default()
        }
    }

    /// Completes a record with what steers.
    pub(super) fn complete(&self, record: &mut AuditRecord) {
        let word = self.words.get(&record.service).copied().unwrap_or_default();
        record.generation = word.generation();
        record.program_tag.clone_from(&self.program_tag);
    }

    /// Records which daemon begins to live, with which programs.
    pub(super) fn record_start(&mut self) {
        let tags: Vec<String> = self
            .dataplane
            .program_tags()
            .into_iter()
            .map(|(name, tag)| format!("{name} {tag:016x}"))
            .collect();
        let tags = tags.join(", ");
        self.program_tag = if tags.is_empty() {
            String::new()
        } else {
            audit::hash(&tags).chars().take(TAG_LEN).collect()
        };
        let version = env!("CARGO_PKG_VERSION");
        let record = self.audit_record(&Happening {
            service: "",
            by: SHIFTERD,
            what: "started",
            slot: None,
            detail: format!("shifterd {version} began, with these programs: {tags}"),
            before_bp: 0,
            took_ns: 0,
        });
        self.state.note(record);
    }

    /// Who that is, for the audit.
    pub(super) fn actor(&self, by: &str) -> AuditActor {
        if let Some(actor) = &self.acting
            && actor.to_string() == by
        {
            return AuditActor {
                uid: Some(actor.uid),
                user: actor.name.clone(),
                how: "api".into(),
                loginuid: actor.loginuid,
            };
        }
        let how = match by {
            SHIFTERD => "daemon",
            BREAKER => "kernel",
            _ => "signal",
        };
        AuditActor {
            user: by.to_owned(),
            how: how.into(),
            ..AuditActor::default()
        }
    }

    /// Puts on disk what the audit has been told. While the disk refuses, it is asked at each tick, not
    /// after each input.
    pub(super) fn write_audit(&mut self) {
        if self.state.trouble().is_none() {
            self.retry_audit();
        }
    }

    /// Asks a disk that refused once more.
    pub(super) fn retry_audit(&mut self) {
        let known = self.state.trouble().map(str::to_owned);
        if let Err(error) = self.state.flush() {
            let text = error.to_string();
            if known.as_ref() != Some(&text) {
                tracing::error!("the audit waits for the disk: {text}");
            }
        }
    }
}

/// The newest events, oldest first.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<Event>,
    seq: u64,
}

impl Events {
    /// Numbers, logs and keeps an event.
    pub fn record(&mut self, mut event: Event) {
        self.seq += 1;
        event.seq = self.seq;
        tracing::info!(
            service = %event.service,
            by = %event.by,
            what = %event.what,
            slot = event.slot.map(tracing::field::display),
            effective_before_bp = event.effective_before_bp,
            effective_after_bp = event.effective_after_bp,
            took_ns = event.took_ns,
            "{}",
            event.detail
        );
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<Event> {
        self.kept.iter().cloned().collect()
    }
}
