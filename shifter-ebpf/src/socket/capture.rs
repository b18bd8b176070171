//! A listener on a backend's address is captured, and forgotten when it closes.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_ops},
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_map_delete_elem, bpf_ringbuf_output,
        bpf_sk_storage_get, bpf_sock_map_update,
    },
};
use shifter_common::{
    abi::BackendEntry,
    socket::{
        BackendSockets, Capture, CaptureEvent, NO_BACKEND, NO_PLACE, SOCKETS_PER_BACKEND,
        SocketOwner, SocketTag, capture_event, host, tag_kind,
    },
    steering::Slot,
};

use super::{
    account::{Counters, count},
    maps::{
        CAPTURE_EVENTS, CAPTURES, LISTENERS, SOCKET_OWNERS, SOCKET_TAGS, backend_sockets,
        host_number, place_key,
    },
    observe::Event,
};
use crate::{atomic, select};

const EEXIST: i64 = 17;
const EBUSY: i64 = 16;
const EOPNOTSUPP: i64 = 95;

/// A socket begins to listen. Says whether it was captured.
#[inline(always)]
pub fn listening(event: &Event) -> bool {
    // SAFETY: the entry is read at once; the daemon replaces entries whole.
    let Some(&capture) = (unsafe { CAPTURES.get(event.local()) }) else {
        return false;
    };
    // SAFETY: the context of this run.
    let namespace = unsafe { bpf_get_netns_cookie(event.as_ptr().cast()) };
    if namespace != host_number(host::NETNS_COOKIE) {
        return false;
    }
    let socket = event.socket();
    if socket.is_null() {
        return false;
    }
    let Some(mut tag) = tag_of(&capture) else {
        return false;
    };
    let counters = Counters::of(tag.service, tag.slot());
    if !is_trusted(socket, &capture) {
        count!(counters, capture_refused);
        tell(capture_event::NOT_CAPTURED, first_of(&capture));
        return false;
    }
    // SAFETY: the context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(event.as_ptr().cast()) };
    for family in 0..2_usize {
        let backend = capture.backends[family];
        if backend == NO_BACKEND {
            continue;
        }
        if family == 1 && backend == capture.backends[0] {
            tag.places[1] = tag.places[0];
            continue;
        }
        match socket_take_place(event.as_ptr(), backend) {
            place @ 0.. => tag.places[family] = place as u8,
            refused => {
                match i64::from(-refused) {
                    EOPNOTSUPP => count!(counters, capture_mptcp),
                    EBUSY => count!(counters, capture_busy),
                    _ => count!(counters, capture_full),
                }
                tell(capture_event::NOT_CAPTURED, backend);
            }
        }
    }
    if tag.places[0] == NO_PLACE && tag.places[1] == NO_PLACE {
        return false;
    }
    // SAFETY: the socket is the context's, and the value lives during the call.
    let stored: *mut SocketTag = unsafe {
        bpf_sk_storage_get(
            SOCKET_TAGS.as_ptr(),
            socket.cast(),
            core::ptr::from_mut(&mut tag).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast();
    if stored.is_null() {
        tell(capture_event::NOT_CAPTURED, first_of(&capture));
        return false;
    }
    // SAFETY: the tag is this socket's own; one from an earlier life is replaced.
    unsafe { *stored = tag };
    count!(counters, captured);
    // Only now may it be selected: what it accepts is tagged.
    for family in 0..2_usize {
        let (backend, place) = (capture.backends[family], tag.places[family]);
        let is_repeated = family == 1 && backend == capture.backends[0];
        if backend != NO_BACKEND && place != NO_PLACE && !is_repeated {
            socket_publish(event.as_ptr(), backend, u32::from(place), cookie);
            tell(capture_event::CAPTURED, backend);
        }
    }
    true
}

/// A captured listener closes, or stops listening.
#[inline(always)]
pub fn closed(event: &Event, tag: *mut SocketTag) {
    // SAFETY: the tag is this socket's own.
    let tag = unsafe { *tag };
    // SAFETY: the context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(event.as_ptr().cast()) };
    for family in 0..2_usize {
        let (backend, place) = (tag.backends[family], tag.places[family]);
        let is_repeated = family == 1 && backend == tag.backends[0];
        if backend == NO_BACKEND || u32::from(place) >= SOCKETS_PER_BACKEND || is_repeated {
            continue;
        }
        let Some(sockets) = backend_sockets(backend) else {
            continue;
        };
        // The kernel has taken the socket out of the map. The place may be another's already, so
        // it is freed only if the cookie is still ours.
        // SAFETY: the place lies inside the array.
        unsafe {
            atomic::compare_and_swap_u64(cookie_at(sockets, u32::from(place)), cookie, 0);
        }
        tell(capture_event::CLOSED, backend);
    }
}

/// A place was found empty while its cookie says that there is a listener.
#[inline(always)]
pub fn found_closed(sockets: *mut BackendSockets, backend: u32, place: u32, cookie: u64) {
    // A socket is in the map before its cookie is stored, so the cookie is a closed one's. If it is
    // another's by now, nothing is exchanged.
    // SAFETY: the place is cut to the array of a live map value.
    if unsafe { atomic::compare_and_swap_u64(cookie_at(sockets, place), cookie, 0) } {
        tell(capture_event::CLOSED, backend);
    }
}

/// The tag of a listener, without places.
#[inline(always)]
fn tag_of(capture: &Capture) -> Option<SocketTag> {
    let first = select::backend(first_of(capture))?;
    let mut tag = SocketTag {
        service: first.service,
        version_id: first.version_id,
        backends: capture.backends,
        backend_ids: [0; 2],
        places: [NO_PLACE; 2],
        slot: Slot::from_index(u32::from(first.slot)).index() as u8,
        kind: tag_kind::LISTENER,
        cohort: 0,
        pad: [0; 3],
    };
    for family in 0..2_usize {
        let entry: Option<&BackendEntry> = select::backend(capture.backends[family]);
        tag.backend_ids[family] = entry.map_or(0, |entry| entry.backend_id);
    }
    Some(tag)
}

#[inline(always)]
fn first_of(capture: &Capture) -> u32 {
    if capture.backends[0] == NO_BACKEND {
        capture.backends[1]
    } else {
        capture.backends[0]
    }
}

/// Whether whoever bound the socket may listen for the slot.
#[inline(always)]
fn is_trusted(socket: *mut bpf_sock, capture: &Capture) -> bool {
    // VERIFIER: the socket is handed on, because each read of the context's would have to be compared
    // with null again.
    // SAFETY: the socket is the context's and not null; nothing is created.
    let owner: *const SocketOwner = unsafe {
        bpf_sk_storage_get(
            SOCKET_OWNERS.as_ptr(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    }
    .cast();
    if owner.is_null() {
        return false;
    }
    // SAFETY: the storage is this socket's own.
    let uid = unsafe { (*owner).uid };
    uid == 0 || uid == capture.uid
}

/// Puts the socket into the first free place of a backend. Gives the place, or an error number below
/// zero.
///
/// VERIFIER: a global function, which is checked once for itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn socket_take_place(event: *mut bpf_sock_ops, backend: u32) -> i32 {
    for place in 0..SOCKETS_PER_BACKEND {
        match put(event, backend, place) {
            0 => return place as i32,
            EEXIST => {}
            code => return -code as i32,
        }
    }
    -EEXIST as i32
}

/// Puts the socket into a place unless a living listener has it. Gives 0 or an error number.
#[inline(always)]
fn put(event: *mut bpf_sock_ops, backend: u32, place: u32) -> i64 {
    let mut key = place_key(backend, place);
    // SAFETY: the context of this run; the map's keys are u32, and the key lives during the call.
    -unsafe {
        bpf_sock_map_update(
            event,
            LISTENERS.as_ptr(),
            core::ptr::from_mut(&mut key).cast(),
            u64::from(BPF_NOEXIST),
        )
    }
}

/// Lets the socket in a place be selected. If there is no other listener a new epoch begins first.
///
/// VERIFIER: a global function, which is checked once for itself.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn socket_publish(
    event: *mut bpf_sock_ops,
    backend: u32,
    place: u32,
    cookie: u64,
) -> i32 {
    let Some(sockets) = backend_sockets(backend) else {
        return 0;
    };
    let mut has_others = false;
    for other in 0..SOCKETS_PER_BACKEND {
        // SAFETY: the place lies inside the array.
        let at = unsafe { cookie_at(sockets, other) };
        // SAFETY: an aligned number of a map value.
        let known = unsafe { at.read_volatile() };
        if known == 0 || other == place {
            continue;
        }
        // Listeners that were captured on demand close without a word. If this socket finds room
        // in the other's place, the other is gone.
        if put(event, backend, other) == 0 {
            let key = place_key(backend, other);
            // SAFETY: the map's keys are u32, and the key lives during the call.
            unsafe {
                bpf_map_delete_elem(LISTENERS.as_ptr(), core::ptr::from_ref(&key).cast());
                atomic::compare_and_swap_u64(at, known, 0);
            }
        } else {
            has_others = true;
        }
    }
    // SAFETY: aligned numbers of a map value. Two first listeners at the same time may begin one
    // epoch or two; either way the daemon has found none of them ready.
    unsafe {
        if !has_others {
            let epoch = &raw mut (*sockets).captured_epoch;
            epoch.write_volatile(epoch.read_volatile().wrapping_add(1));
        }
        cookie_at(sockets, place).write_volatile(cookie);
    }
    // A global function must return a number; the verifier knows no other kind on older kernels.
    0
}

/// # Safety
/// `sockets` must be a live map value. The place is cut to the array.
#[inline(always)]
unsafe fn cookie_at(sockets: *mut BackendSockets, place: u32) -> *mut u64 {
    let place = (place & (SOCKETS_PER_BACKEND - 1)) as usize;
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*sockets).cookies).cast::<u64>().add(place) }
}

/// Tells the daemon. An event that finds the ring full is lost; the daemon looks by itself as well.
#[inline(always)]
fn tell(what: u32, backend: u32) {
    let mut event = CaptureEvent { what, backend };
    // SAFETY: the value lives during the call.
    unsafe {
        bpf_ringbuf_output(
            core::ptr::from_ref(&CAPTURE_EVENTS).cast_mut().cast(),
            core::ptr::from_mut(&mut event).cast(),
            size_of::<CaptureEvent>() as u64,
            0,
        )
    };
}
