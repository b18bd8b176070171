//! Clients on the host itself: their packets to a VIP never come in by an interface, so the
//! destination is changed before there is a packet, where the application names it.
//!
//! ```text
//! connect: ours → VIP → select → note at the socket → change destination → count
//! sendmsg: ours → VIP → known peer ──────────────────→ change destination → count
//!                        └─ select → note both ways ───┘
//! recvmsg, getpeername: ours → noted → show the VIP
//! ```
//!
//! Only sockets of the steered network namespace are ours. The hooks sit on the root cgroup and see
//! those of all containers too; what these send to a VIP is for the packet hooks.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    },
    programs::SockAddrContext,
};
use shifter_common::{
    abi::{
        BackendEntry, FlowKey, LocalKey, LocalPeer, LocalSocket, VipEntry, VipKey, backend_state,
        local_direction, policy,
    },
    addr::{Addr, Be16},
    local::LocalOutcome,
    steering::Slot,
};

use crate::{
    atomic,
    clock::now_ticks,
    maps::{
        BACKEND_SERVICES, LOCAL_BACKENDS, LOCAL_NETNS, LOCAL_OUTCOMES, LOCAL_PEERS, LOCAL_SLOTS,
        LOCAL_SOCKETS, VIPS,
    },
    select::{self, Unselected},
};

/// The call goes on.
const ALLOW: i32 = 1;
/// The call fails.
const REFUSE: i32 = 0;
/// What connect(2) says of a port where nobody listens.
const ECONNREFUSED: i32 = 111;
/// After this time without a datagram the next one is a new flow: 32 s.
const IDLE_TICKS: u32 = 30;
/// A backend that leaves keeps a socket's datagrams as long as it answers: 9 s.
const SILENCE_TICKS: u32 = 8;

/// The address that a hook is about.
struct Named<'a, const IS_V6: bool> {
    ctx: &'a SockAddrContext,
}

impl<'a, const IS_V6: bool> Named<'a, IS_V6> {
    /// The address, if the socket is of the steered namespace.
    #[inline(always)]
    fn of_ours(ctx: &'a SockAddrContext) -> Option<Self> {
        let ours = *LOCAL_NETNS.get(0)?;
        // SAFETY: the context is the one this program was called with.
        let is_ours = ours != 0 && unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == ours;
        is_ours.then_some(Self { ctx })
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.ctx.sock_addr
    }

    /// Whom the application names, or is shown.
    #[inline(always)]
    fn peer(&self) -> VipKey {
        let raw = self.raw();
        // SAFETY: the kernel lets these fields be read through the context, four bytes at a time,
        // which volatile reads keep them at.
        unsafe {
            let addr = if IS_V6 {
                let mut words = [0_u32; 4];
                words[0] = (&raw const (*raw).user_ip6[0]).read_volatile();
                words[1] = (&raw const (*raw).user_ip6[1]).read_volatile();
                words[2] = (&raw const (*raw).user_ip6[2]).read_volatile();
                words[3] = (&raw const (*raw).user_ip6[3]).read_volatile();
                Addr { words }
            } else {
                Addr::from_v4_word((&raw const (*raw).user_ip4).read_volatile())
            };
            VipKey {
                addr,
                port: Be16((&raw const (*raw).user_port).read_volatile() as u16),
                protocol: (&raw const (*raw).protocol).read_volatile() as u8,
                pad: 0,
            }
        }
    }

    /// Names another one.
    #[inline(always)]
    fn set_peer(&self, peer: &VipKey) {
        let raw = self.raw();
        let words = peer.addr.words;
        // SAFETY: as in `peer`; these fields may be written by the hooks that call this.
        unsafe {
            if IS_V6 {
                (&raw mut (*raw).user_ip6[0]).write_volatile(words[0]);
                (&raw mut (*raw).user_ip6[1]).write_volatile(words[1]);
                (&raw mut (*raw).user_ip6[2]).write_volatile(words[2]);
                (&raw mut (*raw).user_ip6[3]).write_volatile(words[3]);
            } else {
                (&raw mut (*raw).user_ip4).write_volatile(words[3]);
            }
            (&raw mut (*raw).user_port).write_volatile(u32::from(peer.port.0));
        }
    }

