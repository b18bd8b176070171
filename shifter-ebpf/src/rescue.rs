//! Finding a flow again whose entry was evicted or lost: the socket of its backend on this host is
//! the proof that it exists.
//!
//! Only the network namespace of the interface is searched. A backend in another one (a container)
//! is not found, and its flow stays lost.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_probe_read_kernel, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
    },
    macros::map,
    maps::PerCpuArray,
};
use shifter_common::{
    abi::{BackendEntry, FlowEntry, FlowKey, backend_state, flow_flag, setting},
    hash::affinity_hash,
    socket_state::{self as socket, state},
    steering::Slot,
    tcp::{Phase, flag},
};

use crate::{maps, select};

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
/// Lengths of a socket tuple by family: two addresses and two ports.
const TUPLE_V4_LEN_BYTES: u32 = 12;
const TUPLE_V6_LEN_BYTES: u32 = 36;
/// Lengths of an IP header by family.
const IP_V4_LEN_BYTES: u32 = 20;
const IP_V6_LEN_BYTES: u32 = 40;
/// Backends that are looked at: what the flow's hash finds in each slot, in both banks.
const CANDIDATES: u32 = 4;

/// Looks for the flow of a client's segment at the backends that selection finds for it now, and
/// found before the last change of their tables. Fills in what the socket and the tables tell: backend,
/// slot and phase. The cohort is unknown, hence 0: the flow is no part of a trial any more. The numbers
/// of the entry are those of the segment.
///
/// A handshake is found too, when a flood has taken its entry: by its SYN cookie or the number in its
/// request socket, both of which prove that the client has seen the SYN/ACK. Such a flow can leave the
/// handshakes at once; among them the flood might evict it again, before the backend's next packet, which
/// would then leave with the backend's own address.
///
/// Out of line: it is rare, and it would be verified once for each family and caller otherwise.
#[inline(never)]
pub fn find(ctx: *mut c_void, key: &FlowKey, is_v6: bool, entry: &mut FlowEntry) -> bool {
    let (Some(word), Some(service), Some(scratch)) = (
        select::steering_word(key.service),
        select::service(key.service),
        SCRATCH.get_ptr_mut(0),
    ) else {
        return false;
    };
    // SAFETY: this CPU's own copy; programs that use it run with bottom halves off, one at a time.
    let scratch = unsafe { &mut *scratch };
    scratch.prepare(key, is_v6, entry);
    let hash = affinity_hash(word.affinity(), key, service.seed);
    let mut tried = u32::MAX;
    for candidate in 0..CANDIDATES {
        let slot = Slot::from_index(candidate >> 1);
        let bank = word.bank(slot) ^ (candidate & 1);
        let Some(region) = select::region(key.service, slot, is_v6, bank) else {
            continue;
        };
        let Some(index) = select::backend_index(region, hash) else {
            continue;
        };
        let Some(backend) = select::backend(index) else {
            continue;
        };
        // Both banks mostly agree. A retired one may name what belongs to others by now.
        if index == tried || backend.service != key.service || backend.state == backend_state::FREE
        {
            continue;
        }
        tried = index;
        let proof = prove(ctx, is_v6, backend, scratch);
        if proof != NO_PROOF {
            entry.backend = backend.addr;
            entry.backend_port = backend.port;
            entry.backend_index = index;
            entry.cohort = 0;
            entry.flags = (proof >> 8) as u8 | ((backend.slot & 1) * flow_flag::SLOT_B);
            entry.phase = proof & 0xff;
            return true;
        }
    }
    false
}

/// What helpers are given: on the stack there is no room for it.
#[repr(C)]
pub struct Scratch {
    tuple: bpf_sock_tuple,
    /// The IP header as the backend will see it: version and addresses.
    ip: [u32; 10],
    /// The TCP header as the backend will see it: ports, numbers, ACK.
    tcp: [u32; 5],
    /// The number of the backend's SYN/ACK.
    syn_ack: u32,
    /// Where the kernel has its socket.
    socket: u64,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

impl Scratch {
    /// Fills in what is the same for every candidate.
    #[inline(always)]
    fn prepare(&mut self, key: &FlowKey, is_v6: bool, entry: &FlowEntry) {
        let client = key.client.words;
        if is_v6 {
            self.tuple.__bindgen_anon_1.ipv6.saddr = client;
            self.tuple.__bindgen_anon_1.ipv6.sport = key.client_port.0;
            self.ip[0] = u32::from_ne_bytes([6 << 4, 0, 0, 0]);
            [self.ip[2], self.ip[3], self.ip[4], self.ip[5]] = client;
        } else {
            self.tuple.__bindgen_anon_1.ipv4.saddr = client[3];
            self.tuple.__bindgen_anon_1.ipv4.sport = key.client_port.0;
            self.ip[0] = u32::from_ne_bytes([4 << 4 | 5, 0, 0, 0]);
            self.ip[3] = client[3];
        }
        self.tcp[1] = entry.next_from_client.to_be();
        self.tcp[2] = entry.next_from_backend.to_be();
        self.tcp[3] = u32::from_ne_bytes([5 << 4, flag::ACK, 0, 0]);
    }

