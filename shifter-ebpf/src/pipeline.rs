//! The way of a packet through the stages; all branching between them is here.
//!
//! ```text
//! ingress: parse → VIP → flow ─ known ──────────────→ note → rewrite destination → count
//!                          └─── SYN ─→ select → open ───────┘
//! egress:  parse → backend → flow ─ ours → note → rewrite source → count
//! ```

use shifter_common::{
    abi::{FlowEntry, FlowKey, VIPS_PER_SERVICE, VipEntry, flow_flag, policy},
    socket::plane,
    steering::Slot,
    tcp::{Phase, Sender, flag},
    verdict::Verdict,
};

use crate::{
    account,
    clock::now_ticks,
    flow::{self, Flow},
    frame::{Frame, Rewrite},
    maps::{BACKEND_SERVICES, VIP_ADDRS, VIPS},
    parse::{Packet, parse},
    select::{self, Unselected},
};

/// Other backends of the slot that are tried when the first one's port is taken.
const CONFLICT_TRIES: u32 = 4;

/// A packet that came in by an interface.
#[inline(always)]
pub fn ingress<F: Frame>(frame: &F) -> Verdict {
    let mut packet = Packet::EMPTY;
    if let Err(verdict) = parse(frame, &mut packet) {
        return verdict;
    }
    // SAFETY: the entry is read at once; the daemon replaces VIP entries whole.
    let Some(vip) = (unsafe { VIPS.get(packet.destination_key()) }) else {
        return Verdict::PassForeign;
    };
    if packet.has_impossible_flags() {
        return Verdict::DropBadFlags;
    }
    let key = FlowKey {
        client: packet.source,
        service: vip.service,
        client_port: packet.source_port,
        protocol: 6,
        vip_ordinal: vip.ordinal,
    };
    match flow::find(&key) {
        Some(flow) if !packet.opens() || flow.is_opened_by(&packet) => {
            forward(frame, &packet, &key, flow)
        }
        _ if packet.opens() && vip.is_retired != 0 => Verdict::PassForeign,
        Some(flow) if vip.plane == plane::SOCKET => {
            flow.forget(&key);
            Verdict::PassSocketPlane
        }
        None if packet.opens() && vip.plane == plane::SOCKET => Verdict::PassSocketPlane,
        Some(flow) => {
            flow.forget(&key);
            open(frame, &packet, &key, vip)
        }
        None if packet.opens() => open(frame, &packet, &key, vip),
        None => Verdict::PassNoFlow,
    }
}

/// A packet that leaves by an interface.
#[inline(always)]
pub fn egress<F: Frame>(frame: &F) -> Verdict {
    let mut packet = Packet::EMPTY;
    if let Err(verdict) = parse(frame, &mut packet) {
        return verdict;
    }
    // SAFETY: the entry is read at once; the daemon replaces entries whole.
    let Some(owner) = (unsafe { BACKEND_SERVICES.get(packet.source_key()) }) else {
        return Verdict::PassForeign;
    };
    let mut key = FlowKey {
        client: packet.destination,
        service: owner.service,
        client_port: packet.destination_port,
        protocol: 6,
        vip_ordinal: 0,
    };
    for ordinal in 0..VIPS_PER_SERVICE as u8 {
        if ordinal >= owner.vip_count {
            break;
        }
        key.vip_ordinal = ordinal;
        if let Some(flow) = answered(&packet, &key) {
            return reply(frame, &packet, &key, flow);
        }
    }
    Verdict::PassDirect
}

/// The flow that a backend's packet belongs to.
#[inline(always)]
fn answered(packet: &Packet, key: &FlowKey) -> Option<Flow> {
    let ours =
        |flow: &Flow| flow.is_on(packet.source, packet.source_port) && flow.is_answered_by(packet);
    let flow = flow::find(key)?;
    if ours(&flow) {
        return Some(flow);
    }
    if packet.has(flag::SYN) && flow.phase().is_some_and(Phase::is_over) {
        // The backend has accepted a new connection on these ports, so the old one is gone from
        // its memory. It is either direct, or its handshake stands in the other table.
        flow.forget(key);
        return flow::find_pending(key).filter(ours);
    }
    None
}

