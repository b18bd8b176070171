//! A backend elsewhere that calls its own VIP and is selected itself.
//!
//! Its packet comes in by an interface and would leave by it with one address as source and destination,
//! which no host takes from outside. So the backend sees the VIP as its client, and answers to it. Neither
//! direction can be routed, because a packet that comes in with an address of this host as its source is
//! a martian (RFC 1812 section 5.3.7): both go back by the interface they came in by, to the link-layer
//! address they came from.

use core::mem::MaybeUninit;

use shifter_common::{
    abi::{FlowKey, VIPS_PER_SERVICE, VipKey},
    tcp::{Phase, Sender},
    verdict::Verdict,
};

use crate::{
    account, flow,
    frame::{Frame, Rewrite},
    owner,
    parse::{Kind, Packet, parse},
    select,
};

/// Whether the backend's answers would be taken for packets of a client: the port it calls from is one
/// of this address' VIPs.
#[inline(always)]
pub fn is_port_taken(key: &FlowKey) -> bool {
    let Some(&vip) = select::vip(key) else {
        return true;
    };
    let answered = VipKey {
        port: key.client_port,
        ..vip
    };
    owner::of_vip(&answered).is_some()
}

/// Sends a packet whose destination is the backend by now back to it, from the VIP.
#[inline(always)]
pub fn call<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey) -> Verdict {
    let Some(vip) = select::vip(key) else {
        return Verdict::DropBrokenState;
    };
    let rewrite = Rewrite {
        sender: Sender::Backend,
        addr: vip.addr,
        port: packet.source_port,
        reset: false,
    };
    if frame.rewrite_other_end(packet, &rewrite).is_err() || frame.turn().is_err() {
        return Verdict::DropRewriteFailed;
    }
    Verdict::SteeredTurned
}

/// A packet of a backend that came in for no VIP: its answer to itself, or not ours. Out of line: rare,
/// and its loop would be verified beside every other path otherwise.
#[inline(never)]
pub fn answer<F: Frame>(frame: &F) -> Verdict {
    let mut place = MaybeUninit::uninit();
    let packet = Packet::unfilled(&mut place);
    if !matches!(parse(frame, packet), Ok(Kind::Segment)) {
        return Verdict::PassForeign;
    }
    let Some(owner) = owner::of_backend(&packet.source_key()) else {
        return Verdict::PassForeign;
    };
    let mut key = FlowKey {
        client: packet.source,
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
        let Some(vip) = select::vip(&key) else {
            return Verdict::DropBrokenState;
        };
        if vip.addr == packet.destination
            && let Some(reset) = note(packet, &key, frame.len_bytes(packet))
        {
            return turn_back(frame, packet, &key, vip, reset);
        }
    }
    Verdict::PassForeign
}

/// Notes an answer in the flow it belongs to. Says whether the flow was reset by an operator; `None` if
/// there is no such flow.
#[inline(never)]
fn note(packet: &Packet, key: &FlowKey, len_bytes: u64) -> Option<bool> {
    let flow = flow::find(key)?;
    if !flow.is_on(packet.source, packet.source_port) || !flow.is_answered_by(packet) {
        return None;
    }
    let entry = flow.read();
    if !entry.is_turned() {
        return None;
    }
    flow.see_backend(key, &entry, packet);
    // Counted as it came in, before it is turned.
    account::packet_out(entry.backend_index, len_bytes);
    Some(entry.phase == Phase::Aborted as u32)
}

/// Sends a backend's answer back to it, from the VIP to the port it called from.
#[inline(always)]
fn turn_back<F: Frame>(
    frame: &F,
    packet: &Packet,
    key: &FlowKey,
    vip: &VipKey,
    reset: bool,
) -> Verdict {
    let source = Rewrite {
        sender: Sender::Backend,
        addr: vip.addr,
        port: vip.port,
        reset,
    };
    if frame.rewrite(packet, &source).is_err() {
        return Verdict::DropRewriteFailed;
    }
    let destination = Rewrite {
        sender: Sender::Client,
        addr: key.client,
        port: key.client_port,
        reset: false,
    };
    if frame.rewrite_other_end(packet, &destination).is_err() || frame.turn().is_err() {
        return Verdict::DropRewriteFailed;
    }
    Verdict::SteeredTurned
}
