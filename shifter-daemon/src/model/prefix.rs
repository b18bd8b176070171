//! A range of client addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An IP prefix. Bits beyond its length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of this length that holds an address; `None` if the family has no such length.
    pub fn of(addr: IpAddr, len: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(v4) => {
                let beyond = 32_u32.checked_sub(u32::from(len))?;
                let mask = u32::MAX.checked_shl(beyond).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let beyond = 128_u32.checked_sub(u32::from(len))?;
                let mask = u128::MAX.checked_shl(beyond).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Some(Self { addr, len })
    }

    /// The first address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Bits that all its addresses share, 0..=32 or 0..=128.
    pub fn len_bits(self) -> u8 {
        self.len
    }

    /// Whether an address lies in it. Addresses of the other family never do.
    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4() && Self::of(addr, self.len) == Some(self)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_shares_its_bits() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        // address, length, the prefix, an address inside, one outside
        let rows = [
            ("10.1.2.3", 8, "10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
            ("10.1.2.3", 0, "0.0.0.0/0", "255.255.255.255", "::"),
            ("10.1.2.3", 31, "10.1.2.2/31", "10.1.2.2", "10.1.2.4"),
            (
                "2001:db8:7::1",
                48,
                "2001:db8:7::/48",
                "2001:db8:7:f::",
                "2001:db8:8::",
            ),
            ("2001:db8::1", 0, "::/0", "ffff::", "10.0.0.1"),
            (
                "2001:db8::1",
                128,
                "2001:db8::1/128",
                "2001:db8::1",
                "2001:db8::",
            ),
        ];
        for (addr, len, text, inside, outside) in rows {
            let prefix = Prefix::of(ip(addr), len).expect("a length of the family");
            assert_eq!(prefix.to_string(), text);
            assert!(prefix.contains(ip(inside)), "{inside} in {text}");
            assert!(!prefix.contains(ip(outside)), "{outside} not in {text}");
        }
        assert_eq!(Prefix::of(ip("10.0.0.0"), 33), None);
        assert_eq!(Prefix::of(ip("::"), 129), None);
    }
}
