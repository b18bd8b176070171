//! The way of a packet through the stages; all branching between them is here.
//!
//! ```text
//! ingress: parse → VIP → flow ─ known ──────────────→ note → rewrite destination → count
//!            │             ├─── SYN ─→ select → open ───────┤
//!            │             └─── lost ─→ socket of a backend ─┘
//!            └ ICMP error → quoted packet → VIP → flow → translate → count
//! egress:  parse → backend → flow ─ ours → note → rewrite source → count
//!            └ ICMP error → quoted packet → backend → flow → translate → count
//! ```

use core::mem::MaybeUninit;

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
    hairpin,
    icmp::{self, Translation},
    observe::{self, news},
    owner,
    parse::{Kind, Packet, parse, quoted},
    rescue,
    select::{self, Unselected},
};

/// Other backends of the slot that are tried when the first one's port is taken.
const CONFLICT_TRIES: u32 = 4;

/// A packet that came in by an interface.
#[inline(always)]
pub fn ingress<F: Frame>(frame: &F) -> Verdict {
    match client_in(frame) {
        Inbound::Judged(verdict) => verdict,
        Inbound::IcmpError => error_in(frame),
        Inbound::Answer => hairpin::answer(frame),
    }
}

/// What a packet that came in is.
enum Inbound {
    /// A client's, or not ours.
    Judged(Verdict),
    /// An ICMP error.
    IcmpError,
    /// Of a backend, to no VIP: perhaps its answer to itself.
    Answer,
}

/// A packet of a client, if it is one.
///
/// Out of line: the kernel counts the stacks of a function and of those it calls together, and there
/// would be no room for the rare cases beside all this. They parse the packet again.
#[inline(never)]
fn client_in<F: Frame>(frame: &F) -> Inbound {
    let mut place = MaybeUninit::uninit();
    let packet = Packet::unfilled(&mut place);
    match parse(frame, packet) {
        Ok(Kind::Segment) => segment_in(frame, packet),
        Ok(Kind::Error) => Inbound::IcmpError,
        Err(verdict) => Inbound::Judged(verdict),
    }
}

/// A segment or datagram that came in by an interface.
#[inline(always)]
fn segment_in<F: Frame>(frame: &F, packet: &Packet) -> Inbound {
    match owner::of_vip(&packet.destination_key()) {
        Some(vip) => Inbound::Judged(to_vip(frame, packet, &vip)),
        None if owner::of_backend(&packet.source_key()).is_some() => Inbound::Answer,
        None => Inbound::Judged(Verdict::PassForeign),
    }
}

/// A packet to a VIP.
#[inline(always)]
fn to_vip<F: Frame>(frame: &F, packet: &Packet, vip: &VipEntry) -> Verdict {
    if packet.has_impossible_flags() {
        return Verdict::DropBadFlags;
    }
    let key = FlowKey {
        client: packet.source,
        service: vip.service,
        client_port: packet.source_port,
        protocol: packet.protocol,
        vip_ordinal: vip.ordinal,
    };
    match flow::find(&key) {
        Some(flow) if !packet.opens() || flow.is_opened_by(packet) => {
            forward(frame, packet, &key, flow, Verdict::SteeredFlow)
        }
        _ if packet.opens() && vip.is_retired != 0 => Verdict::PassForeign,
        Some(flow) if vip.plane == plane::SOCKET => {
            flow.forget(&key);
            Verdict::PassSocketPlane
        }
        None if packet.opens() && vip.plane == plane::SOCKET => Verdict::PassSocketPlane,
        Some(flow) => {
            flow.forget(&key);
            open(frame, packet, &key, vip)
        }
        None if packet.opens() => open(frame, packet, &key, vip),
        None => Verdict::PassNoFlow,
    }
}

/// A client's packet that belongs to no known flow ([`Verdict::PassNoFlow`]), after a dataplane that this
/// one replaces was asked: the flow may have lost its entry. Out of line, and parsed again: rare.
#[inline(never)]
pub fn lost<F: Frame>(frame: &F) -> Verdict {
    let mut place = MaybeUninit::uninit();
    let packet = Packet::unfilled(&mut place);
    if !matches!(parse(frame, packet), Ok(Kind::Segment))
        || !packet.has(flag::ACK)
        || packet.has(flag::SYN)
    {
        return Verdict::PassNoFlow;
    }
    let Some(vip) = owner::of_vip(&packet.destination_key()) else {
        return Verdict::PassNoFlow;
    };
    // Who took a VIP over has connections to the same backends, and they are not ours.
    if vip.is_retired != 0 {
        return Verdict::PassNoFlow;
    }
    // Its connections have the VIP itself as their own address, and to look for another socket would run
    // the steering of sockets for every packet. A connection of the nat plane that lost its entry after
    // the service changed its plane stays lost.
    if vip.plane == plane::SOCKET {
        return Verdict::PassSocketPlane;
    }
    let key = FlowKey {
        client: packet.source,
        service: vip.service,
        client_port: packet.source_port,
        protocol: packet.protocol,
        vip_ordinal: vip.ordinal,
    };
    match rescue(frame, packet, &key) {
        Some(flow) => forward(frame, packet, &key, flow, Verdict::SteeredRescued),
        None => Verdict::PassNoFlow,
    }
}

