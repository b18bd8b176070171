//! Reading services and counters back from the kernel.

use std::net::SocketAddr;

use shifter_common::{
    abi::{SlotCounters, backend_state, policy},
    socket::plane,
    steering::{Slot, SteeringWord},
    verdict::Verdict,
};

use super::{
    super::{BackendReading, DataplaneError, PublishedService, ServiceReading},
    BpfDataplane, maps, sum_backend, sum_slot,
};
use crate::model::{OnEmpty, OnFull, Plane, Protocol};

impl BpfDataplane {
    pub(super) fn published_service(&self, name: &str, index: u32) -> PublishedService {
        let word = self.maps.steering.atomic(index as usize);
        let (protocol, on_empty, on_full) = self.policy(index);
        let mut vips: Vec<(u8, SocketAddr)> = self
            .vips
            .of(index)
            .filter(|(_, entry)| entry.is_retired == 0 || self.bypassed.contains(name))
            .map(|((addr, _), entry)| (entry.ordinal, addr))
            .collect();
        vips.sort_unstable();
        PublishedService {
            name: name.to_owned(),
            word: SteeringWord(word.load(std::sync::atomic::Ordering::Acquire)),
            vips: vips.into_iter().map(|(_, addr)| addr).collect(),
            protocol,
            on_empty,
            on_full,
            observe: self.observe.spec(index),
            targets: self.targets.get(&index).cloned().unwrap_or_default(),
            plane: self.plane(index),
            ready: self
                .backends_of(index)
                .filter(|(_, entry)| entry.state == backend_state::READY)
                .map(|(_, entry)| {
                    (
                        Slot::from_index(u32::from(entry.slot)),
                        entry.addr.to_socket_addr(entry.port),
                    )
                })
                .collect(),
            version_ids: Slot::ALL.map(|slot| {
                let mut of_slot = self
                    .backends_of(index)
                    .filter(|(_, entry)| u32::from(entry.slot) == slot.index());
                of_slot.next().map(|(_, entry)| entry.version_id)
            }),
        }
    }

    pub(super) fn plane(&self, index: u32) -> Plane {
        let is_socket = self
            .vips
            .of(index)
            .any(|(_, entry)| entry.plane == plane::SOCKET);
        if is_socket { Plane::Socket } else { Plane::Nat }
    }

    fn policy(&self, index: u32) -> (Protocol, OnEmpty, OnFull) {
        let policy = self.maps.services.get(&index, 0).map_or(0, |e| e.policy);
        let protocol = if policy & policy::UDP == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        let on_empty = if policy & policy::ON_EMPTY_PASS == 0 {
            OnEmpty::Drop
        } else {
            OnEmpty::Pass
        };
        let on_full = if policy & policy::ON_FULL_FAILOVER == 0 {
            OnFull::Stay
        } else {
            OnFull::Failover
        };
        (protocol, on_empty, on_full)
    }

    pub(super) fn read_service(&self, name: &str) -> Result<ServiceReading, DataplaneError> {
        let Some(&service) = self.services.get(name) else {
            return Ok(ServiceReading::default());
        };
        let mut slots = [SlotCounters::default(); 2];
        for (slot, reading) in Slot::ALL.into_iter().zip(&mut slots) {
            let index = service * 2 + slot.index();
            let values = self
                .maps
                .slot_counters
                .get(&index, 0)
                .map_err(|error| maps::map_error("reading SLOT_COUNTERS", error))?;
            *reading = sum_slot(values.iter().copied());
        }
        let mut backends = Vec::new();
        for (index, entry) in self.backends_of(service) {
            let values = self
                .maps
                .backend_counters
                .get(&index, 0)
                .map_err(|error| maps::map_error("reading BACKEND_COUNTERS", error))?;
            backends.push(BackendReading {
                index,
                slot: Slot::from_index(u32::from(entry.slot)),
                addr: entry.addr.to_socket_addr(entry.port),
                counters: sum_backend(values.iter().copied()),
            });
        }
        let sockets = match &self.socket {
            Ok(socket) => socket.read(service)?,
            Err(_) => Default::default(),
        };
        Ok(ServiceReading {
            slots,
            sockets,
            backends,
            observed: self.observe.read(service)?,
        })
    }

    pub(super) fn read_verdicts(&self) -> Result<Vec<u64>, DataplaneError> {
        (0..Verdict::COUNT)
            .map(|index| {
                self.maps
                    .verdicts
                    .get(&index, 0)
                    .map(|values| values.iter().sum())
                    .map_err(|error| maps::map_error("reading VERDICTS", error))
            })
            .collect()
    }
}
