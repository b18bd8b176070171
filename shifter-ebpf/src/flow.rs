//! The flow tables: finding, opening, advancing and promoting entries.
//!
//! A handshake lives in `PENDING`, so that a flood of SYNs can evict other handshakes only; the ACK
//! that proves the client saw the SYN/ACK moves the flow to `FLOWS`.

use shifter_common::{
    abi::{FlowEntry, FlowKey},
    tcp::{self, Milestone, Phase, Sender, flag},
};

use crate::{
    account, atomic,
    clock::now_ticks,
    maps::{FLOWS, PENDING},
    parse::Packet,
    select,
};

/// Whether a sequence number lies behind another one (RFC 9293 section 3.4). Retransmissions do not
/// turn the numbers back.
#[inline(always)]
const fn follows(new: u32, old: u32) -> bool {
    (new.wrapping_sub(old) as i32) > 0
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

/// Forgets a connection that is over, so that a new one can take its key.
#[inline(always)]
pub fn forget_established(key: &FlowKey) {
    // A failure means that the entry is gone already.
    let _ = FLOWS.remove(key);
}

/// Opens a flow.
///
/// # Errors
/// If the kernel has no memory for the entry.
#[inline(always)]
pub fn open(key: &FlowKey, entry: &FlowEntry) -> Result<(), i32> {
    PENDING.insert(key, entry, 0)
}

/// Whether a live flow of the same client port through another VIP of the service already uses
/// this backend: the backend could not tell the two apart. Out of line: rare, and its loop would be
/// verified once a try and family otherwise.
#[inline(never)]
pub fn is_port_taken(key: &FlowKey, vip_count: u8, entry: &FlowEntry) -> bool {
    let mut other = *key;
    for ordinal in 0..shifter_common::abi::VIPS_PER_SERVICE as u8 {
        if ordinal >= vip_count {
            break;
        }
        if ordinal == key.vip_ordinal {
            continue;
        }
        other.vip_ordinal = ordinal;
        if let Some(flow) = find(&other)
            && flow.is_on(entry.backend, entry.backend_port)
            && !flow.phase().is_none_or(Phase::is_over)
        {
            return true;
        }
    }
    false
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
    /// backend may still answer.
    #[inline(always)]
    pub fn is_opened_by(&self, packet: &Packet) -> bool {
        let entry = self.read();
        match Phase::from_u32(entry.phase) {
            Some(Phase::SynSent) => {
                entry.next_from_client == packet.seq.wrapping_add(1)
                    && select::is_ready(entry.backend_index)
            }
            Some(Phase::SynReceived) => entry.next_from_client == packet.seq.wrapping_add(1),
            Some(Phase::Established | Phase::ClientFin | Phase::BackendFin) => true,
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
        let acknowledges = packet.ack == entry.next_from_client;
        if packet.has(flag::SYN) {
            // A backend that still holds the connection only repeats its own SYN/ACK.
            return if phase.is_pending() {
                acknowledges
            } else {
                phase.is_live()
            };
        }
        if packet.has(flag::RST | flag::ACK) && !phase.is_live() {
            // Refusals acknowledge the SYN they refuse.
            return acknowledges;
        }
        true
    }

    /// Notes a packet of the client: time, phase, numbers. A flow whose handshake it completes
    /// moves to the table of established flows.
    #[inline(always)]
    pub fn see_client(&self, key: &FlowKey, entry: &FlowEntry, packet: &Packet) {
        self.touch(entry);
        let has_ack = packet.has(flag::ACK);
        if !self.is_pending && follows(packet.next_seq(), entry.next_from_client) {
            // SAFETY: as in `read`; an aligned store of 32 bits.
            unsafe { (*self.entry).next_from_client = packet.next_seq() };
        }
        if has_ack && entry.phase == Phase::Aborted as u32 {
            // What an end acknowledges is exactly what it expects: a reset with it is believed.
            // SAFETY: as above.
            unsafe { (*self.entry).next_from_backend = packet.ack };
        }
        // Without the right number anybody could fill the table of established flows.
        let proves = entry.phase != Phase::SynReceived as u32
            || packet.has(flag::RST)
            || (has_ack && packet.ack == entry.next_from_backend);
        if proves {
            self.advance(key, entry, Sender::Client, packet.flags);
        }
        if self.is_pending && self.phase().is_some_and(Phase::is_live) {
            self.promote(key);
        }
    }

    /// Notes a packet of the backend.
    #[inline(always)]
    pub fn see_backend(&self, key: &FlowKey, entry: &FlowEntry, packet: &Packet) {
        self.touch(entry);
        if packet.has(flag::SYN) {
            if entry.phase == Phase::SynSent as u32 {
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
        self.advance(key, entry, Sender::Backend, packet.flags);
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

    /// Changes the phase. Whoever changes it counts the milestone, so each is counted once even
    /// when both directions race.
    #[inline(always)]
    fn advance(&self, key: &FlowKey, entry: &FlowEntry, sender: Sender, flags: u8) {
        let Some(phase) = Phase::from_u32(entry.phase) else {
            return;
        };
        let Some((next, milestone)) = tcp::advance(phase, sender, flags) else {
            return;
        };
        // SAFETY: as in `read`; the field is aligned.
        let swapped = unsafe {
            atomic::compare_and_swap(&raw mut (*self.entry).phase, entry.phase, next as u32)
        };
        if swapped && let Some(milestone) = milestone {
            self.count(key, entry, milestone);
        }
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
        if FLOWS.insert(key, &entry, 0).is_ok() {
            let _ = PENDING.remove(key);
        }
    }
}
