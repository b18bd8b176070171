//! Compare-and-swap. `core::sync::atomic` has none for the BPF target, whose instruction set gained
//! atomics with cpu v3 only; the compiler's intrinsic compiles to the kernel's `BPF_CMPXCHG`.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// Replaces `*target` by `new` if it is `old`; says whether it did.
///
/// # Safety
/// `target` must point to a live, aligned `u32` of a map value.
#[inline(always)]
pub unsafe fn compare_and_swap(target: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: the caller's promise.
    let (_, swapped) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            target, old, new,
        )
    };
    swapped
}

/// Replaces `*target` by `new` if it is `old`; says whether it did.
///
/// # Safety
/// `target` must point to a live, aligned `u64` of a map value.
#[inline(always)]
pub unsafe fn compare_and_swap_u64(target: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    let (_, swapped) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            target, old, new,
        )
    };
    swapped
}

/// Adds to a number that is written outside of bottom halves, where a run may be preempted in the
/// middle of an addition.
///
/// # Safety
/// `target` must point to a live, aligned `u64` of a map value.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, value) };
}

/// Stores `new`; gives what was there.
///
/// # Safety
/// `target` must point to a live, aligned `u64` of a map value.
#[inline(always)]
pub unsafe fn swap(target: *mut u64, new: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(target, new) }
}
