//! Time in the kernel.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use shifter_common::abi::TICK_SHIFT;

/// The clock is read again after this many jiffies, as a power of two: a third of a second at the least
/// HZ there is, which is 100. A tick is a second.
const FRESH_SHIFT: u32 = 5;

/// What the clock said last, and when: the jiffies, shifted, in the high half and the ticks in the low
/// half. 0 before the first reading.
///
/// A call of the clock costs as much as a fifth of the whole way of a known flow's packet; the jiffies are
/// one load, which the verifier puts in the place of the call (Linux 5.6).
static LAST: Last = Last(UnsafeCell::new(0));

struct Last(UnsafeCell<u64>);

// SAFETY: the word is read and written whole; whichever CPU writes last is right.
unsafe impl Sync for Last {}

/// Ticks of the boot clock, at most [`FRESH_SHIFT`] late. The coarse clock is read without touching the
/// hardware's.
#[inline(always)]
pub fn now_ticks() -> u32 {
    // SAFETY: the helper takes no arguments and has no preconditions.
    let period = (unsafe { bpf_jiffies64() } >> FRESH_SHIFT) as u32;
    // SAFETY: an aligned word that lives as long as the program.
    let last = unsafe { LAST.0.get().read_volatile() };
    if (last >> 32) as u32 == period && last != 0 {
        return last as u32;
    }
    // SAFETY: as for the first call.
    let ticks = (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32;
    // SAFETY: as above.
    unsafe {
        LAST.0
            .get()
            .write_volatile(u64::from(period) << 32 | u64::from(ticks))
    };
    ticks
}