    /// Fills in the candidate.
    #[inline(always)]
    fn aim(&mut self, is_v6: bool, backend: &BackendEntry) {
        let addr = backend.addr.words;
        let client_port = if is_v6 {
            self.tuple.__bindgen_anon_1.ipv6.daddr = addr;
            self.tuple.__bindgen_anon_1.ipv6.dport = backend.port.0;
            [self.ip[6], self.ip[7], self.ip[8], self.ip[9]] = addr;
            // SAFETY: every bit pattern is a port.
            unsafe { self.tuple.__bindgen_anon_1.ipv6.sport }
        } else {
            self.tuple.__bindgen_anon_1.ipv4.daddr = addr[3];
            self.tuple.__bindgen_anon_1.ipv4.dport = backend.port.0;
            self.ip[4] = addr[3];
            // SAFETY: every bit pattern is a port.
            unsafe { self.tuple.__bindgen_anon_1.ipv4.sport }
        };
        let (source, destination) = (client_port.to_ne_bytes(), backend.port.0.to_ne_bytes());
        self.tcp[0] = u32::from_ne_bytes([source[0], source[1], destination[0], destination[1]]);
    }
}

/// [`prove`] found nothing.
const NO_PROOF: u32 = 0;

/// What its backend's socket tells of a flow: the phase, and in the second byte a flag if the numbers of
/// its segment are unconfirmed. [`NO_PROOF`] if there is no connection with this client.
///
/// The kernel finds a socket by exactly these addresses and ports, or else a listener (which may be
/// any that another program chooses): its state tells them apart.
#[inline(always)]
fn prove(ctx: *mut c_void, is_v6: bool, backend: &BackendEntry, scratch: &mut Scratch) -> u32 {
    const UNCONFIRMED: u32 = (flow_flag::UNCONFIRMED as u32) << 8;
    scratch.aim(is_v6, backend);
    let (tuple_len_bytes, ip_len_bytes) = if is_v6 {
        (TUPLE_V6_LEN_BYTES, IP_V6_LEN_BYTES)
    } else {
        (TUPLE_V4_LEN_BYTES, IP_V4_LEN_BYTES)
    };
    // SAFETY: the context is the one this program was called with, the tuple lives during the call.
    let socket: *mut bpf_sock = unsafe {
        bpf_skc_lookup_tcp(
            ctx,
            &raw mut scratch.tuple,
            tuple_len_bytes,
            CURRENT_NETNS,
            0,
        )
    };
    if socket.is_null() {
        return NO_PROOF;
    }
    // VERIFIER: read before the release, after which the pointer is worth nothing.
    // SAFETY: the kernel gave a referenced socket; it translates the access.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let mut is_cookie = false;
    let mut shown = Shown::Unknown;
    if state == state::NEW_SYN_RECV {
        shown = shown_number(socket, scratch);
    }
    if state == state::LISTEN {
        // SAFETY: the socket is referenced, the headers live during the call and have these lengths.
        is_cookie = unsafe {
            bpf_tcp_check_syncookie(
                socket.cast(),
                scratch.ip.as_mut_ptr().cast(),
                ip_len_bytes,
                scratch.tcp.as_mut_ptr().cast(),
                size_of::<[u32; 5]>() as u32,
            )
        } == 0;
    }
    // SAFETY: the reference of the lookup is given back, once.
    unsafe { bpf_sk_release(socket.cast()) };
    match state {
        state::LISTEN if is_cookie => Phase::SynReceived as u32,
        state::NEW_SYN_RECV => match shown {
            Shown::Right => Phase::SynReceived as u32,
            Shown::Wrong => NO_PROOF,
            Shown::Unknown => Phase::SynReceived as u32 | UNCONFIRMED,
        },
        _ => match socket::phase(state) {
            Some(phase) => phase as u32 | UNCONFIRMED,
            None => NO_PROOF,
        },
    }
}

/// What a segment shows that its sender has seen of the backend's SYN/ACK.
enum Shown {
    /// Its number.
    Right,
    /// Another number: a guess.
    Wrong,
    /// This kernel does not say which number is right.
    Unknown,
}

/// Whether the segment acknowledges the SYN/ACK that the backend's request socket has sent.
#[inline(always)]
fn shown_number(socket: *mut bpf_sock, scratch: &mut Scratch) -> Shown {
    let offset = maps::setting_value(setting::SYN_ACK_NUMBER_OFFSET);
    if offset == 0 {
        return Shown::Unknown;
    }
    // VERIFIER: no arithmetic is allowed on a socket's pointer; read back from a map it is a number like
    // any other.
    let place = &raw mut scratch.socket;
    // SAFETY: the helper reads memory of the kernel and fails where there is none; all places are fields
    // of this CPU's own copy.
    let is_read = unsafe {
        place.write_volatile(socket as u64);
        bpf_probe_read_kernel(
            (&raw mut scratch.syn_ack).cast(),
            size_of::<u32>() as u32,
            place.read_volatile().wrapping_add(u64::from(offset)) as *const c_void,
        ) == 0
    };
    if !is_read {
        return Shown::Unknown;
    }
    if u32::from_be(scratch.tcp[2]) == scratch.syn_ack.wrapping_add(1) {
        Shown::Right
    } else {
        Shown::Wrong
    }
}
