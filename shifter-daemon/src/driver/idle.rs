//! Resetting the connections of a version that nobody speaks on, and the others as they fall silent.

use std::time::Duration;

use shifter_common::{
    steering::Slot,
    wire::{Changed, Refusal},
};
use tokio::{task::spawn_blocking, time::Instant};

use super::{Answer, Driver, Reply, send};
use crate::config::format_duration;

/// How long nobody may have spoken on a connection that is reset. Longer than most requests take,
/// because two that follow each other within a tick of the kernel's clock cannot be told apart.
const SILENCE: Duration = Duration::from_secs(5);

/// Connections of a slot that are reset as they fall silent.
pub struct Silencing {
    slot: Slot,
    until: Instant,
}

impl Driver {
    /// Resets what is silent now, and says what becomes of the rest.
    pub(super) fn answer_reset_when_idle(
        &mut self,
        canary: Slot,
        mut changed: Changed,
        reply: Answer,
    ) {
        if let Some(note) = self.keeps_flows(&changed.service, canary) {
            changed.notes.push(note);
            return send(reply, Ok(Reply::Changed(changed)));
        }
        let service = changed.service.clone();
        self.reset_when_idle(&service, canary);
        let timeout = self
            .services
            .get(&service)
            .map_or(Duration::ZERO, |control| control.spec().drain_timeout);
        let table = self.flow_table();
        spawn_blocking(move || {
            match table.reset_idle(&service, canary, SILENCE) {
                Ok(count) => changed.flows_reset_count = count,
                Err(error) => changed.notes.push(format!(
                    "the weight is 0, but its flows could not be reset: {error}"
                )),
            }
            changed.notes.push(format!(
                "a connection that is still in use is reset once nobody has spoken on it for {}, \
                 until {} from now (drain.timeout)",
                format_duration(SILENCE),
                format_duration(timeout)
            ));
            send(reply, Ok::<_, Refusal>(Reply::Changed(changed)));
        });
    }

    /// From now on the connections of a slot are reset as they fall silent, as long as a drain may
    /// take.
    pub(super) fn reset_when_idle(&mut self, service: &str, slot: Slot) {
        let Some(control) = self.services.get(service) else {
            return;
        };
        let until = Instant::now() + control.spec().drain_timeout;
        let silencing = Silencing { slot, until };
        self.silencing.insert(service.to_owned(), silencing);
    }

    /// Resets what has fallen silent since the last look. A slot that takes new flows again keeps
    /// its connections.
    pub(super) fn reset_silent(&mut self) {
        let now = Instant::now();
        let mut all = std::mem::take(&mut self.silencing);
        all.retain(|service, silencing| {
            let is_canary = self
                .services
                .get(service)
                .is_some_and(|control| control.canary() == silencing.slot);
            is_canary && now < silencing.until && self.in_force_bp(service) == 0
        });
        for (service, silencing) in &all {
            let (table, service, slot) = (self.flow_table(), service.clone(), silencing.slot);
            spawn_blocking(move || match table.reset_idle(&service, slot, SILENCE) {
                Ok(0) => {}
                Ok(count) => tracing::info!(service, %slot, count, "silent flows were reset"),
                Err(error) => {
                    tracing::error!(service, %slot, "silent flows were not reset: {error}");
                }
            });
        }
        self.silencing = all;
    }
}
