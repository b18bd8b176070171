//! The flow tables: finding, opening, advancing and promoting entries.
//!
//! A handshake lives in `PENDING`, so that a flood of SYNs can evict other handshakes only; the ACK
//! that proves the client saw the SYN/ACK moves the flow to `FLOWS`. A UDP flow lives there until its
//! backend answers.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use shifter_common::{
    abi::{FlowEntry, FlowKey, VIPS_PER_SERVICE, flow_flag, traffic},
    tcp::{self, Milestone, Phase, Sender, flag},
    udp,
};

use crate::{
    account, atomic,
    breaker::{self, Failed},
    clock::now_ticks,
    maps::{FLOWS, PENDING, VIP_ADDRS},
    parse::Packet,
    select,
};

/// Data that may come with a SYN or before the handshake is complete (TCP Fast Open, RFC 7413).
const FAST_OPEN_MAX_BYTES: u32 = 1 << 14;
/// How far from what is expected the end of a connection may lie to be believed. The ends themselves
/// are stricter (RFC 5961), but they know what was received and not just what was sent.
const BELIEVED_BYTES: u32 = 1 << 20;
/// How far one packet may move the expected number: no window in use is larger.
const WINDOW_MAX_BYTES: u32 = 1 << 22;
/// How far the numbers of a backend may lie from those of an unconfirmed entry: what a client with the
/// largest window may not have seen yet.
const UNCONFIRMED_BYTES: u32 = WINDOW_MAX_BYTES;
/// `EEXIST`: somebody else has just entered the flow.
const ALREADY_THERE: i32 = -17;
/// After this time without a packet a SYN to a backend that is not ready is a new connection; after
/// this time without an answer a datagram is.
const SILENCE_TICKS: u32 = 2;

/// Whether a sequence number lies behind another one, within a window (RFC 9293 section 3.4).
/// Retransmissions do not turn the numbers back, and a forged segment does not throw them forward.
#[inline(always)]
const fn follows(new: u32, old: u32) -> bool {
    new.wrapping_sub(old).wrapping_sub(1) < WINDOW_MAX_BYTES
}

/// Whether a sequence number is close to the expected one.
#[inline(always)]
const fn is_near(seq: u32, expected: u32) -> bool {
    is_within(seq, expected, BELIEVED_BYTES)
}

/// Whether a sequence number is at most `distance` away from the expected one.
#[inline(always)]
const fn is_within(seq: u32, expected: u32, distance: u32) -> bool {
    seq.wrapping_sub(expected).wrapping_add(distance) <= 2 * distance
}

/// The flags of a packet, without those that end the connection if its number says that it was
/// forged or belongs to another connection.
#[inline(always)]
fn believable(packet: &Packet, expected: u32) -> u8 {
    if is_near(packet.seq, expected) {
        packet.flags
    } else {
        packet.flags & !(flag::RST | flag::FIN)
    }
}

/// Time since the flow's last packet.
#[inline(always)]
fn idle_ticks(entry: &FlowEntry) -> u32 {
    now_ticks().wrapping_sub(entry.last_seen_ticks)
}

/// A flow entry in its table. The kernel may give an evicted element to another flow while a
/// program still holds the pointer, as with every LRU map; fields are therefore copied once.
#[derive(Clone, Copy)]
pub struct Flow {
    entry: *mut FlowEntry,
    /// Whether the entry stands in `PENDING`.
    is_pending: bool,
}

/// Finds the entry of a flow, established ones first.
#[inline(always)]
pub fn find(key: &FlowKey) -> Option<Flow> {
    match FLOWS.get_ptr_mut(key) {
        Some(entry) => Some(Flow {
            entry,
            is_pending: false,
        }),
        None => find_pending(key),
    }
}

/// Finds the entry of a handshake.
#[inline(always)]
pub fn find_pending(key: &FlowKey) -> Option<Flow> {
    PENDING.get_ptr_mut(key).map(|entry| Flow {
        entry,
        is_pending: true,
    })
}

/// Opens a flow.
///
/// # Errors
/// If the kernel has no memory for the entry.
#[inline(always)]
pub fn open(key: &FlowKey, entry: &FlowEntry) -> Result<(), i32> {
    match PENDING.insert(key, entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            account::traffic(traffic::PENDING_ADDED);
            Ok(())
        }
        // The same SYN on another CPU.
        Err(ALREADY_THERE) => PENDING.insert(key, entry, u64::from(BPF_ANY)),
        Err(code) => Err(code),
    }
}

