//! `drain`, and its undoing.

use std::time::Instant;

use shifter_common::wire::{Changed, Drain, Refusal};

use super::{
    Driver,
    commands::{Change, Order},
    refusal::refusal,
};
use crate::control::ServiceControl;

impl Driver {
    pub(super) fn drain(
        &mut self,
        name: &str,
        body: &Drain,
        by: &str,
        arrived: Instant,
    ) -> Result<Changed, Refusal> {
        let control = self.known(name)?;
        let (slot, other) = (body.slot, body.slot.other());
        if !body.undo
            && control.drained(slot).is_none()
            && let Some(reason) = control.ineligible_reason(other)
        {
            return Err(refusal(
                "not_eligible",
                format!(
                    "slot {other} of {name} is not eligible ({reason}): draining slot {slot} would \
                     leave new flows nowhere to go"
                ),
                format!("make slot {other} ready first; see: shifterctl status {name}"),
            ));
        }
        let order = if body.undo {
            Order::DiskFirst
        } else {
            Order::KernelFirst
        };
        let change = Change {
            service: name,
            what: "drain",
            slot: Some(slot),
            by,
            arrived,
            order,
        };
        let decide = |control: &mut ServiceControl, unix_ms| {
            control.set_drained(slot, !body.undo, by, unix_ms);
        };
        self.change(&change, decide, |_, _| {
            if body.undo {
                format!("slot {slot} may take new flows again")
            } else {
                format!("slot {slot} takes no new flows")
            }
        })
    }
}