    /// The client's address: the one the socket is bound to. An unbound socket has none yet; it
    /// counts as the VIP's own, which is what the kernel would take for a VIP of this host.
    #[inline(always)]
    fn client(&self, vip: &VipKey) -> Addr {
        let raw = self.raw();
        // SAFETY: the kernel gives a valid socket and lets its addresses be read, four bytes at a
        // time.
        let bound = unsafe {
            let sk = (*raw).__bindgen_anon_1.sk;
            if IS_V6 {
                let mut words = [0_u32; 4];
                words[0] = (&raw const (*sk).src_ip6[0]).read_volatile();
                words[1] = (&raw const (*sk).src_ip6[1]).read_volatile();
                words[2] = (&raw const (*sk).src_ip6[2]).read_volatile();
                words[3] = (&raw const (*sk).src_ip6[3]).read_volatile();
                Addr { words }
            } else {
                Addr::from_v4_word((&raw const (*sk).src_ip4).read_volatile())
            }
        };
        // Not bound is :: or 0.0.0.0, mapped or not.
        if bound.words[3] == 0 && bound.words[0] == 0 && bound.words[1] == 0 {
            vip.addr
        } else {
            bound
        }
    }

    #[inline(always)]
    fn key(&self, peer: VipKey, direction: u32) -> LocalKey {
        LocalKey {
            // SAFETY: the context is the one this program was called with.
            cookie: unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) },
            peer,
            direction,
        }
    }

    /// What is noted at the socket.
    #[inline(always)]
    fn noted(&self) -> Option<&'a LocalSocket> {
        // SAFETY: the context is the one this program was called with; the value lives as long as
        // the socket, which outlives this run.
        unsafe { LOCAL_SOCKETS.get_ptr_mut(self.ctx).as_ref() }
    }

    /// Notes at the socket where it was sent; says whether the kernel had memory for it.
    #[inline(always)]
    fn note(&self, mut socket: LocalSocket) -> bool {
        // SAFETY: as in `noted`.
        let place = unsafe { LOCAL_SOCKETS.get_or_insert_ptr_mut(self.ctx, Some(&mut socket)) };
        if place.is_null() {
            return false;
        }
        // SAFETY: not null; a socket that is connected anew keeps its old note otherwise.
        unsafe { place.write(socket) };
        true
    }

    /// Forgets the note of an earlier connection of the same socket.
    #[inline(always)]
    fn forget(&self) {
        if self.noted().is_some() {
            // SAFETY: the kernel gives a valid socket.
            let _ = unsafe { LOCAL_SOCKETS.delete((*self.raw()).__bindgen_anon_1.sk) };
        }
    }
}

/// A selected backend.
struct Chosen {
    key: VipKey,
    index: u32,
    id: u32,
    slot: Slot,
    failed_over: bool,
}

/// connect(2), of TCP or UDP.
#[inline(always)]
pub fn connect<const IS_V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(named) = Named::<IS_V6>::of_ours(ctx) else {
        return ALLOW;
    };
    let vip_key = named.peer();
    // SAFETY: the entry is read at once; the daemon replaces VIP entries whole.
    let vip = match unsafe { VIPS.get(vip_key) } {
        Some(vip) if vip.is_retired == 0 => vip,
        _ => {
            named.forget();
            return ALLOW;
        }
    };
    let outcome = match choose(&named, &vip_key, vip) {
        Ok(chosen) => {
            let socket = LocalSocket {
                vip: vip_key,
                backend: chosen.key,
            };
            if named.note(socket) {
                named.set_peer(&chosen.key);
                count_selected(vip.service, &chosen);
                LocalOutcome::Selected
            } else {
                LocalOutcome::RefusedNoMemory
            }
        }
        Err(outcome) => {
            named.forget();
            outcome
        }
    };
    finish(outcome)
}

