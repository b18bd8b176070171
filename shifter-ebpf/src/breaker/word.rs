//! A word of a map value that other processors change at the same time.

use shifter_common::breaker::Word;

use crate::atomic;

/// An aligned `u64` of a map value.
pub struct Shared(*mut u64);

impl Shared {
    /// Takes a word.
    ///
    /// # Safety
    /// It must be a live, aligned `u64` of a map value.
    #[inline(always)]
    pub const unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }
}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the promise of `new`, here and below.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(value) }
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { atomic::compare_and_swap_u64(self.0, old, new) }
    }

    #[inline(always)]
    fn swap(&self, new: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic::swap(self.0, new) }
    }

    #[inline(always)]
    fn add(&self, more: u64) {
        // SAFETY: as above.
        unsafe { atomic::add(self.0, more) }
    }
}
