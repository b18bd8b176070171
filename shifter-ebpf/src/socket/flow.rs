//! A connection that a captured listener accepted: it takes its place among the version's flows, and
//! leaves it.

use aya_ebpf::bindings::{BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_SYN_RECV};
use shifter_common::{
    abi::FlowKey,
    addr::Be16,
    socket::{SocketTag, tag_kind},
};

use super::{
    account::{self, Counters, count},
    observe::Event,
    seen,
};
use crate::{
    breaker::{self, Failed},
    maps::VIPS,
    select,
};

/// A handshake is complete. Says whether the connection is ours to watch.
#[inline(always)]
pub fn established(event: &Event, tag: *mut SocketTag) -> bool {
    // SAFETY: the tag is this socket's own copy of its listener's.
    let tag = unsafe { &mut *tag };
    if tag.kind != tag_kind::LISTENER {
        return false;
    }
    let local = event.local();
    // SAFETY: the entry is read at once; the daemon replaces VIP entries whole.
    let vip = unsafe { VIPS.get(local) };
    let ordinal = match vip {
        Some(vip) if vip.service == tag.service => vip.ordinal,
        _ => {
            tag.kind = tag_kind::DIRECT;
            return false;
        }
    };
    let (backend, backend_id) = if local.addr.is_v4() {
        (tag.backends[0], tag.backend_ids[0])
    } else {
        (tag.backends[1], tag.backend_ids[1])
    };
    tag.kind = tag_kind::FLOW;
    tag.backends = [backend; 2];
    tag.backend_ids = [backend_id; 2];
    let key = FlowKey {
        client: event.client(),
        service: tag.service,
        client_port: Be16(event.client_port()),
        protocol: local.protocol,
        vip_ordinal: ordinal,
    };
    let admission = select::admission(&key, tag.slot());
    tag.cohort = admission.cohort;
    if is_current(tag) {
        let (service, slot) = (tag.service, tag.slot());
        if admission.targeted {
            crate::account::targeted(service, slot);
        }
        // SAFETY: no reference is made, and the pointer is to a whole value.
        account::flow(service, slot, backend, |flows| unsafe {
            &raw mut (*flows).selected
        });
        // SAFETY: as above.
        account::flow(service, slot, backend, |flows| unsafe {
            &raw mut (*flows).established
        });
        seen::open(event, tag);
    }
    true
}

/// `ECONNRESET`: the client sent a reset.
const RESET_BY_PEER: i32 = 104;

/// A connection of ours is over.
#[inline(always)]
pub fn closed(event: &Event, tag: *mut SocketTag, old_state: u32) {
    // SAFETY: the tag is this socket's own.
    let tag = unsafe { &*tag };
    let counters = Counters::of(tag.service, tag.slot());
    if !is_current(tag) {
        count!(counters, departed);
        return;
    }
    match old_state {
        // Nobody had closed. The kernel notes at the socket what it was told or found out, before it
        // closes; where it notes nothing, the application itself has ended the connection by force, with
        // data unread or on purpose.
        BPF_TCP_ESTABLISHED => match event.error() {
            Some(0) => {
                account::flow(tag.service, tag.slot(), tag.backends[0], |flows| {
                    // SAFETY: no reference is made, and the pointer is to a whole value.
                    unsafe { &raw mut (*flows).reset_by_backend }
                });
                if !seen::has_failed(event.socket()) {
                    breaker::error(&Failed {
                        client: &event.client(),
                        client_port: event.client_port(),
                        service: tag.service,
                        slot: tag.slot(),
                        cohort: tag.cohort,
                    });
                }
            }
            Some(RESET_BY_PEER) => {
                account::flow(tag.service, tag.slot(), tag.backends[0], |flows| {
                    // SAFETY: as above.
                    unsafe { &raw mut (*flows).reset_by_client }
                });
            }
            _ => count!(counters, aborted),
        },
        BPF_TCP_SYN_RECV | BPF_TCP_CLOSE_WAIT => count!(counters, aborted),
        // SAFETY: no reference is made, and the pointer is to a whole value.
        _ => account::flow(tag.service, tag.slot(), tag.backends[0], |flows| unsafe {
            &raw mut (*flows).closed
        }),
    }
}

/// Whether the version that the connection belongs to still has its slot.
#[inline(always)]
pub fn is_current(tag: &SocketTag) -> bool {
    matches!(
        select::backend(tag.backends[0]),
        Some(entry) if entry.backend_id == tag.backend_ids[0] && entry.version_id == tag.version_id
    )
}
