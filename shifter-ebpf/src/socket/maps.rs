//! The maps of the socket plane, as [`shifter_common::socket::map`] describes them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use shifter_common::{
    abi::{VipKey, capacity},
    observe::WatchedSocket,
    socket::{
        BackendSockets, Capture, LookupVerdict, SOCKETS_PER_BACKEND, SocketCounters, SocketOwner,
        SocketTag, host,
    },
};

/// A map that is described by BTF. aya's own types fix the flags of socket storage and the width of
/// a socket map's values; storage that accepted sockets inherit and places that user space can read
/// need others.
#[repr(C)]
pub struct BtfMap<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize> {
    r#type: *const [i32; TYPE],
    key: *const K,
    value: *const V,
    max_entries: *const [i32; ENTRIES],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the fields are placeholders that the loader reads as BTF; nobody follows them.
unsafe impl<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize> Sync
    for BtfMap<K, V, TYPE, ENTRIES, FLAGS>
{
}

impl<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize>
    BtfMap<K, V, TYPE, ENTRIES, FLAGS>
{
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The map as the helpers take it.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

const SOCKMAP: usize = bpf_map_type::BPF_MAP_TYPE_SOCKMAP as usize;
const SK_STORAGE: usize = bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize;
const CLONED: usize = (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize;
const OWN: usize = BPF_F_NO_PREALLOC as usize;

/// User space reads a socket's cookie from a socket map only if its values have eight bytes.
#[btf_map]
pub static LISTENERS: BtfMap<
    u32,
    u64,
    SOCKMAP,
    { (capacity::BACKENDS * SOCKETS_PER_BACKEND) as usize },
    0,
> = BtfMap::new();

#[btf_map]
pub static SOCKET_TAGS: BtfMap<i32, SocketTag, SK_STORAGE, 0, CLONED> = BtfMap::new();

#[btf_map]
pub static SOCKET_OWNERS: BtfMap<i32, SocketOwner, SK_STORAGE, 0, OWN> = BtfMap::new();

#[btf_map]
pub static WATCHED_SOCKETS: BtfMap<i32, WatchedSocket, SK_STORAGE, 0, OWN> = BtfMap::new();

#[map]
pub static BACKEND_SOCKETS: Array<BackendSockets> =
    Array::with_max_entries(capacity::BACKENDS, BPF_F_MMAPABLE);

/// A backend has its own address, and a wildcard address may stand for it.
#[map]
pub static CAPTURES: HashMap<VipKey, Capture> =
    HashMap::with_max_entries(capacity::BACKENDS * 3, BPF_F_NO_PREALLOC);

#[map]
pub static SOCKET_COUNTERS: PerCpuArray<SocketCounters> =
    PerCpuArray::with_max_entries(capacity::SERVICES * 2, 0);

#[map]
pub static LOOKUP_VERDICTS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(LookupVerdict::COUNT, 0);

#[map]
pub static CAPTURE_EVENTS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);

#[map]
pub static HOST: Array<u64> = Array::with_max_entries(host::COUNT, BPF_F_MMAPABLE);

/// A number of the host. Volatile, because the daemon changes it meanwhile.
#[inline(always)]
pub fn host_number(index: u32) -> u64 {
    // SAFETY: the pointer is to an aligned u64 of the map, which the daemon changes by single stores.
    HOST.get_ptr(index)
        .map_or(0, |number| unsafe { number.read_volatile() })
}

/// The sockets of a backend.
#[inline(always)]
pub fn backend_sockets(backend: u32) -> Option<*mut BackendSockets> {
    BACKEND_SOCKETS.get_ptr_mut(backend)
}

/// Key of a place in `LISTENERS`.
#[inline(always)]
pub const fn place_key(backend: u32, place: u32) -> u32 {
    backend * SOCKETS_PER_BACKEND + place
}
