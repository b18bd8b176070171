//! Selection of version and backend for a new flow, over the maps.

use shifter_common::{
    abi::{BackendEntry, FlowKey, Region, ServiceEntry, VIPS_PER_SERVICE, VipKey, backend_state},
    breaker::COHORT_NONE,
    hash::affinity_hash,
    select::{Choice, settle, table_entry, weighted_slot},
    steering::{Slot, SteeringWord},
};

use crate::{
    breaker,
    maps::{BACKENDS, REGIONS, SERVICES, STEERING, TABLES, VIP_ADDRS},
    targets,
};

/// What was selected.
pub struct Selected {
    /// Slot of the version.
    pub slot: Slot,
    /// Whether the other slot was wanted.
    pub failed_over: bool,
    /// Whether a target rule named the slot, not the weight.
    pub targeted: bool,
    /// Cohort of the steering word it was selected under; 0 for a flow that is no part of a trial: a
    /// targeted one, one that wanted the other slot, one selected soon after a change of the weight.
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

/// The VIP of a flow.
#[inline(always)]
pub fn vip(key: &FlowKey) -> Option<&'static VipKey> {
    VIP_ADDRS.get(key.service * VIPS_PER_SERVICE + u32::from(key.vip_ordinal))
}

/// Chooses the slot of a new flow and finds its table.
#[inline(always)]
pub fn select(key: &FlowKey, is_v6: bool, entry: &ServiceEntry) -> Result<Selected, Unselected> {
    let Some(word) = steering_word(key.service) else {
        return Err(Unselected::Broken);
    };
    let hash = affinity_hash(word.affinity(), key, entry.seed);
    let named = targets::of(key, entry).and_then(|target| target.slot(word));
    let wanted = match named {
        Some(slot) => slot,
        None => weighted_slot(word, hash),
    };
    let (slot, failed_over) = match settle(word, wanted) {
        Choice::Selected(slot) => (slot, false),
        Choice::FailedOver(slot) => (slot, true),
        Choice::Nothing(slot) => return Err(Unselected::Unserved(slot)),
    };
    let Some(region) = region(key.service, slot, is_v6, word.bank(slot)) else {
        return Err(Unselected::Broken);
    };
    Ok(Selected {
        slot,
        failed_over,
        targeted: named.is_some(),
        cohort: if named.is_some() || failed_over {
            COHORT_NONE
        } else {
            breaker::admitted(key.service, word)
        },
        hash,
        region,
    })
}

/// Why a flow that a socket's slot has accepted is there.
pub struct Admission {
    /// As [`Selected::targeted`].
    pub targeted: bool,
    /// As [`Selected::cohort`].
    pub cohort: u8,
}

/// What [`select`] says of a flow that is in this slot already. It may have been selected under the word
/// before: soon after a change no flow is in a trial.
#[inline(always)]
pub fn admission(key: &FlowKey, slot: Slot) -> Admission {
    let none = Admission {
        targeted: false,
        cohort: COHORT_NONE,
    };
    let (Some(word), Some(entry)) = (steering_word(key.service), service(key.service)) else {
        return none;
    };
    let named = targets::of(key, entry).and_then(|target| target.slot(word));
    if named.is_some() {
        return Admission {
            targeted: true,
            ..none
        };
    }
    let hash = affinity_hash(word.affinity(), key, entry.seed);
    if weighted_slot(word, hash) != slot {
        return none;
    }
    Admission {
        targeted: false,
        cohort: breaker::admitted(key.service, word),
    }
}

/// Where a slot's lookup table of a family and bank lies; `None` if it has none.
#[inline(always)]
pub fn region(service: u32, slot: Slot, is_v6: bool, bank: u32) -> Option<Region> {
    let word = REGIONS.get_ptr(Region::index(service, slot, is_v6, bank))?;
    // SAFETY: as for the steering word.
    let region = Region::unpack(unsafe { word.read_volatile() });
    (region.size > 0).then_some(region)
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
