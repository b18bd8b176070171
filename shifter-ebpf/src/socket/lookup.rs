//! `sk_lookup`: the listener of a new connection.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup, sk_action},
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release,
    },
    macros::sk_lookup,
    programs::SkLookupContext,
};
use shifter_common::{
    abi::{FlowKey, VipKey, policy},
    addr::{Addr, Be16},
    select::table_entry,
    socket::{BackendSockets, LEASE_NS, LookupVerdict, SOCKETS_PER_BACKEND, host, plane},
};

use super::{
    account::{self, Counters, count},
    capture, inside,
    maps::{LISTENERS, backend_sockets, host_number, place_key},
};
use crate::{
    owner,
    select::{self, Selected, Unselected},
};

const AF_INET: u32 = 2;
const PROTOCOL_TCP: u32 = 6;
const EEXIST: i64 = 17;
const ESOCKTNOSUPPORT: i64 = 94;
const EAFNOSUPPORT: i64 = 97;

/// Entries of a slot's table that are looked at for another backend. With half of the backends gone
/// one in 2^16 connections finds none among them.
const OTHER_TRIES: u32 = 16;

/// Gives a new connection to a listener.
#[sk_lookup]
pub fn socket_lookup(ctx: SkLookupContext) -> u32 {
    let verdict = steer(&ctx);
    account::verdict(verdict);
    match verdict {
        LookupVerdict::DropUnserved | LookupVerdict::DropBrokenState => sk_action::SK_DROP,
        LookupVerdict::Foreign
        | LookupVerdict::OtherPlane
        | LookupVerdict::Steered
        | LookupVerdict::OtherBackend
        | LookupVerdict::OtherSlot
        | LookupVerdict::Taken
        | LookupVerdict::PassUnserved => sk_action::SK_PASS,
    }
}

#[inline(always)]
fn steer(ctx: &SkLookupContext) -> LookupVerdict {
    let lookup = Lookup(ctx.as_ptr().cast());
    if lookup.protocol() != PROTOCOL_TCP {
        return LookupVerdict::Foreign;
    }
    let (client, local) = lookup.addresses();
    let key = VipKey {
        addr: local,
        port: Be16::from_host(lookup.local_port()),
        protocol: PROTOCOL_TCP as u8,
        pad: 0,
    };
    let Some(vip) = owner::of_vip(&key) else {
        return LookupVerdict::Foreign;
    };
    if vip.plane != plane::SOCKET {
        return LookupVerdict::OtherPlane;
    }
    if vip.is_retired != 0 {
        return LookupVerdict::Foreign;
    }
    let key = FlowKey {
        client,
        service: vip.service,
        client_port: lookup.remote_port(),
        protocol: PROTOCOL_TCP as u8,
        vip_ordinal: vip.ordinal,
    };
    let Some(service) = select::service(key.service) else {
        return LookupVerdict::DropBrokenState;
    };
    let is_v6 = !lookup.is_v4();
    let selected = match select::select(&key, is_v6, service) {
        Ok(selected) => selected,
        Err(Unselected::Unserved(wanted)) => {
            let counters = Counters::of(key.service, wanted);
            count!(counters, lookups);
            return unserved(counters, service.policy);
        }
        Err(Unselected::Broken) => return LookupVerdict::DropBrokenState,
    };
    // The slot that the weight asked for answers for what goes wrong from here on.
    let wanted = if selected.failed_over {
        selected.slot.other()
    } else {
        selected.slot
    };
    let counters = Counters::of(key.service, wanted);
    count!(counters, lookups);
    let tried = try_slot(&lookup, &selected, counters, service.policy);
    if let Some(verdict) = settle(&tried, selected.failed_over, counters) {
        return verdict;
    }
    let mut is_full = matches!(tried, Tried::Full);
    if let Some(other) = select::other_slot(&key, is_v6, &selected) {
        let tried = try_slot(&lookup, &other, counters, service.policy);
        if let Some(verdict) = settle(&tried, true, counters) {
            return verdict;
        }
        is_full |= matches!(tried, Tried::Full);
    }
    if is_full {
        // Nobody has room: better to wait where the hash says than to be turned away. All that there
        // is to count about it has been counted.
        let policy = service.policy & !policy::ON_FULL_FAILOVER;
        let tried = try_slot(&lookup, &selected, Counters::NONE, policy);
        if let Some(verdict) = settle(&tried, selected.failed_over, counters) {
            return verdict;
        }
    }
    unserved(counters, service.policy)
}

