//! `cgroup/post_bind4` and `post_bind6`: who bound a socket. By the time it listens nobody can tell
//! any more, and a socket may have been handed on.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_current_uid_gid,
        generated::{bpf_get_netns_cookie, bpf_sk_storage_get},
    },
    macros::cgroup_sock,
    programs::SockContext,
};
use shifter_common::{
    abi::VipKey,
    addr::{Addr, Be16},
    socket::{SocketOwner, host},
};

use super::maps::{CAPTURES, SOCKET_OWNERS, host_number};

const SOCK_STREAM: u32 = 1;
/// The bind goes on; this program has no opinion.
const ALLOW: i32 = 1;

/// Notes who bound an IPv4 socket.
#[cgroup_sock(post_bind4)]
pub fn socket_bound4(ctx: SockContext) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    // SAFETY: the context of this run, each field read for itself.
    let addr = Addr::from_v4_word(unsafe { (&raw const (*sock).src_ip4).read_volatile() });
    note(&ctx, addr)
}

/// Notes who bound an IPv6 socket.
#[cgroup_sock(post_bind6)]
pub fn socket_bound6(ctx: SockContext) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    // SAFETY: as above.
    let word = |i: usize| unsafe { (&raw const (*sock).src_ip6[i]).read_volatile() };
    let addr = Addr {
        words: [word(0), word(1), word(2), word(3)],
    };
    note(&ctx, addr)
}

#[inline(always)]
fn note(ctx: &SockContext, addr: Addr) -> i32 {
    let sock: *const bpf_sock = ctx.as_ptr().cast();
    // SAFETY: the context of this run, each field read for itself.
    let (kind, port) = unsafe {
        (
            (&raw const (*sock).type_).read_volatile(),
            (&raw const (*sock).src_port).read_volatile(),
        )
    };
    if kind != SOCK_STREAM {
        return ALLOW;
    }
    let key = VipKey {
        addr,
        port: Be16::from_host(port as u16),
        protocol: 6,
        pad: 0,
    };
    // SAFETY: the entry is not kept.
    if (unsafe { CAPTURES.get(key) }).is_none() {
        return ALLOW;
    }
    // SAFETY: the context of this run.
    let namespace = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if namespace != host_number(host::NETNS_COOKIE) {
        return ALLOW;
    }
    let mut owner = SocketOwner {
        uid: bpf_get_current_uid_gid() as u32,
    };
    // SAFETY: the context is the socket, and the value lives during the call. If there is no memory
    // the socket has no owner, and the daemon looks at it when it listens.
    unsafe {
        let stored: *mut SocketOwner = bpf_sk_storage_get(
            SOCKET_OWNERS.as_ptr(),
            ctx.as_ptr(),
            core::ptr::from_mut(&mut owner).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast();
        // A second attempt to bind finds the note of the first.
        if !stored.is_null() {
            (*stored).uid = owner.uid;
        }
    }
    ALLOW
}
