//! Maglev lookup tables (Eisenbud et al., NSDI 2016, section 3.4), weighted, and changed with as few
//! moves as their shares allow.
//!
//! Each backend fills the table in its own pseudo-random order, as in the paper. Where the paper
//! deals every table from nothing, and moves 1 to 3 % of the entries of backends that have nothing
//! to do with a change, a table here is dealt on top of the one before it: whoever held an entry
//! keeps it, up to its new share. The price is that a table depends on its history, so two hosts may
//! differ; each steers its own connections, so nobody compares them.

use std::collections::BTreeMap;

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

/// A table, and what it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dealt {
    /// The candidate index that each entry belongs to when every backend is ready.
    pub owners: Vec<u32>,
    /// The candidate index that new flows of each entry go to: its owner where that is ready. Empty
    /// if nobody is.
    pub table: Vec<u32>,
}

impl Dealt {
    /// What is known of a table that was read back from the kernel: who holds each entry. Entries
    /// of backends that were not ready then have other owners from here on.
    pub fn recalled(table: Vec<u32>) -> Self {
        Self {
            owners: table.clone(),
            table,
        }
    }
}

/// Table sizes. Primes, because the offsets of a backend must visit every entry; each close to a
/// power of two so that freed regions fit again.
const SIZES: [u32; 12] = [
    127, 251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, 65_521, 131_071, 262_139,
];

/// Entries per backend: shares are then equal to 1 %.
pub const ENTRIES_PER_BACKEND: u32 = 100;

/// A table this many times larger than it must be is made smaller.
const ROOM_MAX: u32 = 16;

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

/// The size of the next table: a new size moves entries that need not move, so the old one is kept
/// while it is large enough and not wasteful.
fn next_size(before: usize, backends: usize) -> u32 {
    let wanted = table_size(backends);
    match u32::try_from(before) {
        Ok(size) if SIZES.contains(&size) && size >= wanted && size / ROOM_MAX <= wanted => size,
        _ => wanted,
    }
}

/// Deals the next table on top of the one before.
///
/// - Shares are exact to one entry, both among all candidates and among the ready ones.
/// - An entry changes its owner only if the owner is gone or has more than its share.
/// - A backend that fails moves its own entries only, and gets exactly those back when it returns.
/// - Nothing moves if nothing has changed.
///
/// A table that outgrows its size moves more: it is stretched first, which gives at most an eighth
/// of the hashes another owner.
pub fn deal(candidates: &[Candidate], before: &Dealt) -> Dealt {
    let mut seats: Vec<&Candidate> = candidates.iter().filter(|c| c.weight > 0).collect();
    // A fixed order makes the table independent of the order of the configuration.
    seats.sort_by_key(|candidate| identity(candidate));
    let size = next_size(before.owners.len(), seats.len());
    let places: BTreeMap<u32, u32> = (0..).zip(&seats).map(|(i, c)| (c.index, i)).collect();
    let seated = |table: &[u32]| -> Vec<u32> {
        stretched(table, size)
            .map(|index| places.get(&index).copied().unwrap_or(FREE))
            .collect()
    };

    let mut owners = vec![FREE; size as usize];
    let quotas = quotas(&seats, |_| true, size);
    keep(&mut owners, &seated(&before.owners), &quotas);
    fill(&mut owners, &seats, &quotas);

    let is_ready = |seat: u32| seats.get(seat as usize).is_some_and(|c| c.ready);
    let mut holders: Vec<u32> = owners
        .iter()
        .map(|&owner| if is_ready(owner) { owner } else { FREE })
        .collect();
    if seats.iter().any(|candidate| candidate.ready) {
        let quotas = self::quotas(&seats, |c| c.ready, size);
        keep(&mut holders, &seated(&before.table), &quotas);
        fill(&mut holders, &seats, &quotas);
    } else {
        holders.clear();
    }

    let indexes = |seats_of: Vec<u32>| -> Vec<u32> {
        seats_of
            .into_iter()
            .filter_map(|seat| seats.get(seat as usize).map(|c| c.index))
            .collect()
    };
    Dealt {
        owners: indexes(owners),
        table: indexes(holders),
    }
}

