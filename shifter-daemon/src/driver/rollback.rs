//! `rollback`.

use std::time::Instant;

use shifter_common::{
    steering::Slot,
    wire::{Changed, EstablishedPolicy, Refusal, Rollback},
};

use super::{Answer, Driver, Reply, commands::Change, send, weight};
use crate::control::ServiceControl;

impl Driver {
    pub(super) fn rollback(
        &mut self,
        name: &str,
        body: &Rollback,
        by: &str,
        arrived: Instant,
        reply: Answer,
    ) {
        match self.take_weight_back(name, body, by, arrived) {
            Err(refused) => send(reply, Err(refused)),
            Ok((_, EstablishedPolicy::Drain, changed)) => send(reply, Ok(Reply::Changed(changed))),
            Ok((canary, EstablishedPolicy::Reset, changed)) => {
                self.reset_flows(canary, changed, reply);
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
        };
        let decide = |control: &mut ServiceControl, unix_ms| control.set_weight(0, by, unix_ms);
        let changed = self.change(&change, decide, weight::describe)?;
        Ok((canary, policy, changed))
    }

    /// New flows go elsewhere already; the old ones are reset beside the loop.
    fn reset_flows(&self, canary: Slot, mut changed: Changed, reply: Answer) {
        if self.in_force_bp(&changed.service) > 0 {
            // Its clients would come back to where they are.
            changed.notes.push(format!(
                "slot {canary} takes the new flows all the same, so its open connections were not \
                 reset"
            ));
            return send(reply, Ok(Reply::Changed(changed)));
        }
        let table = self.flow_table();
        tokio::task::spawn_blocking(move || {
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
            send(reply, Ok(Reply::Changed(changed)));
        });
    }
}
