//! Selection of version and backend for a new flow, over the maps.

use shifter_common::{
    abi::{BackendEntry, FlowKey, Region, ServiceEntry, backend_state},
    hash::affinity_hash,
    select::{Choice, choose_slot, table_entry},
    steering::{Slot, SteeringWord},
};

use crate::maps::{BACKENDS, REGIONS, SERVICES, STEERING, TABLES};

/// What was selected.
pub struct Selected {
    /// Slot of the version.
    pub slot: Slot,
    /// Whether the weight asked for the other slot.
    pub failed_over: bool,
    /// Cohort of the steering word it was selected under.
    pub cohort: u8,
    /// Hash of the affinity key, to find another backend of the slot with.
    pub hash: u64,
    /// The slot's lookup table.
    pub region: Region,
}

/// Why nothing was selected.
pub enum Unselected {
    /// No slot is eligible; this one was wanted.
    Unserved(Slot),
    /// The published tables contradict each other.
    Broken,
}

/// The steering word of a service, by one load.
#[inline(always)]
pub fn steering_word(service: u32) -> Option<SteeringWord> {
    let word = STEERING.get_ptr(service)?;
    // SAFETY: the pointer is to an aligned u64 of the map; the daemon changes it by atomic stores
    // only, and a volatile read keeps the compiler from loading it twice.
    Some(SteeringWord(unsafe { word.read_volatile() }))
}

/// The fixed part of a service.
#[inline(always)]
pub fn service(index: u32) -> Option<&'static ServiceEntry> {
    SERVICES.get(index)
}

/// Chooses the slot of a new flow and finds its table.
#[inline(always)]
pub fn select(key: &FlowKey, is_v6: bool, entry: &ServiceEntry) -> Result<Selected, Unselected> {
    let Some(word) = steering_word(key.service) else {
        return Err(Unselected::Broken);
    };
    let hash = affinity_hash(word.affinity(), key, entry.seed);
    let (slot, failed_over) = match choose_slot(word, hash) {
        Choice::Selected(slot) => (slot, false),
        Choice::FailedOver(slot) => (slot, true),
        Choice::Nothing(slot) => return Err(Unselected::Unserved(slot)),
    };
    let index = Region::index(key.service, slot, is_v6, word.bank(slot));
    let Some(region) = REGIONS.get_ptr(index) else {
        return Err(Unselected::Broken);
    };
    // SAFETY: as for the steering word.
    let region = Region::unpack(unsafe { region.read_volatile() });
    if region.size == 0 {
        return Err(Unselected::Broken);
    }
    Ok(Selected {
        slot,
        failed_over,
        cohort: word.cohort(),
        hash,
        region,
    })
}

/// The backend index this hash finds in a table.
#[inline(always)]
pub fn backend_index(region: Region, hash: u64) -> Option<u32> {
    let entry = region.base.wrapping_add(table_entry(hash, region.size));
    TABLES
        .get(entry >> 1)
        .map(|pair| if entry & 1 == 0 { pair[0] } else { pair[1] })
}

/// The backend with this index.
#[inline(always)]
pub fn backend(index: u32) -> Option<&'static BackendEntry> {
    BACKENDS.get(index)
}

/// Whether new flows may still be sent to this backend.
#[inline(always)]
pub fn is_ready(index: u32) -> bool {
    matches!(backend(index), Some(backend) if backend.state == backend_state::READY)
}

/// The slot that was not selected, if it is eligible: for a new flow that found nobody in the first.
#[inline(always)]
pub fn other_slot(key: &FlowKey, is_v6: bool, selected: &Selected) -> Option<Selected> {
    let word = steering_word(key.service)?;
    let slot = selected.slot.other();
    if !word.eligible(slot) {
        return None;
    }
    let index = Region::index(key.service, slot, is_v6, word.bank(slot));
    let region = REGIONS.get_ptr(index)?;
    // SAFETY: as for the steering word.
    let region = Region::unpack(unsafe { region.read_volatile() });
    (region.size != 0).then_some(Selected {
        slot,
        region,
        ..*selected
    })
}

/// The backend index in an entry of a table, counted around.
#[inline(always)]
pub fn table_at(region: Region, entry: u32) -> Option<u32> {
    if region.size == 0 {
        return None;
    }
    let entry = region.base.wrapping_add(entry % region.size);
    TABLES
        .get(entry >> 1)
        .map(|pair| if entry & 1 == 0 { pair[0] } else { pair[1] })
}
