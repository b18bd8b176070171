//! Where an error came from: a source, and the prefix it shares with its neighbours.
//!
//! A source is an IPv4 address or an IPv6 /64, a prefix an IPv4 /24 or an IPv6 /48. Both are kept as
//! hashes keyed with a number that is drawn for each rollout and secret, so nobody outside can aim at
//! the cell of somebody else.

use crate::{
    addr::Addr,
    hash::{absorb, finish, pair},
};

/// Cells of the tables that are indexed by prefix.
pub const SOURCE_CELLS: usize = 128;

const V4_PREFIX: u32 = 0xffff_ff00_u32.to_be();
const V6_SECOND_WORD: u32 = 0xffff_0000_u32.to_be();

/// Keyed hashes of where an error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of the source.
    pub source: u64,
    /// Of the prefix; `None` for trusted origins, which are neither capped nor held to a share.
    pub prefix: Option<u64>,
}

/// The origin of an error of this client.
#[inline(always)]
pub const fn origin(client: &Addr, key: u64) -> Origin {
    let [first, second, third, fourth] = client.words;
    let (source, prefix) = if client.is_v4() {
        (
            absorb(absorb(key, pair(first, second)), pair(third, fourth)),
            absorb(
                absorb(key, pair(first, second)),
                pair(third, fourth & V4_PREFIX),
            ),
        )
    } else {
        (
            absorb(key, pair(first, second)),
            absorb(key, pair(first, second & V6_SECOND_WORD)),
        )
    };
    Origin {
        source: finish(source),
        prefix: Some(finish(prefix)),
    }
}

/// The origin of an error that came through a trusted address: each flow is a source of its own.
#[inline(always)]
pub const fn origin_of_trusted(flow_hash: u64, key: u64) -> Origin {
    Origin {
        source: finish(absorb(key, flow_hash)),
        prefix: None,
    }
}

/// The cell of a prefix, below [`SOURCE_CELLS`].
#[inline(always)]
pub const fn cell(prefix: u64) -> usize {
    (prefix >> 32) as usize & (SOURCE_CELLS - 1)
}

/// The bitmap of an excursion's canary sources after this one.
#[inline(always)]
pub const fn seen(bitmap: u64, source: u64) -> u64 {
    bitmap | (1 << (source & 63))
}

/// How many sources a bitmap shows, 0..=64. Sources that share a bit count once, so it never shows
/// more than there were.
#[inline(always)]
pub const fn distinct(bitmap: u64) -> u32 {
    // Brian Kernighan's loop would be shorter; this one has no branch for the verifier to follow.
    let mut x = bitmap;
    x -= (x >> 1) & 0x5555_5555_5555_5555;
    x = (x & 0x3333_3333_3333_3333) + ((x >> 2) & 0x3333_3333_3333_3333);
    x = (x + (x >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (x.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;

    fn at(text: &str) -> Origin {
        origin(&text.parse::<IpAddr>().expect("an address").into(), 99)
    }

    #[test]
    fn neighbours_share_their_prefix_and_v6_hosts_of_one_net_are_one_source() {
        let rows = [
            ("10.0.0.1", "10.0.0.2", false, true),
            ("10.0.0.1", "10.0.1.1", false, false),
            ("10.0.0.1", "10.0.0.1", true, true),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true, true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false, true),
            ("2001:db8:1:2::1", "2001:db8:2:2::1", false, false),
        ];
        for (one, two, same_source, same_prefix) in rows {
            let (a, b) = (at(one), at(two));
            assert_eq!(a.source == b.source, same_source, "{one} {two}");
            assert_eq!(a.prefix == b.prefix, same_prefix, "{one} {two}");
        }
    }

    #[test]
    fn ten_thousand_networks_of_one_prefix_meet_in_one_cell() {
        let cells: std::collections::BTreeSet<usize> = (0..10_000)
            .map(|n| at(&format!("2001:db8:7:{n:x}::1")).prefix.map_or(0, cell))
            .collect();
        assert_eq!(cells.len(), 1);
    }

    #[test]
    fn prefixes_spread_over_the_cells_and_the_key_moves_them() {
        let cell_of = |n: u32, key| {
            let addr = Addr::from(IpAddr::from((n << 8).to_be_bytes()));
            origin(&addr, key).prefix.map_or(0, cell)
        };
        let mut hits = [0_u32; SOURCE_CELLS];
        for n in 0..12_800 {
            hits[cell_of(n, 5)] += 1;
        }
        assert!(hits.iter().all(|hits| (50..200).contains(hits)), "{hits:?}");
        let moved = (0..1_000)
            .filter(|&n| cell_of(n, 5) != cell_of(n, 6))
            .count();
        assert!(moved > 950, "{moved}");
    }

    #[test]
    fn flows_through_a_trusted_proxy_are_sources_of_their_own() {
        let (one, two) = (origin_of_trusted(1, 7), origin_of_trusted(2, 7));
        assert_ne!(one.source, two.source);
        assert_eq!((one.prefix, two.prefix), (None, None));
    }

    proptest! {
        #[test]
        fn bits_are_counted(bitmap: u64, source: u64) {
            prop_assert_eq!(distinct(bitmap), bitmap.count_ones());
            prop_assert!(distinct(seen(bitmap, source)) >= distinct(bitmap));
            prop_assert!(distinct(seen(0, source)) == 1);
        }
    }
}
