//! Maglev lookup tables (Eisenbud et al., NSDI 2016, section 3.4), weighted.
//!
//! Each backend fills the table in its own pseudo-random order; a backend of twice the weight takes
//! twice the turns. The result depends only on the set of backends, not on their order.

use crate::{
    addr::{Addr, Be16},
    hash::backend_hash,
};

/// A backend as the table builder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What to write into the table.
    pub index: u32,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: Be16,
    /// Share of new flows against the others; 0 takes none.
    pub weight: u16,
    /// Whether new flows may go there now.
    pub ready: bool,
}

/// Table sizes. Primes, because the offsets of a backend must visit every entry; each close to a
/// power of two so that freed regions fit again.
const SIZES: [u32; 12] = [
    127, 251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, 65_521, 131_071, 262_139,
];

/// Entries per backend: shares are then equal to 1 %, and taking a backend out for good moves at
/// most 4 % of the entries of the others (taking it out for a while moves none, see [`build`]).
pub const ENTRIES_PER_BACKEND: u32 = 100;

/// The table size for this many backends: the smallest prime of at least
/// [`ENTRIES_PER_BACKEND`] entries a backend; 0 for none. Beyond 2,621 backends a slot the share of
/// each gets coarser.
pub fn table_size(backends: usize) -> u32 {
    if backends == 0 {
        return 0;
    }
    let wanted = (backends as u64) * u64::from(ENTRIES_PER_BACKEND);
    SIZES
        .into_iter()
        .find(|&size| u64::from(size) >= wanted)
        .unwrap_or(SIZES[SIZES.len() - 1])
}

/// Fills a table of `size` entries with candidate indexes. Empty if `size` is 0 or no ready candidate
/// has weight. `size` must be prime, see [`table_size`].
///
/// Two passes: first every candidate takes its turns, ready or not; then the entries of those that
/// are not ready are dealt out among the ready ones. So a backend that fails moves its own entries
/// only, and gets exactly those back when it returns. Plain Maglev over the ready set alone would
/// move 1 to 3 % of the others' entries at a hundred entries a backend.
pub fn build(candidates: &[Candidate], size: u32) -> Vec<u32> {
    let mut turns: Vec<Turn> = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0)
        .map(|candidate| Turn::new(candidate, size.max(2)))
        .collect();
    if size == 0 || !turns.iter().any(|turn| turn.ready) {
        return Vec::new();
    }
    // A fixed order makes the table independent of the order of the configuration.
    turns.sort_by_key(|turn| turn.identity);

    let mut table = vec![FREE; size as usize];
    deal(&mut turns, &mut table);
    for turn in turns.iter().filter(|turn| !turn.ready) {
        table
            .iter_mut()
            .filter(|entry| **entry == turn.index)
            .for_each(|entry| *entry = FREE);
    }
    turns.retain(|turn| turn.ready);
    deal(&mut turns, &mut table);
    table
}

/// An entry that nobody holds yet.
const FREE: u32 = u32::MAX;

