//! What probes find out changes which slots and backends take new flows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Driver, SHIFTERD, events::Happening, nanos};
use crate::{
    control::BackendHealth,
    model::{ProbeCheck, Slot},
    probe::{ProbeEvent, Target, TargetKey},
};

impl Driver {
    /// Takes all results, then publishes each service they concern once: a thousand backends that
    /// become ready together make one table, not a thousand.
    pub(super) fn handle_probes(&mut self, events: Vec<ProbeEvent>) {
        let mut news: BTreeMap<String, Vec<ProbeEvent>> = BTreeMap::new();
        for event in events {
            if self.note_probe(&event) {
                news.entry(event.key.service.clone())
                    .or_default()
                    .push(event);
            }
        }
        for (name, events) in news {
            let before_bp = self.in_force_bp(&name);
            let (stored_at, trouble) = match self.put_in_force(&name) {
                Ok(publication) => (publication.stored_at, String::new()),
                Err(error) => (None, format!("; not in force yet: {error}")),
            };
            for event in events {
                let took = stored_at.map_or(Duration::ZERO, |at| {
                    at.checked_duration_since(event.caused_at)
                        .unwrap_or(Duration::ZERO)
                });
                let TargetKey { slot, addr, .. } = event.key;
                let (what, detail) = if event.ready {
                    ("ready", format!("slot {slot}: {addr} is ready{trouble}"))
                } else {
                    (
                        "not ready",
                        format!("slot {slot}: {addr} {}{trouble}", event.reason),
                    )
                };
                self.record(Happening {
                    service: &name,
                    by: SHIFTERD,
                    what,
                    slot: Some(slot),
                    detail,
                    before_bp,
                    took_ns: nanos(took),
                });
            }
        }
    }

    /// Notes what a probe found. Says whether that is news.
    fn note_probe(&mut self, event: &ProbeEvent) -> bool {
        let TargetKey {
            service,
            slot,
            addr,
        } = &event.key;
        if self
            .restarted
            .get(&event.key)
            .is_some_and(|at| event.caused_at < *at)
        {
            return false;
        }
        let health = if event.ready {
            BackendHealth::ready()
        } else {
            BackendHealth::not_ready(event.reason.clone())
        };
        self.services
            .get_mut(service)
            .is_some_and(|control| control.set_health(*slot, *addr, health))
    }

    /// Begins the probing of a slot's backends anew, as ones that are not ready. Says whether it did:
    /// not where nothing is asked, nor where the slot serves for the other one.
    pub(super) fn probe_anew(&mut self, name: &str, slot: Slot) -> bool {
        let Some(control) = self.services.get_mut(name) else {
            return false;
        };
        let is_asked = control.spec().readiness.check != ProbeCheck::None;
        if !is_asked || !control.is_eligible(slot.other()) {
            return false;
        }
        let backends: Vec<_> = control.backends();
        for (of, addr) in backends {
            if of != slot {
                continue;
            }
            let health = BackendHealth::not_ready("not probed yet since its version was started");
            control.set_health(slot, addr, health);
            let key = TargetKey {
                service: name.to_owned(),
                slot,
                addr,
            };
            self.prober.restart(&key);
            self.restarted.insert(key, Instant::now());
        }
        // A failure is noted where it happens.
        let _ = self.put_in_force(name);
        true
    }

    /// Tells the prober which backends there are.
    pub(super) fn update_probes(&mut self) {
        let mut targets = BTreeMap::new();
        for (name, control) in &self.services {
            for (slot, addr) in control.backends() {
                let key = TargetKey {
                    service: name.clone(),
                    slot,
                    addr,
                };
                let target = Target {
                    spec: control.spec().readiness.clone(),
                    initially_ready: control.health(slot, addr).is_some_and(|h| h.ready),
                };
                targets.insert(key, target);
            }
        }
        self.prober.update(targets);
    }
}
