//! Whose address is this: VIPs and backends, by [`shifter_common::addr_set`] first.

use aya_ebpf::maps::Array;
use shifter_common::{
    abi::{BackendService, VipEntry, VipKey},
    addr_set::{AddrSet, BACKEND_SETS_COUNT, Found, VIP_SETS_COUNT},
};

use crate::maps::{BACKEND_SERVICES, BACKEND_SETS, VIP_SETS, VIPS};

/// The service behind a VIP, if it is one.
#[inline(always)]
pub fn of_vip(key: &VipKey) -> Option<VipEntry> {
    match find(&VIP_SETS, VIP_SETS_COUNT, key) {
        Found::Word(word) => Some(VipEntry::of_word(word)),
        Found::Nowhere => None,
        // SAFETY: the entry is copied at once; the daemon replaces entries whole.
        Found::Unknown => unsafe { VIPS.get(key) }.copied(),
    }
}

/// The service of a backend, if the address is one's.
#[inline(always)]
pub fn of_backend(key: &VipKey) -> Option<BackendService> {
    match find(&BACKEND_SETS, BACKEND_SETS_COUNT, key) {
        Found::Word(word) => Some(BackendService::of_word(word)),
        Found::Nowhere => None,
        // SAFETY: as above.
        Found::Unknown => unsafe { BACKEND_SERVICES.get(key) }.copied(),
    }
}

#[inline(always)]
fn find(sets: &Array<AddrSet>, count: u32, key: &VipKey) -> Found {
    match sets.get_ptr(AddrSet::index(key, count)) {
        // SAFETY: the pointer is to an element of the map; the daemon keeps the rules.
        Some(set) => unsafe { AddrSet::find(set, key) },
        None => Found::Unknown,
    }
}
