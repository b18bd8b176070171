//! The maps, as [`shifter_common::abi::map`] describes them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
};
use shifter_common::{
    abi::{
        BackendCounters, BackendEntry, BackendService, FlowEntry, FlowKey, LayoutText,
        LocalCounters, LocalKey, LocalPeer, LocalSocket, REGIONS_PER_SERVICE, ServiceEntry,
        SlotCounters, TargetKey, VIPS_PER_SERVICE, VipEntry, VipKey, capacity, predecessor,
        setting, traffic,
    },
    addr_set::{AddrSet, BACKEND_SETS_COUNT, VIP_SETS_COUNT},
    local::LocalOutcome,
    verdict::Verdict,
};

#[map]
pub static STEERING: Array<u64> = Array::with_max_entries(capacity::SERVICES, BPF_F_MMAPABLE);

#[map]
pub static SERVICES: Array<ServiceEntry> = Array::with_max_entries(capacity::SERVICES, 0);

#[map]
pub static VIPS: HashMap<VipKey, VipEntry> =
    HashMap::with_max_entries(capacity::SERVICES * VIPS_PER_SERVICE, 0);

#[map]
pub static VIP_ADDRS: Array<VipKey> =
    Array::with_max_entries(capacity::SERVICES * VIPS_PER_SERVICE, 0);

#[map]
pub static REGIONS: Array<u64> =
    Array::with_max_entries(capacity::SERVICES * REGIONS_PER_SERVICE, BPF_F_MMAPABLE);

#[map]
pub static TABLES: Array<[u32; 2]> =
    Array::with_max_entries(capacity::TABLE_ENTRIES / 2, BPF_F_MMAPABLE);

#[map]
pub static BACKENDS: Array<BackendEntry> =
    Array::with_max_entries(capacity::BACKENDS, BPF_F_MMAPABLE);

#[map]
pub static BACKEND_SERVICES: HashMap<VipKey, BackendService> =
    HashMap::with_max_entries(capacity::BACKENDS, 0);

#[map]
pub static VIP_SETS: Array<AddrSet> = Array::with_max_entries(VIP_SETS_COUNT, BPF_F_MMAPABLE);

#[map]
pub static BACKEND_SETS: Array<AddrSet> =
    Array::with_max_entries(BACKEND_SETS_COUNT, BPF_F_MMAPABLE);

#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(capacity::FLOWS, 0);

#[map]
pub static PENDING: LruHashMap<FlowKey, FlowEntry> =
    LruHashMap::with_max_entries(capacity::PENDING, 0);

#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT, 0);

#[map]
pub static SLOT_COUNTERS: PerCpuArray<SlotCounters> =
    PerCpuArray::with_max_entries(capacity::SERVICES * 2, 0);

#[map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters> =
    PerCpuArray::with_max_entries(capacity::BACKENDS, 0);

#[map]
pub static TARGETS: LpmTrie<TargetKey, u32> = LpmTrie::with_max_entries(capacity::TARGETS, 0);

#[map]
pub static TABLE_TRAFFIC: PerCpuArray<u64> = PerCpuArray::with_max_entries(traffic::COUNT, 0);

#[map]
pub static SETTINGS: Array<u32> = Array::with_max_entries(setting::COUNT, 0);

#[map]
pub static LOCAL_NETNS: Array<u64> = Array::with_max_entries(1, 0);

/// Not inherited by accepted sockets (no `BPF_F_CLONE`): a server's connections are not its own
/// calls.
#[btf_map]
pub static LOCAL_SOCKETS: SkStorage<LocalSocket> = SkStorage::new();

#[map]
pub static LOCAL_PEERS: LruHashMap<LocalKey, LocalPeer> =
    LruHashMap::with_max_entries(capacity::LOCAL_PEERS, 0);

#[map]
pub static LOCAL_OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(LocalOutcome::COUNT, 0);

#[map]
pub static LOCAL_SLOTS: PerCpuArray<LocalCounters> =
    PerCpuArray::with_max_entries(capacity::SERVICES * 2, 0);

#[map]
pub static LOCAL_BACKENDS: PerCpuArray<u64> = PerCpuArray::with_max_entries(capacity::BACKENDS, 0);

#[map]
pub static LAYOUT: Array<LayoutText> = Array::with_max_entries(1, 0);

#[map]
pub static XDP_PREDECESSOR: ProgramArray = ProgramArray::with_max_entries(predecessor::COUNT, 0);

#[map]
pub static TC_PREDECESSOR: ProgramArray = ProgramArray::with_max_entries(predecessor::COUNT, 0);

/// Whether a setting is on.
#[inline(always)]
pub fn is_set(setting: u32) -> bool {
    setting_value(setting) != 0
}

/// The value of a setting.
#[inline(always)]
pub fn setting_value(setting: u32) -> u32 {
    SETTINGS.get(setting).copied().unwrap_or(0)
}
