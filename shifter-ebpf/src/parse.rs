//! From bytes to addresses, ports and TCP fields.

use shifter_common::{
    abi::VipKey,
    addr::{Addr, Be16},
    tcp::flag,
    verdict::Verdict,
};

use crate::frame::Frame;

/// Offset of the network header.
pub const L3_OFFSET: usize = 14;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const PROTOCOL_TCP: u8 = 6;
/// More-fragments bit and fragment offset of IPv4 (RFC 791 section 3.1).
const FRAGMENT_MASK: u16 = 0x3fff_u16.to_be();
const FRAGMENT_OFFSET_MASK: u16 = 0x1fff_u16.to_be();
/// Next-header value of the IPv6 fragment header (RFC 8200 section 4.5).
const NEXT_HEADER_FRAGMENT: u8 = 44;

/// The fields of a packet that steering looks at.
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Sequence number, host order.
    pub seq: u32,
    /// Acknowledgment number, host order; meaningful with the ACK flag.
    pub ack: u32,
    /// Sequence numbers the segment takes: payload bytes, and one each for SYN and FIN.
    pub sequence_len: u32,
    /// Offset of the TCP header, 34..=74.
    pub l4_offset: u32,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Data offset and flags as they stand in the TCP header, the 16 bits at its offset 12.
    pub offset_and_flags: u16,
    /// Flags byte.
    pub flags: u8,
    /// Whether the packet is IPv6.
    pub is_v6: bool,
}

impl Packet {
    /// A packet to be filled by [`parse`].
    pub const EMPTY: Self = Self {
        source: Addr { words: [0; 4] },
        destination: Addr { words: [0; 4] },
        seq: 0,
        ack: 0,
        sequence_len: 0,
        l4_offset: 0,
        source_port: Be16(0),
        destination_port: Be16(0),
        offset_and_flags: 0,
        flags: 0,
        is_v6: false,
    };

    /// Where the packet goes, as a map key.
    #[inline(always)]
    pub fn destination_key(&self) -> VipKey {
        VipKey {
            addr: self.destination,
            port: self.destination_port,
            protocol: PROTOCOL_TCP,
            pad: 0,
        }
    }

    /// Where the packet comes from, as a map key.
    #[inline(always)]
    pub fn source_key(&self) -> VipKey {
        VipKey {
            addr: self.source,
            port: self.source_port,
            protocol: PROTOCOL_TCP,
            pad: 0,
        }
    }

    /// The sequence number that follows the segment: what its receiver expects next.
    #[inline(always)]
    pub fn next_seq(&self) -> u32 {
        self.seq.wrapping_add(self.sequence_len)
    }

    /// Whether the packet opens a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
    }

    /// Whether all of these flags are set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The 16 bits at offset 12 of the TCP header with all flags but ACK taken away and RST set.
    #[inline(always)]
    pub fn reset_flags(&self) -> u16 {
        let host = u16::from_be(self.offset_and_flags);
        ((host & (0xf000 | flag::ACK as u16)) | flag::RST as u16).to_be()
    }

    /// Whether no connection can send these flags: SYN with FIN or RST, or none of the four that
    /// every segment has one of (RFC 9293 section 3.10.7).
    #[inline(always)]
    pub fn has_impossible_flags(&self) -> bool {
        let syn = self.has(flag::SYN);
        let ends = self.flags & (flag::FIN | flag::RST) != 0;
        let none = self.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == 0;
        (syn && ends) || none
    }
}

#[repr(C)]
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
struct Ipv6 {
    version_class_label: [u16; 2],
    payload_len_bytes: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u16; 8],
    destination: [u16; 8],
}

#[repr(C)]
struct Tcp {
    source_port: u16,
    destination_port: u16,
    seq: [u16; 2],
    ack: [u16; 2],
    offset_and_flags: u16,
}

/// Fills `packet` from a frame.
///
/// # Errors
/// The verdict for a frame that is no TCP segment over IPv4 or IPv6 with a readable header.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Verdict> {
    frame.pull_headers();
    let Some(ethertype) = frame.at::<u16>(12) else {
        return Err(Verdict::PassTruncated);
    };
    // SAFETY: `at` checked the bounds; packet memory is read unaligned everywhere.
    let ethertype = unsafe { ethertype.read_unaligned() };
    if ethertype == ETHERTYPE_IPV4 {
        parse_v4(frame, packet)?;
    } else if ethertype == ETHERTYPE_IPV6 {
        parse_v6(frame, packet)?;
    } else {
        return Err(Verdict::PassNotIp);
    }
    parse_tcp(frame, packet)
}

#[inline(always)]
fn parse_v4<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Verdict> {
    let Some(header) = frame.at::<Ipv4>(L3_OFFSET) else {
        return Err(Verdict::PassTruncated);
    };
    // SAFETY: `at` checked the bounds of the whole header.
    let header = unsafe { header.read_unaligned() };
    if header.protocol != PROTOCOL_TCP {
        return Err(Verdict::PassForeign);
    }
    if header.fragment & FRAGMENT_OFFSET_MASK != 0 {
        return Err(Verdict::PassFragment);
    }
    if header.fragment & FRAGMENT_MASK != 0 {
        // The first fragment has ports, but its rest would not find the same way.
        return Err(Verdict::PassFragment);
    }
    let header_len_bytes = ((header.version_and_length & 0x0f) as u32) * 4;
    if header_len_bytes < 20 {
        return Err(Verdict::PassTruncated);
    }
    packet.source = Addr::from_v4_word(join(header.source));
    packet.destination = Addr::from_v4_word(join(header.destination));
    packet.l4_offset = L3_OFFSET as u32 + header_len_bytes;
    packet.sequence_len =
        (u16::from_be(header.total_len_bytes) as u32).wrapping_sub(header_len_bytes);
    packet.is_v6 = false;
    Ok(())
}

#[inline(always)]
fn parse_v6<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Verdict> {
    let Some(header) = frame.at::<Ipv6>(L3_OFFSET) else {
        return Err(Verdict::PassTruncated);
    };
    // SAFETY: `at` checked the bounds of the whole header.
    let header = unsafe { header.read_unaligned() };
    if header.next_header == NEXT_HEADER_FRAGMENT {
        return Err(Verdict::PassFragment);
    }
    if header.next_header != PROTOCOL_TCP {
        return Err(Verdict::PassForeign);
    }
    packet.source = Addr {
        words: join8(header.source),
    };
    packet.destination = Addr {
        words: join8(header.destination),
    };
    if packet.source.is_v4() || packet.destination.is_v4() {
        // Such addresses do not belong on a wire (RFC 4291 section 2.5.5.2), and they would be
        // taken for the IPv4 address they hold.
        return Err(Verdict::PassForeign);
    }
    packet.l4_offset = L3_OFFSET as u32 + 40;
    packet.sequence_len = u16::from_be(header.payload_len_bytes) as u32;
    packet.is_v6 = true;
    Ok(())
}

#[inline(always)]
fn parse_tcp<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Verdict> {
    // VERIFIER: the mask keeps the offset bounded when its history is lost on the stack.
    let offset = (packet.l4_offset & 0x7f) as usize;
    let Some(header) = frame.at::<[u8; 20]>(offset) else {
        return Err(Verdict::PassTruncated);
    };
    // SAFETY: `at` checked the bounds of the whole header, of which `Tcp` is the beginning.
    let header = unsafe { header.cast::<Tcp>().read_unaligned() };
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

/// Two halves as they stand in memory. The network header starts at offset 14, so its words are
/// aligned to two bytes only.
#[inline(always)]
const fn join(halves: [u16; 2]) -> u32 {
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
