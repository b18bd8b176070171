//! Addresses and ports as they stand in packets and map keys.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A 16-bit number in network byte order, such as a port in a TCP header.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be16(pub u16);

impl Be16 {
    /// Converts from host byte order.
    #[inline(always)]
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// Converts to host byte order.
    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_host().fmt(f)
    }
}

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291 section 2.5.5.2), as four words
/// in network byte order. One shape for both families keeps every map key and every comparison the
/// same.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Addr {
    /// The four 32-bit words as they stand in memory; never converted to host order.
    pub words: [u32; 4],
}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 4);

/// The third word of an IPv4-mapped address, `0:ffff`.
const V4_MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// The mapped form of an IPv4 address given as it stands in a packet.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, V4_MAPPED_WORD, word],
        }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == V4_MAPPED_WORD
    }

    /// The IPv4 address as it stands in a packet; meaningful only if [`Addr::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }
}

impl Addr {
    /// The address in its own family.
    pub fn to_ip(self) -> IpAddr {
        let mut octets = [0_u8; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(
                octets[12], octets[13], octets[14], octets[15],
            ))
        } else {
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }

    /// The address with a port.
    pub fn to_socket_addr(self, port: Be16) -> SocketAddr {
        SocketAddr::new(self.to_ip(), port.to_host())
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0_u32; 4];
        for (word, chunk) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Self { words }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in [
            "0.0.0.0",
            "10.0.0.10",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::10",
        ] {
            let ip: IpAddr = text.parse().expect("a literal address");
            let addr = Addr::from(ip);
            assert_eq!(addr.to_ip(), ip, "{text}");
            assert_eq!(addr.is_v4(), ip.is_ipv4(), "{text}");
        }
    }

    #[test]
    fn v4_word_is_the_packet_word() {
        let addr = Addr::from(IpAddr::from([10, 0, 0, 10]));
        assert_eq!(addr.v4_word().to_ne_bytes(), [10, 0, 0, 10]);
        assert_eq!(Addr::from_v4_word(u32::from_ne_bytes([10, 0, 0, 10])), addr);
    }
}
