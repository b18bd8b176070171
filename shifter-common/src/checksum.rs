//! Internet checksums and their incremental update (RFC 1071, RFC 1624).

use crate::addr::{Addr, Be16};

/// The change of a ones' complement sum when fields of a packet are replaced. Words are taken as
/// they stand in memory, so no byte order conversion is ever needed (RFC 1071 section 2 (B)).
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(u64);

impl Delta {
    /// Replaces one 32-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u32, new: u32) -> Self {
        // At most twenty words change in a packet: the sum stays far below 2^64.
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Replaces one 16-bit field that stands at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Replaces a port.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, old: Be16, new: Be16) -> Self {
        self.half(old.0, new.0)
    }

    /// Replaces an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self, old: &Addr, new: &Addr) -> Self {
        self.word(old.v4_word(), new.v4_word())
    }

    /// Replaces an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(self, old: &Addr, new: &Addr) -> Self {
        self.word(old.words[0], new.words[0])
            .word(old.words[1], new.words[1])
            .word(old.words[2], new.words[2])
            .word(old.words[3], new.words[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change as a 32-bit ones' complement sum, the form `bpf_l4_csum_replace` takes with a
    /// field size of 0.
    #[inline(always)]
    pub const fn as_sum(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The UDP checksum field after the change. 0 says that the sender computed none, and stays; a
    /// computed 0 is sent as its other representation (RFC 768, RFC 8200 section 8.1).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }

    /// The checksum field after the change: `~(~check + delta)`, RFC 1624 equation 3.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, check: u16) -> u16 {
        !fold(self.0 + (!check) as u64)
    }
}

/// Folds a sum of 16-bit words to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The ones' complement sum of bytes, to be continued or [`fold`]ed. An odd last byte counts as the
/// first of a pair.
#[cfg(any(feature = "user", feature = "wire", test))]
pub fn sum_bytes(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| {
            u64::from(u16::from_ne_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(bytes: &[u8]) -> u16 {
        !fold(sum_bytes(bytes))
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = fold(sum_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(sum.to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn udp_checksums_of_zero() {
        let one_more = Delta::default().half(0, 1);
        assert_eq!(one_more.apply_udp(0), 0, "none stays none");
        assert_eq!(one_more.apply(1), 0);
        assert_eq!(one_more.apply_udp(1), 0xffff, "a computed 0 is not none");
        assert_eq!(one_more.apply_udp(2), 1);
    }

    proptest! {
        /// Updating incrementally gives the checksum a full computation gives, up to the two
        /// representations of zero, which cannot both be told apart (RFC 1624 section 3).
        #[test]
        fn incremental_equals_full(
            mut packet in prop::collection::vec(any::<u8>(), 60),
            words: [u32; 4], port: u16,
        ) {
            let before = full(&packet);
            let old: Vec<u32> = (0..4)
                .map(|i| u32::from_ne_bytes(packet[i * 4..i * 4 + 4].try_into().expect("4 bytes")))
                .collect();
            let old_port = u16::from_ne_bytes([packet[20], packet[21]]);
            let old = Addr { words: [old[0], old[1], old[2], old[3]] };
            let delta = Delta::default().v6(&old, &Addr { words }).half(old_port, port);
            for (i, word) in words.iter().enumerate() {
                packet[i * 4..i * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            packet[20..22].copy_from_slice(&port.to_ne_bytes());
            let after = full(&packet);
            let updated = delta.apply(before);
            prop_assert!(updated == after || (updated ^ after) == 0xffff && (after == 0 || after == 0xffff));
            let through_sum = !fold(u64::from(!before) + u64::from(delta.as_sum()));
            prop_assert_eq!(through_sum, updated);
        }
    }
}
