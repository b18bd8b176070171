//! The map ABI: what kernel programs and the daemon exchange through BPF maps.
//!
//! Every type is `repr(C)`, has explicit padding and a size assertion. Any change of a layout or of
//! a map's meaning takes a new [`ABI_VERSION`], which names the directory of the pins.

use crate::addr::{Addr, Be16};
use crate::steering::Slot;

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 1;

/// VIPs one service may have.
pub const VIPS_PER_SERVICE: u32 = 8;
/// Lookup tables a service has: two families, two slots, two banks.
pub const REGIONS_PER_SERVICE: u32 = 8;
/// Bytes of a service's name in [`ServiceEntry`], without terminator.
pub const NAME_LEN_BYTES: usize = 64;

/// Capacities the kernel object is built with; the daemon overrides them from its node file.
pub mod capacity {
    /// Services.
    pub const SERVICES: u32 = 1_024;
    /// Backends of all services.
    pub const BACKENDS: u32 = 16_384;
    /// Entries of all lookup tables together: each family, slot and bank of every service. Even.
    pub const TABLE_ENTRIES: u32 = 4 << 20;
    /// Established flows.
    pub const FLOWS: u32 = 262_144;
    /// Flows whose handshake is not complete.
    pub const PENDING: u32 = 65_536;
}

/// Names of the maps, as pinned.
pub mod map {
    /// `Array<u64>`, mmapable: the steering word of each service.
    pub const STEERING: &str = "STEERING";
    /// `Array<ServiceEntry>` by service index.
    pub const SERVICES: &str = "SERVICES";
    /// `HashMap<VipKey, VipEntry>`.
    pub const VIPS: &str = "VIPS";
    /// `Array<VipKey>`: the VIP of `service * VIPS_PER_SERVICE + ordinal`, for replies.
    pub const VIP_ADDRS: &str = "VIP_ADDRS";
    /// `Array<u64>`: packed [`super::Region`] of each service, family, slot and bank.
    pub const REGIONS: &str = "REGIONS";
    /// `Array<[u32; 2]>`, mmapable: lookup table entries, backend indexes, all services. Two an
    /// element, because elements of a mapped array are eight bytes apart.
    pub const TABLES: &str = "TABLES";
    /// `Array<BackendEntry>` by backend index.
    pub const BACKENDS: &str = "BACKENDS";
    /// `HashMap<VipKey, BackendService>`: from a backend's own address to its service.
    pub const BACKEND_SERVICES: &str = "BACKEND_SERVICES";
    /// `LruHashMap<FlowKey, FlowEntry>`: flows with a complete handshake.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHashMap<FlowKey, FlowEntry>`: flows whose handshake is not complete.
    pub const PENDING: &str = "PENDING";
    /// `PerCpuArray<u64>` by [`crate::verdict::Verdict`].
    pub const VERDICTS: &str = "VERDICTS";
    /// `PerCpuArray<SlotCounters>` by `service * 2 + slot`.
    pub const SLOT_COUNTERS: &str = "SLOT_COUNTERS";
    /// `PerCpuArray<BackendCounters>` by backend index.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";

    /// `Array<u32>` by [`super::setting`].
    pub const SETTINGS: &str = "SETTINGS";

    /// All maps, in the order they are pinned.
    pub const ALL: [&str; 14] = [
        STEERING,
        SERVICES,
        VIPS,
        VIP_ADDRS,
        REGIONS,
        TABLES,
        BACKENDS,
        BACKEND_SERVICES,
        FLOWS,
        PENDING,
        VERDICTS,
        SLOT_COUNTERS,
        BACKEND_COUNTERS,
        SETTINGS,
    ];
}

/// Names of the programs, as pinned.
pub mod program {
    /// XDP: client to backend.
    pub const XDP_INGRESS: &str = "xdp_ingress";
    /// Classifier at TC ingress: client to backend.
    pub const TC_INGRESS: &str = "tc_ingress";
    /// Classifier at TC egress: backend to client.
    pub const TC_EGRESS: &str = "tc_egress";
    /// All programs.
    pub const ALL: [&str; 3] = [XDP_INGRESS, TC_INGRESS, TC_EGRESS];
}

