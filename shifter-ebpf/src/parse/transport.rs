//! TCP (RFC 9293), UDP (RFC 768), and the type of an ICMP message.

use shifter_common::{addr::Be16, protocol, tcp::flag, verdict::Verdict};

use super::{Packet, Stop, ip::join, reader::Reader};

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source_port: u16,
    destination_port: u16,
    seq: [u16; 2],
    ack: [u16; 2],
    offset_and_flags: u16,
    window: u16,
    check: u16,
    urgent: u16,
}
const _: () = assert!(size_of::<Tcp>() == 20);

#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    source_port: u16,
    destination_port: u16,
    len_bytes: u16,
    check: u16,
}
const _: () = assert!(size_of::<Udp>() == 8);

/// Reads the TCP header.
///
/// # Errors
/// If it is out of reach.
#[inline(always)]
pub fn read_tcp<R: Reader>(reader: &R, packet: &mut Packet) -> Result<(), Stop> {
    let header: Tcp = reader.get(packet.l4_offset)?;
    packet.source_port = Be16(header.source_port);
    packet.destination_port = Be16(header.destination_port);
    packet.seq = u32::from_be(join(header.seq));
    packet.ack = u32::from_be(join(header.ack));
    packet.offset_and_flags = header.offset_and_flags;
    packet.flags = u16::from_be(header.offset_and_flags) as u8;
    // So far this holds the length of the segment with its header.
    let header_len_bytes = (u16::from_be(header.offset_and_flags) >> 12) as u32 * 4;
    let ends = (packet.flags & flag::FIN != 0) as u32 + (packet.flags & flag::SYN != 0) as u32;
    packet.sequence_len = packet
        .sequence_len
        .wrapping_sub(header_len_bytes)
        .wrapping_add(ends);
    Ok(())
}

/// Reads the UDP header.
///
/// # Errors
/// If it is out of reach.
#[inline(always)]
pub fn read_udp<R: Reader>(reader: &R, packet: &mut Packet) -> Result<(), Stop> {
    let header: Udp = reader.get(packet.l4_offset)?;
    packet.without_tcp();
    packet.source_port = Be16(header.source_port);
    packet.destination_port = Be16(header.destination_port);
    Ok(())
}

/// Looks whether an ICMP message is an error about a packet of this host or its clients.
///
/// # Errors
/// If it is anything else, or out of reach.
#[inline(always)]
pub fn read_icmp<R: Reader>(reader: &R, packet: &mut Packet) -> Result<(), Stop> {
    let kind_and_code: u16 = reader.get(packet.l4_offset)?;
    packet.without_tcp();
    packet.offset_and_flags = kind_and_code;
    packet.source_port = Be16(0);
    packet.destination_port = Be16(0);
    let kind = u16::from_be(kind_and_code) >> 8;
    let is_error = match packet.protocol {
        // Destination unreachable, time exceeded, parameter problem (RFC 792). A redirect is about
        // the way of a packet and not about the packet; source quench is history (RFC 6633).
        protocol::ICMP => matches!(kind, 3 | 11 | 12),
        // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
        _ => matches!(kind, 1..=4),
    };
    if is_error {
        Ok(())
    } else {
        Err(Verdict::PassProtocol.into())
    }
}
