//! Frames for fixtures: built from the outside in, with every checksum right unless asked otherwise.
//!
//! ```
//! use shifter_tests::packet::{Packet, describe, flag::SYN};
//!
//! let frame = Packet::tcp4("10.1.0.2:40000", "10.0.0.10:80").flags(SYN).seq(7).build();
//! assert!(describe(&frame).contains("10.1.0.2:40000 > 10.0.0.10:80 ttl 64"));
//! ```

mod builder;
mod describe;
mod endpoint;
mod frame;
mod sum;
#[cfg(test)]
mod tests;

pub use self::{
    builder::Packet,
    describe::{describe, difference},
    endpoint::Endpoint,
};

/// TCP flags: those of `shifter_common`, and the two only fixtures need.
pub mod flag {
    pub use shifter_common::tcp::flag::*;
    /// Deliver to the application now.
    pub const PSH: u8 = 0x08;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Ethernet address of the fixtures' client.
pub const CLIENT_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x02];
/// Ethernet address of the fixtures' host.
pub const HOST_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x01];

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const TPID_CUSTOMER: u16 = 0x8100;
const TPID_SERVICE: u16 = 0x88a8;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const V6_FRAGMENT: u8 = 44;
const V4_DONT_FRAGMENT: u16 = 0x4000;
const V4_MORE_FRAGMENTS: u16 = 0x2000;