/// Indexes into `SETTINGS`.
pub mod setting {
    /// Whether a program says so when it meets tables that contradict each other: 0 or 1.
    pub const LOG_DEFECTS: u32 = 0;
    /// How many settings there are.
    pub const COUNT: u32 = 1;
}

/// An address, port and protocol: a VIP, or a backend's own address.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VipKey {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// IP protocol number (6 TCP).
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}
const _: () = assert!(size_of::<VipKey>() == 20);

/// The service behind a VIP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipEntry {
    /// Service index.
    pub service: u32,
    /// Which of the service's VIPs this is, below [`VIPS_PER_SERVICE`]; kept for the VIP's life.
    pub ordinal: u8,
    /// Number of VIP ordinals in use by the service: a client port is checked against those below.
    pub vip_count: u8,
    /// 1 if the VIP was taken out of its service: its flows continue, new ones are not ours.
    pub is_retired: u8,
    /// One of [`crate::socket::plane`]: where new connections are steered. Flows that exist stay
    /// where they began.
    pub plane: u8,
}
const _: () = assert!(size_of::<VipEntry>() == 8);

/// The service a backend's own address belongs to, and the VIPs its replies may stand for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendService {
    /// Service index.
    pub service: u32,
    /// Number of VIP ordinals in use by the service: replies try ordinals below it.
    pub vip_count: u8,
    /// Zero.
    pub pad: [u8; 3],
}
const _: () = assert!(size_of::<BackendService>() == 8);

/// What a service is, apart from its steering word.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Key of the selection hash; secret.
    pub seed: u64,
    /// Bits of [`policy`].
    pub policy: u32,
    /// Bytes used in `name`; 0 marks a free entry.
    pub name_len_bytes: u32,
    /// The service's name in UTF-8, so that a pinned dataplane describes itself.
    pub name: [u8; NAME_LEN_BYTES],
}
const _: () = assert!(size_of::<ServiceEntry>() == 80);

/// Bits of [`ServiceEntry::policy`].
pub mod policy {
    /// A new flow with no eligible slot goes to the host's stack instead of being dropped.
    pub const ON_EMPTY_PASS: u32 = 1 << 0;
    /// Socket plane: a backend that listens again is selected at once, not when it is probed.
    pub const READMIT_LISTEN: u32 = 1 << 1;
}

/// Where a slot's lookup table lies in `TABLES`. Packed into one word so that a reader sees either
/// the old region or the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    /// First entry; even.
    pub base: u32,
    /// Number of entries; 0 means the table is empty.
    pub size: u32,
}

impl Region {
    /// The packed form.
    pub const fn pack(self) -> u64 {
        ((self.size as u64) << 32) | self.base as u64
    }

    /// The region in a packed word.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            base: word as u32,
            size: (word >> 32) as u32,
        }
    }

    /// Index into `REGIONS`. A slot has a table for each address family, because a flow's backend
    /// must be of its VIP's family; both change with the slot's bank.
    #[inline(always)]
    pub const fn index(service: u32, slot: Slot, is_v6: bool, bank: u32) -> u32 {
        service * REGIONS_PER_SERVICE + (is_v6 as u32) * 4 + slot.index() * 2 + (bank & 1)
    }
}

/// One backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// Address packets are sent to.
    pub addr: Addr,
    /// Port packets are sent to.
    pub port: Be16,
    /// Slot index, 0 or 1.
    pub slot: u8,
    /// One of [`backend_state`].
    pub state: u8,
    /// Service index.
    pub service: u32,
    /// Never reused on this host.
    pub backend_id: u32,
    /// The version this backend belongs to; never reused on this host.
    pub version_id: u32,
}
const _: () = assert!(size_of::<BackendEntry>() == 32);