/// Enters a flow that has been lost; `None` if the kernel has no memory for it.
#[inline(always)]
pub fn restore(key: &FlowKey, entry: &FlowEntry) -> Option<Flow> {
    if FLOWS.insert(key, entry, u64::from(BPF_NOEXIST)).is_ok() {
        account::traffic(traffic::FLOWS_ADDED);
    }
    FLOWS.get_ptr_mut(key).map(|entry| Flow {
        entry,
        is_pending: false,
    })
}

/// Whether there can be a flow of this client through this VIP: they are of one family. A look into
/// an array, before two into tables that are rarely in the cache.
#[inline(always)]
pub fn is_possible(key: &FlowKey) -> bool {
    vip_family(key.service, key.vip_ordinal.into()) == u32::from(key.client.is_v4())
}

/// 1 if a VIP is of IPv4, 0 if it is of IPv6, 2 if there is none.
// VERIFIER: a global function (exported, with arguments that BTF describes) is verified once, and not
// for every state of every caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn vip_family(service: u32, ordinal: u32) -> u32 {
    match VIP_ADDRS.get(service * VIPS_PER_SERVICE + ordinal) {
        Some(vip) => u32::from(vip.addr.is_v4()),
        None => 2,
    }
}

/// Whether a live flow of the same client port through another VIP of the service already uses
/// this backend: the backend could not tell the two apart. Out of line: rare, and its loop would be
/// verified once a try and family otherwise.
pub fn is_port_taken(key: &FlowKey, vip_count: u8, entry: &FlowEntry) -> bool {
    port_taken(key, u32::from(vip_count), entry) != 0
}

// VERIFIER: a global function (exported, with arguments that BTF describes) is verified once, and not
// for every state of every caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn port_taken(key: *const FlowKey, vip_count: u32, entry: *const FlowEntry) -> u32 {
    if key.is_null() || entry.is_null() {
        return 0;
    }
    // SAFETY: both come from references and are not null.
    let (key, entry) = unsafe { (&*key, &*entry) };
    u32::from(is_taken(key, vip_count as u8, entry))
}

#[inline(always)]
fn is_taken(key: &FlowKey, vip_count: u8, entry: &FlowEntry) -> bool {
    let mut other = *key;
    for ordinal in 0..VIPS_PER_SERVICE as u8 {
        if ordinal >= vip_count {
            break;
        }
        if ordinal == key.vip_ordinal {
            continue;
        }
        other.vip_ordinal = ordinal;
        if !is_possible(&other) {
            continue;
        }
        if let Some(flow) = find(&other)
            && flow.is_on(entry.backend, entry.backend_port)
            && !flow.phase().is_none_or(Phase::is_over)
        {
            return true;
        }
    }
    false
}

#[inline(always)]
fn forget_pending(key: &FlowKey) {
    if PENDING.remove(key).is_ok() {
        account::traffic(traffic::PENDING_REMOVED);
    }
}

impl Flow {
    /// A copy of the entry.
    #[inline(always)]
    pub fn read(&self) -> FlowEntry {
        // SAFETY: the pointer came from a lookup in this program run; map values stay readable
        // until the run ends.
        unsafe { self.entry.read() }
    }

    /// The phase; `None` if the entry holds none, which only a foreign writer could cause.
    #[inline(always)]
    pub fn phase(&self) -> Option<Phase> {
        // SAFETY: as in `read`.
        Phase::from_u32(unsafe { (&raw const (*self.entry).phase).read_volatile() })
    }

    /// Whether the flow's backend is this one.
    #[inline(always)]
    pub fn is_on(
        &self,
        backend: shifter_common::addr::Addr,
        port: shifter_common::addr::Be16,
    ) -> bool {
        // SAFETY: as in `read`.
        let entry = unsafe { &*self.entry };
        entry.backend_port == port && entry.backend == backend
    }

