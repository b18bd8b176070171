//! `set-weight`.

use std::time::Instant;

use shifter_common::{
    steering::WEIGHT_FULL_BP,
    wire::{Changed, Refusal, SetWeight},
};

use super::{
    Driver,
    commands::{Change, Order},
    refusal::refusal,
};
use crate::control::{ServiceControl, ServiceRecord};

impl Driver {
    pub(super) fn set_weight(
        &mut self,
        name: &str,
        body: &SetWeight,
        by: &str,
        arrived: Instant,
    ) -> Result<Changed, Refusal> {
        self.known(name)?;
        if body.weight_bp > WEIGHT_FULL_BP {
            return Err(refusal(
                "bad_request",
                format!(
                    "weight_bp is {}, but at most {WEIGHT_FULL_BP}",
                    body.weight_bp
                ),
                "a weight is given in basis points: 500 is 5 %".into(),
            ));
        }
        self.refuse_weight_in_rollout(name)?;
        let control = self.known(name)?;
        let canary = control.canary();
        if body.weight_bp > 0 && control.spec().slot(canary).backends.is_empty() {
            return Err(refusal(
                "not_eligible",
                format!("slot {canary} of {name} has no backends to send traffic to"),
                format!("add [slot.{canary}] to its file, then: shifterctl apply"),
            ));
        }
        // Taking all traffic back is what a rollback does.
        let order = if body.weight_bp == 0 {
            Order::KernelFirst
        } else {
            Order::DiskFirst
        };
        let change = Change {
            service: name,
            what: "weight",
            slot: None,
            by,
            arrived,
            order,
        };
        let decide = |control: &mut ServiceControl, unix_ms| {
            control.set_weight(body.weight_bp, by, unix_ms);
        };
        self.change(&change, decide, describe)
    }
}

/// What became of the weight.
pub fn describe(old: &ServiceRecord, new: &ServiceRecord) -> String {
    format!(
        "weight {} -> {}",
        percent(old.weight_bp),
        percent(new.weight_bp)
    )
}

/// Basis points as people read them: `5 %`, `0.5 %`.
pub(super) fn percent(bp: u16) -> String {
    let (whole, part) = (bp / 100, bp % 100);
    match part {
        0 => format!("{whole} %"),
        part if part % 10 == 0 => format!("{whole}.{} %", part / 10),
        part => format!("{whole}.{part:02} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn basis_points_as_people_read_them() {
        let rows = [
            (0, "0 %"),
            (1, "0.01 %"),
            (9, "0.09 %"),
            (10, "0.1 %"),
            (50, "0.5 %"),
            (99, "0.99 %"),
            (100, "1 %"),
            (101, "1.01 %"),
            (110, "1.1 %"),
            (2_550, "25.5 %"),
            (9_999, "99.99 %"),
            (10_000, "100 %"),
        ];
        for (bp, text) in rows {
            assert_eq!(percent(bp), text, "{bp}");
        }
    }
}
