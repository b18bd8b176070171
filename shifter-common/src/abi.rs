//! The map ABI: what kernel programs and the daemon exchange through BPF maps.
//!
//! Every type is `repr(C)`, has explicit padding and a size assertion. Any change of a layout or of
//! a map's meaning takes a new [`ABI_VERSION`], which names the directory of the pins.

use crate::addr::{Addr, Be16};
use crate::steering::Slot;

/// Version of everything in this module. The feature `rehearsal` stands for a version to come, with
/// other layouts: tests replace one by the other.
pub const ABI_VERSION: u32 = 1 + cfg!(feature = "rehearsal") as u32;

/// A number in the code of every rehearsed program, in whose place the daemon puts another one: the
/// same maps, other instructions.
#[cfg(feature = "rehearsal")]
pub const REHEARSAL_MARK: u32 = 0x5eed_1234;

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
    /// Prefixes of the target rules of all services.
    pub const TARGETS: u32 = 65_536;
    /// Peers of sockets of the host that send datagrams without being connected, in both directions.
    pub const LOCAL_PEERS: u32 = 65_536;
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
    /// `Array<AddrSet>`, mmapable: what `VIPS` holds, for fast reading; see [`crate::addr_set`].
    pub const VIP_SETS: &str = "VIP_SETS";
    /// `Array<AddrSet>`, mmapable: what `BACKEND_SERVICES` holds.
    pub const BACKEND_SETS: &str = "BACKEND_SETS";
    /// `LruHashMap<FlowKey, FlowEntry>`: flows with a complete handshake, answered ones of UDP.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHashMap<FlowKey, FlowEntry>`: flows whose handshake is not complete, unanswered ones of UDP.
    pub const PENDING: &str = "PENDING";
    /// `PerCpuArray<u64>` by [`crate::verdict::Verdict`].
    pub const VERDICTS: &str = "VERDICTS";
    /// `PerCpuArray<SlotCounters>` by `service * 2 + slot`.
    pub const SLOT_COUNTERS: &str = "SLOT_COUNTERS";
    /// `PerCpuArray<BackendCounters>` by backend index.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";

    /// `LpmTrie<TargetKey, u32>`: the target rules; values are [`crate::select::Target`].
    pub const TARGETS: &str = "TARGETS";
    /// `PerCpuArray<u64>` by [`super::traffic`]: what went into the flow tables and out of them.
    pub const TABLE_TRAFFIC: &str = "TABLE_TRAFFIC";

    /// `Array<u32>` by [`super::setting`].
    pub const SETTINGS: &str = "SETTINGS";

    /// `Array<u64>`, one entry: cookie of the network namespace whose clients are steered, 0 none.
    pub const LOCAL_NETNS: &str = "LOCAL_NETNS";
    /// `SkStorage<LocalSocket>`: where a connected socket of the host was sent.
    pub const LOCAL_SOCKETS: &str = "LOCAL_SOCKETS";
    /// `LruHashMap<LocalKey, LocalPeer>`: where the datagrams of a socket that is not connected go,
    /// and whom the answers come from.
    pub const LOCAL_PEERS: &str = "LOCAL_PEERS";
    /// `PerCpuArray<u64>` by [`crate::local::LocalOutcome`].
    pub const LOCAL_OUTCOMES: &str = "LOCAL_OUTCOMES";
    /// `PerCpuArray<LocalCounters>` by `service * 2 + slot`.
    pub const LOCAL_SLOTS: &str = "LOCAL_SLOTS";
    /// `PerCpuArray<u64>` by backend index: selections for the host's own clients.
    pub const LOCAL_BACKENDS: &str = "LOCAL_BACKENDS";

    /// `Array<LayoutText>`, one element: what the other maps hold, field by field, for a shifterd of
    /// another version; see [`crate::layout`].
    pub const LAYOUT: &str = "LAYOUT";
    /// `ProgramArray`: the programs of the dataplane that this one replaces, at XDP; empty otherwise.
    pub const XDP_PREDECESSOR: &str = "XDP_PREDECESSOR";
    /// As `XDP_PREDECESSOR`, at TC.
    pub const TC_PREDECESSOR: &str = "TC_PREDECESSOR";

    /// All maps, in the order they are pinned.
    pub const ALL: [&str; 27] = [
        STEERING,
        SERVICES,
        VIPS,
        VIP_ADDRS,
        REGIONS,
        TABLES,
        BACKENDS,
        BACKEND_SERVICES,
        VIP_SETS,
        BACKEND_SETS,
        FLOWS,
        PENDING,
        VERDICTS,
        SLOT_COUNTERS,
        BACKEND_COUNTERS,
        TARGETS,
        TABLE_TRAFFIC,
        SETTINGS,
        LOCAL_NETNS,
        LOCAL_SOCKETS,
        LOCAL_PEERS,
        LOCAL_OUTCOMES,
        LOCAL_SLOTS,
        LOCAL_BACKENDS,
        LAYOUT,
        XDP_PREDECESSOR,
        TC_PREDECESSOR,
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
    /// Cgroup hooks: connect(2) of the host's own clients.
    pub const LOCAL_CONNECT4: &str = "local_connect4";
    /// As above, of IPv6 sockets.
    pub const LOCAL_CONNECT6: &str = "local_connect6";
    /// Datagrams sent without connect(2).
    pub const LOCAL_SENDMSG4: &str = "local_sendmsg4";
    /// As above, of IPv6 sockets.
    pub const LOCAL_SENDMSG6: &str = "local_sendmsg6";
    /// Whom a datagram came from.
    pub const LOCAL_RECVMSG4: &str = "local_recvmsg4";
    /// As above, of IPv6 sockets.
    pub const LOCAL_RECVMSG6: &str = "local_recvmsg6";
    /// getpeername(2).
    pub const LOCAL_PEERNAME4: &str = "local_peername4";
    /// As above, of IPv6 sockets.
    pub const LOCAL_PEERNAME6: &str = "local_peername6";
    /// The cgroup hooks.
    pub const LOCAL: [&str; 8] = [
        LOCAL_CONNECT4,
        LOCAL_CONNECT6,
        LOCAL_SENDMSG4,
        LOCAL_SENDMSG6,
        LOCAL_RECVMSG4,
        LOCAL_RECVMSG6,
        LOCAL_PEERNAME4,
        LOCAL_PEERNAME6,
    ];
    /// Programs on interfaces.
    pub const ALL: [&str; 3] = [XDP_INGRESS, TC_INGRESS, TC_EGRESS];
}

