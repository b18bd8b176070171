//! Which listener address stands for which backend.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use shifter_common::{
    socket::{Capture, NO_BACKEND},
    steering::Slot,
};

use super::{
    super::{
        super::{DataplaneError, ServicePlan, SocketPlan},
        maps::map_error,
        vip_key,
    },
    SocketPlane,
};
use crate::control::serves;

/// The listener addresses that serve the backends of a plan. A wildcard stands for all backends with
/// its port that are in one slot: the first of each family, because a socket has one version.
pub fn wanted(
    plan: &ServicePlan,
    uids: [u32; 2],
    indexes: &BTreeMap<(Slot, SocketAddr), u32>,
) -> BTreeMap<SocketAddr, Capture> {
    let mut captures: BTreeMap<SocketAddr, (Slot, Capture)> = BTreeMap::new();
    for slot in Slot::ALL {
        let uid = uids[slot.index() as usize];
        for backend in &plan.slot(slot).backends {
            let Some(&index) = indexes.get(&(slot, backend.addr)) else {
                continue;
            };
            for listener in listener_addresses(backend.addr) {
                let none = Capture {
                    backends: [NO_BACKEND; 2],
                    uid,
                    pad: 0,
                };
                let (owner, capture) = captures.entry(listener).or_insert((slot, none));
                if *owner != slot {
                    continue;
                }
                for (is_v6, place) in [false, true].into_iter().zip(&mut capture.backends) {
                    if serves(backend.addr, is_v6) && *place == NO_BACKEND {
                        *place = index;
                    }
                }
            }
        }
    }
    captures
        .into_iter()
        .map(|(listener, (_, capture))| (listener, capture))
        .collect()
}

