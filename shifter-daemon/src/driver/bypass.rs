//! `bypass`, and its undoing.

use std::time::Instant;

use shifter_common::wire::{Changed, Refusal};

use super::{
    Driver,
    commands::{Change, Order, took_ns},
    events::Happening,
    refusal::refusal,
};
use crate::{bypass::Bypass, control::ServiceControl, dataplane::DataplaneError};

impl Driver {
    pub(super) fn bypass(
        &mut self,
        name: &str,
        body: &shifter_common::wire::Bypass,
        by: &str,
        arrived: Instant,
    ) -> Result<Changed, Refusal> {
        let control = self.known(name)?;
        if !body.undo && Bypass::of(control).is_none() {
            return Err(refusal(
                "not_eligible",
                format!("no slot of {name} is eligible: there is nowhere to send its clients"),
                format!("make a slot ready first; see: shifterctl status {name}"),
            ));
        }
        let old = control.record().bypassed.clone();
        let change = Change {
            service: name,
            what: "bypass",
            slot: None,
            by,
            arrived,
            order: Order::DiskFirst,
        };
        let undo = body.undo;
        let decide = |control: &mut ServiceControl, unix_ms| {
            control.set_bypassed(!undo, by, unix_ms);
        };
        let mut changed = self.change(&change, decide, |_, _| {
            if undo {
                "shifter steers new connections again".to_owned()
            } else {
                "new connections go around shifter".to_owned()
            }
        })?;
        if let Err(error) = self.refresh_bypass() {
            if let Some(control) = self.services.get_mut(name) {
                let mut record = control.record().clone();
                record.bypassed = old;
                control.restore(record.clone());
                let taken_back = self.audit_record(&Happening {
                    service: name,
                    by,
                    what: "bypass",
                    slot: None,
                    detail: format!("taken back, since the host refused it: {error}"),
                    before_bp: self.in_force_bp(name),
                    took_ns: 0,
                });
                self.state.note(taken_back);
                if let Err(state) = self.state.save(name, &record) {
                    tracing::error!(service = name, "the refused bypass stays on disk: {state}");
                }
            }
            let _ = self.refresh_bypass();
            return Err(error.into());
        }
        changed.took_ns = took_ns(arrived, Some(Instant::now()));
        changed.notes = self.known(name)?.notes();
        Ok(changed)
    }

    /// Puts the ways around shifter in force that are decided.
    pub(super) fn refresh_bypass(&mut self) -> Result<(), DataplaneError> {
        let mut ways = Vec::new();
        for (name, control) in &self.services {
            if control.record().bypassed.is_none() {
                continue;
            }
            // Without a backend that is ready the last ones are as good as any.
            let known = self.ways.iter().find(|way| way.service == *name).cloned();
            ways.extend(Bypass::of(control).or(known));
        }
        self.dataplane.bypass(&ways)?;
        self.ways = ways;
        Ok(())
    }

    /// As [`Driver::refresh_bypass`], when a service has changed for another reason.
    pub(super) fn follow_bypass(&mut self, name: &str) {
        let is_bypassed = self
            .services
            .get(name)
            .is_some_and(|control| control.record().bypassed.is_some());
        if is_bypassed && let Err(error) = self.refresh_bypass() {
            tracing::error!(
                service = name,
                "the way around shifter is as before: {error}"
            );
        }
    }
}
