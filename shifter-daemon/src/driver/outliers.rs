//! Looking for backends that fail where their peers do not.

use std::{collections::HashMap, time::Instant};

use super::{Driver, SHIFTERD, events::Happening, nanos};
use crate::{
    control::{Decision, Outcomes},
    dataplane::ServiceReading,
};

impl Driver {
    /// Looks at the counters of every service that asks for it.
    pub(super) fn look_for_outliers(&mut self, now: Instant) {
        let watching: Vec<String> = self
            .services
            .iter()
            .filter(|(_, control)| control.spec().outlier.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in watching {
            match self.dataplane.read(&name) {
                Ok(reading) => self.judge_backends(&name, &reading, now),
                Err(error) => {
                    tracing::error!(service = name, "looking for outliers: {error}");
                }
            }
        }
    }

    fn judge_backends(&mut self, name: &str, reading: &ServiceReading, now: Instant) {
        let outcomes: HashMap<_, _> = reading
            .backends
            .iter()
            .map(|backend| {
                let flows = &backend.counters.flows;
                let outcomes = Outcomes {
                    ok: flows.closed,
                    errors: flows.refused + flows.reset_by_backend,
                };
                ((backend.slot, backend.addr), outcomes)
            })
            .collect();
        let looked_at = Instant::now();
        let Some(control) = self.services.get_mut(name) else {
            return;
        };
        let decisions = control.look_for_outliers(
            |slot, addr| outcomes.get(&(slot, addr)).copied().unwrap_or_default(),
            now,
        );
        if decisions.is_empty() {
            return;
        }
        let before_bp = self.in_force_bp(name);
        let (stored_at, trouble) = match self.put_in_force(name) {
            Ok(publication) => (publication.stored_at, String::new()),
            Err(error) => (None, format!("; not in force yet: {error}")),
        };
        let took = stored_at.and_then(|at| at.checked_duration_since(looked_at));
        for (slot, decision) in decisions {
            let (what, detail) = match decision {
                Decision::Ejected { addr, reason } => {
                    ("ejected", format!("slot {slot}: {addr} {reason}{trouble}"))
                }
                Decision::Returned { addr } => (
                    "returned",
                    format!("slot {slot}: {addr} gets new flows again{trouble}"),
                ),
            };
            self.record(Happening {
                service: name,
                by: SHIFTERD,
                what,
                slot: Some(slot),
                detail,
                before_bp,
                took_ns: took.map_or(0, nanos),
            });
        }
    }
}