/// Indexes into `XDP_PREDECESSOR` and `TC_PREDECESSOR`.
pub mod predecessor {
    /// Client to backend.
    pub const INGRESS: u32 = 0;
    /// Backend to client; at TC only.
    pub const EGRESS: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Bytes of the text in `LAYOUT`, zeros behind its end.
pub const LAYOUT_LEN_BYTES: usize = 16_384;

/// The one element of `LAYOUT`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LayoutText(pub [u8; LAYOUT_LEN_BYTES]);

/// Indexes into `SETTINGS`.
pub mod setting {
    /// Whether a program says so when it meets tables that contradict each other: 0 or 1.
    pub const LOG_DEFECTS: u32 = 0;
    /// Offset of `snt_isn` in the kernel's `struct tcp_request_sock`, bytes; 0 if it is not known.
    pub const SYN_ACK_NUMBER_OFFSET: u32 = 1;
    /// How many settings there are.
    pub const COUNT: u32 = 2;
}

/// Indexes into `TABLE_TRAFFIC`. The kernel counts what it adds and what it removes, the daemon what
/// it sweeps; what is missing when the rest is subtracted was evicted to make room.
pub mod traffic {
    /// Entries added to `FLOWS`.
    pub const FLOWS_ADDED: u32 = 0;
    /// Entries removed from `FLOWS` by the kernel programs.
    pub const FLOWS_REMOVED: u32 = 1;
    /// Entries removed from `FLOWS` by the daemon; only it writes this.
    pub const FLOWS_SWEPT: u32 = 2;
    /// Entries added to `PENDING`.
    pub const PENDING_ADDED: u32 = 3;
    /// Entries removed from `PENDING` by the kernel programs.
    pub const PENDING_REMOVED: u32 = 4;
    /// Entries removed from `PENDING` by the daemon; only it writes this.
    pub const PENDING_SWEPT: u32 = 5;
    /// How many there are.
    pub const COUNT: u32 = 6;
}

/// An address, port and protocol: a VIP, or a backend's own address.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VipKey {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// IP protocol number, one of [`crate::protocol`].
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

impl VipEntry {
    /// As one word for [`crate::addr_set`], never 0: a VIP that exists has an ordinal below the count.
    pub const fn word(self) -> u64 {
        // SAFETY: eight bytes of integers without padding.
        unsafe { core::mem::transmute(self) }
    }

