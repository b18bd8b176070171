//! Time in the kernel.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use shifter_common::abi::TICK_SHIFT;

/// Ticks of the boot clock. The coarse clock is read without touching the hardware's.
#[inline(always)]
pub fn now_ticks() -> u32 {
    // SAFETY: the helper takes no arguments and has no preconditions.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}
