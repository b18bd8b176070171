//! A classifier that is run on demand only (`BPF_PROG_TEST_RUN`): it looks a listener up that is
//! older than the programs, and captures it. The daemon reads back which one it was, checks its
//! owner, and only then lets it be selected.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_TCP_LISTEN, bpf_sock, bpf_sock_tuple,
        bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{
        bpf_map_update_elem, bpf_sk_lookup_tcp, bpf_sk_release, bpf_sk_storage_get,
        bpf_skb_load_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use shifter_common::{
    addr::Addr,
    socket::{NO_BACKEND, NO_PLACE, SEIZE_OFFSET, Seize, SocketTag, seized},
};

use super::maps::{LISTENERS, SOCKET_TAGS};

const AF_INET: u32 = 2;
/// `BPF_F_CURRENT_NETNS`: the namespace of whoever runs the program.
const CURRENT_NETNS: u64 = u64::MAX;

/// Captures the listener that the packet describes.
#[classifier]
pub fn socket_seize(ctx: TcContext) -> i32 {
    let mut request = MaybeUninit::<Seize>::uninit();
    // SAFETY: the buffer is as long as is asked for; the context is the one of this run.
    let code = unsafe {
        bpf_skb_load_bytes(
            ctx.as_ptr(),
            SEIZE_OFFSET as u32,
            request.as_mut_ptr().cast(),
            size_of::<Seize>() as u32,
        )
    };
    if code != 0 {
        return seized::BAD_REQUEST as i32;
    }
    // SAFETY: filled by the helper; every bit pattern is valid.
    let request = unsafe { request.assume_init() };
    let socket = find(&ctx, &request);
    if socket.is_null() {
        return seized::NOTHING as i32;
    }
    let code = take(socket, &request);
    // SAFETY: the reference is ours, from the lookup.
    unsafe { bpf_sk_release(socket.cast()) };
    code
}

#[inline(always)]
fn find(ctx: &TcContext, request: &Seize) -> *mut bpf_sock {
    let mut tuple = if request.to.is_v4() {
        bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: request.from.v4_word(),
                daddr: request.to.v4_word(),
                sport: request.from_port.0,
                dport: request.to_port.0,
            },
        }
    } else {
        bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: request.from.words,
                daddr: request.to.words,
                sport: request.from_port.0,
                dport: request.to_port.0,
            },
        }
    };
    let tuple: *mut bpf_sock_tuple = core::ptr::from_mut(&mut tuple).cast();
    // VERIFIER: the length is a constant in each call, else the helper reads beyond the smaller one.
    // SAFETY: the context of this run and a tuple that lives during the call.
    unsafe {
        if request.to.is_v4() {
            bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, 12, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, 36, CURRENT_NETNS, 0)
        }
    }
}

#[inline(always)]
fn take(socket: *mut bpf_sock, request: &Seize) -> i32 {
    if !is_meant(socket, request) {
        return seized::OTHER as i32;
    }
    if let Some(known) = tag_of(socket, None) {
        // SAFETY: the storage is the socket's, and the reference to it is held.
        let tag = unsafe { &mut *known };
        let has_place = tag.places[0] != NO_PLACE || tag.places[1] != NO_PLACE;
        if has_place && tag.backend_ids == request.tag.backend_ids {
            // Its version may have changed without a new listener (a socket that systemd holds).
            tag.version_id = request.tag.version_id;
            return seized::KNOWN as i32;
        }
    }
    if request.keys == [NO_BACKEND; 2] {
        // Only its version was to change.
        return seized::OTHER as i32;
    }
    let mut tag = request.tag;
    let Some(stored) = tag_of(socket, Some(&mut tag)) else {
        return -12;
    };
    // SAFETY: as above; a tag from an earlier life is replaced.
    unsafe { *stored = tag };
    for family in 0..2_usize {
        let key = request.keys[family];
        if key == NO_BACKEND {
            continue;
        }
        // SAFETY: the map's keys are u32, its values sockets; the reference is held.
        let code = unsafe {
            bpf_map_update_elem(
                LISTENERS.as_ptr(),
                core::ptr::from_ref(&key).cast(),
                socket.cast(),
                u64::from(BPF_NOEXIST),
            )
        };
        if code != 0 {
            // SAFETY: as above. It has no place, so it may be asked for again.
            unsafe { (*stored).places = [NO_PLACE; 2] };
            return code as i32;
        }
    }
    seized::CAPTURED as i32
}

/// The socket's tag; with a value it is created if there is none.
#[inline(always)]
fn tag_of(socket: *mut bpf_sock, value: Option<&mut SocketTag>) -> Option<*mut SocketTag> {
    let flags = match value {
        Some(_) => u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        None => 0,
    };
    let value = value.map_or(core::ptr::null_mut(), core::ptr::from_mut);
    // SAFETY: the reference to the socket is held, and the value lives during the call.
    let tag: *mut SocketTag =
        unsafe { bpf_sk_storage_get(SOCKET_TAGS.as_ptr(), socket.cast(), value.cast(), flags) }
            .cast();
    (!tag.is_null()).then_some(tag)
}

/// Whether this is the listener that was meant: the lookup itself may have been steered.
#[inline(always)]
fn is_meant(socket: *mut bpf_sock, request: &Seize) -> bool {
    // SAFETY: the reference to the socket is held; each field is read for itself.
    unsafe {
        let port = (&raw const (*socket).src_port).read_volatile();
        let state = (&raw const (*socket).state).read_volatile();
        let family = (&raw const (*socket).family).read_volatile();
        // VERIFIER: both families are read and one is chosen: of a read in each branch the compiler
        // makes one read at a computed place, which is not allowed.
        let v4 = Addr::from_v4_word((&raw const (*socket).src_ip4).read_volatile());
        let word = |i: usize| (&raw const (*socket).src_ip6[i]).read_volatile();
        let v6 = Addr {
            words: [word(0), word(1), word(2), word(3)],
        };
        let addr = if family == AF_INET { v4 } else { v6 };
        state == BPF_TCP_LISTEN
            && port == u32::from(request.to_port.to_host())
            && addr == request.listener
    }
}