/// An ICMP error that came in by an interface. If it is about a packet that left with a VIP as its
/// source, it is about the backend's packet.
#[inline(never)]
fn error_in<F: Frame>(frame: &F) -> Verdict {
    let mut place = MaybeUninit::uninit();
    let packet = Packet::unfilled(&mut place);
    if let Err(verdict) = parse(frame, packet) {
        return verdict;
    }
    let mut place = MaybeUninit::uninit();
    let quote = Packet::unfilled(&mut place);
    if let Err(verdict) = quoted(frame, packet, quote) {
        return verdict;
    }
    // An error goes to whoever sent the packet it is about.
    if quote.source != packet.destination {
        return Verdict::PassForeign;
    }
    let Some(vip) = owner::of_vip(&quote.source_key()) else {
        return Verdict::PassForeign;
    };
    let key = FlowKey {
        client: quote.destination,
        service: vip.service,
        client_port: quote.destination_port,
        protocol: quote.protocol,
        vip_ordinal: vip.ordinal,
    };
    let Some(flow) = flow::find(&key) else {
        return Verdict::PassErrorNoFlow;
    };
    let entry = flow.read();
    let len_bytes = frame.len_bytes(packet);
    let translation = Translation {
        sender: Sender::Client,
        addr: entry.backend,
        port: entry.backend_port,
        is_outer: true,
    };
    if icmp::translate(frame, packet, quote, &translation).is_err() {
        return Verdict::DropRewriteFailed;
    }
    account::packet_in(entry.backend_index, len_bytes);
    Verdict::SteeredError
}

/// A packet that leaves by an interface.
#[inline(always)]
pub fn egress<F: Frame>(frame: &F) -> Verdict {
    let mut place = MaybeUninit::uninit();
    let packet = Packet::unfilled(&mut place);
    match parse(frame, packet) {
        Ok(Kind::Segment) => segment_out(frame, packet),
        Ok(Kind::Error) => error_out(frame, packet),
        Err(verdict) => verdict,
    }
}

/// A segment or datagram that leaves by an interface.
#[inline(always)]
fn segment_out<F: Frame>(frame: &F, packet: &Packet) -> Verdict {
    let Some(owner) = owner::of_backend(&packet.source_key()) else {
        return Verdict::PassForeign;
    };
    let mut key = FlowKey {
        client: packet.destination,
        service: owner.service,
        client_port: packet.destination_port,
        protocol: packet.protocol,
        vip_ordinal: 0,
    };
    for ordinal in 0..VIPS_PER_SERVICE as u8 {
        if ordinal >= owner.vip_count {
            break;
        }
        key.vip_ordinal = ordinal;
        if !flow::is_possible(&key) {
            continue;
        }
        if let Some(flow) = answered(packet, &key) {
            return reply(frame, packet, &key, flow);
        }
    }
    Verdict::PassDirect
}

/// An ICMP error that leaves by an interface. If it is about a packet that was sent to a backend, it is
/// about the client's packet to the VIP.
#[inline(never)]
fn error_out<F: Frame>(frame: &F, packet: &Packet) -> Verdict {
    let mut place = MaybeUninit::uninit();
    let quote = Packet::unfilled(&mut place);
    if let Err(verdict) = quoted(frame, packet, quote) {
        return verdict;
    }
    if quote.source != packet.destination {
        return Verdict::PassForeign;
    }
    let Some(owner) = owner::of_backend(&quote.destination_key()) else {
        return Verdict::PassForeign;
    };
    let mut key = FlowKey {
        client: quote.source,
        service: owner.service,
        client_port: quote.source_port,
        protocol: quote.protocol,
        vip_ordinal: 0,
    };
    for ordinal in 0..VIPS_PER_SERVICE as u8 {
        if ordinal >= owner.vip_count {
            break;
        }
        key.vip_ordinal = ordinal;
        if flow::is_possible(&key)
            && let Some(flow) = flow::find(&key)
            && flow.is_on(quote.destination, quote.destination_port)
        {
            return error_reply(frame, packet, quote, &key, flow);
        }
    }
    Verdict::PassErrorNoFlow
}