/// The verdict, if something was found.
#[inline(always)]
fn settle(tried: &Tried, is_other_slot: bool, counters: Counters) -> Option<LookupVerdict> {
    match tried {
        Tried::First if !is_other_slot => Some(LookupVerdict::Steered),
        Tried::Other if !is_other_slot => {
            count!(counters, other_backend);
            Some(LookupVerdict::OtherBackend)
        }
        Tried::First | Tried::Other => {
            count!(counters, other_slot);
            Some(LookupVerdict::OtherSlot)
        }
        Tried::Taken => Some(LookupVerdict::Taken),
        Tried::Full | Tried::Nothing => None,
    }
}

#[inline(always)]
fn unserved(counters: Counters, policy: u32) -> LookupVerdict {
    count!(counters, unserved);
    if policy & policy::ON_EMPTY_PASS != 0 {
        LookupVerdict::PassUnserved
    } else {
        LookupVerdict::DropUnserved
    }
}

/// What the backends of a slot had to offer.
enum Tried {
    /// The backend that the hash finds.
    First,
    /// Another one.
    Other,
    /// Somebody else's program has chosen a socket.
    Taken,
    /// Nothing, but there are listeners that have no room.
    Full,
    /// Nothing.
    Nothing,
}

#[inline(always)]
fn try_slot(lookup: &Lookup, selected: &Selected, counters: Counters, policy: u32) -> Tried {
    let region = selected.region;
    let first = table_entry(selected.hash, region.size);
    let (mut tried, mut is_full) = (u32::MAX, false);
    for step in 0..=OTHER_TRIES {
        // The table's size is prime, so steps of any length meet all of its entries.
        let Some(backend) = select::table_at(region, first.wrapping_add(step * 7)) else {
            return Tried::Nothing;
        };
        if backend == tried {
            continue;
        }
        tried = backend;
        match socket_assign(lookup.0, backend, counters.0, policy) {
            ASSIGNED if step == 0 => return Tried::First,
            ASSIGNED => return Tried::Other,
            TAKEN => return Tried::Taken,
            FULL => is_full = true,
            _ => {}
        }
    }
    if is_full { Tried::Full } else { Tried::Nothing }
}

const NONE: u32 = 0;
const ASSIGNED: u32 = 1;
const TAKEN: u32 = 2;
const FULL: u32 = 3;

/// Gives the connection to the first living listener of a backend.
///
/// VERIFIER: a global function, which is checked once for itself: its loop is not multiplied by those of
/// the callers.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn socket_assign(
    ctx: *mut bpf_sk_lookup,
    backend: u32,
    counters: u32,
    policy: u32,
) -> u32 {
    let (lookup, counters) = (Lookup(ctx), Counters(counters));
    let Some(sockets) = backend_sockets(backend) else {
        return NONE;
    };
    // SAFETY: aligned numbers of a map value, each valid alone.
    let (captured, admitted) = unsafe {
        (
            (&raw const (*sockets).captured_epoch).read_volatile(),
            (&raw const (*sockets).admitted_epoch).read_volatile(),
        )
    };
    if captured != admitted && policy & policy::READMIT_LISTEN == 0 && is_daemon_alive() {
        count!(counters, not_admitted);
        return NONE;
    }
    // The kernel shares connections out among a group, and does not ask who has room: once a member has
    // none, one is chosen here, from another place for each client.
    let is_full =
        policy & policy::ON_FULL_FAILOVER != 0 && has_full_member(sockets, backend, counters);
    let (turn, flags) = if is_full {
        (lookup.remote_port().0, BPF_SK_LOOKUP_F_NO_REUSEPORT)
    } else {
        (0, 0)
    };
    for step in 0..SOCKETS_PER_BACKEND {
        let place = (step + u32::from(turn)) % SOCKETS_PER_BACKEND;
        let Some(socket) = listener_in(sockets, backend, place) else {
            continue;
        };
        let has_no_room = inside::is_queue_full(socket);
        if has_no_room && is_full {
            // SAFETY: the socket's reference is ours.
            unsafe { bpf_sk_release(socket) };
            continue;
        }
        if has_no_room {
            count!(counters, queue_full);
        }
        // SAFETY: the context is the one this program was called with; the socket's reference is
        // ours until it is released right behind.
        let code = unsafe {
            let code = bpf_sk_assign(lookup.0.cast(), socket, u64::from(flags));
            bpf_sk_release(socket);
            code
        };
        match -code {
            0 => return ASSIGNED,
            EEXIST => return TAKEN,
            ESOCKTNOSUPPORT => count!(counters, shut_down),
            EAFNOSUPPORT => count!(counters, wrong_family),
            _ => count!(counters, not_assigned),
        }
    }
    if is_full {
        return FULL;
    }
    count!(counters, no_listener);
    NONE
}

