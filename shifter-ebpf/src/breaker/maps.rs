//! The breaker's maps, as [`shifter_common::breaker::map`] describes them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use shifter_common::{
    abi::{TargetKey, capacity},
    breaker::{
        BreakerCounters, BreakerRules, BreakerState, CLIENTS_COUNT, COHORT_COUNT, CellWords,
        CohortRow, SOURCE_CELLS, TRIP_EVENTS_LEN_BYTES, TRUSTED_COUNT, Trip,
    },
};

#[map]
pub static BREAKER_RULES: Array<BreakerRules> =
    Array::with_max_entries(capacity::SERVICES, BPF_F_MMAPABLE);

#[map]
pub static BREAKER_STATE: Array<BreakerState> =
    Array::with_max_entries(capacity::SERVICES, BPF_F_MMAPABLE);

#[map]
pub static COHORTS: Array<CohortRow> =
    Array::with_max_entries(capacity::SERVICES * COHORT_COUNT, BPF_F_MMAPABLE);

#[map]
pub static BREAKER_CELLS: Array<CellWords> =
    Array::with_max_entries(capacity::SERVICES * SOURCE_CELLS as u32, BPF_F_MMAPABLE);

#[map]
pub static BREAKER_CLIENTS: LruHashMap<TargetKey, u32> =
    LruHashMap::with_max_entries(CLIENTS_COUNT, 0);

#[map]
pub static TRUSTED: LpmTrie<TargetKey, u32> =
    LpmTrie::with_max_entries(TRUSTED_COUNT, BPF_F_NO_PREALLOC);

#[map]
pub static BREAKER_COUNTERS: PerCpuArray<BreakerCounters> =
    PerCpuArray::with_max_entries(capacity::SERVICES, 0);

#[map]
pub static TRIPS: Array<Trip> = Array::with_max_entries(capacity::SERVICES, BPF_F_MMAPABLE);

#[map]
pub static TRIP_EVENTS: RingBuf = RingBuf::with_byte_size(TRIP_EVENTS_LEN_BYTES, 0);