/// A datagram to an address, on a socket that is not connected.
#[inline(always)]
pub fn send<const IS_V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(named) = Named::<IS_V6>::of_ours(ctx) else {
        return ALLOW;
    };
    let vip_key = named.peer();
    // SAFETY: as in `connect`.
    let Some(vip) = (unsafe { VIPS.get(vip_key) }) else {
        return ALLOW;
    };
    let key = named.key(vip_key, local_direction::TO_VIP);
    let now = now_ticks();
    if let Some(peer) = LOCAL_PEERS.get_ptr_mut(key) {
        // SAFETY: the pointer came from a lookup in this program run.
        let noted = unsafe { peer.read() };
        if goes_on(&named, &noted, now) {
            // SAFETY: as above; an aligned store of 32 bits.
            unsafe { (*peer).last_seen_ticks = now };
            named.set_peer(&noted.other);
            return finish(LocalOutcome::Kept);
        }
    }
    if vip.is_retired != 0 {
        return ALLOW;
    }
    let outcome = match choose(&named, &vip_key, vip) {
        Ok(chosen) => {
            let to_backend = LocalPeer {
                other: chosen.key,
                backend_index: chosen.index,
                backend_id: chosen.id,
                last_seen_ticks: now,
            };
            let to_vip = LocalPeer {
                other: vip_key,
                // Nothing has been heard of it yet.
                last_seen_ticks: now.wrapping_sub(SILENCE_TICKS),
                ..to_backend
            };
            let back = named.key(chosen.key, local_direction::FROM_BACKEND);
            if LOCAL_PEERS.insert(back, to_vip, 0).is_ok()
                && LOCAL_PEERS.insert(key, to_backend, 0).is_ok()
            {
                named.set_peer(&chosen.key);
                count_selected(vip.service, &chosen);
                LocalOutcome::Selected
            } else {
                LocalOutcome::RefusedNoMemory
            }
        }
        Err(outcome) => outcome,
    };
    finish(outcome)
}

/// Whom a datagram came from.
#[inline(always)]
pub fn receive<const IS_V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(named) = Named::<IS_V6>::of_ours(ctx) else {
        return ALLOW;
    };
    let backend = named.peer();
    // SAFETY: only whether there is an entry is asked.
    if unsafe { BACKEND_SERVICES.get(backend) }.is_none() {
        return ALLOW;
    }
    if let Some(socket) = named.noted()
        && socket.backend == backend
    {
        named.set_peer(&socket.vip);
        return ALLOW;
    }
    let key = named.key(backend, local_direction::FROM_BACKEND);
    if let Some(peer) = LOCAL_PEERS.get_ptr_mut(key) {
        // SAFETY: the pointer came from a lookup in this program run.
        let noted = unsafe { peer.read() };
        // SAFETY: as above; an aligned store of 32 bits.
        unsafe { (*peer).last_seen_ticks = now_ticks() };
        named.set_peer(&noted.other);
    }
    ALLOW
}

/// getpeername(2).
#[inline(always)]
pub fn peer_name<const IS_V6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(named) = Named::<IS_V6>::of_ours(ctx) else {
        return ALLOW;
    };
    if let Some(socket) = named.noted()
        && socket.backend == named.peer()
    {
        named.set_peer(&socket.vip);
    }
    ALLOW
}