    /// Whether a SYN belongs to this flow: a retransmission of the one that opened it, while its
    /// backend may still answer; or a SYN into a living connection, which is the backend's to
    /// challenge (RFC 5961 section 4), unless both have long been silent: then it selects again. A
    /// datagram belongs to the flow while that lives and its backend answers or is ready.
    #[inline(always)]
    pub fn is_opened_by(&self, packet: &Packet) -> bool {
        let entry = self.read();
        let is_same = entry.next_from_client == packet.seq.wrapping_add(1);
        match Phase::from_u32(entry.phase) {
            Some(Phase::SynSent) => is_same && select::is_ready(entry.backend_index),
            Some(Phase::SynReceived) => is_same,
            Some(Phase::Established | Phase::ClientFin | Phase::BackendFin) => {
                select::is_ready(entry.backend_index) || idle_ticks(&entry) < SILENCE_TICKS
            }
            Some(Phase::Unanswered) => {
                idle_ticks(&entry) < udp::UNANSWERED_IDLE_TICKS
                    && select::is_ready(entry.backend_index)
            }
            Some(Phase::Answered) => {
                let silence_ticks = now_ticks().wrapping_sub(entry.answered_ticks());
                idle_ticks(&entry) < udp::ANSWERED_IDLE_TICKS
                    && (silence_ticks < SILENCE_TICKS || select::is_ready(entry.backend_index))
            }
            Some(Phase::Closed | Phase::Reset | Phase::Aborted) | None => false,
        }
    }

    /// Whether a backend's packet belongs to this flow rather than to a connection that came to
    /// the backend's own address on the same ports.
    #[inline(always)]
    pub fn is_answered_by(&self, packet: &Packet) -> bool {
        let entry = self.read();
        let Some(phase) = Phase::from_u32(entry.phase) else {
            return false;
        };
        let is_syn = packet.has(flag::SYN);
        if entry.flags & flow_flag::UNCONFIRMED != 0 {
            // Somebody may have guessed a direct connection's client and port, but not its numbers.
            return !is_syn
                && packet.has(flag::ACK)
                && is_within(packet.seq, entry.next_from_backend, UNCONFIRMED_BYTES)
                && is_within(packet.ack, entry.next_from_client, UNCONFIRMED_BYTES);
        }
        // An answer acknowledges the SYN, and with TCP Fast Open (RFC 7413) the data that came with
        // it.
        let answers_syn = (is_syn || packet.has(flag::RST))
            && packet.has(flag::ACK)
            && packet.ack.wrapping_sub(entry.next_from_client) <= FAST_OPEN_MAX_BYTES;
        match phase {
            Phase::SynSent => answers_syn,
            Phase::SynReceived => {
                answers_syn || (!is_syn && is_near(packet.seq, entry.next_from_backend))
            }
            // A backend that still holds the connection only repeats its own SYN/ACK.
            Phase::Established | Phase::ClientFin | Phase::BackendFin => true,
            // Datagrams have no numbers to tell a direct exchange on the same ports by.
            Phase::Unanswered | Phase::Answered => true,
            // What comes late continues the numbers of the flow; a new connection has its own.
            Phase::Closed | Phase::Reset | Phase::Aborted => {
                !self.is_pending
                    && !is_syn
                    && !packet.is_udp()
                    && is_near(packet.seq, entry.next_from_backend)
                    && (!packet.has(flag::ACK) || is_near(packet.ack, entry.next_from_client))
            }
        }
    }

    /// Forgets the flow.
    #[inline(always)]
    pub fn forget(&self, key: &FlowKey) {
        // A failure means that the entry is gone already.
        if self.is_pending {
            forget_pending(key);
        } else if FLOWS.remove(key).is_ok() {
            account::traffic(traffic::FLOWS_REMOVED);
        }
    }

