//! Giving services, backends and VIPs their places in the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::Ordering,
};

use shifter_common::{
    abi::{
        BackendEntry, BackendService, NAME_LEN_BYTES, ServiceEntry, VIPS_PER_SERVICE, VipEntry,
        VipKey, backend_state, policy,
    },
    addr::Be16,
    steering::{Slot, SteeringWord},
};

use super::{
    super::{DataplaneError, PlanePlan, ServicePlan},
    BpfDataplane, grace_period,
    maps::map_error,
    sys, vip_key,
};
use crate::model::{OnEmpty, OnFull, Protocol};

/// Whether a backend that listens again is selected at once.
fn readmits_on_listen(plan: &ServicePlan) -> bool {
    matches!(&plan.plane, PlanePlan::Socket(socket) if socket.readmits_on_listen)
}

/// Whether a backend whose accept queue is full is passed over.
fn fails_over_when_full(plan: &ServicePlan) -> bool {
    matches!(&plan.plane, PlanePlan::Socket(socket) if socket.on_full == OnFull::Failover)
}

/// The bits of a service's policy that its plan alone decides.
const PLANNED: u32 =
    policy::ON_EMPTY_PASS | policy::UDP | policy::READMIT_LISTEN | policy::ON_FULL_FAILOVER;

impl BpfDataplane {
    pub(super) fn claim_service(&mut self, plan: &ServicePlan) -> Result<u32, DataplaneError> {
        let passes = plan.on_empty == OnEmpty::Pass;
        let is_udp = plan.protocol == Protocol::Udp;
        let bit = |bit, is_on| if is_on { bit } else { 0 };
        let policy = bit(policy::ON_EMPTY_PASS, passes)
            | bit(policy::UDP, is_udp)
            | bit(policy::READMIT_LISTEN, readmits_on_listen(plan))
            | bit(policy::ON_FULL_FAILOVER, fails_over_when_full(plan));
        if let Some(&index) = self.services.get(&plan.name) {
            self.set_policy(index, PLANNED, policy)?;
            return Ok(index);
        }
        let used: BTreeSet<u32> = self.services.values().copied().collect();
        let capacity = self.maps.services.len();
        let index = (0..capacity).find(|index| !used.contains(index)).ok_or_else(|| {
            DataplaneError::Refused(format!(
                "no room for service {}: all {capacity} are in use; raise [tables] services, then: \
                 shifterctl detach && systemctl restart shifterd",
                plan.name
            ))
        })?;
        let mut name = [0_u8; NAME_LEN_BYTES];
        let bytes = plan.name.as_bytes();
        let target = name.get_mut(..bytes.len()).ok_or_else(|| {
            DataplaneError::Refused(format!(
                "service name {} is longer than {NAME_LEN_BYTES} bytes",
                plan.name
            ))
        })?;
        target.copy_from_slice(bytes);
        let seed = sys::random_u64()
            .map_err(|error| DataplaneError::kernel("reading /dev/urandom", error))?;
        let word = SteeringWord::default().with_baseline(plan.baseline);
        self.maps
            .steering
            .atomic(index as usize)
            .store(word.0, Ordering::Release);
        self.set_service(
            index,
            &ServiceEntry {
                seed,
                policy,
                name_len_bytes: bytes.len() as u32,
                name,
            },
        )?;
        self.services.insert(plan.name.clone(), index);
        self.flow_table.set_name(&plan.name, Some(index));
        Ok(index)
    }

    /// Sets some bits of a service's policy as they are in `wanted`.
    pub(super) fn set_policy(
        &mut self,
        index: u32,
        bits: u32,
        wanted: u32,
    ) -> Result<(), DataplaneError> {
        self.effort.call();
        let mut entry = self
            .maps
            .services
            .get(&index, 0)
            .map_err(|error| map_error("reading SERVICES", error))?;
        let policy = entry.policy & !bits | wanted & bits;
        if entry.policy == policy {
            return Ok(());
        }
        entry.policy = policy;
        self.set_service(index, &entry)
    }

    pub(super) fn set_service(
        &mut self,
        index: u32,
        entry: &ServiceEntry,
    ) -> Result<(), DataplaneError> {
        self.effort.call();
        self.maps
            .services
            .set(index, entry, 0)
            .map_err(|error| map_error("writing SERVICES", error))
    }

    /// Finds or makes the entry of every backend. Gives their indexes by slot and address.
    pub(super) fn claim_backends(
        &mut self,
        service: u32,
        plan: &ServicePlan,
    ) -> Result<BTreeMap<(Slot, SocketAddr), u32>, DataplaneError> {
        let mut indexes: BTreeMap<(Slot, SocketAddr), u32> = self
            .backends_of(service)
            .map(|(index, entry)| {
                let slot = Slot::from_index(u32::from(entry.slot));
                ((slot, entry.addr.to_socket_addr(entry.port)), index)
            })
            .collect();
        let vip_count = self.planned_vip_count(service, plan);
        for slot in Slot::ALL {
            for backend in &plan.slot(slot).backends {
                let index = match indexes.get(&(slot, backend.addr)) {
                    Some(&index) => index,
                    None => self.new_backend(service, slot, backend.addr)?,
                };
                let key = vip_key(backend.addr, plan.protocol.number());
                let owner = BackendService {
                    service,
                    vip_count,
                    pad: [0; 3],
                };
                if self.owners.get(&key) != Some(&owner) {
                    self.effort.call();
                    self.maps
                        .backend_services
                        .insert(key, owner, 0)
                        .map_err(|error| {
                            map_error(format!("entering backend {}", backend.addr), error)
                        })?;
                    self.owners.insert(key, owner);
                    let sets = &mut self.maps.backend_sets;
                    sets.enter(key, owner.word(), grace_period)?;
                }
                indexes.insert((slot, backend.addr), index);
                if backend.ready {
                    self.set_state(index, backend_state::READY);
                }
            }
        }
        self.give_slots(service, plan);
        Ok(indexes)
    }