/// An entry that nobody holds yet.
const FREE: u32 = u32::MAX;

fn identity(candidate: &Candidate) -> ([u32; 4], u16) {
    (candidate.addr.words, candidate.port.0)
}

/// A table at another size: each entry takes what stands where its middle was. All [`FREE`] if
/// there was none.
fn stretched(table: &[u32], size: u32) -> impl Iterator<Item = u32> + '_ {
    let (old, new) = (table.len() as u64, u64::from(size));
    (0..new).map(move |entry| {
        let middle = (2 * entry + 1) * old / (2 * new);
        table.get(middle as usize).copied().unwrap_or(FREE)
    })
}

/// How many of `size` entries each seat gets: its share by weight, rounded so that they add up (the
/// largest remainders get the entries that are left, the first seats before the later ones).
fn quotas(seats: &[&Candidate], takes_part: impl Fn(&Candidate) -> bool, size: u32) -> Vec<u32> {
    let weight = |candidate: &Candidate| {
        if takes_part(candidate) {
            u64::from(candidate.weight)
        } else {
            0
        }
    };
    let total: u64 = seats.iter().map(|candidate| weight(candidate)).sum();
    let total = total.max(1);
    let share = |candidate: &Candidate| weight(candidate) * u64::from(size);
    let mut quotas: Vec<u32> = seats.iter().map(|c| (share(c) / total) as u32).collect();
    let dealt: u32 = quotas.iter().sum();
    let mut by_remainder: Vec<usize> = (0..seats.len()).filter(|&i| weight(seats[i]) > 0).collect();
    by_remainder.sort_by_key(|&i| core::cmp::Reverse(share(seats[i]) % total));
    for seat in by_remainder.into_iter().take((size - dealt) as usize) {
        quotas[seat] += 1;
    }
    quotas
}

/// Leaves free entries with those who held them before, as far as their quotas reach.
fn keep(table: &mut [u32], before: &[u32], quotas: &[u32]) {
    let mut left = left(table, quotas);
    for (entry, &holder) in table.iter_mut().zip(before) {
        if *entry == FREE
            && let Some(left) = left.get_mut(holder as usize)
            && *left > 0
        {
            *left -= 1;
            *entry = holder;
        }
    }
}

/// What each seat's quota leaves beside the entries it holds.
fn left(table: &[u32], quotas: &[u32]) -> Vec<u32> {
    let mut left = quotas.to_vec();
    for &seat in table {
        if let Some(left) = left.get_mut(seat as usize) {
            // Rounding may give a seat one entry less among fewer seats; it keeps what it owns.
            *left = left.saturating_sub(1);
        }
    }
    left
}

/// Lets the seats take free entries in turn, each in its own order, until none is left.
fn fill(table: &mut [u32], seats: &[&Candidate], quotas: &[u32]) {
    let mut free = table.iter().filter(|&&entry| entry == FREE).count();
    let mut walks: Vec<Walk> = (0..)
        .zip(seats)
        .zip(left(table, quotas))
        .filter(|&(_, left)| left > 0)
        .map(|((seat, candidate), left)| Walk::new(seat, candidate, left, table.len()))
        .collect();
    while free > 0 && !walks.is_empty() {
        for walk in walks.iter_mut().take(free) {
            let entry = walk.next_free(table);
            table[entry] = walk.seat;
            walk.left -= 1;
            free -= 1;
        }
        walks.retain(|walk| walk.left > 0);
    }
}

/// One backend's way through the table.
struct Walk {
    seat: u32,
    left: u32,
    position: u64,
    skip: u64,
}

impl Walk {
    fn new(seat: u32, candidate: &Candidate, left: u32, size: usize) -> Self {
        let size = (size as u64).max(2);
        let hash = |seed| backend_hash(candidate.addr, candidate.port, seed);
        Self {
            seat,
            left,
            position: hash(0x6f66_6673_6574) % size,
            skip: hash(0x736b_6970) % (size - 1) + 1,
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
mod tests;
