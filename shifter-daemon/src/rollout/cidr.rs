//! A range of client addresses.

use std::{net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Addresses that begin with the same bits: `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    addr: IpAddr,
    prefix_len_bits: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No slash, no address or no length.
    #[error("{0:?} is not a range of addresses; write ADDRESS/BITS, such as \"10.1.0.0/16\"")]
    Form(String),
    /// More bits than the family has.
    #[error("{text:?} has a prefix of {bits} bits, but {family} addresses have {most}")]
    Long {
        /// The text.
        text: String,
        /// What it says.
        bits: u8,
        /// IPv4 or IPv6.
        family: &'static str,
        /// Bits of such an address.
        most: u8,
    },
    /// Bits behind the prefix.
    #[error("{text:?} has bits set behind its prefix; write \"{right}\"")]
    HostBits {
        /// The text.
        text: String,
        /// The range that contains it.
        right: Cidr,
    },
}

impl Cidr {
    /// Whether an address lies in the range.
    pub fn contains(&self, addr: IpAddr) -> bool {
        masked(addr, self.prefix_len_bits) == self.addr && addr.is_ipv4() == self.addr.is_ipv4()
    }
}

/// The address with everything behind the prefix cleared.
fn masked(addr: IpAddr, bits: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits.min(32)))
                .unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits.min(128)))
                .unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.to_owned());
        let (addr, bits) = text.split_once('/').ok_or_else(form)?;
        let addr: IpAddr = addr.parse().map_err(|_| form())?;
        let prefix_len_bits: u8 = bits.parse().map_err(|_| form())?;
        let (family, most) = if addr.is_ipv4() {
            ("IPv4", 32)
        } else {
            ("IPv6", 128)
        };
        if prefix_len_bits > most {
            return Err(CidrError::Long {
                text: text.to_owned(),
                bits: prefix_len_bits,
                family,
                most,
            });
        }
        let right = Self {
            addr: masked(addr, prefix_len_bits),
            prefix_len_bits,
        };
        if right.addr != addr {
            return Err(CidrError::HostBits {
                text: text.to_owned(),
                right,
            });
        }
        Ok(right)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len_bits)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_begins_alike() {
        let rows = [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "10.1.2.3", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ];
        for (range, addr, is_in) in rows {
            let range: Cidr = range.parse().expect("a range");
            assert_eq!(
                range.contains(addr.parse().expect("an address")),
                is_in,
                "{range} {addr}"
            );
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_would_be_right() {
        let rows = [
            (
                "10.1.0.0",
                "\"10.1.0.0\" is not a range of addresses; write ADDRESS/BITS, such as \"10.1.0.0/16\"",
            ),
            (
                "x/8",
                "\"x/8\" is not a range of addresses; write ADDRESS/BITS, such as \"10.1.0.0/16\"",
            ),
            (
                "10.0.0.0/-1",
                "\"10.0.0.0/-1\" is not a range of addresses; write ADDRESS/BITS, such as \"10.1.0.0/16\"",
            ),
            (
                "10.0.0.0/33",
                "\"10.0.0.0/33\" has a prefix of 33 bits, but IPv4 addresses have 32",
            ),
            (
                "::/129",
                "\"::/129\" has a prefix of 129 bits, but IPv6 addresses have 128",
            ),
            (
                "10.1.2.3/16",
                "\"10.1.2.3/16\" has bits set behind its prefix; write \"10.1.0.0/16\"",
            ),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<Cidr>().expect_err(text).to_string(), error);
        }
    }
}