    /// Writes the version of each slot to all of its backends, to those too that are out of it: what
    /// another version has left open there is then nobody's.
    fn give_slots(&mut self, service: u32, plan: &ServicePlan) {
        let all: Vec<(u32, BackendEntry)> = self.backends_of(service).collect();
        for (index, entry) in all {
            let slot = Slot::from_index(u32::from(entry.slot));
            let version_id = plan.slot(slot).version_id;
            if entry.version_id != version_id {
                let entry = BackendEntry {
                    version_id,
                    ..entry
                };
                self.maps.backends.write(index as usize, entry);
            }
        }
    }

    pub(super) fn new_backend(
        &mut self,
        service: u32,
        slot: Slot,
        addr: SocketAddr,
    ) -> Result<u32, DataplaneError> {
        let (index, backend_id) = self.roster.take(service).ok_or_else(|| {
            let len = self.maps.backends.len();
            DataplaneError::Refused(format!(
                "no room for backend {addr}: all {len} are in use; raise [tables] backends, then: \
                 shifterctl detach && systemctl restart shifterd"
            ))
        })?;
        self.maps.backends.write(
            index as usize,
            BackendEntry {
                addr: addr.ip().into(),
                port: Be16::from_host(addr.port()),
                slot: slot.index() as u8,
                state: backend_state::DRAINING,
                service,
                backend_id,
                version_id: 0,
            },
        );
        Ok(index)
    }

    pub(super) fn set_state(&mut self, index: u32, state: u8) {
        let index = index as usize;
        let entry = self.maps.backends.read(index);
        if entry.state != state {
            self.maps
                .backends
                .write(index, BackendEntry { state, ..entry });
        }
    }

    /// The ordinal of each of a service's VIPs, kept for the VIP's life.
    pub(super) fn ordinals(&self, service: u32, plan: &ServicePlan) -> Vec<(SocketAddr, u8)> {
        let mut used: BTreeSet<u8> = self
            .vips
            .of(service)
            .map(|(_, entry)| entry.ordinal)
            .collect();
        plan.vips
            .iter()
            .filter_map(|vip| match self.vips.get(&(*vip, plan.protocol.number())) {
                Some(entry) => Some((*vip, entry.ordinal)),
                None => {
                    let ordinal = (0..VIPS_PER_SERVICE as u8).find(|o| !used.contains(o))?;
                    used.insert(ordinal);
                    Some((*vip, ordinal))
                }
            })
            .collect()
    }

    pub(super) fn planned_vip_count(&self, service: u32, plan: &ServicePlan) -> u8 {
        let held = self.vips.of(service).map(|(_, entry)| entry.ordinal);
        let planned = self
            .ordinals(service, plan)
            .into_iter()
            .map(|(_, ordinal)| ordinal);
        held.chain(planned).max().map_or(0, |most| most + 1)
    }

    /// Enters the VIPs, the last step of a new service: from here on packets find it.
    pub(super) fn claim_vips(
        &mut self,
        service: u32,
        plan: &ServicePlan,
    ) -> Result<(), DataplaneError> {
        let protocol = plan.protocol.number();
        let ordinals = self.ordinals(service, plan);
        let vip_count = self.planned_vip_count(service, plan);
        for (vip, ordinal) in ordinals {
            let key = vip_key(vip, protocol);
            let entry = VipEntry {
                service,
                ordinal,
                vip_count,
                is_retired: u8::from(self.bypassed.contains(&plan.name)),
                plane: Self::plane_of(plan),
            };
            if self.vips.get(&(vip, protocol)) == Some(&entry) {
                continue;
            }
            let index = service * VIPS_PER_SERVICE + u32::from(ordinal);
            self.effort.call();
            self.maps
                .vip_addrs
                .set(index, key, 0)
                .map_err(|error| map_error(format!("entering VIP {vip}"), error))?;
            self.enter_vip(key, vip, entry)?;
        }
        // A VIP of the protocol that the service had before is another one.
        let is_planned = |(vip, of): &(SocketAddr, u8)| *of == protocol && plan.vips.contains(vip);
        let gone: Vec<((SocketAddr, u8), VipEntry)> = self
            .vips
            .of(service)
            .filter(|(vip, entry)| entry.is_retired == 0 && !is_planned(vip))
            .collect();
        for ((vip, protocol), entry) in gone {
            let entry = VipEntry {
                is_retired: 1,
                vip_count,
                ..entry
            };
            self.enter_vip(vip_key(vip, protocol), vip, entry)?;
        }
        Ok(())
    }

    pub(super) fn enter_vip(
        &mut self,
        key: VipKey,
        vip: SocketAddr,
        entry: VipEntry,
    ) -> Result<(), DataplaneError> {
        self.effort.call();
        self.maps
            .vips
            .insert(key, entry, 0)
            .map_err(|error| map_error(format!("entering VIP {vip}"), error))?;
        self.vips.insert((vip, key.protocol), entry);
        let sets = &mut self.maps.vip_sets;
        sets.enter(key, entry.word(), grace_period)
    }
}
