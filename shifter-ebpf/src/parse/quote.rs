//! The packet that an ICMP error is about, as far as the error quotes it.

use shifter_common::{addr::Be16, verdict::Verdict};

use super::{
    Packet, Stop,
    ip::{self, Place},
    reader::{Far, Reader as _},
};
use crate::frame::Frame;

/// Bytes of an ICMP header.
const ICMP_LEN_BYTES: u32 = 8;

/// Fills `quote` with the packet that `error` is about: addresses, ports and offsets.
///
/// # Errors
/// The verdict, if the quote is no TCP segment and no UDP datagram, or has no ports.
#[inline(always)]
pub fn quoted<F: Frame>(frame: &F, error: &Packet, quote: &mut Packet) -> Result<(), Verdict> {
    match read(&Far(frame), error, quote) {
        Ok(()) => Ok(()),
        Err(Stop::Verdict(verdict)) => Err(verdict),
        Err(Stop::Unreachable) => Err(Verdict::PassTruncated),
    }
}

#[inline(always)]
fn read<F: Frame>(reader: &Far<'_, F>, error: &Packet, quote: &mut Packet) -> Result<(), Stop> {
    quote.is_far = true;
    quote.without_tcp();
    quote.l3_offset = error.l4_offset + ICMP_LEN_BYTES;
    if error.is_v6 {
        ip::read_v6(reader, quote, Place::Quote)?;
    } else {
        ip::read_v4(reader, quote, Place::Quote)?;
    }
    // Eight bytes of the transport header are the least that is quoted (RFC 792).
    let [source, destination, _, _]: [u16; 4] = reader.get(quote.l4_offset)?;
    quote.source_port = Be16(source);
    quote.destination_port = Be16(destination);
    Ok(())
}
