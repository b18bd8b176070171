//! The fields of a packet that steering looks at.

use core::mem::MaybeUninit;

use shifter_common::{
    abi::VipKey,
    addr::{Addr, Be16},
    protocol,
    tcp::flag,
};

use super::Kind;

/// A packet in parts.
#[repr(C, align(8))]
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// TCP sequence number, host order.
    pub seq: u32,
    /// Offset of the IP header: 14, 18 or 22 unless it stands in an ICMP error.
    pub l3_offset: u32,
    /// TCP acknowledgment number, host order; meaningful with the ACK flag.
    pub ack: u32,
    /// Offset of the transport header; below 128 unless `is_far`.
    pub l4_offset: u32,
    /// Sequence numbers a TCP segment takes: payload bytes, and one each for SYN and FIN. Of anything
    /// else: bytes behind the IP headers, as these announce them.
    pub sequence_len: u32,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Data offset and flags as they stand in the TCP header, the 16 bits at its offset 12. Of an ICMP
    /// error: type and code.
    pub offset_and_flags: u16,
    /// TCP's flags byte; 0 of anything else.
    pub flags: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Whether the packet is IPv6.
    pub is_v6: bool,
    /// Whether the headers are out of direct reach, or may be.
    pub is_far: bool,
}

const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// A packet to be filled by [`super::parse`] or [`super::quoted`], in a place of the caller's.
    ///
    /// Nothing is cleared: that would be a call of `memset`, which goes byte by byte here and takes as
    /// long as a map lookup. Parsing writes every field of what it finds.
    #[inline(always)]
    pub const fn unfilled(place: &mut MaybeUninit<Self>) -> &mut Self {
        // SAFETY: all fields are plain numbers and flags that are written before they are read. The
        // verifier takes the stack of privileged programs as readable (Linux 6.3).
        unsafe { place.assume_init_mut() }
    }

    /// Clears what only TCP has.
    #[inline(always)]
    pub const fn without_tcp(&mut self) {
        self.seq = 0;
        self.ack = 0;
        self.offset_and_flags = 0;
        self.flags = 0;
    }

    /// What it is.
    #[inline(always)]
    pub const fn kind(&self) -> Kind {
        match self.protocol {
            protocol::TCP | protocol::UDP => Kind::Segment,
            _ => Kind::Error,
        }
    }

    /// Where the packet goes, as a map key.
    #[inline(always)]
    pub const fn destination_key(&self) -> VipKey {
        VipKey {
            addr: self.destination,
            port: self.destination_port,
            protocol: self.protocol,
            pad: 0,
        }
    }

    /// Where the packet comes from, as a map key.
    #[inline(always)]
    pub const fn source_key(&self) -> VipKey {
        VipKey {
            addr: self.source,
            port: self.source_port,
            protocol: self.protocol,
            pad: 0,
        }
    }

    /// Whether the packet is a UDP datagram.
    #[inline(always)]
    pub const fn is_udp(&self) -> bool {
        self.protocol == protocol::UDP
    }

    /// Whether the packet is the ICMP error of a host on which nobody listens (RFC 792: type 3 code 3;
    /// RFC 4443: type 1 code 4).
    #[inline(always)]
    pub const fn is_port_unreachable(&self) -> bool {
        let closed_port: u16 = if self.is_v6 { 0x0104 } else { 0x0303 };
        self.offset_and_flags == closed_port.to_be()
    }

    /// Offset of the transport checksum in its header.
    #[inline(always)]
    pub const fn check_offset(&self) -> u32 {
        if self.is_udp() { 6 } else { 16 }
    }

    /// The sequence number that follows the segment: what its receiver expects next.
    #[inline(always)]
    pub const fn next_seq(&self) -> u32 {
        self.seq.wrapping_add(self.sequence_len)
    }

    /// Where the packet ends in the frame, as its headers announce it, or one or two bytes behind: SYN and
    /// FIN count.
    #[inline(always)]
    pub const fn end_offset(&self) -> u32 {
        let tcp_words = (u16::from_be(self.offset_and_flags) >> 12) as u32;
        let header_bytes = if self.protocol == protocol::TCP {
            tcp_words * 4
        } else {
            0
        };
        self.l4_offset
            .wrapping_add(header_bytes)
            .wrapping_add(self.sequence_len)
    }

    /// Offset of a TCP segment's data in the frame.
    #[inline(always)]
    pub const fn data_offset(&self) -> u32 {
        let tcp_words = (u16::from_be(self.offset_and_flags) >> 12) as u32;
        self.l4_offset.wrapping_add(tcp_words * 4)
    }

    /// Whether the packet opens a flow where there is none: a SYN, or any datagram.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN || self.is_udp()
    }

    /// Whether all of these TCP flags are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The 16 bits at offset 12 of the TCP header with all flags but ACK taken away and RST set.
    #[inline(always)]
    pub const fn reset_flags(&self) -> u16 {
        let host = u16::from_be(self.offset_and_flags);
        ((host & (0xf000 | flag::ACK as u16)) | flag::RST as u16).to_be()
    }

    /// Whether no connection can send these flags: SYN with FIN or RST, or none of the four that
    /// every segment has one of (RFC 9293 section 3.10.7).
    #[inline(always)]
    pub const fn has_impossible_flags(&self) -> bool {
        let syn = self.has(flag::SYN);
        let ends = self.flags & (flag::FIN | flag::RST) != 0;
        let none = self.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == 0;
        (syn && ends) || (none && !self.is_udp())
    }
}
