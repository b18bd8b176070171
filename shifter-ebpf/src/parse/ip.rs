//! IPv4 with options (RFC 791) and IPv6 with extension headers (RFC 8200).

use shifter_common::{addr::Addr, protocol, verdict::Verdict};

use super::{Packet, Stop, reader::Reader};

/// Where an IP header stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the frame.
    Frame,
    /// In an ICMP error, which quotes it.
    Quote,
}

/// More-fragments bit and fragment offset of IPv4 (RFC 791 section 3.1).
const FRAGMENT_MASK: u16 = 0x3fff_u16.to_be();
const FRAGMENT_OFFSET_MASK: u16 = 0x1fff_u16.to_be();
/// Fragment offset and more-fragments bit of IPv6 (RFC 8200 section 4.5).
const V6_FRAGMENT_MASK: u16 = 0xfff9_u16.to_be();

const V6_HEADER_LEN_BYTES: u32 = 40;
/// Extension headers that are followed. RFC 8200 section 4.1 knows four that stand before TCP or UDP,
/// one of them twice.
const EXTENSIONS_MAX_COUNT: u32 = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Mobility, HIP, Shim6 and the two numbers for experiments (IANA "IPv6 Extension Header Types").
const UNFOLLOWED: [u8; 5] = [135, 139, 140, 253, 254];

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_and_length: u8,
    service: u8,
    total_len_bytes: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    check: u16,
    source: [u16; 2],
    destination: [u16; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_class_label: [u16; 2],
    payload_len_bytes: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u16; 8],
    destination: [u16; 8],
}

/// Reads the IPv4 header at `packet.l3_offset`.
///
/// # Errors
/// For fragments and for what carries neither TCP nor UDP nor ICMP. A quoted packet may be a first
/// fragment: a router behind this host may have cut it.
#[inline(always)]
pub fn read_v4<R: Reader>(reader: &R, packet: &mut Packet, place: Place) -> Result<(), Stop> {
    let header: Ipv4 = reader.get(packet.l3_offset)?;
    let is_steered = match header.protocol {
        protocol::TCP | protocol::UDP => true,
        protocol::ICMP => place == Place::Frame,
        ESP | AH => return Err(Verdict::PassSecured.into()),
        _ => false,
    };
    if !is_steered {
        return Err(Verdict::PassProtocol.into());
    }
    let fragment_mask = match place {
        // A first fragment has ports, but its rest would not find the same way.
        Place::Frame => FRAGMENT_MASK,
        Place::Quote => FRAGMENT_OFFSET_MASK,
    };
    if header.fragment & fragment_mask != 0 {
        return Err(Verdict::PassFragment.into());
    }
    let header_len_bytes = ((header.version_and_length & 0x0f) as u32) * 4;
    if header_len_bytes < 20 {
        return Err(Verdict::PassTruncated.into());
    }
    packet.source = Addr::from_v4_word(join(header.source));
    packet.destination = Addr::from_v4_word(join(header.destination));
    packet.l4_offset = packet.l3_offset + header_len_bytes;
    packet.sequence_len =
        (u16::from_be(header.total_len_bytes) as u32).wrapping_sub(header_len_bytes);
    packet.protocol = header.protocol;
    packet.is_v6 = false;
    Ok(())
}

/// Reads the IPv6 header at `packet.l3_offset`.
///
/// # Errors
/// As [`read_v4`], and for extension headers that are not followed. With a direct reader any
/// extension header is out of reach.
#[inline(always)]
pub fn read_v6<R: Reader>(reader: &R, packet: &mut Packet, place: Place) -> Result<(), Stop> {
    let header: Ipv6 = reader.get(packet.l3_offset)?;
    packet.source = Addr {
        words: join8(header.source),
    };
    packet.destination = Addr {
        words: join8(header.destination),
    };
    if packet.source.is_v4() || packet.destination.is_v4() {
        // Such addresses do not belong on a wire (RFC 4291 section 2.5.5.2), and they would be
        // taken for the IPv4 address they hold.
        return Err(Verdict::PassForeign.into());
    }
    packet.is_v6 = true;
    packet.l4_offset = packet.l3_offset + V6_HEADER_LEN_BYTES;
    packet.sequence_len = u16::from_be(header.payload_len_bytes) as u32;
    packet.protocol = header.next_header;
    if is_steered(packet.protocol, place) {
        return Ok(());
    }
    if !R::IS_FAR {
        return Err(Stop::Unreachable);
    }
    follow(reader, packet, place)
}

#[inline(always)]
fn is_steered(number: u8, place: Place) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
        || (number == protocol::ICMPV6 && place == Place::Frame)
}

/// Follows the extension headers to the transport header.
#[inline(always)]
fn follow<R: Reader>(reader: &R, packet: &mut Packet, place: Place) -> Result<(), Stop> {
    let mut number = packet.protocol;
    let mut offset = packet.l4_offset;
    for step in 0..EXTENSIONS_MAX_COUNT {
        let len_bytes = match number {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [_, units, _, segments_left]: [u8; 4] = reader.get(offset)?;
                let is_out_of_order = number == HOP_BY_HOP && step > 0;
                // With segments left the packet is on its way through this host to somewhere else,
                // and its checksum is of that address.
                let is_on_the_way = number == ROUTING && segments_left > 0;
                if is_out_of_order || is_on_the_way {
                    return Err(Verdict::PassExtension.into());
                }
                8 + (units as u32) * 8
            }
            FRAGMENT => {
                let [_, fragment]: [u16; 2] = reader.get(offset)?;
                // A fragment that is the whole packet (RFC 6946) is none.
                if fragment & V6_FRAGMENT_MASK != 0 {
                    return Err(Verdict::PassFragment.into());
                }
                8
            }
            ESP | AH => return Err(Verdict::PassSecured.into()),
            other if UNFOLLOWED.contains(&other) => return Err(Verdict::PassExtension.into()),
            _ => return Err(Verdict::PassProtocol.into()),
        };
        number = reader.get(offset)?;
        offset += len_bytes;
        if is_steered(number, place) {
            packet.sequence_len = packet.sequence_len.wrapping_sub(offset - packet.l4_offset);
            packet.l4_offset = offset;
            packet.protocol = number;
            return Ok(());
        }
    }
    Err(Verdict::PassExtension.into())
}

/// Two halves as they stand in memory. The network header starts at an even offset, so its words are
/// aligned to two bytes only.
#[inline(always)]
pub const fn join(halves: [u16; 2]) -> u32 {
    if cfg!(target_endian = "little") {
        halves[0] as u32 | (halves[1] as u32) << 16
    } else {
        (halves[0] as u32) << 16 | halves[1] as u32
    }
}

#[inline(always)]
const fn join8(halves: [u16; 8]) -> [u32; 4] {
    [
        join([halves[0], halves[1]]),
        join([halves[2], halves[3]]),
        join([halves[4], halves[5]]),
        join([halves[6], halves[7]]),
    ]
}
