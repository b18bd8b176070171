//! `rollback`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shifter_common::{
    steering::Slot,
    wire::{Changed, EstablishedPolicy, Refusal, Rollback},
};
use tokio::task::spawn_blocking;

use super::{
    Answer, Driver, Reply,
    commands::{Change, Order},
    send, weight,
};
use crate::{control::ServiceControl, dataplane::FlowTable};

impl Driver {
    pub(super) fn rollback(
        &mut self,
        name: &str,
        body: &Rollback,
        by: &str,
        arrived: Instant,
        reply: Answer,
    ) {
        let taken = match self.rollouts.under_way(name) {
            Some(_) => self.abort_rollout(name, body, by, arrived),
            None => self.take_weight_back(name, body, by, arrived),
        };
        match taken {
            Err(refused) => send(reply, Err(refused)),
            Ok((_, EstablishedPolicy::Drain, changed)) => send(reply, Ok(Reply::Changed(changed))),
            Ok((canary, EstablishedPolicy::Reset, changed)) => {
                self.reset_flows(canary, changed, reply);
            }
            Ok((canary, EstablishedPolicy::ResetIdle, changed)) => {
                self.answer_reset_when_idle(canary, changed, reply);
            }
        }
    }

    /// Weight to 0. Gives the slot that lost its share, and what becomes of its flows.
    fn take_weight_back(
        &mut self,
        name: &str,
        body: &Rollback,
        by: &str,
        arrived: Instant,
    ) -> Result<(Slot, EstablishedPolicy, Changed), Refusal> {
        let control = self.known(name)?;
        let canary = control.canary();
        let policy = body
            .established
            .unwrap_or(control.spec().rollback_established);
        let change = Change {
            service: name,
            what: "rollback",
            slot: Some(canary),
            by,
            arrived,
            order: Order::KernelFirst,
        };
        let decide = |control: &mut ServiceControl, unix_ms| control.take_back(by, unix_ms);
        let changed = self.change(&change, decide, weight::describe)?;
        Ok((canary, policy, changed))
    }

    /// New flows go elsewhere already; the old ones are reset beside the loop.
    fn reset_flows(&self, canary: Slot, mut changed: Changed, reply: Answer) {
        if let Some(note) = self.keeps_flows(&changed.service, canary) {
            changed.notes.push(note);
            return send(reply, Ok(Reply::Changed(changed)));
        }
        let table = self.flow_table();
        let again = tokio::runtime::Handle::current();
        spawn_blocking(move || {
            let service = changed.service.as_str();
            match table.reset(service, canary) {
                Ok(count) => {
                    tracing::info!(service, slot = %canary, count, "live flows were reset");
                    changed.flows_reset_count = count;
                }
                Err(error) => {
                    tracing::error!(service, slot = %canary, "flows were not reset: {error}");
                    changed.notes.push(format!(
                        "the weight is 0, but its flows could not be reset: {error}"
                    ));
                }
            }
            let service = changed.service.clone();
            send(reply, Ok(Reply::Changed(changed)));
            again.spawn(reset_again(table, service, canary));
        });
    }
}

impl Driver {
    /// Why the flows of a slot must not be reset: their clients would come back to where they are.
    pub(super) fn keeps_flows(&self, service: &str, slot: Slot) -> Option<String> {
        (self.in_force_bp(service) > 0).then(|| {
            format!(
                "slot {slot} takes the new flows all the same, so its open connections were not \
                 reset"
            )
        })
    }
}

/// Resets the flows of a slot when nobody asked.
pub(super) fn reset_beside(table: Arc<dyn FlowTable>, service: String, slot: Slot) {
    let again = tokio::runtime::Handle::current();
    spawn_blocking(move || match table.reset(&service, slot) {
        Ok(count) => {
            tracing::info!(service, %slot, count, "live flows were reset");
            again.spawn(reset_again(table, service, slot));
        }
        Err(error) => tracing::error!(service, %slot, "flows were not reset: {error}"),
    });
}

/// Repeats resets after the ends have had time to retransmit: what they then acknowledge is exactly
/// what they will believe. Linux retransmits after 200 ms at the earliest (TCP_RTO_MIN).
pub(super) async fn reset_again(table: Arc<dyn FlowTable>, service: String, slot: Slot) {
    for pause_ms in [300, 400, 800, 1_600] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let (table, name) = (Arc::clone(&table), service.clone());
        let repeated = spawn_blocking(move || table.reset_again(&name, slot)).await;
        match repeated {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return tracing::warn!(service, "repeating resets: {error}"),
            Err(error) => return tracing::warn!(service, "repeating resets: {error}"),
        }
    }
}