/// A backend's own address, then the wildcards that stand for it.
pub fn listener_addresses(backend: SocketAddr) -> Vec<SocketAddr> {
    let mut all = vec![backend.ip()];
    if backend.is_ipv4() {
        all.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    all.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    all.dedup();
    all.into_iter()
        .map(|ip| SocketAddr::new(ip, backend.port()))
        .collect()
}

/// The users who may listen for the slots, as numbers; 0 where only root may.
///
/// # Errors
/// If there is no such user.
pub fn uids(plan: &ServicePlan, socket: &SocketPlan) -> Result<[u32; 2], DataplaneError> {
    let mut uids = [0; 2];
    for slot in Slot::ALL {
        let index = slot.index() as usize;
        let Some(name) = &socket.users[index] else {
            continue;
        };
        let user = nix::unistd::User::from_name(name)
            .map_err(|errno| DataplaneError::kernel(format!("looking up user {name:?}"), errno))?;
        uids[index] = user.map(|user| user.uid.as_raw()).ok_or_else(|| {
            DataplaneError::Refused(format!(
                "slot {slot} of {} names user {name:?}, who does not exist here; create the user, \
                 or remove `user`",
                plan.name
            ))
        })?;
    }
    Ok(uids)
}

impl SocketPlane {
    /// Tells the kernel whom to capture for a service from now on; `wanted` is empty for one that is
    /// not on this plane. What another service has entered stays its own.
    ///
    /// # Errors
    /// If the table is full.
    pub fn enter(
        &mut self,
        service: u32,
        wanted: BTreeMap<SocketAddr, Capture>,
    ) -> Result<(), DataplaneError> {
        let is_free = |addr: &SocketAddr| {
            !self
                .entered
                .iter()
                .any(|(owner, held)| *owner != service && held.contains_key(addr))
        };
        let wanted: BTreeMap<_, _> = wanted
            .into_iter()
            .filter(|(addr, _)| is_free(addr))
            .collect();
        let held = self.entered.remove(&service).unwrap_or_default();
        for (addr, capture) in &wanted {
            if held.get(addr) != Some(capture) {
                self.captures
                    .insert(vip_key(*addr, shifter_common::protocol::TCP), capture, 0)
                    .map_err(|error| map_error(format!("entering listener {addr}"), error))?;
            }
        }
        for addr in held.keys().filter(|addr| !wanted.contains_key(addr)) {
            // One that is gone already is as it should be.
            let _ = self
                .captures
                .remove(&vip_key(*addr, shifter_common::protocol::TCP));
        }
        if !wanted.is_empty() {
            self.entered.insert(service, wanted);
        }
        Ok(())
    }

    /// Reads back what a daemon before this one has entered.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn recall(
        &mut self,
        service_of: impl Fn(u32) -> Option<u32>,
    ) -> Result<(), DataplaneError> {
        let mut entered: BTreeMap<u32, BTreeMap<SocketAddr, Capture>> = BTreeMap::new();
        for entry in self.captures.iter() {
            let (key, capture) = entry.map_err(|error| map_error("reading CAPTURES", error))?;
            let backend = capture.backends.into_iter().find(|b| *b != NO_BACKEND);
            if let Some(service) = backend.and_then(&service_of) {
                let addr = key.addr.to_socket_addr(key.port);
                entered.entry(service).or_default().insert(addr, capture);
            }
        }
        self.entered = entered;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{PlanePlan, PlannedBackend, SlotPlan};
    use crate::model::{Affinity, OnEmpty, Protocol};

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn captured(a: &[&str], b: &[&str]) -> BTreeMap<String, [u32; 2]> {
        let slot = |addrs: &[&str]| SlotPlan {
            eligible: true,
            backends: addrs
                .iter()
                .map(|text| PlannedBackend {
                    addr: addr(text),
                    weight: 100,
                    ready: true,
                })
                .collect(),
            ..SlotPlan::default()
        };
        let plan = ServicePlan {
            name: "orders".into(),
            vips: Vec::new(),
            protocol: Protocol::Tcp,
            affinity: Affinity::Connection,
            on_empty: OnEmpty::Drop,
            baseline: Slot::A,
            weight_bp: 0,
            held: false,
            observe: Default::default(),
            breaker: Default::default(),
            rearms: false,
            latches: false,
            targets: Default::default(),
            plane: PlanePlan::Nat,
            slots: [slot(a), slot(b)],
        };
        let mut indexes = BTreeMap::new();
        for (slot, addrs) in Slot::ALL.into_iter().zip([a, b]) {
            for text in addrs {
                let index = indexes.len() as u32;
                indexes.insert((slot, addr(text)), index);
            }
        }
        wanted(&plan, [7, 8], &indexes)
            .into_iter()
            .map(|(addr, capture)| (addr.to_string(), capture.backends))
            .collect()
    }

    #[test]
    fn which_listeners_serve_which_backends() {
        const N: u32 = NO_BACKEND;
        type Row = (
            &'static [&'static str],
            &'static [&'static str],
            &'static [(&'static str, [u32; 2])],
        );
        const ROWS: &[Row] = &[
            (
                &["10.0.0.20:81"],
                &[],
                &[
                    ("0.0.0.0:81", [0, N]),
                    ("10.0.0.20:81", [0, N]),
                    ("[::]:81", [0, N]),
                ],
            ),
            (
                &["[::]:81"],
                &["[::]:82"],
                &[("[::]:81", [0, 0]), ("[::]:82", [1, 1])],
            ),
            (
                &["0.0.0.0:81"],
                &[],
                &[("0.0.0.0:81", [0, N]), ("[::]:81", [0, N])],
            ),
            // One dual-stack listener for both families of a slot.
            (
                &["10.0.0.20:81", "[2001:db8::20]:81"],
                &[],
                &[
                    ("0.0.0.0:81", [0, N]),
                    ("10.0.0.20:81", [0, N]),
                    ("[2001:db8::20]:81", [N, 1]),
                    ("[::]:81", [0, 1]),
                ],
            ),
            // A wildcard is one version's, whatever else has its port.
            (
                &["10.0.0.20:81"],
                &["10.0.0.21:81"],
                &[
                    ("0.0.0.0:81", [0, N]),
                    ("10.0.0.20:81", [0, N]),
                    ("10.0.0.21:81", [1, N]),
                    ("[::]:81", [0, N]),
                ],
            ),
        ];
        for (a, b, expected) in ROWS {
            let expected: BTreeMap<String, [u32; 2]> = expected
                .iter()
                .map(|(addr, backends)| ((*addr).to_owned(), *backends))
                .collect();
            assert_eq!(captured(a, b), expected, "{a:?} {b:?}");
        }
    }
}
