//! Kernel programs of the bench: one that turns a frame into the next packet, and what it goes on to
//! for comparison. They are no part of shifter's packet path and never attached.

#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "the program macros wrap documented functions in undocumented ones"
)]

mod floor;
mod next;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, map, xdp},
    maps::ProgramArray,
    programs::{TcContext, XdpContext},
};

/// The program that is measured.
#[map]
pub static MEASURED_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same at TC: an array holds programs of one kind.
#[map]
pub static MEASURED_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Makes the next packet and goes on to the measured program.
#[xdp(frags)]
pub fn bench_xdp(ctx: XdpContext) -> u32 {
    if next::make(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: nothing here needs to be dropped.
        unsafe { MEASURED_XDP.tail_call(&ctx, 0) };
    }
    // Not reached with a good frame and a program in the array; no measured program aborts.
    xdp_action::XDP_ABORTED
}

/// As [`bench_xdp`].
#[classifier]
pub fn bench_tc(ctx: TcContext) -> i32 {
    if next::make(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: as above.
        unsafe { MEASURED_TC.tail_call(&ctx, 0) };
    }
    // `TC_ACT_STOLEN`: as above.
    4
}

/// Does nothing.
#[xdp(frags)]
pub fn pass_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Does nothing.
#[classifier]
pub fn pass_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The least that destination NAT can do.
#[xdp(frags)]
pub fn floor_xdp(ctx: XdpContext) -> u32 {
    match floor::steer(ctx.data(), ctx.data_end()) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_DROP,
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this could be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
