//! Putting a plan in force.
//!
//! Order is everything here. What is taken out of traffic goes first, by one store. What is added
//! becomes reachable last: tables are written where no packet looks, then one store of the steering
//! word turns to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::Ordering,
    time::Instant,
};

use shifter_common::{
    abi::{
        BackendEntry, BackendService, NAME_LEN_BYTES, Region, ServiceEntry, VIPS_PER_SERVICE,
        VipEntry, VipKey, backend_state, policy,
    },
    addr::Be16,
    maglev::{self, Candidate},
    steering::{Slot, SteeringWord},
};

use super::{
    super::{Census, DataplaneError, Publication, ServicePlan},
    BpfDataplane,
    maps::map_error,
    regions::find_gap,
    sys, vip_key,
};
use crate::model::OnEmpty;

/// Candidates of each table as last dealt: service index, slot, family.
pub type Dealt = BTreeMap<(u32, Slot, bool), Vec<Candidate>>;

impl BpfDataplane {
    pub(super) fn publish_plan(
        &mut self,
        plan: &ServicePlan,
    ) -> Result<Publication, DataplaneError> {
        self.check(plan)?;
        let is_new = !self.services.contains_key(&plan.name);
        let service = self.claim_service(plan)?;
        let outcome = self.carry_out(service, plan);
        if outcome.is_err() && is_new {
            self.give_up(service, plan);
        }
        outcome
    }

    fn carry_out(
        &mut self,
        service: u32,
        plan: &ServicePlan,
    ) -> Result<Publication, DataplaneError> {
        let mut stored_at = self.take_out(service, plan);
        let indexes = self.claim_backends(service, plan)?;
        // Slot by slot: a table that does not fit must not keep the other slot's failed backend in.
        let dealt = Slot::ALL.map(|slot| {
            self.deal(service, plan, slot, &indexes).map(|has_flipped| {
                self.turn(service, plan, slot, has_flipped, &mut stored_at);
            })
        });
        self.leave(service, plan);
        for outcome in dealt {
            outcome?;
        }
        self.claim_vips(service, plan)?;
        Ok(Publication {
            word: self.word(service),
            stored_at,
        })
    }