    /// The entry in a word.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        // SAFETY: as above; every bit pattern is valid.
        unsafe { core::mem::transmute(word) }
    }
}

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

impl BackendService {
    /// As one word for [`crate::addr_set`], never 0: a service has a VIP.
    pub const fn word(self) -> u64 {
        // SAFETY: eight bytes of integers without padding.
        unsafe { core::mem::transmute(self) }
    }

    /// The entry in a word.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        // SAFETY: as above; every bit pattern is valid.
        unsafe { core::mem::transmute(word) }
    }
}

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
    /// The service is UDP; TCP otherwise.
    pub const UDP: u32 = 1 << 1;
    /// The service has target rules: a new flow looks for one.
    pub const HAS_TARGETS: u32 = 1 << 2;
    /// Socket plane: a backend that listens again is selected at once, not when it is probed.
    pub const READMIT_LISTEN: u32 = 1 << 3;
    /// Socket plane: a backend whose accept queue is full is passed over.
    pub const ON_FULL_FAILOVER: u32 = 1 << 4;
}

/// Whose new flows a target rule is about: a service and a client, of which a rule names the first
/// bits. The trie compares bits as they lie in memory; every rule names all bits of the scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// Twice the service index, plus 1 for IPv6: `::/0` must not hold the mapped IPv4 addresses.
    pub scope: u32,
    /// Client address.
    pub client: Addr,
}
const _: () = assert!(size_of::<TargetKey>() == 20);

impl TargetKey {
    /// Bits of the scope.
    pub const SCOPE_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::SCOPE_BITS + 128;
    /// Bits before the address in a mapped IPv4 address.
    pub const V4_MAPPED_BITS: u32 = 96;

    /// The key of a service and an address.
    #[inline(always)]
    pub const fn new(service: u32, client: Addr) -> Self {
        Self {
            scope: service * 2 + !client.is_v4() as u32,
            client,
        }
    }

    /// Service index.
    pub const fn service(&self) -> u32 {
        self.scope / 2
    }

    /// Bits before the prefix of an address, in this key.
    pub const fn bits_before_prefix(&self) -> u32 {
        if self.client.is_v4() {
            Self::SCOPE_BITS + Self::V4_MAPPED_BITS
        } else {
            Self::SCOPE_BITS
        }
    }
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
    /// What a version to come may add, in the middle.
    #[cfg(feature = "rehearsal")]
    pub rehearsal: [u32; 2],
    /// [`crate::tcp::Phase`] in the lowest byte, zero above; 32 bits because the kernel changes it
    /// by compare-and-swap.
    pub phase: u32,
    /// Time of the last packet in [`TICK_SHIFT`] ticks of the boot clock.
    pub last_seen_ticks: u32,
    /// The sequence number the backend expects next from the client, host order.
    pub next_from_client: u32,
    /// The sequence number the client expects next from the backend, host order. Of a UDP flow: when
    /// the backend last answered, in ticks.
    pub next_from_backend: u32,
}
const _: () = assert!(size_of::<FlowEntry>() == 40 + 8 * cfg!(feature = "rehearsal") as usize);