/// The living listener in a place, if there is one that may be selected. Its reference is the caller's.
#[inline(always)]
fn listener_in(sockets: *mut BackendSockets, backend: u32, place: u32) -> Option<*mut c_void> {
    let place = place & (SOCKETS_PER_BACKEND - 1);
    // SAFETY: aligned numbers of a map value, each valid alone; the place lies inside the array.
    let cookie = unsafe { (&raw const (*sockets).cookies[place as usize]).read_volatile() };
    if cookie == 0 {
        return None;
    }
    let key = place_key(backend, place);
    // SAFETY: the map's keys are u32, and the key lives during the call.
    let socket =
        unsafe { bpf_map_lookup_elem(LISTENERS.as_ptr(), core::ptr::from_ref(&key).cast()) };
    if socket.is_null() {
        // A listener older than the programs closes without a word to them; whoever finds its place empty
        // first says it.
        capture::found_closed(sockets, backend, place, cookie);
        return None;
    }
    Some(socket)
}

/// Whether a listener of a backend has no room. Each that has none is counted.
#[inline(always)]
fn has_full_member(sockets: *mut BackendSockets, backend: u32, counters: Counters) -> bool {
    let mut is_full = false;
    for place in 0..SOCKETS_PER_BACKEND {
        if let Some(socket) = listener_in(sockets, backend, place) {
            if inside::is_queue_full(socket) {
                count!(counters, queue_full);
                is_full = true;
            }
            // SAFETY: the socket's reference is ours.
            unsafe { bpf_sk_release(socket) };
        }
    }
    is_full
}

/// Whether the daemon was seen a moment ago, so that its probes decide who is readmitted.
#[inline(always)]
fn is_daemon_alive() -> bool {
    // SAFETY: the helper takes no arguments and has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    now_ns.wrapping_sub(host_number(host::LEASE_NS)) < LEASE_NS
}

/// The context. Every field is read for itself: the verifier allows no wider reads.
struct Lookup(*mut bpf_sk_lookup);

impl Lookup {
    #[inline(always)]
    fn protocol(&self) -> u32 {
        // SAFETY: the context of this run.
        unsafe { (&raw const (*self.0).protocol).read_volatile() }
    }

    #[inline(always)]
    fn is_v4(&self) -> bool {
        // SAFETY: the context of this run.
        (unsafe { (&raw const (*self.0).family).read_volatile() }) == AF_INET
    }

    #[inline(always)]
    fn local_port(&self) -> u16 {
        // SAFETY: the context of this run.
        (unsafe { (&raw const (*self.0).local_port).read_volatile() }) as u16
    }

    #[inline(always)]
    fn remote_port(&self) -> Be16 {
        // SAFETY: the context of this run.
        Be16(unsafe { (&raw const (*self.0).remote_port).read_volatile() })
    }

    /// Client and local address.
    #[inline(always)]
    fn addresses(&self) -> (Addr, Addr) {
        let ctx = self.0;
        // SAFETY: the context of this run.
        unsafe {
            // VERIFIER: both families are read and one is chosen, as in `seize`.
            let remote_v4 = Addr::from_v4_word((&raw const (*ctx).remote_ip4).read_volatile());
            let local_v4 = Addr::from_v4_word((&raw const (*ctx).local_ip4).read_volatile());
            let remote = |i: usize| (&raw const (*ctx).remote_ip6[i]).read_volatile();
            let local = |i: usize| (&raw const (*ctx).local_ip6[i]).read_volatile();
            let remote_v6 = Addr {
                words: [remote(0), remote(1), remote(2), remote(3)],
            };
            let local_v6 = Addr {
                words: [local(0), local(1), local(2), local(3)],
            };
            if self.is_v4() {
                (remote_v4, local_v4)
            } else {
                (remote_v6, local_v6)
            }
        }
    }
}
