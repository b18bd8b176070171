//! Keeping the sets of [`shifter_common::addr_set`] in step with the hash maps they stand for.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    mem::offset_of,
    path::Path,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use shifter_common::{
    abi::VipKey,
    addr_set::{AddrSet, WAYS_COUNT},
};

use super::{mapped::Mapped, raw::RawMap};

/// A table of sets, and its daemon's part of the rules: a key changes only while its word is 0 and no
/// program that saw another word runs; a set is complete only while all its keys stand in it.
pub struct AddrSets {
    sets: Mapped<AddrSet>,
    /// Keys there is no room for, by set.
    left_out: HashMap<usize, Vec<VipKey>>,
}

impl AddrSets {
    /// Takes a mapped table, in which nothing needs to be true.
    pub fn new(sets: Mapped<AddrSet>) -> Self {
        Self {
            sets,
            left_out: HashMap::new(),
        }
    }

    /// Makes the table say exactly this. `wait` waits until no program runs that runs now.
    ///
    /// # Errors
    /// Those of `wait`; the table is then incomplete where it was not finished, and right.
    pub fn fill<E>(
        &mut self,
        entries: impl Iterator<Item = (VipKey, u64)>,
        mut wait: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted: BTreeMap<usize, Vec<(VipKey, u64)>> = BTreeMap::new();
        for (key, word) in entries {
            wanted
                .entry(self.index(&key))
                .or_default()
                .push((key, word));
        }
        self.left_out.clear();
        for index in 0..self.sets.len() {
            let wanted = wanted.remove(&index).unwrap_or_default();
            let set = self.sets.read(index);
            for way in 0..WAYS_COUNT {
                let stands = wanted.iter().any(|(key, _)| *key == set.keys[way]);
                if set.words[way] != 0 && !stands {
                    self.word(index, way).store(0, Ordering::Release);
                }
            }
            for (key, word) in wanted {
                self.enter(key, word, &mut wait)?;
            }
            if !self.left_out.contains_key(&index) && set.is_complete != 1 {
                self.complete(index).store(1, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Gives a key a word, after the hash map has it.
    ///
    /// # Errors
    /// Those of `wait`; the set is incomplete then, and the hash map answers.
    pub fn enter<E>(
        &mut self,
        key: VipKey,
        word: u64,
        mut wait: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.index(&key);
        let set = self.sets.read(index);
        let own = (0..WAYS_COUNT)
            .find(|way| set.keys[*way] == key && set.keys[*way] != VipKey::default());
        if let Some(way) = own {
            self.word(index, way).store(word, Ordering::Release);
            return Ok(());
        }
        let is_free = |way: &usize| set.words[*way] == 0;
        let untouched = (0..WAYS_COUNT)
            .filter(is_free)
            .find(|way| set.keys[*way] == VipKey::default());
        let Some(way) = untouched.or_else(|| (0..WAYS_COUNT).find(is_free)) else {
            self.leave_out(index, key);
            return Ok(());
        };
        if untouched.is_none() {
            // A program may have read the former key's word a moment ago and compare its key next.
            if let Err(error) = wait() {
                self.leave_out(index, key);
                return Err(error);
            }
        }
        // SAFETY: inside the mapping; the kernel compares a key only beside a word that is not 0.
        unsafe { (&raw mut (*self.sets.at(index).as_ptr()).keys[way]).write_volatile(key) };
        self.word(index, way).store(word, Ordering::Release);
        Ok(())
    }

    /// Forgets a key, after the hash map has. A set that had too many becomes complete again when those
    /// that were left out are gone.
    pub fn leave(&mut self, key: &VipKey) {
        let index = self.index(key);
        let set = self.sets.read(index);
        for way in 0..WAYS_COUNT {
            if set.keys[way] == *key {
                self.word(index, way).store(0, Ordering::Release);
            }
        }
        if let Some(left_out) = self.left_out.get_mut(&index) {
            left_out.retain(|other| other != key);
            if left_out.is_empty() {
                self.left_out.remove(&index);
                self.complete(index).store(1, Ordering::Release);
            }
        }
    }

    fn leave_out(&mut self, index: usize, key: VipKey) {
        self.complete(index).store(0, Ordering::Release);
        let left_out = self.left_out.entry(index).or_default();
        if !left_out.contains(&key) {
            left_out.push(key);
        }
    }

    fn index(&self, key: &VipKey) -> usize {
        AddrSet::index(key, self.sets.len() as u32) as usize
    }

    fn word(&self, index: usize, way: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping, aligned to eight bytes, and stored to atomically by everybody.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.sets.at(index).as_ptr()).words[way]) }
    }

    fn complete(&self, index: usize) -> &AtomicU32 {
        // SAFETY: as above, aligned to four bytes.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.sets.at(index).as_ptr()).is_complete) }
    }
}

/// Takes everything out of a pinned table, so that the hash map answers: for a change of the hash map
/// without a daemon. A table that a version does not have needs nothing.
///
/// # Errors
/// The kernel's error.
pub fn empty(pin: &Path) -> io::Result<()> {
    if !pin.exists() {
        return Ok(());
    }
    let table = RawMap::open(pin)?;
    let mut used = Vec::new();
    table.for_each(|key, set| -> io::Result<()> {
        if set.iter().any(|byte| *byte != 0) {
            used.push((key.to_vec(), set.to_vec()));
        }
        Ok(())
    })?;
    // Incomplete first: while the rest goes, what is not found must be asked for.
    let place = offset_of!(AddrSet, is_complete);
    for (key, set) in &mut used {
        if let Some(is_complete) = set.get_mut(place..place + size_of::<u32>()) {
            is_complete.fill(0);
        }
        table.set(key, set, 0)?;
    }
    for (key, set) in &mut used {
        set.fill(0);
        table.set(key, set, 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, os::fd::AsFd as _};

    use nix::{
        sys::memfd::{MFdFlags, memfd_create},
        unistd::ftruncate,
    };
    use shifter_common::{addr::Be16, addr_set::Found};

    use super::*;

    /// So few sets that some are overfull.
    const SETS_COUNT: u32 = 4;

    fn sets() -> AddrSets {
        let file = memfd_create("sets", MFdFlags::empty()).expect("a file in memory");
        let bytes = i64::from(SETS_COUNT) * size_of::<AddrSet>() as i64;
        ftruncate(&file, bytes).expect("its size");
        AddrSets::new(Mapped::new(file.as_fd(), "sets", SETS_COUNT).expect("mapped"))
    }

    fn key(nth: u16) -> VipKey {
        VipKey {
            addr: std::net::IpAddr::from([10, 0, 0, 1]).into(),
            port: Be16::from_host(nth),
            protocol: 6,
            pad: 0,
        }
    }

    /// Keys of one set.
    fn neighbours() -> impl Iterator<Item = VipKey> {
        (1..)
            .map(key)
            .filter(|key| AddrSet::index(key, SETS_COUNT) == 2)
    }

    fn find(sets: &AddrSets, key: &VipKey) -> Found {
        // SAFETY: nobody changes it meanwhile.
        unsafe { AddrSet::find(sets.sets.at(sets.index(key)).as_ptr(), key) }
    }

    fn never() -> Result<(), Infallible> {
        panic!("nothing to wait for")
    }

    fn at_once() -> Result<(), Infallible> {
        Ok(())
    }

    #[test]
    fn what_is_entered_is_found_and_nothing_else() {
        let mut sets = sets();
        assert_eq!(find(&sets, &key(1)), Found::Unknown);
        let Ok(()) = sets.fill([(key(1), 11)].into_iter(), never);
        assert_eq!(find(&sets, &key(1)), Found::Word(11));
        assert_eq!(find(&sets, &key(2)), Found::Nowhere);
        let Ok(()) = sets.enter(key(1), 12, never);
        assert_eq!(find(&sets, &key(1)), Found::Word(12));
        sets.leave(&key(1));
        assert_eq!(find(&sets, &key(1)), Found::Nowhere);
    }

    #[test]
    fn a_set_that_is_too_full_asks_the_map_until_it_is_not() {
        let mut sets = sets();
        let Ok(()) = sets.fill(std::iter::empty(), never);
        let keys: Vec<VipKey> = neighbours().take(4).collect();
        for (key, word) in keys.iter().zip(1..4) {
            let Ok(()) = sets.enter(*key, word, never);
        }
        assert_eq!(find(&sets, &keys[0]), Found::Word(1));
        assert_eq!(find(&sets, &keys[1]), Found::Word(2));
        assert_eq!(find(&sets, &keys[2]), Found::Unknown);
        assert_eq!(find(&sets, &keys[3]), Found::Unknown, "nobody knows that");
        // The one that had no place stays without; the map answers.
        sets.leave(&keys[0]);
        assert_eq!(find(&sets, &keys[0]), Found::Unknown);
        assert_eq!(find(&sets, &keys[2]), Found::Unknown);
        sets.leave(&keys[2]);
        assert_eq!(find(&sets, &keys[0]), Found::Nowhere);
        assert_eq!(find(&sets, &keys[1]), Found::Word(2));
    }

    #[test]
    fn a_place_changes_hands_after_a_grace_period() {
        let mut sets = sets();
        let keys: Vec<VipKey> = neighbours().take(3).collect();
        let Ok(()) = sets.fill(keys[..2].iter().copied().zip(1..), never);
        sets.leave(&keys[0]);
        // Its former owner gets it back at once.
        let Ok(()) = sets.enter(keys[0], 5, never);
        sets.leave(&keys[0]);
        let mut waits = 0;
        let Ok(()) = sets.enter(keys[2], 3, || {
            waits += 1;
            at_once()
        });
        assert_eq!(waits, 1);
        assert_eq!(find(&sets, &keys[2]), Found::Word(3));
        assert_eq!(find(&sets, &keys[0]), Found::Nowhere);
    }

    #[test]
    fn without_a_grace_period_the_map_answers() {
        let mut sets = sets();
        let keys: Vec<VipKey> = neighbours().take(3).collect();
        let Ok(()) = sets.fill(keys[..2].iter().copied().zip(1..), never);
        sets.leave(&keys[0]);
        assert_eq!(sets.enter(keys[2], 3, || Err("refused")), Err("refused"));
        assert_eq!(find(&sets, &keys[2]), Found::Unknown);
        assert_eq!(find(&sets, &keys[1]), Found::Word(2));
    }

    #[test]
    fn filling_anew_takes_out_what_is_gone() {
        let mut sets = sets();
        let keys: Vec<VipKey> = neighbours().take(5).collect();
        let Ok(()) = sets.fill(keys[..3].iter().copied().zip(1..), never);
        assert_eq!(find(&sets, &keys[4]), Found::Unknown);
        let Ok(()) = sets.fill([(keys[1], 7), (keys[3], 8)].into_iter(), at_once);
        let found = keys.iter().map(|key| find(&sets, key));
        assert_eq!(
            found.collect::<Vec<Found>>(),
            [
                Found::Nowhere,
                Found::Word(7),
                Found::Nowhere,
                Found::Word(8),
                Found::Nowhere
            ]
        );
    }
}