/// Bits of [`FlowEntry::flags`].
pub mod flow_flag {
    /// The flow's slot is b.
    pub const SLOT_B: u8 = 1 << 0;
    /// The other slot was wanted and not eligible.
    pub const FAILED_OVER: u8 = 1 << 1;
    /// The backend has sent FIN before the client has completed the handshake.
    pub const EARLY_FIN: u8 = 1 << 2;
    /// A target rule named the flow's slot.
    pub const TARGETED: u8 = 1 << 3;
    /// The entry was rebuilt from a client's segment; its numbers are the client's word alone until
    /// the backend has spoken.
    pub const UNCONFIRMED: u8 = 1 << 4;
    /// The client is the backend itself: it sees the VIP as its client, at the port it called from.
    pub const TURNED: u8 = 1 << 5;
    /// The flow's first error was told; no other counts.
    pub const FAILED: u8 = 1 << 6;
    /// What comes through it is looked at, see [`crate::observe`].
    pub const WATCHED: u8 = 1 << 7;
}

impl FlowEntry {
    /// Whether the client is the backend itself.
    #[inline(always)]
    pub const fn is_turned(&self) -> bool {
        self.flags & flow_flag::TURNED != 0
    }

    /// Slot of the version the flow is on.
    #[inline(always)]
    pub const fn slot(&self) -> Slot {
        Slot::from_index((self.flags & flow_flag::SLOT_B) as u32)
    }

    /// When the backend of a UDP flow last answered, in ticks.
    #[inline(always)]
    pub const fn answered_ticks(&self) -> u32 {
        self.next_from_backend
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
    /// Flows whose client had to send its SYN again, because no answer had come.
    pub unanswered: u64,
}
const _: () = assert!(size_of::<FlowCounters>() == 56);

/// Counters of one slot of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounters {
    /// What a version to come may add, in front.
    #[cfg(feature = "rehearsal")]
    pub rehearsal: u64,
    /// Flows on this slot.
    pub flows: FlowCounters,
    /// Flows wanted here, by weight or target rule, that went to the other slot, because this one was not eligible.
    pub failed_over: u64,
    /// Flows wanted here, by weight or target rule, that found no eligible slot at all.
    pub unserved: u64,
    /// Selected flows that are here by a target rule: no part of a trial, and of cohort 0.
    pub targeted: u64,
}
const _: () = assert!(size_of::<SlotCounters>() == 80 + 8 * cfg!(feature = "rehearsal") as usize);

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
const _: () = assert!(size_of::<BackendCounters>() == 88);

/// Where a connected socket of the host was sent: what getpeername(2) and recvmsg(2) then show.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalSocket {
    /// The VIP that was asked for.
    pub vip: VipKey,
    /// The backend it was connected to instead.
    pub backend: VipKey,
}
const _: () = assert!(size_of::<LocalSocket>() == 40);

/// A socket that is not connected, with one of its peers: a VIP it sends to, or a backend that
/// answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey {
    /// The socket's cookie; never reused.
    pub cookie: u64,
    /// The peer.
    pub peer: VipKey,
    /// One of [`local_direction`].
    pub direction: u32,
}
const _: () = assert!(size_of::<LocalKey>() == 32);

/// Values of [`LocalKey::direction`].
pub mod local_direction {
    /// The peer is a VIP that datagrams are sent to.
    pub const TO_VIP: u32 = 0;
    /// The peer is a backend that answers.
    pub const FROM_BACKEND: u32 = 1;
}

/// The other side of a [`LocalKey`]: the backend for a VIP, the VIP for a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalPeer {
    /// Address and port.
    pub other: VipKey,
    /// Index of the backend.
    pub backend_index: u32,
    /// Its id: an index may be given to another backend.
    pub backend_id: u32,
    /// Time of the last datagram in [`TICK_SHIFT`] ticks.
    pub last_seen_ticks: u32,
}
const _: () = assert!(size_of::<LocalPeer>() == 32);

/// Selections for the host's own clients in one slot; they have no flow entries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalCounters {
    /// Connects and datagrams for which this slot was selected.
    pub selected: u64,
    /// Those the weight wanted here that went to the other slot.
    pub failed_over: u64,
    /// Those the weight wanted here that found no eligible slot.
    pub unserved: u64,
}
const _: () = assert!(size_of::<LocalCounters>() == 24);

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
    unsafe impl aya::Pod for crate::addr_set::AddrSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LayoutText {}
    // SAFETY: as above.
    unsafe impl aya::Pod for VipEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendService {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TargetKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SlotCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BackendCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LocalCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LocalKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LocalPeer {}
}