    /// Takes a new service back that could not be put in force. No packet has found it: its VIPs
    /// are claimed last. What cannot be removed is told by the next publication that meets it.
    fn give_up(&mut self, service: u32, plan: &ServicePlan) {
        self.maps
            .steering
            .atomic(service as usize)
            .store(0, Ordering::Release);
        let vips: Vec<SocketAddr> = self
            .vips
            .iter()
            .filter(|(_, e)| e.service == service)
            .map(|(vip, _)| *vip)
            .collect();
        for vip in vips {
            let _ = self.maps.vips.remove(&vip_key(vip, plan.protocol.number()));
            self.vips.remove(&vip);
        }
        for backend in plan.slots.iter().flat_map(|slot| &slot.backends) {
            let key = vip_key(backend.addr, plan.protocol.number());
            let _ = self.maps.backend_services.remove(&key);
        }
        let backends: Vec<u32> = self.backends_of(service).map(|(index, _)| index).collect();
        for index in backends {
            self.planned_backends.remove(&index);
            self.set_state(index, backend_state::FREE);
        }
        for slot in Slot::ALL {
            for is_v6 in [false, true] {
                self.dealt.remove(&(service, slot, is_v6));
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
        self.flow_table.set_names(&self.services);
    }

    /// Everything that can be refused without having changed anything.
    fn check(&self, plan: &ServicePlan) -> Result<(), DataplaneError> {
        let service = self.services.get(&plan.name);
        for vip in &plan.vips {
            if let Some(entry) = self.vips.get(vip)
                && Some(&entry.service) != service
            {
                return Err(DataplaneError::Refused(format!(
                    "VIP {vip} of {} still carries flows of {}; wait until they end",
                    plan.name,
                    self.name_of(entry.service)
                )));
            }
        }
        if let Some(&service) = service
            && self.ordinals(service, plan).len() < plan.vips.len()
        {
            return Err(DataplaneError::Refused(format!(
                "{} would have more than {VIPS_PER_SERVICE} VIPs, those that still carry flows \
                 included; wait until these end, or name fewer",
                plan.name
            )));
        }
        for backend in plan.slots.iter().flat_map(|slot| &slot.backends) {
            self.hooks.check_backend(backend.addr)?;
            let key = vip_key(backend.addr, plan.protocol.number());
            if let Ok(owner) = self.maps.backend_services.get(&key, 0)
                && Some(&owner.service) != service
            {
                return Err(DataplaneError::Refused(format!(
                    "backend {} of {} still carries flows of {}; wait until they end",
                    backend.addr,
                    plan.name,
                    self.name_of(owner.service)
                )));
            }
        }
        Ok(())
    }

    fn name_of(&self, service: u32) -> String {
        self.services
            .iter()
            .find(|(_, index)| **index == service)
            .map_or_else(|| "another service".to_owned(), |(name, _)| name.clone())
    }

    fn claim_service(&mut self, plan: &ServicePlan) -> Result<u32, DataplaneError> {
        let policy = match plan.on_empty {
            OnEmpty::Drop => 0,
            OnEmpty::Pass => policy::ON_EMPTY_PASS,
        };
        if let Some(&index) = self.services.get(&plan.name) {
            let mut entry = self
                .maps
                .services
                .get(&index, 0)
                .map_err(|error| map_error("reading SERVICES", error))?;
            if entry.policy != policy {
                entry.policy = policy;
                self.set_service(index, &entry)?;
            }
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
        self.flow_table.set_names(&self.services);
        Ok(index)
    }

    fn set_service(&mut self, index: u32, entry: &ServiceEntry) -> Result<(), DataplaneError> {
        self.maps
            .services
            .set(index, entry, 0)
            .map_err(|error| map_error("writing SERVICES", error))
    }

    /// Changes what needs no new table: slots that lose eligibility, weight, baseline, affinity.
    /// This is the store that takes a bad version out of traffic.
    fn take_out(&self, service: u32, plan: &ServicePlan) -> Option<Instant> {
        self.change_word(service, |word| {
            let mut word = with_choice(word, plan);
            for slot in Slot::ALL {
                if !plan.slot(slot).eligible {
                    word = word.with_eligible(slot, false);
                }
            }
            word
        })
        .1
    }

    /// Finds or makes the entry of every backend. Gives their indexes by slot and address.
    fn claim_backends(
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
                let key = vip_key(backend.addr, plan.protocol.number());
                let owner = BackendService {
                    service,
                    vip_count,
                    pad: [0; 3],
                };
                if self.maps.backend_services.get(&key, 0).ok() != Some(owner) {
                    self.maps
                        .backend_services
                        .insert(key, owner, 0)
                        .map_err(|error| {
                            map_error(format!("entering backend {}", backend.addr), error)
                        })?;
                }
                let index = match indexes.get(&(slot, backend.addr)) {
                    Some(&index) => index,
                    None => self.new_backend(service, slot, backend.addr)?,
                };
                indexes.insert((slot, backend.addr), index);
                if backend.ready {
                    self.set_state(index, backend_state::READY);
                }
            }
        }
        Ok(indexes)
    }

    fn new_backend(
        &mut self,
        service: u32,
        slot: Slot,
        addr: SocketAddr,
    ) -> Result<u32, DataplaneError> {
        let len = self.maps.backends.len();
        // Entries keep their id when they are freed, so the largest is never given out again.
        let mut backend_id = 0;
        let mut free = None;
        for step in 0..len {
            let index = (self.next_backend + step) % len;
            let entry = self.maps.backends.read(index);
            backend_id = backend_id.max(entry.backend_id);
            if free.is_none() && entry.state == backend_state::FREE {
                free = Some(index);
            }
        }
        let index = free.ok_or_else(|| {
            DataplaneError::Refused(format!(
                "no room for backend {addr}: all {len} are in use; raise [tables] backends, then: \
                 shifterctl detach && systemctl restart shifterd"
            ))
        })?;
        self.next_backend = index + 1;
        self.maps.backends.write(
            index,
            BackendEntry {
                addr: addr.ip().into(),
                port: Be16::from_host(addr.port()),
                slot: slot.index() as u8,
                state: backend_state::DRAINING,
                service,
                backend_id: backend_id.wrapping_add(1),
                version_id: 0,
            },
        );
        Ok(index as u32)
    }

    fn set_state(&mut self, index: u32, state: u8) {
        let index = index as usize;
        let entry = self.maps.backends.read(index);
        if entry.state != state {
            self.maps
                .backends
                .write(index, BackendEntry { state, ..entry });
        }
    }

    /// Writes a slot's tables, if they have changed, into the bank that is not in use. Says whether
    /// the bank must be flipped.
    fn deal(
        &mut self,
        service: u32,
        plan: &ServicePlan,
        slot: Slot,
        indexes: &BTreeMap<(Slot, SocketAddr), u32>,
    ) -> Result<bool, DataplaneError> {
        if !plan.slot(slot).eligible {
            return Ok(false);
        }
        let bank = self.word(service).bank(slot);
        let wanted = [false, true].map(|is_v6| candidates(plan, slot, is_v6, indexes));
        let is_dealt = [false, true]
            .into_iter()
            .zip(&wanted)
            .all(|(is_v6, candidates)| self.dealt.get(&(service, slot, is_v6)) == Some(candidates));
        if is_dealt {
            return Ok(false);
        }
        let tables = wanted
            .each_ref()
            .map(|candidates| maglev::build(candidates, maglev::table_size(candidates.len())));
        let is_in_force = [false, true]
            .into_iter()
            .zip(&tables)
            .all(|(is_v6, table)| {
                let active = self.region(service, slot, is_v6, bank);
                active.size as usize == table.len() && self.maps.tables.holds(active.base, table)
            });
        if !is_in_force {
            self.wait_for_readers(service)?;
            for (is_v6, table) in [false, true].into_iter().zip(&tables) {
                self.write_table(service, slot, is_v6, bank ^ 1, table)?;
            }
        }
        for (is_v6, candidates) in [false, true].into_iter().zip(wanted) {
            self.dealt.insert((service, slot, is_v6), candidates);
        }
        Ok(!is_in_force)
    }

    /// A packet may still be read through the bank that was retired last.
    fn wait_for_readers(&mut self, service: u32) -> Result<(), DataplaneError> {
        if self.flipped.contains(&service) {
            sys::wait_for_running_programs()
                .map_err(|error| DataplaneError::kernel("membarrier", error))?;
            self.flipped.clear();
        }
        Ok(())
    }

    fn region(&self, service: u32, slot: Slot, is_v6: bool, bank: u32) -> Region {
        let index = Region::index(service, slot, is_v6, bank) as usize;
        Region::unpack(self.maps.regions.atomic(index).load(Ordering::Acquire))
    }

    fn write_table(
        &mut self,
        service: u32,
        slot: Slot,
        is_v6: bool,
        bank: u32,
        table: &[u32],
    ) -> Result<(), DataplaneError> {
        let index = Region::index(service, slot, is_v6, bank) as usize;
        let size = table.len() as u32;
        let mut region = self.region(service, slot, is_v6, bank);
        if region.size != size {
            // Nothing looks at this bank, so its old room may be given away at once.
            self.maps.regions.atomic(index).store(0, Ordering::Release);
            let in_use = (0..self.maps.regions.len())
                .map(|i| Region::unpack(self.maps.regions.atomic(i).load(Ordering::Relaxed)));
            let capacity = (self.maps.tables.len() * 2) as u32;
            region = find_gap(in_use, size, capacity).ok_or_else(|| {
                DataplaneError::Refused(format!(
                    "no room for a lookup table of {size} entries: all {capacity} are in use; \
                     raise [tables] table_entries, then: shifterctl detach && systemctl restart \
                     shifterd"
                ))
            })?;
        }
        self.maps.tables.fill(region.base, table);
        self.maps
            .regions
            .atomic(index)
            .store(region.pack(), Ordering::Release);
        Ok(())
    }

    /// Turns a slot's new flows to what was prepared.
    fn turn(
        &mut self,
        service: u32,
        plan: &ServicePlan,
        slot: Slot,
        has_flipped: bool,
        stored_at: &mut Option<Instant>,
    ) {
        let (_, at) = self.change_word(service, |word| {
            let word = word.with_eligible(slot, plan.slot(slot).eligible);
            if has_flipped {
                word.with_bank(slot, word.bank(slot) ^ 1)
            } else {
                word
            }
        });
        if has_flipped {
            self.flipped.insert(service);
        }
        *stored_at = stored_at.or(at);
    }

    fn word(&self, service: u32) -> SteeringWord {
        SteeringWord(
            self.maps
                .steering
                .atomic(service as usize)
                .load(Ordering::Acquire),
        )
    }

    /// Changes the steering word by compare-and-swap: the kernel may change it too. Gives the word
    /// in force and, if it had to be stored, when.
    fn change_word(
        &self,
        service: u32,
        change: impl Fn(SteeringWord) -> SteeringWord,
    ) -> (SteeringWord, Option<Instant>) {
        let atomic = self.maps.steering.atomic(service as usize);
        let mut old = atomic.load(Ordering::Acquire);
        loop {
            let before = SteeringWord(old);
            let changed = change(before);
            if changed == before {
                return (before, None);
            }
            let cohort = if changed.weight_bp() == before.weight_bp() {
                before.cohort()
            } else {
                next_cohort(before.cohort())
            };
            let new = changed
                .with_cohort(cohort)
                .with_generation(before.generation().wrapping_add(1));
            match atomic.compare_exchange_weak(old, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (new, Some(Instant::now())),
                Err(current) => old = current,
            }
        }
    }

    /// The ordinal of each of a service's VIPs, kept for the VIP's life.
    fn ordinals(&self, service: u32, plan: &ServicePlan) -> Vec<(SocketAddr, u8)> {
        let mut used: BTreeSet<u8> = self
            .vips
            .values()
            .filter(|entry| entry.service == service)
            .map(|entry| entry.ordinal)
            .collect();
        plan.vips
            .iter()
            .filter_map(|vip| match self.vips.get(vip) {
                Some(entry) => Some((*vip, entry.ordinal)),
                None => {
                    let ordinal = (0..VIPS_PER_SERVICE as u8).find(|o| !used.contains(o))?;
                    used.insert(ordinal);
                    Some((*vip, ordinal))
                }
            })
            .collect()
    }

    fn planned_vip_count(&self, service: u32, plan: &ServicePlan) -> u8 {
        let held = self
            .vips
            .values()
            .filter(|e| e.service == service)
            .map(|e| e.ordinal);
        let planned = self
            .ordinals(service, plan)
            .into_iter()
            .map(|(_, ordinal)| ordinal);
        held.chain(planned).max().map_or(0, |most| most + 1)
    }

    /// Enters the VIPs, the last step of a new service: from here on packets find it.
    fn claim_vips(&mut self, service: u32, plan: &ServicePlan) -> Result<(), DataplaneError> {
        let protocol = plan.protocol.number();
        let ordinals = self.ordinals(service, plan);
        let vip_count = self.planned_vip_count(service, plan);
        for (vip, ordinal) in ordinals {
            let key = vip_key(vip, protocol);
            let entry = VipEntry {
                service,
                ordinal,
                vip_count,
                is_retired: 0,
                pad: 0,
            };
            if self.vips.get(&vip) == Some(&entry) {
                continue;
            }
            let index = service * VIPS_PER_SERVICE + u32::from(ordinal);
            self.maps
                .vip_addrs
                .set(index, key, 0)
                .map_err(|error| map_error(format!("entering VIP {vip}"), error))?;
            self.enter_vip(key, vip, entry)?;
        }
        let gone: Vec<(SocketAddr, VipEntry)> = self
            .vips
            .iter()
            .filter(|(vip, entry)| {
                entry.service == service && entry.is_retired == 0 && !plan.vips.contains(vip)
            })
            .map(|(vip, entry)| (*vip, *entry))
            .collect();
        for (vip, entry) in gone {
            let entry = VipEntry {
                is_retired: 1,
                vip_count,
                ..entry
            };
            self.enter_vip(vip_key(vip, protocol), vip, entry)?;
        }
        Ok(())
    }

    fn enter_vip(
        &mut self,
        key: VipKey,
        vip: SocketAddr,
        entry: VipEntry,
    ) -> Result<(), DataplaneError> {
        self.maps
            .vips
            .insert(key, entry, 0)
            .map_err(|error| map_error(format!("entering VIP {vip}"), error))?;
        self.vips.insert(vip, entry);
        Ok(())
    }

    /// Marks the backends that take no new flows.
    fn leave(&mut self, service: u32, plan: &ServicePlan) {
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
        let retired: Vec<(SocketAddr, VipEntry)> = self
            .vips
            .iter()
            .filter(|(_, entry)| {
                entry.is_retired == 1
                    && !census
                        .referenced_vips
                        .contains(&(entry.service, entry.ordinal))
            })
            .map(|(vip, entry)| (*vip, *entry))
            .collect();
        for (vip, _) in retired {
            let key = vip_key(vip, TCP);
            self.maps
                .vips
                .remove(&key)
                .map_err(|error| map_error(format!("removing VIP {vip}"), error))?;
            self.vips.remove(&vip);
        }
        for index in 0..self.maps.backends.len() as u32 {
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

    fn free_backend(&mut self, index: u32, entry: BackendEntry) -> Result<(), DataplaneError> {
        let addr = entry.addr.to_socket_addr(entry.port);
        self.set_state(index, backend_state::FREE);
        let is_elsewhere = self
            .backends_of(entry.service)
            .any(|(_, other)| other.addr == entry.addr && other.port == entry.port);
        if !is_elsewhere {
            self.maps
                .backend_services
                .remove(&vip_key(addr, TCP))
                .map_err(|error| map_error(format!("removing backend {addr}"), error))?;
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
            .map_err(|error| map_error(format!("clearing counters of {addr}"), error))
    }
}

/// IP protocol number of the only protocol steered so far.
const TCP: u8 = 6;

fn with_choice(word: SteeringWord, plan: &ServicePlan) -> SteeringWord {
    word.with_weight_bp(plan.weight_bp)
        .with_baseline(plan.baseline)
        .with_affinity(plan.affinity)
}

/// Cohort 0 is for flows outside any trial.
const fn next_cohort(cohort: u8) -> u8 {
    match cohort.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

fn candidates(
    plan: &ServicePlan,
    slot: Slot,
    is_v6: bool,
    indexes: &BTreeMap<(Slot, SocketAddr), u32>,
) -> Vec<Candidate> {
    plan.slot(slot)
        .backends
        .iter()
        .filter(|backend| backend.addr.is_ipv6() == is_v6)
        .filter_map(|backend| {
            Some(Candidate {
                index: *indexes.get(&(slot, backend.addr))?,
                addr: backend.addr.ip().into(),
                port: Be16::from_host(backend.addr.port()),
                weight: backend.weight,
                ready: backend.ready,
            })
        })
        .collect()
}
