//! `cgroup_skb`: what comes to and from the watched connections of the socket plane. Both programs see every
//! packet of every socket of the host, so they are attached only while some service asks for it, and the first
//! thing they do is to ask whether the socket is watched.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_load_bytes,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use shifter_common::{
    observe::{HEAD_LEN_BYTES, Head, Response, Segment, Watch, WatchedSocket},
    socket::SocketTag,
};

use super::{
    flow::is_current,
    maps::{SOCKET_TAGS, WATCHED_SOCKETS},
    observe::Event,
};
use crate::{
    breaker::{self, Failed},
    observe::{account, rules},
};

/// The packet goes on; these programs have no opinion.
const ALLOW: i32 = 1;
const TCP: u8 = 6;
const SYN: u8 = 0x02;

/// Packets of clients.
#[cgroup_skb(ingress)]
pub fn socket_seen_in(ctx: SkBuffContext) -> i32 {
    if let Some((skb, socket, watched)) = watched(&ctx) {
        client(skb, socket, watched);
    }
    ALLOW
}

/// Packets of versions.
#[cgroup_skb(egress)]
pub fn socket_seen_out(ctx: SkBuffContext) -> i32 {
    if let Some((skb, socket, watched)) = watched(&ctx) {
        backend(skb, socket, watched);
    }
    ALLOW
}

/// Begins to watch a connection that is established now, if its service asks for it.
#[inline(always)]
pub fn open(event: &Event, tag: &SocketTag) {
    let socket = event.socket();
    if socket.is_null() || rules(tag.service).is_none() {
        return;
    }
    let (next_from_client, next_from_backend) = event.next_numbers();
    let mut value = WatchedSocket {
        watch: Watch::opened(0, next_from_client),
        client: event.client(),
        client_port: event.client_port(),
        cohort: tag.cohort,
        has_failed: 0,
        service: tag.service,
    };
    value.watch.next_from_backend = next_from_backend;
    // SAFETY: the socket is the context's; the value is copied. Without memory it is not watched.
    let _ = unsafe {
        bpf_sk_storage_get(
            WATCHED_SOCKETS.as_ptr(),
            socket.cast(),
            (&raw mut value).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
}

/// Whether an error of a connection was told already.
#[inline(always)]
pub fn has_failed(socket: *mut bpf_sock) -> bool {
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket is the context's, and nothing is created.
    let watched: *const WatchedSocket = unsafe {
        bpf_sk_storage_get(
            WATCHED_SOCKETS.as_ptr(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    }
    .cast();
    // SAFETY: the storage is this socket's own.
    !watched.is_null() && unsafe { (*watched).has_failed != 0 }
}

/// The packet's socket, if it is watched.
#[inline(always)]
fn watched(ctx: &SkBuffContext) -> Option<(*mut __sk_buff, *mut bpf_sock, *mut WatchedSocket)> {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this run.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the socket is the packet's, and nothing is created. Of a socket that is none yet, or no more,
    // the helper finds nothing.
    let watched: *mut WatchedSocket = unsafe {
        bpf_sk_storage_get(
            WATCHED_SOCKETS.as_ptr(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    }
    .cast();
    (!watched.is_null()).then_some((skb, socket, watched))
}

/// A segment with data. It begins with the IP header here.
struct Sight {
    seq: u32,
    len_bytes: u32,
    head: Option<Head>,
}

impl Sight {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Option<Self> {
        let version: u8 = load(skb, 0)?;
        let l4 = match version >> 4 {
            4 => u32::from(version & 0xf) * 4,
            // With an extension header there is no telling; the host's own connections have none.
            6 if load::<u8>(skb, 6)? == TCP => 40,
            _ => return None,
        };
        let seq = u32::from_be(load(skb, l4 + 4)?);
        let offset_and_flags: [u8; 2] = load(skb, l4 + 12)?;
        let data = l4 + u32::from(offset_and_flags[0] >> 4) * 4;
        // SAFETY: the context of this run.
        let len_bytes = unsafe { (*skb).len };
        if len_bytes <= data || offset_and_flags[1] & SYN != 0 {
            return None;
        }
        let len_bytes = len_bytes - data;
        Some(Self {
            seq,
            len_bytes,
            head: if len_bytes >= HEAD_LEN_BYTES as u32 {
                load(skb, data)
            } else {
                None
            },
        })
    }

    #[inline(always)]
    fn segment(&self) -> Segment<'_> {
        Segment {
            seq: self.seq,
            len_bytes: self.len_bytes,
            head: self.head.as_ref(),
        }
    }
}

#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the context of this run; the helper checks the offset and fills `size_of::<T>()` bytes.
    let code = unsafe {
        bpf_skb_load_bytes(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        )
    };
    // SAFETY: the helper has filled all bytes; integers only are read.
    (code == 0).then(|| unsafe { value.assume_init() })
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments and has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn client(skb: *mut __sk_buff, socket: *mut bpf_sock, watched: *mut WatchedSocket) {
    // SAFETY: the storage is this socket's own; segments of the client write only the client's fields.
    let watched = unsafe { &mut *watched };
    let Some(rules) = rules(watched.service) else {
        return forget(socket);
    };
    let Some(sight) = Sight::of(skb) else {
        return;
    };
    let now_ns = if watched.watch.asked_ns == 0 {
        now_ns()
    } else {
        0
    };
    watched.watch.ask(rules.what, now_ns, &sight.segment());
}

#[inline(always)]
fn backend(skb: *mut __sk_buff, socket: *mut bpf_sock, watched: *mut WatchedSocket) {
    // SAFETY: as above, of the backend.
    let watched = unsafe { &mut *watched };
    let Some(rules) = rules(watched.service) else {
        return forget(socket);
    };
    let Some(sight) = Sight::of(skb) else {
        return;
    };
    let now_ns = if watched.watch.has_spoken == 0 {
        now_ns()
    } else {
        0
    };
    let answer = watched.watch.answer(rules.what, now_ns, &sight.segment());
    if answer.first_byte_ns.is_none() && answer.response.is_none() && !answer.is_last {
        return;
    }
    // SAFETY: the socket is the packet's, and nothing is created.
    let tag: *const SocketTag = unsafe {
        bpf_sk_storage_get(
            SOCKET_TAGS.as_ptr(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    }
    .cast();
    if tag.is_null() {
        return forget(socket);
    }
    // SAFETY: the tag is this socket's own.
    let tag = unsafe { &*tag };
    // Of a version that has left its slot nothing is told any more.
    if !is_current(tag) {
        return;
    }
    account::answer(rules, tag.slot(), &answer);
    let is_error = matches!(answer.response, Some(Response::ServerError));
    if is_error && watched.has_failed == 0 {
        watched.has_failed = 1;
        breaker::error(&Failed {
            client: &watched.client,
            client_port: watched.client_port,
            service: watched.service,
            slot: tag.slot(),
            cohort: watched.cohort,
        });
    }
    // Who has failed is remembered until the connection's end.
    if answer.is_last && watched.has_failed == 0 {
        forget(socket);
    }
}

/// The socket is not watched any more.
#[inline(always)]
fn forget(socket: *mut bpf_sock) {
    // SAFETY: the socket is the packet's. If there is nothing any more, that is as well.
    let _ = unsafe { bpf_sk_storage_delete(WATCHED_SOCKETS.as_ptr(), socket.cast()) };
}