/// Lets the backends take free entries in turn, each in its own order, until none is left.
fn deal(turns: &mut [Turn], table: &mut [u32]) {
    let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap_or(1);
    let mut free = table.iter().filter(|&&entry| entry == FREE).count();
    while free > 0 {
        for turn in &mut *turns {
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            let entry = turn.next_free(table);
            table[entry] = turn.index;
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
}

/// One backend's walk through the table.
struct Turn {
    index: u32,
    ready: bool,
    identity: ([u32; 4], u16),
    weight: u32,
    credit: u32,
    position: u64,
    skip: u64,
}

impl Turn {
    fn new(candidate: &Candidate, size: u32) -> Self {
        let size = u64::from(size);
        Self {
            index: candidate.index,
            ready: candidate.ready,
            identity: (candidate.addr.words, candidate.port.0),
            weight: u32::from(candidate.weight),
            credit: 0,
            position: backend_hash(candidate.addr, candidate.port, 0x6f66_6673_6574) % size,
            skip: backend_hash(candidate.addr, candidate.port, 0x736b_6970) % (size - 1) + 1,
        }
    }

    /// The next entry of this backend's order that nobody holds. There is one while the table is
    /// not full, because `skip` is coprime to the prime size.
    fn next_free(&mut self, table: &[u32]) -> usize {
        loop {
            let entry = self.position as usize;
            self.position = (self.position + self.skip) % table.len() as u64;
            if table[entry] == FREE {
                return entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn backends(count: u32) -> Vec<Candidate> {
        (0..count)
            .map(|i| Candidate {
                index: i,
                addr: IpAddr::from((0x0a01_0000 + i / 3).to_be_bytes()).into(),
                port: Be16::from_host(8_000 + (i % 3) as u16),
                weight: 100,
                ready: true,
            })
            .collect()
    }

    fn shares(table: &[u32], count: usize) -> Vec<u32> {
        let mut shares = vec![0; count];
        for &index in table {
            shares[index as usize] += 1;
        }
        shares
    }

    #[test]
    fn sizes_are_prime() {
        for size in SIZES {
            let prime = (2..).take_while(|d| d * d <= size).all(|d| size % d != 0);
            assert!(prime, "{size}");
        }
        assert_eq!(table_size(0), 0);
        assert_eq!(table_size(1), 127);
        assert_eq!(table_size(1_000), 131_071);
        assert_eq!(table_size(100_000), 262_139);
    }

    fn moved(before: &[u32], after: &[u32], gone: u32) -> f64 {
        let moved = before
            .iter()
            .zip(after)
            .filter(|&(&b, &a)| b != gone && a != b)
            .count();
        moved as f64 / before.len() as f64
    }

    /// A backend that fails moves no entry but its own, and finds them again when it returns.
    #[test]
    fn a_failing_backend_disturbs_no_other() {
        for count in [3_u32, 10, 100, 1_000] {
            let mut all = backends(count);
            let size = table_size(all.len());
            assert!(size >= ENTRIES_PER_BACKEND * count);
            let before = build(&all, size);
            for gone in [0, count / 2, count - 1] {
                all[gone as usize].ready = false;
                let after = build(&all, size);
                assert_eq!(
                    moved(&before, &after, gone),
                    0.0,
                    "{count} backends, {gone} fails"
                );
                assert!(!after.contains(&gone) && !after.contains(&FREE));
                all[gone as usize].ready = true;
            }
            assert_eq!(build(&all, size), before);
        }
    }

    /// Taking a backend out of the configuration: at most 1 % with a thousand entries each, 4 % with
    /// the hundred each that a table of many backends has.
    #[test]
    fn removing_a_backend_disturbs_few() {
        for (count, size, limit) in [
            (3_u32, 4_093, 0.01),
            (10, 16_381, 0.01),
            (100, 131_071, 0.01),
            (10, 1_021, 0.04),
            (100, 16_381, 0.04),
        ] {
            let all = backends(count);
            let before = build(&all, size);
            for gone in [0, count / 2, count - 1] {
                let rest: Vec<_> = all.iter().copied().filter(|c| c.index != gone).collect();
                let share = moved(&before, &build(&rest, size), gone);
                assert!(
                    share <= limit,
                    "{count} of {size} without {gone}: {share:.4} moved"
                );
            }
        }
    }

    #[test]
    fn equal_weights_get_equal_shares() {
        let table = build(&backends(10), table_size(10));
        let shares = shares(&table, 10);
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(
            most.zip(least).is_some_and(|(m, l)| m - l <= 1),
            "{shares:?}"
        );
    }

    #[test]
    fn nothing_gives_an_empty_table() {
        assert!(build(&[], 127).is_empty());
        let mut idle = backends(2);
        idle.iter_mut().for_each(|c| c.weight = 0);
        assert!(build(&idle, 127).is_empty());
        let mut down = backends(2);
        down.iter_mut().for_each(|c| c.ready = false);
        assert!(build(&down, 127).is_empty());
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_weights_do(
            weights in prop::collection::vec(1_u16..=1_000, 1..12), seed: u64,
        ) {
            let mut all = backends(weights.len() as u32);
            for (candidate, weight) in all.iter_mut().zip(&weights) {
                candidate.weight = *weight;
            }
            let size = 8_191;
            let table = build(&all, size);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (share, weight) in shares(&table, all.len()).into_iter().zip(&weights) {
                let expected = f64::from(*weight) / total * f64::from(size);
                let error = (f64::from(share) - expected).abs();
                prop_assert!(error <= 2.0 + expected * 0.01, "{share} for {expected}");
            }
            let shift = (seed % all.len() as u64) as usize;
            all.rotate_left(shift);
            prop_assert_eq!(build(&all, size), table);
        }
    }
}
