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
mod clock;
mod flow;
mod frame;
mod maps;
mod parse;
mod pipeline;
mod select;
mod socket;
mod tc;
mod xdp;

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use shifter_common::{
    abi::setting,
    verdict::{Action, Verdict},
};

/// Client to backend, in the driver.
#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    let verdict = pipeline::ingress(&xdp::XdpFrame::new(&ctx));
    match finish(&ctx, verdict) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// Client to backend, behind the driver.
#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let verdict = pipeline::ingress(&tc::TcFrame::new(&ctx));
    tc_action(finish(&ctx, verdict))
}

/// Backend to client.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let verdict = pipeline::egress(&tc::TcFrame::new(&ctx));
    tc_action(finish(&ctx, verdict))
}

#[inline(always)]
fn finish<C: EbpfContext>(ctx: &C, verdict: Verdict) -> Action {
    account::verdict(verdict);
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
fn tc_action(action: Action) -> i32 {
    match action {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
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
