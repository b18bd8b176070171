//! What goes into a frame.

use std::net::SocketAddr;

use super::{CLIENT_MAC, Endpoint, HOST_MAC, ICMP, ICMPV6, Mac, TCP, UDP, flag};

/// What the transport checksum field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Good,
    Bad,
    Partial,
    None,
}

/// The place of a packet in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) offset_bytes: u16,
    pub(super) more: bool,
}

/// A frame in the making. Every method takes and returns the builder; [`Packet::build`] ends it.
#[derive(Clone, Debug)]
pub struct Packet {
    pub(super) mac_src: Mac,
    pub(super) mac_dst: Mac,
    pub(super) vlans: Vec<u16>,
    pub(super) ethertype: Option<u16>,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) ident: u32,
    pub(super) dont_fragment: bool,
    pub(super) flow_label: u32,
    pub(super) fragment: Option<Fragment>,
    pub(super) ip_options: Vec<u8>,
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    pub(super) transport: u8,
    pub(super) protocol: Option<u8>,
    pub(super) icmp: [u8; 2],
    pub(super) icmp_rest: u32,
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) tcp_options: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) version: Option<u8>,
    pub(super) ihl_words: Option<u8>,
    pub(super) ip_len_bytes: Option<u16>,
    pub(super) data_offset_words: Option<u8>,
    pub(super) bad_ip_checksum: bool,
    pub(super) checksum: Checksum,
    pub(super) trailer_to: usize,
    pub(super) truncate_to: Option<usize>,
}

