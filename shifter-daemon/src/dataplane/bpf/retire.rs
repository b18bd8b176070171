//! Taking backends, VIPs and services out of the maps.

use std::{net::SocketAddr, sync::atomic::Ordering};

use shifter_common::{
    abi::{BackendEntry, NAME_LEN_BYTES, Region, ServiceEntry, backend_state},
    protocol,
    steering::Slot,
};

use super::{
    super::{Census, DataplaneError, ServicePlan},
    BpfDataplane,
    maps::map_error,
    vip_key,
};

impl BpfDataplane {
    /// Takes a new service back that could not be put in force. No packet has found it: its VIPs
    /// are claimed last. What cannot be removed is told by the next publication that meets it.
    pub(super) fn give_up(&mut self, service: u32, plan: &ServicePlan) {
        self.maps
            .steering
            .atomic(service as usize)
            .store(0, Ordering::Release);
        let vips: Vec<(SocketAddr, u8)> = self.vips.of(service).map(|(vip, _)| vip).collect();
        for (vip, protocol) in vips {
            let key = vip_key(vip, protocol);
            let _ = self.maps.vips.remove(&key);
            self.maps.vip_sets.leave(&key);
            self.vips.remove(&(vip, protocol));
        }
        for backend in plan.slots.iter().flat_map(|slot| &slot.backends) {
            let key = vip_key(backend.addr, plan.protocol.number());
            let _ = self.maps.backend_services.remove(&key);
            self.maps.backend_sets.leave(&key);
            self.owners.remove(&key);
        }
        self.forget_targets(service);
        self.breaker.forget(service);
        self.observe.forget(service);
        let backends: Vec<u32> = self.backends_of(service).map(|(index, _)| index).collect();
        for index in backends {
            self.planned_backends.remove(&index);
            self.set_state(index, backend_state::FREE);
            self.roster.give_back(service, index);
        }
        for slot in Slot::ALL {
            for is_v6 in [false, true] {
                self.deals.remove(&(service, slot, is_v6));
                for bank in [0, 1] {
                    let index = Region::index(service, slot, is_v6, bank) as usize;
                    self.maps.regions.atomic(index).store(0, Ordering::Release);
                }
            }
        }
        let free = ServiceEntry {
            seed: 0,
            policy: 0,
            name_len_bytes: 0,
            name: [0; NAME_LEN_BYTES],
        };
        let _ = self.set_service(service, &free);
        self.services.remove(&plan.name);
        self.flow_table.set_name(&plan.name, None);
    }

    /// Marks the backends that take no new flows.
    pub(super) fn leave(&mut self, service: u32, plan: &ServicePlan) {
        let all: Vec<(u32, BackendEntry)> = self.backends_of(service).collect();
        for (index, entry) in all {
            let slot = Slot::from_index(u32::from(entry.slot));
            let addr = entry.addr.to_socket_addr(entry.port);
            let is_ready = plan
                .slot(slot)
                .backends
                .iter()
                .any(|backend| backend.addr == addr && backend.ready);
            if !is_ready {
                self.set_state(index, backend_state::DRAINING);
            }
            let is_planned = plan
                .slot(slot)
                .backends
                .iter()
                .any(|backend| backend.addr == addr);
            if is_planned {
                self.planned_backends.insert(index);
            } else {
                self.planned_backends.remove(&index);
            }
        }
    }

    pub(super) fn retire_unreferenced(&mut self, census: &Census) -> Result<(), DataplaneError> {
        let retired: Vec<(SocketAddr, u8)> = self
            .vips
            .iter()
            .filter(|(_, entry)| {
                entry.is_retired == 1
                    && !census
                        .referenced_vips
                        .contains(&(entry.service, entry.ordinal))
            })
            .map(|(vip, _)| vip)
            .collect();
        for (vip, protocol) in retired {
            let key = vip_key(vip, protocol);
            self.maps
                .vips
                .remove(&key)
                .map_err(|error| map_error(format!("removing VIP {vip}"), error))?;
            self.maps.vip_sets.leave(&key);
            self.vips.remove(&(vip, protocol));
        }
        let used: Vec<u32> = self.roster.used().collect();
        for index in used {
            let entry = self.maps.backends.read(index as usize);
            let is_done = entry.state == backend_state::DRAINING
                && !self.planned_backends.contains(&index)
                && !census.referenced_backends.contains(&index);
            if is_done {
                self.free_backend(index, entry)?;
            }
        }
        Ok(())
    }

    pub(super) fn free_backend(
        &mut self,
        index: u32,
        entry: BackendEntry,
    ) -> Result<(), DataplaneError> {
        let addr = entry.addr.to_socket_addr(entry.port);
        self.set_state(index, backend_state::FREE);
        self.roster.give_back(entry.service, index);
        if let Ok(socket) = &self.socket {
            socket.forget(index);
        }
        let is_elsewhere = self
            .backends_of(entry.service)
            .any(|(_, other)| other.addr == entry.addr && other.port == entry.port);
        if !is_elsewhere {
            // The service may have changed its protocol while the backend had flows.
            for protocol in [protocol::TCP, protocol::UDP] {
                let key = vip_key(addr, protocol);
                if self
                    .owners
                    .get(&key)
                    .is_some_and(|owner| owner.service == entry.service)
                {
                    self.maps
                        .backend_services
                        .remove(&key)
                        .map_err(|error| map_error(format!("removing backend {addr}"), error))?;
                    self.maps.backend_sets.leave(&key);
                    self.owners.remove(&key);
                }
            }
        }
        let zero = aya::maps::PerCpuValues::try_from(vec![
            shifter_common::abi::BackendCounters::default();
            aya::util::nr_cpus().map_err(|(_, error)| {
                DataplaneError::kernel("counting CPUs", error)
            })?
        ])
        .map_err(|error| DataplaneError::kernel("clearing counters", error))?;
        self.maps
            .backend_counters
            .set(index, zero, 0)
            .map_err(|error| map_error(format!("clearing counters of {addr}"), error))?;
        self.local.clear_backend(index)
    }
}
