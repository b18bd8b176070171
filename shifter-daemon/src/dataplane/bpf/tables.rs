//! Dealing lookup tables into the bank that no packet looks at.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering};

use shifter_common::{
    abi::Region,
    addr::Be16,
    maglev::{self, Candidate, Dealt},
    steering::Slot,
};

use super::{
    super::{DataplaneError, ServicePlan},
    BpfDataplane, grace_period,
    regions::find_gap,
};

/// What each table was last dealt from, and what came of it: service index, slot, family.
pub type Deals = BTreeMap<(u32, Slot, bool), Deal>;

/// One table as last dealt.
pub struct Deal {
    candidates: Vec<Candidate>,
    dealt: Dealt,
}

impl BpfDataplane {
    /// Writes a slot's tables, if they have changed, into the bank that is not in use. Says whether
    /// the bank must be flipped.
    pub(super) fn deal(
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
            .all(|(is_v6, candidates)| {
                let deal = self.deals.get(&(service, slot, is_v6));
                deal.is_some_and(|deal| deal.candidates == *candidates)
            });
        if is_dealt {
            return Ok(false);
        }
        let deals = [false, true]
            .into_iter()
            .zip(wanted)
            .map(|(is_v6, candidates)| {
                let dealt = match self.deals.get(&(service, slot, is_v6)) {
                    Some(deal) => maglev::deal(&candidates, &deal.dealt),
                    None => maglev::deal(&candidates, &self.recalled(service, slot, is_v6, bank)),
                };
                (is_v6, Deal { candidates, dealt })
            });
        let deals: Vec<(bool, Deal)> = deals.collect();
        let is_in_force = deals.iter().all(|(is_v6, Deal { dealt, .. })| {
            let active = self.region(service, slot, *is_v6, bank);
            active.size as usize == dealt.table.len()
                && self.maps.tables.holds(active.base, &dealt.table)
        });
        if !is_in_force {
            self.wait_for_readers(service, slot)?;
            for (is_v6, Deal { dealt, .. }) in &deals {
                self.write_table(service, slot, *is_v6, bank ^ 1, &dealt.table)?;
            }
        }
        for (is_v6, deal) in deals {
            self.deals.insert((service, slot, is_v6), deal);
        }
        Ok(!is_in_force)
    }

    /// The table that an earlier daemon left in force.
    fn recalled(&self, service: u32, slot: Slot, is_v6: bool, bank: u32) -> Dealt {
        let Region { base, size } = self.region(service, slot, is_v6, bank);
        Dealt::recalled(self.maps.tables.table(base, size))
    }

    pub(super) fn region(&self, service: u32, slot: Slot, is_v6: bool, bank: u32) -> Region {
        let index = Region::index(service, slot, is_v6, bank) as usize;
        Region::unpack(self.maps.regions.atomic(index).load(Ordering::Acquire))
    }

    pub(super) fn write_table(
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

    /// A packet may still be read through the bank that was retired last.
    pub(super) fn wait_for_readers(
        &mut self,
        service: u32,
        slot: Slot,
    ) -> Result<(), DataplaneError> {
        if self.flipped.contains(&(service, slot)) {
            grace_period()?;
            self.flipped.clear();
        }
        Ok(())
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
        .filter(|backend| crate::control::serves(backend.addr, is_v6))
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
