//! A backend elsewhere that calls its own VIP and is selected itself.
//!
//! Its packet comes in by an interface and would leave by it with one address as source and destination,
//! which no host takes from outside. So the backend sees the VIP as its client, and answers to it. Neither
//! direction can be routed, because a packet that comes in with an address of this host as its source is
//! a martian (RFC 1812 section 5.3.7): both go back by the interface they came in by, to the link-layer
//! address they came from.

use shifter_common::{
    abi::{FlowEntry, FlowKey, VIPS_PER_SERVICE, VipKey},
    tcp::{Phase, Sender},
    verdict::Verdict,
};

use crate::{
    account,
    flow::{self, Flow},
    frame::{Frame, Rewrite},
    maps::{BACKEND_SERVICES, VIPS},
    parse::Packet,
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
    // SAFETY: only whether there is an entry is asked.
    unsafe { VIPS.get(answered) }.is_some()
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
    if frame.rewrite(packet, &rewrite).is_err() || frame.turn().is_err() {
        return Verdict::DropRewriteFailed;
    }
    Verdict::SteeredTurned
}

/// A packet that came in for no VIP: the answer of a backend to itself, or not ours. Out of line: rare,
/// and its loop would be verified beside every other path otherwise.
#[inline(never)]
pub fn answer<F: Frame>(frame: &F, packet: &Packet) -> Verdict {
    // SAFETY: the entry is read at once; the daemon replaces entries whole.
    let Some(owner) = (unsafe { BACKEND_SERVICES.get(packet.source_key()) }) else {
        return Verdict::PassForeign;
    };
    let mut key = FlowKey {
        client: packet.source,
        service: owner.service,
        client_port: packet.destination_port,
        protocol: packet.source_key().protocol,
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
            && let Some(flow) = flow::find(&key)
            && flow.is_on(packet.source, packet.source_port)
            && flow.is_answered_by(packet)
        {
            let entry = flow.read();
            if entry.is_turned() {
                return turn_back(frame, packet, &key, flow, &entry, vip);
            }
        }
    }
    Verdict::PassForeign
}

/// Sends a backend's answer back to it, from the VIP to the port it called from.
#[inline(always)]
fn turn_back<F: Frame>(
    frame: &F,
    packet: &Packet,
    key: &FlowKey,
    flow: Flow,
    entry: &FlowEntry,
    vip: &VipKey,
) -> Verdict {
    flow.see_backend(key, entry, packet);
    let len_bytes = frame.len_bytes();
    let source = Rewrite {
        sender: Sender::Backend,
        addr: vip.addr,
        port: vip.port,
        reset: entry.phase == Phase::Aborted as u32,
    };
    let destination = Rewrite {
        sender: Sender::Client,
        addr: key.client,
        port: key.client_port,
        reset: false,
    };
    if frame.rewrite(packet, &source).is_err()
        || frame.rewrite(packet, &destination).is_err()
        || frame.turn().is_err()
    {
        return Verdict::DropRewriteFailed;
    }
    account::packet_out(entry.backend_index, len_bytes);
    Verdict::SteeredTurned
}