/// Whether a socket's datagrams still go where the last one went.
#[inline(always)]
fn goes_on<const IS_V6: bool>(named: &Named<'_, IS_V6>, noted: &LocalPeer, now: u32) -> bool {
    let is_idle = now.wrapping_sub(noted.last_seen_ticks) > IDLE_TICKS;
    let Some(backend) = select::backend(noted.backend_index).filter(|_| !is_idle) else {
        return false;
    };
    if backend.backend_id != noted.backend_id {
        return false;
    }
    let is_in_slot = select::steering_word(backend.service)
        .is_some_and(|word| word.eligible(Slot::from_index(u32::from(backend.slot))));
    if is_in_slot && backend.state == backend_state::READY {
        return true;
    }
    // Out of traffic, for whatever reason: as long as it answers it keeps what it has.
    let back = named.key(noted.other, local_direction::FROM_BACKEND);
    LOCAL_PEERS.get_ptr(back).is_some_and(|answer| {
        // SAFETY: the pointer came from a lookup in this program run.
        let heard = unsafe { (&raw const (*answer).last_seen_ticks).read_volatile() };
        now.wrapping_sub(heard) < SILENCE_TICKS
    })
}

/// Selects a backend as the packet path does. The source port is not chosen yet: with connection
/// affinity a random number stands for it.
#[inline(always)]
fn choose<const IS_V6: bool>(
    named: &Named<'_, IS_V6>,
    vip_key: &VipKey,
    vip: &VipEntry,
) -> Result<Chosen, LocalOutcome> {
    let Some(service) = select::service(vip.service) else {
        return Err(LocalOutcome::RefusedBrokenState);
    };
    // SAFETY: the helper takes no arguments and has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let key = FlowKey {
        client: named.client(vip_key),
        service: vip.service,
        client_port: Be16(random as u16),
        protocol: vip_key.protocol,
        // Only the hash looks at it: eight bits more than a port has.
        vip_ordinal: (random >> 16) as u8,
    };
    let selected = match select::select(&key, !vip_key.addr.is_v4(), service) {
        Ok(selected) => selected,
        Err(Unselected::Unserved(wanted)) => {
            if let Some(counters) = slot_counters(vip.service, wanted) {
                // SAFETY: the pointer is to a live counter of the map.
                unsafe { atomic::add(&raw mut (*counters).unserved, 1) };
            }
            return Err(if service.policy & policy::ON_EMPTY_PASS != 0 {
                LocalOutcome::PassUnserved
            } else {
                LocalOutcome::RefusedUnserved
            });
        }
        Err(Unselected::Broken) => return Err(LocalOutcome::RefusedBrokenState),
    };
    let backend = select::backend_index(selected.region, selected.hash)
        .and_then(|index| Some((index, select::backend(index)?)));
    let Some((index, backend)) = backend else {
        return Err(LocalOutcome::RefusedBrokenState);
    };
    let &BackendEntry {
        addr,
        port,
        backend_id,
        ..
    } = backend;
    Ok(Chosen {
        key: VipKey {
            addr,
            port,
            protocol: vip_key.protocol,
            pad: 0,
        },
        index,
        id: backend_id,
        slot: selected.slot,
        failed_over: selected.failed_over,
    })
}

#[inline(always)]
fn count_selected(service: u32, chosen: &Chosen) {
    if chosen.failed_over
        && let Some(wanted) = slot_counters(service, chosen.slot.other())
    {
        // SAFETY: the pointer is to a live counter of the map.
        unsafe { atomic::add(&raw mut (*wanted).failed_over, 1) };
    }
    if let Some(counters) = slot_counters(service, chosen.slot) {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*counters).selected, 1) };
    }
    if let Some(count) = LOCAL_BACKENDS.get_ptr_mut(chosen.index) {
        // SAFETY: as above.
        unsafe { atomic::add(count, 1) };
    }
}

#[inline(always)]
fn slot_counters(service: u32, slot: Slot) -> Option<*mut shifter_common::abi::LocalCounters> {
    LOCAL_SLOTS.get_ptr_mut(service * 2 + slot.index())
}

/// Counts an outcome and turns it into what the kernel does with the call.
#[inline(always)]
fn finish(outcome: LocalOutcome) -> i32 {
    if let Some(count) = LOCAL_OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the pointer is to a live counter of the map.
        unsafe { atomic::add(count, 1) };
    }
    if outcome.refuses() {
        // SAFETY: the helper takes an error number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        REFUSE
    } else {
        ALLOW
    }
}
