//! `sock_ops`: what becomes of listeners and of the connections they accept. All branching is here.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::bpf_sk_storage_get,
    macros::sock_ops,
    programs::SockOpsContext,
};
use shifter_common::{
    abi::VipKey,
    addr::{Addr, Be16},
    socket::{SocketTag, host, tag_kind},
};

use super::{capture, flow, inside, maps::SOCKET_TAGS};

const AF_INET: u32 = 2;

/// Captures listeners and counts connections.
#[sock_ops]
pub fn socket_observe(ctx: SockOpsContext) -> u32 {
    let event = Event(ctx.ops);
    let is_watched = match ctx.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => capture::listening(&event),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => match event.tag() {
            Some(tag) => flow::established(&event, tag),
            None => false,
        },
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => {
            closed(&event, ctx.arg(0));
            false
        }
        _ => false,
    };
    if is_watched {
        event.watch_state();
    }
    // What other programs have replied stands.
    1
}

#[inline(always)]
fn closed(event: &Event, old_state: u32) {
    let Some(tag) = event.tag() else {
        return;
    };
    // SAFETY: the tag is this socket's own.
    match unsafe { (*tag).kind } {
        tag_kind::LISTENER => capture::closed(event, tag),
        tag_kind::FLOW => flow::closed(event, tag, old_state),
        _ => {}
    }
}

/// An event of a TCP socket. Every field is read for itself: the verifier allows no wider reads.
pub struct Event(*mut bpf_sock_ops);

impl Event {
    /// The context as the helpers take it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut bpf_sock_ops {
        self.0
    }

    /// The socket; null for a request that has none yet.
    #[inline(always)]
    pub fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the context of this run.
        unsafe { (*self.0).__bindgen_anon_2.sk }
    }

    /// The socket's tag, if it has one.
    #[inline(always)]
    pub fn tag(&self) -> Option<*mut SocketTag> {
        let socket = self.socket();
        if socket.is_null() {
            return None;
        }
        // SAFETY: the socket is the context's, and nothing is created.
        let tag: *mut SocketTag = unsafe {
            bpf_sk_storage_get(
                SOCKET_TAGS.as_ptr(),
                socket.cast(),
                core::ptr::null_mut(),
                0,
            )
        }
        .cast();
        (!tag.is_null()).then_some(tag)
    }

    /// The socket's own address and port.
    #[inline(always)]
    pub fn local(&self) -> VipKey {
        let ctx = self.0;
        // SAFETY: the context of this run.
        let (addr, port) = unsafe {
            let port = (&raw const (*ctx).local_port).read_volatile();
            // VERIFIER: both families are read and one is chosen, as in `seize`.
            let family = (&raw const (*ctx).family).read_volatile();
            let v4 = Addr::from_v4_word((&raw const (*ctx).local_ip4).read_volatile());
            let word = |i: usize| (&raw const (*ctx).local_ip6[i]).read_volatile();
            let v6 = Addr {
                words: [word(0), word(1), word(2), word(3)],
            };
            let addr = if family == AF_INET { v4 } else { v6 };
            (addr, port)
        };
        VipKey {
            addr,
            port: Be16::from_host(port as u16),
            protocol: 6,
            pad: 0,
        }
    }

    /// The client's address.
    #[inline(always)]
    pub fn client(&self) -> Addr {
        let ctx = self.0;
        // SAFETY: the context of this run.
        unsafe {
            // VERIFIER: both families are read and one is chosen, as in `seize`.
            let family = (&raw const (*ctx).family).read_volatile();
            let v4 = Addr::from_v4_word((&raw const (*ctx).remote_ip4).read_volatile());
            let word = |i: usize| (&raw const (*ctx).remote_ip6[i]).read_volatile();
            let v6 = Addr {
                words: [word(0), word(1), word(2), word(3)],
            };
            if family == AF_INET { v4 } else { v6 }
        }
    }

    /// The client's port, in network byte order.
    #[inline(always)]
    pub fn client_port(&self) -> u16 {
        // SAFETY: the context of this run. The field is 32 bits in network byte order.
        let port = unsafe { (&raw const (*self.0).remote_port).read_volatile() };
        (u32::from_be(port) as u16).to_be()
    }

    /// Numbers of the client's next byte and of the socket's own.
    #[inline(always)]
    pub fn next_numbers(&self) -> (u32, u32) {
        let ctx = self.0;
        // SAFETY: the context of this run.
        unsafe {
            (
                (&raw const (*ctx).rcv_nxt).read_volatile(),
                (&raw const (*ctx).snd_nxt).read_volatile(),
            )
        }
    }

    /// The socket's error (`sk_err`); `None` if it cannot be read.
    #[inline(always)]
    pub fn error(&self) -> Option<i32> {
        let socket = self.socket();
        if socket.is_null() {
            return None;
        }
        inside::word(socket.cast(), host::ERROR_OFFSET).map(u32::cast_signed)
    }

    /// Asks for the socket's changes of state, besides what others have asked for.
    #[inline(always)]
    fn watch_state(&self) {
        let ctx = SockOpsContext::new(self.0);
        let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
        // Refused for a socket that is no full socket, which none of ours is.
        let _ = ctx.set_cb_flags(flags as i32);
    }
}

impl EbpfContext for Event {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0.cast()
    }
}
