//! The newest events, for `status`; each is one line in the log as well.

use std::collections::VecDeque;

use shifter_common::{steering::Slot, wire::Event};

use super::{Driver, unix_ms};

const KEPT: usize = 100;

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
    /// Records what happened, with the share that is in force now.
    pub(super) fn record(&mut self, happening: Happening<'_>) {
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
