//! Whose address is this: the fast answer for every packet.
//!
//! `VIPS` and `BACKEND_SERVICES` are hash maps, and looking a key up in one costs a call, a hash of its
//! bytes and a walk through memory. Nearly all packets of a host ask, most of them in vain. So the daemon
//! keeps what these maps hold a second time, as a table of sets like a processor's cache: a key can lie in
//! one set only, and a set is one cache line, read where it lies, without a call.
//!
//! A set says whether it is *complete*. In a complete set what is not found does not exist; otherwise the
//! hash map knows. Sets of zeros are incomplete, so a table that nobody has filled is slow and never
//! wrong, and more keys than fit make their set slow and nothing else.

use crate::abi::VipKey;

/// Keys a set has room for.
pub const WAYS_COUNT: usize = 2;
/// Sets of `VIP_SETS`: 512 KiB.
pub const VIP_SETS_COUNT: u32 = 1 << 13;
/// Sets of `BACKEND_SETS`: 1 MiB.
pub const BACKEND_SETS_COUNT: u32 = 1 << 14;

/// The odd number next to 2^64 divided by the golden ratio: its products spread keys that differ in few
/// bits over the high bits (Knuth, The Art of Computer Programming, volume 3, section 6.4).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// One cache line: what is known of up to [`WAYS_COUNT`] keys.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddrSet {
    /// What the hash map holds for the key of the same place, as one word; 0 if the place is free. The
    /// daemon changes it by one store.
    pub words: [u64; WAYS_COUNT],
    /// 1 if every key of this set stands in it.
    pub is_complete: u32,
    /// Zero.
    pub pad: u32,
    /// The keys. One changes only while its word is 0 and no program that saw another word runs.
    pub keys: [VipKey; WAYS_COUNT],
}
const _: () = assert!(size_of::<AddrSet>() == 64);

/// What a set says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has this word.
    Word(u64),
    /// It does not exist.
    Nowhere,
    /// The hash map must be asked.
    Unknown,
}

impl AddrSet {
    /// The set of a key among `count`, a power of two.
    #[inline(always)]
    pub const fn index(key: &VipKey, count: u32) -> u32 {
        let [a, b, c, d] = key.addr.words;
        let ends = key.port.0 as u64 | (key.protocol as u64) << 16;
        let mixed = (((a ^ b ^ c ^ d) as u64) << 32 | ends).wrapping_mul(SPREAD);
        (mixed >> (u64::BITS - count.trailing_zeros())) as u32
    }

    /// What the set says of a key.
    ///
    /// # Safety
    /// `set` points to a readable set that only [`Self::words`], [`Self::keys`] and
    /// [`Self::is_complete`]'s rules change meanwhile.
    #[inline(always)]
    pub unsafe fn find(set: *const Self, key: &VipKey) -> Found {
        let mut way = 0;
        while way < WAYS_COUNT {
            // SAFETY: the caller's; each word is read once, before its key.
            let word = unsafe { (&raw const (*set).words[way]).read_volatile() };
            // SAFETY: as above; a key stands still while its word is not 0.
            if word != 0 && unsafe { is_same(&raw const (*set).keys[way], key) } {
                return Found::Word(word);
            }
            way += 1;
        }
        // SAFETY: as above.
        if unsafe { (&raw const (*set).is_complete).read_volatile() } != 0 {
            Found::Nowhere
        } else {
            Found::Unknown
        }
    }
}

/// Compares the parts that differ most often first.
#[inline(always)]
unsafe fn is_same(stored: *const VipKey, key: &VipKey) -> bool {
    // SAFETY: the caller's.
    let stored = unsafe { &*stored };
    stored.addr.words[3] == key.addr.words[3]
        && stored.port.0 == key.port.0
        && stored.protocol == key.protocol
        && stored.addr.words[2] == key.addr.words[2]
        && stored.addr.words[1] == key.addr.words[1]
        && stored.addr.words[0] == key.addr.words[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Be16;

    fn key(addr: &str, port: u16) -> VipKey {
        VipKey {
            addr: addr
                .parse::<core::net::IpAddr>()
                .expect("an address")
                .into(),
            port: Be16::from_host(port),
            protocol: 6,
            pad: 0,
        }
    }

    fn find(set: &AddrSet, key: &VipKey) -> Found {
        // SAFETY: nobody changes it.
        unsafe { AddrSet::find(set, key) }
    }

    #[test]
    fn an_untouched_set_knows_nothing() {
        assert_eq!(
            find(&AddrSet::default(), &key("10.0.0.1", 80)),
            Found::Unknown
        );
        // Not even of the key that zeros would be.
        assert_eq!(
            find(&AddrSet::default(), &VipKey::default()),
            Found::Unknown
        );
    }

    #[test]
    fn a_key_is_found_by_all_its_parts() {
        let wanted = key("2001:db8::10", 443);
        let set = AddrSet {
            words: [7, 9],
            keys: [key("10.0.0.1", 443), wanted],
            is_complete: 1,
            pad: 0,
        };
        assert_eq!(find(&set, &wanted), Found::Word(9));
        assert_eq!(find(&set, &key("10.0.0.1", 443)), Found::Word(7));
        let others = [
            key("2001:db8::11", 443),
            key("2001:db8::10", 444),
            key("2001:db9::10", 443),
            key("2001:db8:1::10", 443),
            key("2001:db8:0:0:1::10", 443),
            VipKey {
                protocol: 17,
                ..wanted
            },
        ];
        for other in others {
            assert_eq!(find(&set, &other), Found::Nowhere, "{other:?}");
        }
    }

    #[test]
    fn a_free_place_hides_its_key() {
        let set = AddrSet {
            words: [0, 0],
            keys: [key("10.0.0.1", 80), key("10.0.0.2", 80)],
            is_complete: 1,
            pad: 0,
        };
        assert_eq!(find(&set, &key("10.0.0.1", 80)), Found::Nowhere);
    }

    #[test]
    fn neighbours_are_spread_over_the_sets() {
        // 4,096 VIPs as people number them: one in eight sets with more than it has room for would be
        // what a random hash gives at this load (Poisson with mean 1/2: 1.4 % of sets).
        let mut load = vec![0_u32; VIP_SETS_COUNT as usize];
        for third in 0..16 {
            for last in 0..=255 {
                let index =
                    AddrSet::index(&key(&format!("10.0.{third}.{last}"), 443), VIP_SETS_COUNT);
                load[index as usize] += 1;
            }
        }
        let overfull = load.iter().filter(|count| **count > 2).count();
        assert!(overfull <= 240, "{overfull} sets are overfull");
        let mut ports = vec![0_u32; VIP_SETS_COUNT as usize];
        for port in 8_000..12_096 {
            ports[AddrSet::index(&key("10.0.0.1", port), VIP_SETS_COUNT) as usize] += 1;
        }
        let overfull = ports.iter().filter(|count| **count > 2).count();
        assert!(overfull <= 240, "{overfull} sets are overfull with ports");
    }
}