/// Values of [`BackendEntry::state`].
pub mod backend_state {
    /// The entry is free.
    pub const FREE: u8 = 0;
    /// New flows may be sent there.
    pub const READY: u8 = 1;
    /// Not ready or removed from its slot: established flows continue, a handshake still without an
    /// answer is selected again.
    pub const DRAINING: u8 = 2;
}

/// Key of a flow: the client and the VIP of a service it talks to. The reply direction knows the
/// service from the backend's address and finds the same entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address.
    pub client: Addr,
    /// Service index.
    pub service: u32,
    /// Client port.
    pub client_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Which of the service's VIPs.
    pub vip_ordinal: u8,
}
const _: () = assert!(size_of::<FlowKey>() == 24);

/// State of one flow. 40 bytes, so that a million flows with the kernel's own 48 bytes an element
/// and 16 a bucket stay within 128 MiB.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// Where the flow's packets go.
    pub backend: Addr,
    /// Backend index; its counters are the flow's.
    pub backend_index: u32,
    /// Backend port.
    pub backend_port: Be16,
    /// Cohort of the flow's selection.
    pub cohort: u8,
    /// Bits of [`flow_flag`].
    pub flags: u8,
    /// [`crate::tcp::Phase`] in the lowest byte, zero above; 32 bits because the kernel changes it
    /// by compare-and-swap.
    pub phase: u32,
    /// Time of the last packet in [`TICK_SHIFT`] ticks of the boot clock.
    pub last_seen_ticks: u32,
    /// The sequence number the backend expects next from the client, host order.
    pub next_from_client: u32,
    /// The sequence number the client expects next from the backend, host order.
    pub next_from_backend: u32,
}
const _: () = assert!(size_of::<FlowEntry>() == 40);

/// Bits of [`FlowEntry::flags`].
pub mod flow_flag {
    /// The flow's slot is b.
    pub const SLOT_B: u8 = 1 << 0;
    /// The weight asked for the other slot, which was not eligible.
    pub const FAILED_OVER: u8 = 1 << 1;
}

impl FlowEntry {
    /// Slot of the version the flow is on.
    #[inline(always)]
    pub const fn slot(&self) -> Slot {
        Slot::from_index((self.flags & flow_flag::SLOT_B) as u32)
    }
}

/// A tick is 2^30 ns (1.07 s) of `CLOCK_MONOTONIC`: one shift instead of a division, and 32 bits
/// last for 146 years.
pub const TICK_SHIFT: u32 = 30;

/// What became of flows; counted once per flow and kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Selections of a backend for a new flow.
    pub selected: u64,
    /// Completed handshakes.
    pub established: u64,
    /// Handshakes answered with a reset by the backend.
    pub refused: u64,
    /// Established flows closed by FIN from both sides.
    pub closed: u64,
    /// Established flows ended by a reset of the client.
    pub reset_by_client: u64,
    /// Established flows ended by a reset of the backend.
    pub reset_by_backend: u64,
}
const _: () = assert!(size_of::<FlowCounters>() == 48);

/// Counters of one slot of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounters {
    /// Flows on this slot.
    pub flows: FlowCounters,
    /// Flows the weight wanted here that went to the other slot, because this one was not eligible.
    pub failed_over: u64,
    /// Flows the weight wanted here that found no eligible slot at all.
    pub unserved: u64,
}
const _: () = assert!(size_of::<SlotCounters>() == 64);

/// Counters of one backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Flows on this backend.
    pub flows: FlowCounters,
    /// Packets steered to the backend.
    pub packets_in: u64,
    /// Their length at the link layer.
    pub bytes_in: u64,
    /// Packets of the backend translated for the client.
    pub packets_out: u64,
    /// Their length at the link layer.
    pub bytes_out: u64,
}
const _: () = assert!(size_of::<BackendCounters>() == 80);

impl core::fmt::Debug for VipKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:?} port {:?} protocol {}",
            self.addr, self.port, self.protocol
        )
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: all of these are repr(C), have explicit padding (see the size assertions), contain
    // integers only, and every bit pattern is valid.
    unsafe impl aya::Pod for VipKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for VipEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendService {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SlotCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendCounters {}
}
