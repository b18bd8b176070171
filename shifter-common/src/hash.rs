//! The keyed hash of selection.
//!
//! A multiply-and-shift mixer in the manner of MurmurHash64A (Austin Appleby, public domain): eight
//! bytes a round, 64-bit multiplications only, because the BPF machine has no 128-bit product. It
//! is keyed with the service's seed and is not meant to resist an attacker who knows that seed.

use crate::{
    abi::FlowKey,
    addr::{Addr, Be16},
    steering::Affinity,
};

const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;

#[inline(always)]
pub(crate) const fn absorb(state: u64, word: u64) -> u64 {
    let mut k = word.wrapping_mul(MULTIPLIER);
    k ^= k >> 47;
    k = k.wrapping_mul(MULTIPLIER);
    (state ^ k).wrapping_mul(MULTIPLIER)
}

/// The finalizer of MurmurHash3: every input bit reaches every output bit.
#[inline(always)]
pub(crate) const fn finish(mut state: u64) -> u64 {
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^= state >> 33;
    state = state.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[inline(always)]
pub(crate) const fn pair(low: u32, high: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

/// Hash of the affinity key of a new flow. The upper 32 bits choose the version, the lower 32 bits
/// the backend (see [`crate::select`]).
#[inline(always)]
pub const fn affinity_hash(affinity: Affinity, key: &FlowKey, seed: u64) -> u64 {
    let client = key.client.words;
    let state = absorb(
        absorb(seed, pair(client[0], client[1])),
        pair(client[2], client[3]),
    );
    finish(match affinity {
        Affinity::Client => state,
        Affinity::Connection => absorb(
            state,
            pair(
                key.client_port.0 as u32,
                ((key.vip_ordinal as u32) << 8) | key.protocol as u32,
            ),
        ),
    })
}

/// Hash that places one backend in the lookup table; depends on nothing but its address, so every
/// host builds the same table.
pub const fn backend_hash(addr: Addr, port: Be16, seed: u64) -> u64 {
    let words = addr.words;
    finish(absorb(
        absorb(
            absorb(seed, pair(words[0], words[1])),
            pair(words[2], words[3]),
        ),
        port.0 as u64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            client: IpAddr::from(client.to_be_bytes()).into(),
            service: 7,
            client_port: Be16::from_host(port),
            protocol: 6,
            vip_ordinal: 0,
        }
    }

    /// Sequential clients and ports, the worst case in practice, fill 64 buckets of both halves
    /// evenly: chi-square with 63 degrees of freedom stays below its 99.99 % quantile (116).
    #[test]
    fn sequential_keys_spread_evenly_in_both_halves() {
        for (name, shift) in [("version half", 58), ("backend half", 26)] {
            let mut buckets = [0_u32; 64];
            for client in 0..100 {
                for port in 0..1_000 {
                    let key = key(0x0a00_0000 + client, 10_000 + port);
                    let h = affinity_hash(Affinity::Connection, &key, 0x5eed);
                    buckets[(h >> shift) as usize & 63] += 1;
                }
            }
            let expected = 100_000.0 / 64.0;
            let chi_square: f64 = buckets
                .iter()
                .map(|&n| (f64::from(n) - expected).powi(2) / expected)
                .sum();
            assert!(chi_square < 116.0, "{name}: chi-square {chi_square}");
        }
    }

    /// Flipping one input bit flips each output bit with probability near one half.
    #[test]
    fn one_input_bit_changes_half_of_the_output() {
        let mut flips = 0_u32;
        let mut trials = 0_u32;
        for base in 0..200_u32 {
            let start = key(base.wrapping_mul(2_654_435_761), 443);
            let h = affinity_hash(Affinity::Connection, &start, 1);
            for bit in 0..16 {
                let mut changed = start;
                changed.client_port.0 ^= 1 << bit;
                flips += (h ^ affinity_hash(Affinity::Connection, &changed, 1)).count_ones();
                trials += 64;
            }
        }
        let share = f64::from(flips) / f64::from(trials);
        assert!((share - 0.5).abs() < 0.01, "share of flipped bits {share}");
    }

    #[test]
    fn client_affinity_ignores_the_port_and_connection_affinity_does_not() {
        let (one, two) = (key(1, 1_000), key(1, 1_001));
        let hash = |affinity, key: &FlowKey| affinity_hash(affinity, key, 9);
        assert_eq!(hash(Affinity::Client, &one), hash(Affinity::Client, &two));
        assert_ne!(
            hash(Affinity::Connection, &one),
            hash(Affinity::Connection, &two)
        );
    }

    #[test]
    fn the_seed_reshuffles_every_key() {
        let moved = (0..1_000_u16)
            .filter(|&port| {
                let key = key(1, port);
                affinity_hash(Affinity::Connection, &key, 1) >> 63
                    != affinity_hash(Affinity::Connection, &key, 2) >> 63
            })
            .count();
        assert!((400..600).contains(&moved), "{moved} of 1000 changed sides");
    }
}
