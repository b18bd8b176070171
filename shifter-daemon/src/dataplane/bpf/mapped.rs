//! A BPF array mapped into the daemon's memory: the kernel reads what is stored here at once.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::super::DataplaneError;

/// A mapped `Array<T>`. `T` is eight bytes or a multiple of eight, so elements lie side by side.
pub struct Mapped<T> {
    start: NonNull<T>,
    len: usize,
    marker: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone and is shared memory for the whole process.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// Maps an array of `len` elements, created with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(fd: BorrowedFd<'_>, name: &str, len: u32) -> Result<Self, DataplaneError> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let len = len as usize;
        let bytes = NonZeroUsize::new(len * size_of::<T>())
            .ok_or_else(|| DataplaneError::Refused(format!("map {name} has no elements")))?;
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd.as_fd(),
                0,
            )
        }
        .map_err(|errno| DataplaneError::kernel(format!("mapping {name}"), errno))?;
        Ok(Self {
            start: start.cast(),
            len,
            marker: PhantomData,
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    pub(super) fn at(&self, index: usize) -> NonNull<T> {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: the index lies inside the mapping.
        unsafe { self.start.add(index) }
    }

    /// Reads an element that only the daemon writes.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: inside the mapping, which lives as long as `self`; the kernel only reads.
        unsafe { self.at(index).as_ptr().read_volatile() }
    }

    /// Writes an element that the kernel does not look at yet, or whose every part is valid alone.
    pub fn write(&mut self, index: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.at(index).as_ptr().write_volatile(value) }
    }
}

impl Mapped<u64> {
    /// The element as an atomic.
    pub fn atomic(&self, index: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping, aligned to eight bytes, and accessed atomically by everybody.
        unsafe { AtomicU64::from_ptr(self.at(index).as_ptr()) }
    }
}

impl Mapped<[u32; 2]> {
    /// Entry of a lookup table; two lie in an element.
    pub fn entry(&self, index: usize) -> &AtomicU32 {
        // SAFETY: as above; the half element is aligned to four bytes.
        unsafe { AtomicU32::from_ptr(self.at(index / 2).as_ptr().cast::<u32>().add(index % 2)) }
    }

    /// Whether a table stands at `base`.
    pub fn holds(&self, base: u32, table: &[u32]) -> bool {
        table
            .iter()
            .enumerate()
            .all(|(i, value)| self.entry(base as usize + i).load(Ordering::Relaxed) == *value)
    }

    /// The table of `size` entries at `base`, as far as it lies inside the map.
    pub fn table(&self, base: u32, size: u32) -> Vec<u32> {
        let (base, end) = (base as usize, base as usize + size as usize);
        (base..end.min(self.len() * 2))
            .map(|i| self.entry(i).load(Ordering::Relaxed))
            .collect()
    }

    /// Writes a table that the kernel does not look at yet.
    pub fn fill(&self, base: u32, table: &[u32]) {
        for (i, value) in table.iter().enumerate() {
            self.entry(base as usize + i)
                .store(*value, Ordering::Release);
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used afterwards.
        // An error cannot be handled here and would leave the mapping until the process ends.
        let _ = unsafe { munmap(self.start.cast(), self.len * size_of::<T>()) };
    }
}
