//! Kernel programs of shifter.
//!
//! `pipeline` holds all branching between stages; the other modules are its straight leaves.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    missing_docs,
    reason = "the program macros wrap documented functions in undocumented ones"
)]
#![allow(
    internal_features,
    reason = "the BPF target has no AtomicU32; see atomic.rs"
)]

mod account;
mod atomic;
mod breaker;
mod clock;
mod flow;
mod frame;
mod hairpin;
mod icmp;
mod local;
mod maps;
mod observe;
mod owner;
mod parse;
mod pipeline;
mod rescue;
mod select;
mod socket;
mod targets;
mod tc;
mod xdp;

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::bpf_redirect,
    macros::{cgroup_sock_addr, classifier, xdp},
    maps::ProgramArray,
    programs::{SockAddrContext, TcContext, XdpContext},
};
use shifter_common::{
    abi::{predecessor, setting},
    verdict::{Action, Verdict},
};

/// Client to backend, in the driver.
#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    let frame = xdp::XdpFrame::new(&ctx);
    let mut verdict = pipeline::ingress(&frame);
    ask(&ctx, verdict, &maps::XDP_PREDECESSOR, predecessor::INGRESS);
    if matches!(verdict, Verdict::PassNoFlow) {
        verdict = pipeline::lost(&frame);
    }
    match finish(&ctx, verdict) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Turn => xdp_action::XDP_TX,
    }
}

/// Client to backend, behind the driver.
#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let frame = tc::TcFrame::new(&ctx);
    let mut verdict = pipeline::ingress(&frame);
    ask(&ctx, verdict, &maps::TC_PREDECESSOR, predecessor::INGRESS);
    if matches!(verdict, Verdict::PassNoFlow) {
        verdict = pipeline::lost(&frame);
    }
    tc_action(&ctx, finish(&ctx, verdict))
}

/// Backend to client.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let verdict = pipeline::egress(&tc::TcFrame::new(&ctx));
    ask(&ctx, verdict, &maps::TC_PREDECESSOR, predecessor::EGRESS);
    tc_action(&ctx, finish(&ctx, verdict))
}

/// connect(2) of the host's own clients.
#[cgroup_sock_addr(connect4)]
pub fn local_connect4(ctx: SockAddrContext) -> i32 {
    local::connect::<false>(&ctx)
}

/// As above, of IPv6 sockets.
#[cgroup_sock_addr(connect6)]
pub fn local_connect6(ctx: SockAddrContext) -> i32 {
    local::connect::<true>(&ctx)
}

/// Datagrams of the host's own clients.
#[cgroup_sock_addr(sendmsg4)]
pub fn local_sendmsg4(ctx: SockAddrContext) -> i32 {
    local::send::<false>(&ctx)
}

/// As above, of IPv6 sockets.
#[cgroup_sock_addr(sendmsg6)]
pub fn local_sendmsg6(ctx: SockAddrContext) -> i32 {
    local::send::<true>(&ctx)
}

/// Whom a datagram came from.
#[cgroup_sock_addr(recvmsg4)]
pub fn local_recvmsg4(ctx: SockAddrContext) -> i32 {
    local::receive::<false>(&ctx)
}

/// As above, of IPv6 sockets.
#[cgroup_sock_addr(recvmsg6)]
pub fn local_recvmsg6(ctx: SockAddrContext) -> i32 {
    local::receive::<true>(&ctx)
}

/// getpeername(2).
#[cgroup_sock_addr(getpeername4)]
pub fn local_peername4(ctx: SockAddrContext) -> i32 {
    local::peer_name::<false>(&ctx)
}

/// As above, of IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
pub fn local_peername6(ctx: SockAddrContext) -> i32 {
    local::peer_name::<true>(&ctx)
}

/// While this dataplane replaces another one: a packet of a flow that is unknown here may belong to a
/// flow that is still known there. Returns where there is no predecessor; otherwise the packet is the
/// predecessor's, untouched so far, and counts there.
#[inline(always)]
fn ask<C: EbpfContext>(ctx: &C, verdict: Verdict, programs: &ProgramArray, index: u32) {
    if matches!(verdict, Verdict::PassNoFlow | Verdict::PassDirect) {
        // SAFETY: nothing is held that a program must release before it ends.
        unsafe { programs.tail_call(ctx, index) };
    }
}

#[inline(always)]
fn finish<C: EbpfContext>(ctx: &C, verdict: Verdict) -> Action {
    account::verdict(verdict);
    #[cfg(feature = "rehearsal")]
    core::hint::black_box(shifter_common::abi::REHEARSAL_MARK);
    if matches!(verdict, Verdict::DropBrokenState) && maps::is_set(setting::LOG_DEFECTS) {
        aya_log_ebpf::error!(
            ctx,
            "a packet was dropped: the published tables contradict each other"
        );
    }
    verdict.action()
}

/// `TC_ACT_UNSPEC` is `TCX_NEXT`: other programs on the interface see the packet too.
#[inline(always)]
fn tc_action(ctx: &TcContext, action: Action) -> i32 {
    match action {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        // SAFETY: the helper takes an index; the one the packet came in by exists.
        Action::Turn => unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 },
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}

/// The helpers these programs call are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
