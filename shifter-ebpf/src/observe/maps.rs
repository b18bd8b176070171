//! The maps of the observation, as [`shifter_common::observe::map`] describes them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use shifter_common::{
    abi::{FlowKey, capacity},
    observe::{OBSERVED_COUNT, ObserveRules, Observed, WATCHED_COUNT, Watch},
};

#[map]
pub static OBSERVE_RULES: Array<ObserveRules> =
    Array::with_max_entries(capacity::SERVICES, BPF_F_MMAPABLE);

#[map]
pub static WATCHED: LruHashMap<FlowKey, Watch> = LruHashMap::with_max_entries(WATCHED_COUNT, 0);

#[map]
pub static OBSERVED: PerCpuArray<Observed> = PerCpuArray::with_max_entries(OBSERVED_COUNT * 2, 0);
