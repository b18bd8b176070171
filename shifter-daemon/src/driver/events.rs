//! The newest events, for `status`; each is one line in the log as well.

use std::collections::VecDeque;

use shifter_common::wire::Event;

const KEPT: usize = 100;

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
