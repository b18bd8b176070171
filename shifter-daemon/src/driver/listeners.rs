//! The socket plane: which plane steers a service, and what listens for its backends.

use std::time::Instant;

use super::{Driver, SHIFTERD, events::Happening};
use crate::{
    control::Relistened,
    dataplane::{HostView, ListenerReading},
    probe::TargetKey,
};

impl Driver {
    /// Looks at the listeners of all services and puts in force what that brings.
    pub(super) fn look_at_listeners(&mut self) {
        let host = self.dataplane.host_view();
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            self.look_at_service(&name, &host);
        }
    }

    fn look_at_service(&mut self, name: &str, host: &HostView) {
        let before_bp = self.in_force_bp(name);
        let was_possible = self
            .services
            .get(name)
            .is_some_and(|c| c.steering().is_ok());
        let is_moved = match self.services.get_mut(name).map(|c| c.choose_plane(host)) {
            Some(Ok(is_other)) => is_other,
            // Said where it is put in force.
            Some(Err(_)) => was_possible,
            None => false,
        };
        let news = self.note_listeners(name);
        if !is_moved && news.is_empty() {
            return;
        }
        let trouble = match self.put_in_force(name) {
            Ok(_) => String::new(),
            Err(error) => format!("; not in force yet: {error}"),
        };
        for reading in news {
            let (slot, addr) = (reading.slot, reading.addr);
            let (what, detail) = if reading.view.is_captured {
                ("listening", format!("slot {slot}: {addr} listens{trouble}"))
            } else {
                let reason = &reading.view.reason;
                (
                    "not listening",
                    format!("slot {slot}: {addr} {reason}{trouble}"),
                )
            };
            self.record(Happening {
                service: name,
                by: SHIFTERD,
                what,
                slot: Some(slot),
                detail,
                before_bp,
                took_ns: 0,
            });
        }
    }

    /// Notes what listens for a service's backends. Gives what is news.
    pub(super) fn note_listeners(&mut self, name: &str) -> Vec<ListenerReading> {
        let Some(control) = self.services.get(name) else {
            return Vec::new();
        };
        if !control.is_on_socket_plane() {
            return Vec::new();
        }
        let plan = control.plan();
        let readings = match self.dataplane.listeners(&plan) {
            Ok(readings) => readings,
            Err(error) => {
                // Nothing is known, so nothing changes.
                tracing::error!(service = name, "looking at its listeners: {error}");
                return Vec::new();
            }
        };
        let mut news = Vec::new();
        for reading in readings {
            let Some(control) = self.services.get_mut(name) else {
                continue;
            };
            let was_captured = control
                .listener(reading.slot, reading.addr)
                .is_some_and(|view| view.is_captured);
            match control.set_listener(reading.slot, reading.addr, reading.view.clone()) {
                Relistened::No => {}
                Relistened::Changed if was_captured && reading.view.is_captured => {}
                Relistened::Changed => news.push(reading),
                Relistened::Anew => {
                    let key = TargetKey {
                        service: name.to_owned(),
                        slot: reading.slot,
                        addr: reading.addr,
                    };
                    self.prober.restart(&key);
                    self.restarted.insert(key, Instant::now());
                    news.push(reading);
                }
            }
        }
        news
    }
}