/// Sends an ICMP error about a flow to its client.
#[inline(always)]
fn error_reply<F: Frame>(
    frame: &F,
    packet: &Packet,
    quote: &Packet,
    key: &FlowKey,
    flow: Flow,
) -> Verdict {
    let entry = flow.read();
    let Some(vip) = select::vip(key) else {
        return Verdict::DropBrokenState;
    };
    let is_of_backend = packet.source == quote.destination;
    if is_of_backend && quote.is_udp() && packet.is_port_unreachable() {
        flow.see_closed_port(key, &entry);
    }
    let len_bytes = frame.len_bytes(packet);
    let translation = Translation {
        sender: Sender::Backend,
        addr: vip.addr,
        port: vip.port,
        // A router on the way speaks for itself.
        is_outer: is_of_backend,
    };
    if icmp::translate(frame, packet, quote, &translation).is_err() {
        return Verdict::DropRewriteFailed;
    }
    account::packet_out(entry.backend_index, len_bytes);
    Verdict::SteeredErrorReply
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

/// Finds a flow whose entry was lost by the socket of its backend, and enters it again. A segment
/// that somebody guessed finds no socket and changes nothing.
#[inline(always)]
fn rescue<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey) -> Option<Flow> {
    let mut entry = FlowEntry {
        last_seen_ticks: now_ticks(),
        next_from_client: packet.seq,
        next_from_backend: packet.ack,
        ..FlowEntry::default()
    };
    if !rescue::find(frame.context(), key, packet.is_v6, &mut entry) {
        return None;
    }
    let is_handshake = entry.phase == Phase::SynReceived as u32;
    if packet.has(flag::RST) {
        if is_handshake {
            return None;
        }
        // Its backend judges it; here nothing vouches for its number, so it is no outcome.
        entry.phase = Phase::Reset as u32;
    }
    if is_handshake {
        flow::open(key, &entry).ok()?;
        return flow::find_pending(key);
    }
    flow::restore(key, &entry)
}

/// Sends a client's packet to the backend of its flow.
#[inline(always)]
fn forward<F: Frame>(
    frame: &F,
    packet: &Packet,
    key: &FlowKey,
    flow: Flow,
    verdict: Verdict,
) -> Verdict {
    let entry = flow.read();
    flow.see_client(key, &entry, packet);
    if entry.flags & flow_flag::WATCHED != 0 && observe::client(frame, packet, key) {
        flow.unwatch();
    }
    let reset = entry.phase == Phase::Aborted as u32;
    let len_bytes = frame.len_bytes(packet);
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
    if entry.is_turned() {
        hairpin::call(frame, packet, key)
    } else if reset {
        Verdict::SteeredReset
    } else {
        verdict
    }
}

/// Sends a backend's packet to the client, from the VIP.
#[inline(always)]
fn reply<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey, flow: Flow) -> Verdict {
    let entry = flow.read();
    let Some(vip) = select::vip(key) else {
        return Verdict::DropBrokenState;
    };
    flow.see_backend(key, &entry, packet);
    if entry.flags & flow_flag::WATCHED != 0 {
        let news = observe::backend(frame, packet, key, entry.slot());
        if news & news::FAILED != 0 {
            flow.fail(key, &entry);
        }
        if news & news::LAST != 0 {
            flow.unwatch();
        }
    }
    let reset = entry.phase == Phase::Aborted as u32;
    let len_bytes = frame.len_bytes(packet);
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

/// Selects a backend for a new flow and sends its first packet there.
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
        } | if selected.targeted {
            flow_flag::TARGETED
        } else {
            0
        },
        phase: if packet.is_udp() {
            Phase::Unanswered as u32
        } else {
            Phase::SynSent as u32
        },
        last_seen_ticks: now_ticks(),
        next_from_client: packet.seq.wrapping_add(1),
        ..FlowEntry::default()
    };
    if let Err(verdict) = place(&mut entry, key, vip, &selected) {
        return verdict;
    }
    if entry.backend == key.client {
        if hairpin::is_port_taken(key) {
            return Verdict::DropPortConflict;
        }
        entry.flags |= flow_flag::TURNED;
    } else if observe::open(key, packet) {
        entry.flags |= flow_flag::WATCHED;
    }
    if flow::open(key, &entry).is_err() {
        return Verdict::DropTableFull;
    }
    if selected.failed_over {
        account::failed_over(key.service, selected.slot.other());
    }
    if selected.targeted {
        account::targeted(key.service, selected.slot);
    }
    account::selected(key.service, selected.slot, entry.backend_index);
    let len_bytes = frame.len_bytes(packet);
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
    if entry.is_turned() {
        hairpin::call(frame, packet, key)
    } else {
        Verdict::SteeredNew
    }
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
