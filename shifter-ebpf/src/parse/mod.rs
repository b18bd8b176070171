//! From bytes to addresses, ports and TCP fields.
//!
//! Nearly every packet is read directly, from the linear part of its buffer. What that does not reach
//! (IPv6 extension headers, headers in another buffer) is read once more by the kernel's helpers, out
//! of line. Both ways run the same code over another [`reader::Reader`].

mod ethernet;
mod ip;
mod packet;
mod quote;
mod reader;
mod transport;

use shifter_common::{protocol, verdict::Verdict};

use self::{
    ip::Place,
    reader::{Direct, Far, Reader},
};
pub use self::{packet::Packet, quote::quoted};
use crate::frame::Frame;

/// What a frame carries.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A TCP segment or a UDP datagram; the packet is filled.
    Segment,
    /// An ICMP error; the packet has addresses and offsets, no ports.
    Error,
}

/// Why parsing ended without a result.
pub enum Stop {
    /// The packet is not for steering.
    Verdict(Verdict),
    /// The reader does not reach far enough.
    Unreachable,
}

impl From<Verdict> for Stop {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// Fills `packet` from a frame.
///
/// # Errors
/// The verdict for a frame that is neither a TCP segment nor a UDP datagram nor an ICMP error with
/// readable headers.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<Kind, Verdict> {
    packet.is_far = false;
    let kind = match walk(&Direct(frame), packet) {
        Ok(kind) => kind,
        Err(Stop::Verdict(verdict)) => return Err(verdict),
        Err(Stop::Unreachable) => match parse_far(frame, packet) {
            None => packet.kind(),
            Some(verdict) => return Err(verdict),
        },
    };
    Ok(kind)
}

/// The long way. Gives the verdict that ended it, if one did.
// VERIFIER: the result of a function of its own must fit one register.
#[inline(never)]
fn parse_far<F: Frame>(frame: &F, packet: &mut Packet) -> Option<Verdict> {
    packet.is_far = true;
    match walk(&Far(frame), packet) {
        Ok(_) => None,
        Err(Stop::Verdict(verdict)) => Some(verdict),
        Err(Stop::Unreachable) => Some(Verdict::PassTruncated),
    }
}

#[inline(always)]
fn walk<R: Reader>(reader: &R, packet: &mut Packet) -> Result<Kind, Stop> {
    let is_v6 = ethernet::read(reader, packet)?;
    if is_v6 {
        ip::read_v6(reader, packet, Place::Frame)?;
    } else {
        ip::read_v4(reader, packet, Place::Frame)?;
    }
    match packet.protocol {
        protocol::TCP => transport::read_tcp(reader, packet)?,
        protocol::UDP => transport::read_udp(reader, packet)?,
        _ => transport::read_icmp(reader, packet)?,
    }
    Ok(packet.kind())
}