    /// Notes a packet of the client: time, phase, numbers. A flow whose handshake it completes
    /// moves to the table of established flows.
    #[inline(always)]
    pub fn see_client(&self, key: &FlowKey, entry: &FlowEntry, packet: &Packet) {
        self.touch(entry);
        if packet.is_udp() {
            return;
        }
        if entry.phase == Phase::SynSent as u32 && packet.has(flag::SYN) {
            return self.see_repeated_syn(key, entry);
        }
        let has_ack = packet.has(flag::ACK);
        let is_unconfirmed = entry.flags & flow_flag::UNCONFIRMED != 0;
        if is_unconfirmed && has_ack {
            // The client's own next segment mends what a guessed one wrote.
            self.set_numbers(packet.next_seq(), packet.ack);
        } else if !self.is_pending && follows(packet.next_seq(), entry.next_from_client) {
            // SAFETY: as in `read`; an aligned store of 32 bits.
            unsafe { (*self.entry).next_from_client = packet.next_seq() };
        }
        if has_ack && entry.phase == Phase::Aborted as u32 {
            // What an end acknowledges is exactly what it expects: a reset with it is believed.
            // SAFETY: as above.
            unsafe { (*self.entry).next_from_backend = packet.ack };
        }
        let is_handshake = Phase::from_u32(entry.phase).is_none_or(Phase::is_pending);
        let flags = if is_unconfirmed || (is_handshake && packet.seq != entry.next_from_client) {
            packet.flags & !flag::RST
        } else {
            believable(packet, entry.next_from_client)
        };
        // Without the right number anybody could fill the table of established flows. With TCP Fast
        // Open the backend may have sent data before this.
        let proves = entry.phase != Phase::SynReceived as u32
            || packet.has(flag::RST)
            || (has_ack
                && !is_unconfirmed
                && packet.ack.wrapping_sub(entry.next_from_backend) <= FAST_OPEN_MAX_BYTES);
        if proves {
            self.advance(key, entry, Sender::Client, flags);
        }
        if self.is_pending {
            self.leave_handshake(key, entry);
        }
    }

    /// Notes that the client has had no answer for the time of a retransmission (RFC 6298: a second). The
    /// packet may have been lost on its way too, which happens to both versions alike.
    #[inline(always)]
    fn see_repeated_syn(&self, key: &FlowKey, entry: &FlowEntry) {
        if entry.flags & flow_flag::FAILED != 0 {
            return;
        }
        account::unanswered(key.service, entry.slot(), entry.backend_index);
        self.fail(key, entry);
    }

    /// Tells the breaker of an error, if it is the flow's first.
    #[inline(always)]
    pub fn fail(&self, key: &FlowKey, entry: &FlowEntry) {
        if entry.flags & flow_flag::FAILED != 0 {
            return;
        }
        // SAFETY: as in `read`; one byte. The other direction may set another bit at this moment: either is
        // seen again with the next packet.
        unsafe { (*self.entry).flags |= flow_flag::FAILED };
        breaker::error(&Failed {
            client: &key.client,
            client_port: key.client_port.0,
            service: key.service,
            slot: entry.slot(),
            cohort: entry.cohort,
        });
    }

    /// Moves a flow whose handshake is complete, with the FIN that the backend has sent before.
    #[inline(always)]
    fn leave_handshake(&self, key: &FlowKey, entry: &FlowEntry) {
        if !self.phase().is_some_and(Phase::is_live) {
            return;
        }
        if entry.flags & flow_flag::EARLY_FIN != 0 {
            self.advance(key, &self.read(), Sender::Backend, flag::FIN);
        }
        self.promote(key);
    }

    /// Notes a packet of the backend.
    #[inline(always)]
    pub fn see_backend(&self, key: &FlowKey, entry: &FlowEntry, packet: &Packet) {
        self.touch(entry);
        if packet.is_udp() {
            return self.see_answer(key, entry);
        }
        let is_handshake = Phase::from_u32(entry.phase).is_none_or(Phase::is_pending);
        if is_handshake && packet.has(flag::FIN) {
            // With TCP Fast Open (RFC 7413) a short answer may be over before the client's ACK.
            // SAFETY: as in `read`; after the flow was opened nobody else sets flags.
            unsafe { (*self.entry).flags |= flow_flag::EARLY_FIN };
        }
        if entry.flags & flow_flag::UNCONFIRMED != 0 {
            // The backend's socket knows both numbers.
            self.set_numbers(packet.ack, packet.next_seq());
            // SAFETY: as in `read`; one byte that nothing else changes.
            unsafe { (*self.entry).flags &= !flow_flag::UNCONFIRMED };
        } else if packet.has(flag::SYN) {
            if is_handshake {
                // A second SYN/ACK may bring another number: of a SYN cookie, or of a backend that
                // was started again.
                // SAFETY: as in `read`; an aligned store of 32 bits.
                unsafe { (*self.entry).next_from_backend = packet.seq.wrapping_add(1) };
            }
        } else if !self.is_pending && follows(packet.next_seq(), entry.next_from_backend) {
            // SAFETY: as above.
            unsafe { (*self.entry).next_from_backend = packet.next_seq() };
        }
        if packet.has(flag::ACK) && entry.phase == Phase::Aborted as u32 {
            // SAFETY: as above.
            unsafe { (*self.entry).next_from_client = packet.ack };
        }
        let flags = if is_handshake {
            packet.flags
        } else {
            believable(packet, entry.next_from_backend)
        };
        let milestone = self.advance(key, entry, Sender::Backend, flags);
        let has_failed = matches!(
            milestone,
            Some(Milestone::Refused | Milestone::ResetByBackend)
        );
        if has_failed {
            self.fail(key, entry);
        }
    }