/// Sends a client's packet to the backend of its flow.
#[inline(always)]
fn forward<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey, flow: Flow) -> Verdict {
    let entry = flow.read();
    flow.see_client(key, &entry, packet);
    let reset = entry.phase == Phase::Aborted as u32;
    let len_bytes = frame.len_bytes();
    let rewrite = Rewrite {
        sender: Sender::Client,
        addr: entry.backend,
        port: entry.backend_port,
        reset,
    };
    if frame.rewrite(packet, &rewrite).is_err() {
        return Verdict::DropRewriteFailed;
    }
    account::packet_in(entry.backend_index, len_bytes);
    if reset {
        Verdict::SteeredReset
    } else {
        Verdict::SteeredFlow
    }
}

/// Sends a backend's packet to the client, from the VIP.
#[inline(always)]
fn reply<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey, flow: Flow) -> Verdict {
    let entry = flow.read();
    let index = key.service * VIPS_PER_SERVICE + u32::from(key.vip_ordinal);
    let Some(vip) = VIP_ADDRS.get(index) else {
        return Verdict::DropBrokenState;
    };
    flow.see_backend(key, &entry, packet);
    let reset = entry.phase == Phase::Aborted as u32;
    let len_bytes = frame.len_bytes();
    let rewrite = Rewrite {
        sender: Sender::Backend,
        addr: vip.addr,
        port: vip.port,
        reset,
    };
    if frame.rewrite(packet, &rewrite).is_err() {
        return Verdict::DropRewriteFailed;
    }
    account::packet_out(entry.backend_index, len_bytes);
    if reset {
        Verdict::SteeredReset
    } else {
        Verdict::SteeredReply
    }
}

/// Selects a backend for a new flow and sends its SYN there.
#[inline(always)]
fn open<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey, vip: &VipEntry) -> Verdict {
    let Some(service) = select::service(key.service) else {
        return Verdict::DropBrokenState;
    };
    let selected = match select::select(key, packet.is_v6, service) {
        Ok(selected) => selected,
        Err(Unselected::Unserved(wanted)) => {
            account::unserved(key.service, wanted);
            return if service.policy & policy::ON_EMPTY_PASS != 0 {
                Verdict::PassUnserved
            } else {
                Verdict::DropUnserved
            };
        }
        Err(Unselected::Broken) => return Verdict::DropBrokenState,
    };
    let mut entry = FlowEntry {
        cohort: selected.cohort,
        flags: match selected.slot {
            Slot::A => 0,
            Slot::B => flow_flag::SLOT_B,
        } | if selected.failed_over {
            flow_flag::FAILED_OVER
        } else {
            0
        },
        phase: Phase::SynSent as u32,
        last_seen_ticks: now_ticks(),
        next_from_client: packet.seq.wrapping_add(1),
        ..FlowEntry::default()
    };
    if let Err(verdict) = place(&mut entry, key, vip, &selected) {
        return verdict;
    }
    if flow::open(key, &entry).is_err() {
        return Verdict::DropTableFull;
    }
    if selected.failed_over {
        account::failed_over(key.service, selected.slot.other());
    }
    account::selected(key.service, selected.slot, entry.backend_index);
    let len_bytes = frame.len_bytes();
    let rewrite = Rewrite {
        sender: Sender::Client,
        addr: entry.backend,
        port: entry.backend_port,
        reset: false,
    };
    if frame.rewrite(packet, &rewrite).is_err() {
        return Verdict::DropRewriteFailed;
    }
    account::packet_in(entry.backend_index, len_bytes);
    Verdict::SteeredNew
}

/// Fills in the backend: the one the hash finds, or another one of the slot if the client's port is
/// taken there.
#[inline(always)]
fn place(
    entry: &mut FlowEntry,
    key: &FlowKey,
    vip: &VipEntry,
    selected: &select::Selected,
) -> Result<(), Verdict> {
    for try_count in 0..CONFLICT_TRIES {
        let hash = selected.hash.rotate_left(try_count * 8);
        let Some(index) = select::backend_index(selected.region, hash) else {
            return Err(Verdict::DropBrokenState);
        };
        let Some(backend) = select::backend(index) else {
            return Err(Verdict::DropBrokenState);
        };
        entry.backend = backend.addr;
        entry.backend_port = backend.port;
        entry.backend_index = index;
        if vip.vip_count <= 1 || !flow::is_port_taken(key, vip.vip_count, entry) {
            return Ok(());
        }
    }
    Err(Verdict::DropPortConflict)
}
