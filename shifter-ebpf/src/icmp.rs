//! Translating ICMP errors: the packet that is quoted, the packet that quotes it, and every checksum
//! of both.

use shifter_common::{
    addr::{Addr, Be16},
    checksum::Delta,
    tcp::Sender,
};

use crate::{
    frame::{Frame, Refused},
    parse::Packet,
};

/// What is replaced in an ICMP error.
pub struct Translation {
    /// Whom the error comes from. An error from the client's side is about a packet *from* the VIP, one
    /// from the backend's side about a packet *to* the backend.
    pub sender: Sender,
    /// The address that the quoted packet gets on that end.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// Whether the same address stands in the packet that quotes, on its other end.
    pub is_outer: bool,
}

/// Carries out a translation.
///
/// # Errors
/// If the kernel refuses; the packet may then be half changed and must be dropped.
#[inline(always)]
pub fn translate<F: Frame>(
    frame: &F,
    error: &Packet,
    quote: &Packet,
    translation: &Translation,
) -> Result<(), Refused> {
    let is_source = matches!(translation.sender, Sender::Client);
    let (old, old_port, port_offset) = if is_source {
        (&quote.source, quote.source_port, 0)
    } else {
        (&quote.destination, quote.destination_port, 2)
    };
    let (new, new_port) = (&translation.addr, translation.port);
    // What changes in the bytes that the ICMP checksum covers.
    let mut total = address(frame, quote, is_source, old, new)?.port(old_port, new_port);
    frame.store(quote.l4_offset + port_offset, &new_port)?;

    let check_offset = quote.l4_offset + quote.check_offset();
    // Behind what the IP header announces may be padding.
    let end = error.l4_offset.wrapping_add(error.sequence_len);
    if check_offset + 2 <= end
        && let Some(check) = frame.load::<u16>(check_offset)
    {
        let of_quote = pseudo(quote, old, new).port(old_port, new_port);
        let changed = if quote.is_udp() {
            of_quote.apply_udp(check)
        } else {
            of_quote.apply(check)
        };
        frame.store(check_offset, &changed)?;
        total = total.half(check, changed);
    }
    if translation.is_outer {
        let of_outer = address(frame, error, !is_source, old, new)?;
        if error.is_v6 {
            // ICMPv6 has a pseudo-header (RFC 4443 section 2.3).
            total = total.and(of_outer);
        }
    }
    let check_offset = error.l4_offset + 2;
    let check: u16 = frame.load(check_offset).ok_or(Refused)?;
    frame.store(check_offset, &total.apply(check))
}

/// Replaces an address in an IP header. Gives the change of the sum of the header's bytes.
#[inline(always)]
fn address<F: Frame>(
    frame: &F,
    packet: &Packet,
    is_source: bool,
    old: &Addr,
    new: &Addr,
) -> Result<Delta, Refused> {
    if packet.is_v6 {
        let offset = if is_source { 8 } else { 24 };
        frame.store(packet.l3_offset + offset, &new.words)?;
        return Ok(Delta::default().v6(old, new));
    }
    let offset = if is_source { 12 } else { 16 };
    frame.store(packet.l3_offset + offset, &new.v4_word())?;
    let delta = Delta::default().v4(old, new);
    let check_offset = packet.l3_offset + 10;
    let check: u16 = frame.load(check_offset).ok_or(Refused)?;
    let changed = delta.apply(check);
    frame.store(check_offset, &changed)?;
    Ok(delta.half(check, changed))
}

/// The change of a pseudo-header's sum.
#[inline(always)]
fn pseudo(packet: &Packet, old: &Addr, new: &Addr) -> Delta {
    if packet.is_v6 {
        Delta::default().v6(old, new)
    } else {
        Delta::default().v4(old, new)
    }
}