    /// What comes through the flow is not looked at any more.
    #[inline(always)]
    pub fn unwatch(&self) {
        if self.is_pending {
            // It may have been copied and left to others by now; the copy is asked again.
            return;
        }
        // SAFETY: as in `fail`.
        unsafe { (*self.entry).flags &= !flow_flag::WATCHED };
    }

    /// Notes a datagram of the backend; the first one confirms the flow.
    #[inline(always)]
    fn see_answer(&self, key: &FlowKey, entry: &FlowEntry) {
        let now = now_ticks();
        if entry.answered_ticks() != now {
            // SAFETY: as in `read`; an aligned store of 32 bits.
            unsafe { (*self.entry).next_from_backend = now };
        }
        self.advance(key, entry, Sender::Backend, 0);
        if self.is_pending && self.phase().is_some_and(Phase::is_live) {
            self.promote(key);
        }
    }

    /// Notes that the backend of a UDP flow has told that nobody listens on its port.
    #[inline(always)]
    pub fn see_closed_port(&self, key: &FlowKey, entry: &FlowEntry) {
        self.advance(key, entry, Sender::Backend, flag::RST);
    }

    /// Notes what both sides expect.
    #[inline(always)]
    fn set_numbers(&self, next_from_client: u32, next_from_backend: u32) {
        // SAFETY: as in `read`; aligned stores of 32 bits.
        unsafe {
            (*self.entry).next_from_client = next_from_client;
            (*self.entry).next_from_backend = next_from_backend;
        }
    }

    /// Stores the time, but only when it has changed: the entry's cache line stays shared.
    #[inline(always)]
    fn touch(&self, entry: &FlowEntry) {
        let now = now_ticks();
        if entry.last_seen_ticks != now {
            // SAFETY: as in `read`; an aligned store of 32 bits.
            unsafe { (*self.entry).last_seen_ticks = now };
        }
    }

    /// Changes the phase and gives the milestone that this is. Whoever changes it counts it, so each is
    /// counted once even when both directions race.
    #[inline(always)]
    fn advance(
        &self,
        key: &FlowKey,
        entry: &FlowEntry,
        sender: Sender,
        flags: u8,
    ) -> Option<Milestone> {
        let mut stored = entry.phase;
        // The other direction may change the phase at the same moment; twice in a row it cannot,
        // because each phase is left once.
        for _ in 0..2 {
            let phase = Phase::from_u32(stored)?;
            let (next, milestone) = tcp::advance(phase, sender, flags)?;
            // SAFETY: as in `read`; the field is aligned.
            let swapped = unsafe {
                atomic::compare_and_swap(&raw mut (*self.entry).phase, stored, next as u32)
            };
            if swapped {
                if let Some(milestone) = milestone {
                    self.count(key, entry, milestone);
                }
                return milestone;
            }
            stored = self.read().phase;
        }
        None
    }

    #[inline(always)]
    fn count(&self, key: &FlowKey, entry: &FlowEntry, milestone: Milestone) {
        account::milestone(key.service, entry.slot(), entry.backend_index, milestone);
    }

    /// Moves the flow to the established ones. If the kernel has no memory the flow lives on in
    /// `PENDING` and its next packet tries again.
    #[inline(always)]
    fn promote(&self, key: &FlowKey) {
        let entry = self.read();
        match FLOWS.insert(key, entry, u64::from(BPF_NOEXIST)) {
            Ok(()) => account::traffic(traffic::FLOWS_ADDED),
            // The other direction has moved it at the same moment.
            Err(ALREADY_THERE) => {}
            Err(_) => return,
        }
        forget_pending(key);
    }
}
