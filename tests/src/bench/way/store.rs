//! The store that a weight change of shifter ends in, alone: shifterd is stopped, and the bench
//! changes the mapped steering word as shifterd does.

use std::{
    num::NonZeroUsize,
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use shifter_common::{
    abi::{ABI_VERSION, map},
    steering::SteeringWord,
};

/// The mapped words of all services.
pub struct Store {
    start: NonNull<AtomicU64>,
    count: usize,
    /// The only service.
    index: usize,
}

// SAFETY: the mapping belongs to this value alone, and is accessed by atomics only.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Maps the words below a daemon's bpffs.
    ///
    /// # Panics
    /// If there are none, or not of exactly one service.
    pub fn open(bpffs: &Path) -> Self {
        let pins = bpffs.join("shifter").join(format!("v{ABI_VERSION}"));
        let pin = pins.join("maps").join(map::STEERING);
        let data = MapData::from_pin(&pin).unwrap_or_else(|err| panic!("{}: {err}", pin.display()));
        let count = data.info().expect("the map").max_entries() as usize;
        let bytes = NonZeroUsize::new(count * size_of::<u64>()).expect("words");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, data.fd(), 0) };
        let mut store = Self {
            start: start.expect("the words are mapped").cast(),
            count,
            index: 0,
        };
        let used: Vec<usize> = (0..count)
            .filter(|index| store.word(*index).load(Ordering::Acquire) != 0)
            .collect();
        assert_eq!(used.len(), 1, "one service has a word: {used:?}");
        store.index = used[0];
        store
    }

    /// Sets the weight by one compare-and-swap.
    ///
    /// # Panics
    /// If somebody else writes the word meanwhile: nobody is there to.
    pub fn set_weight(&self, weight_bp: u16) {
        let word = self.word(self.index);
        let old = word.load(Ordering::Acquire);
        let new = SteeringWord(old).with_weight_bp(weight_bp);
        let swapped = word.compare_exchange(old, new.0, Ordering::AcqRel, Ordering::Acquire);
        assert!(swapped.is_ok(), "nobody else writes the word");
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: inside the mapping, which lives as long as `self`; everybody uses atomics.
        unsafe { self.start.add(index).as_ref() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this length and is not used afterwards. An
        // error would leave the mapping until the process ends.
        let _ = unsafe { munmap(self.start.cast(), self.count * size_of::<u64>()) };
    }
}