impl Packet {
    /// A TCP segment over IPv4: ACK, no payload, TTL 64, don't fragment.
    ///
    /// # Panics
    /// If an address is no IPv4 address with a port.
    pub fn tcp4(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.v4(), dst.v4(), TCP)
    }

    /// A TCP segment over IPv6: ACK, no payload, hop limit 64.
    ///
    /// # Panics
    /// If an address is no IPv6 address with a port.
    pub fn tcp6(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.v6(), dst.v6(), TCP)
    }

    /// A UDP datagram over IPv4; the methods for TCP fields have no effect on it.
    ///
    /// # Panics
    /// If an address is no IPv4 address with a port.
    pub fn udp4(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.v4(), dst.v4(), UDP)
    }

    /// A UDP datagram over IPv6; the methods for TCP fields have no effect on it.
    ///
    /// # Panics
    /// If an address is no IPv6 address with a port.
    pub fn udp6(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.v6(), dst.v6(), UDP)
    }

    /// A TCP segment over the family of the addresses.
    ///
    /// # Panics
    /// If the addresses are of different families.
    pub fn tcp(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.addr(), dst.addr(), TCP)
    }

    /// A UDP datagram over the family of the addresses.
    ///
    /// # Panics
    /// If the addresses are of different families.
    pub fn udp(src: impl Endpoint, dst: impl Endpoint) -> Self {
        Self::new(src.addr(), dst.addr(), UDP)
    }

    /// An ICMP message of the addresses' family, whose ports have no effect: its type and code. The
    /// payload follows its header of eight bytes.
    ///
    /// # Panics
    /// If the addresses are of different families.
    pub fn icmp(src: impl Endpoint, dst: impl Endpoint, kind: u8, code: u8) -> Self {
        let (src, dst) = (src.addr(), dst.addr());
        let transport = if src.is_ipv4() { ICMP } else { ICMPV6 };
        Self {
            icmp: [kind, code],
            ..Self::new(src, dst, transport)
        }
    }

    fn new(src: SocketAddr, dst: SocketAddr, transport: u8) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one family: {src} > {dst}");
        Self {
            mac_src: CLIENT_MAC,
            mac_dst: HOST_MAC,
            vlans: Vec::new(),
            ethertype: None,
            src,
            dst,
            ttl: 64,
            tos: 0,
            ident: 0,
            dont_fragment: true,
            flow_label: 0,
            fragment: None,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            transport,
            protocol: None,
            icmp: [0, 0],
            icmp_rest: 0,
            flags: flag::ACK,
            seq: 0,
            ack: 0,
            window: 0xffff,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            version: None,
            ihl_words: None,
            ip_len_bytes: None,
            data_offset_words: None,
            bad_ip_checksum: false,
            checksum: Checksum::Good,
            trailer_to: 0,
            truncate_to: None,
        }
    }

    /// Another source: what a reply must look like after translation.
    #[must_use]
    pub fn from(mut self, src: impl Endpoint) -> Self {
        self.src = src.addr();
        assert_eq!(self.src.is_ipv4(), self.dst.is_ipv4(), "one family");
        self
    }

    /// Another destination: what a steered packet must look like.
    #[must_use]
    pub fn to(mut self, dst: impl Endpoint) -> Self {
        self.dst = dst.addr();
        assert_eq!(self.src.is_ipv4(), self.dst.is_ipv4(), "one family");
        self
    }

    /// The opposite direction: addresses, ports and Ethernet addresses exchanged, all else kept.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.src, &mut self.dst);
        std::mem::swap(&mut self.mac_src, &mut self.mac_dst);
        self
    }

    /// Ethernet source and destination.
    #[must_use]
    pub fn macs(mut self, src: Mac, dst: Mac) -> Self {
        (self.mac_src, self.mac_dst) = (src, dst);
        self
    }

    /// A VLAN tag inside those already there: once for 802.1Q, twice for QinQ (outer first).
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    /// Another innermost Ethernet type, whatever the frame really carries.
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// DSCP and ECN: the type of service or traffic class byte.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// Identification: 16 bits of the IPv4 header, 32 bits of an IPv6 fragment header.
    #[must_use]
    pub fn ident(mut self, ident: u32) -> Self {
        self.ident = ident;
        self
    }

    /// The don't-fragment bit of IPv4.
    #[must_use]
    pub fn dont_fragment(mut self, on: bool) -> Self {
        self.dont_fragment = on;
        self
    }

    /// IPv6 flow label, 20 bits.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// Makes this a fragment: clears don't-fragment (IPv4) or adds a fragment header (IPv6). With an
    /// offset above 0 the IP header is followed by the payload alone.
    ///
    /// # Panics
    /// If the offset is no multiple of 8.
    #[must_use]
    pub fn fragment(mut self, offset_bytes: u16, more: bool) -> Self {
        assert_eq!(
            offset_bytes % 8,
            0,
            "fragments start at multiples of 8 bytes"
        );
        self.fragment = Some(Fragment { offset_bytes, more });
        self.dont_fragment = false;
        self
    }

    /// IPv4 options, padded to a multiple of 4 bytes with end-of-list.
    ///
    /// # Panics
    /// With more than 40 bytes.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        assert!(
            options.len() <= 40,
            "an IPv4 header holds 40 bytes of options"
        );
        self.ip_options = padded(options);
        self
    }

    /// An IPv6 extension header behind those already there: its number (0 hop-by-hop, 43 routing, 60
    /// destination options) and what follows its two fixed bytes, padded to a multiple of 8.
    #[must_use]
    pub fn extension(mut self, number: u8, body: &[u8]) -> Self {
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// TCP flags, all of them.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Sequence number.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// Acknowledgment number; the ACK flag is set by [`Packet::flags`].
    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }

    /// Receive window, unscaled.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// TCP options, padded to a multiple of 4 bytes with end-of-list.
    ///
    /// # Panics
    /// With more than 40 bytes.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        assert!(
            options.len() <= 40,
            "a TCP header holds 40 bytes of options"
        );
        self.tcp_options = padded(options);
        self
    }

    /// What the segment or datagram carries.
    #[must_use]
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = payload.as_ref().to_vec();
        self
    }

    /// The second word of an ICMP header, such as the MTU of a packet too big.
    #[must_use]
    pub fn icmp_rest(mut self, word: u32) -> Self {
        self.icmp_rest = word;
        self
    }

    /// What an ICMP error is about: the packet from its IP header on, at most this many bytes of it.
    #[must_use]
    pub fn quoting(mut self, packet: &Self, max_len_bytes: usize) -> Self {
        let mut frame = packet.build();
        let start = 14 + 4 * packet.vlans.len();
        frame.truncate(start + max_len_bytes);
        self.payload = frame.split_off(start);
        self
    }

    /// No UDP checksum: 0 in its field.
    #[must_use]
    pub fn no_checksum(mut self) -> Self {
        self.checksum = Checksum::None;
        self
    }

    /// Another IP protocol number, whatever the packet really carries.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.protocol = Some(number);
        self
    }

    /// Another version in the IP header than the Ethernet type says.
    #[must_use]
    pub fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self
    }

    /// Another header length in the IPv4 header, in 32-bit words.
    #[must_use]
    pub fn ihl_words(mut self, words: u8) -> Self {
        self.ihl_words = Some(words);
        self
    }

    /// Another total length (IPv4) or payload length (IPv6), in bytes.
    #[must_use]
    pub fn ip_len_bytes(mut self, len_bytes: u16) -> Self {
        self.ip_len_bytes = Some(len_bytes);
        self
    }

    /// Another data offset in the TCP header, in 32-bit words.
    #[must_use]
    pub fn data_offset_words(mut self, words: u8) -> Self {
        self.data_offset_words = Some(words);
        self
    }

    /// A wrong IPv4 header checksum.
    #[must_use]
    pub fn bad_ip_checksum(mut self) -> Self {
        self.bad_ip_checksum = true;
        self
    }

    /// A wrong TCP or UDP checksum.
    #[must_use]
    pub fn bad_checksum(mut self) -> Self {
        self.checksum = Checksum::Bad;
        self
    }

    /// The pseudo-header's sum alone in the TCP or UDP checksum field, as a sender with checksum
    /// offload leaves it; XDP on a veth or virtio interface sees such packets.
    #[must_use]
    pub fn partial_checksum(mut self) -> Self {
        self.checksum = Checksum::Partial;
        self
    }

    /// Zeros behind the packet up to this frame length, as Ethernet pads to 60 bytes.
    #[must_use]
    pub fn trailer_to(mut self, len_bytes: usize) -> Self {
        self.trailer_to = len_bytes;
        self
    }

    /// Cuts the finished frame to this length; its headers still announce the full one.
    #[must_use]
    pub fn truncate(mut self, len_bytes: usize) -> Self {
        self.truncate_to = Some(len_bytes);
        self
    }
}

/// Options with zeros up to a multiple of 4 bytes.
fn padded(options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}
