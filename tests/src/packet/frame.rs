//! From a [`Packet`] to bytes.

use std::net::SocketAddr;

use super::{
    ETHERTYPE_V4, ETHERTYPE_V6, ICMP, ICMPV6, Packet, TPID_CUSTOMER, TPID_SERVICE, UDP,
    V4_DONT_FRAGMENT, V4_MORE_FRAGMENTS, V6_FRAGMENT,
    builder::{Checksum, Fragment},
    sum::Sum,
};

impl Packet {
    /// The frame, from the Ethernet header to the end of the payload.
    ///
    /// # Panics
    /// If the packet is too long for its length field, or [`Packet::truncate`] would lengthen it.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.ethernet();
        let segment = self.transport();
        match (self.src, self.dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                frame.extend(self.header_v4(src.ip().octets(), dst.ip().octets(), segment.len()));
            }
            _ => frame.extend(self.headers_v6(segment.len())),
        }
        frame.extend(segment);
        if frame.len() < self.trailer_to {
            frame.resize(self.trailer_to, 0);
        }
        if let Some(len) = self.truncate_to {
            assert!(
                len <= frame.len(),
                "truncate({len}) of a frame of {} bytes",
                frame.len()
            );
            frame.truncate(len);
        }
        frame
    }

    fn ethernet(&self) -> Vec<u8> {
        let mut bytes = [self.mac_dst, self.mac_src].concat();
        let innermost = self.vlans.len().saturating_sub(1);
        for (index, id) in self.vlans.iter().enumerate() {
            let tpid = if index < innermost {
                TPID_SERVICE
            } else {
                TPID_CUSTOMER
            };
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        let own = if self.src.is_ipv4() {
            ETHERTYPE_V4
        } else {
            ETHERTYPE_V6
        };
        bytes.extend(self.ethertype.unwrap_or(own).to_be_bytes());
        bytes
    }

    fn header_v4(&self, src: [u8; 4], dst: [u8; 4], segment_len: usize) -> Vec<u8> {
        let header_len = 20 + self.ip_options.len();
        let ihl_words = self.ihl_words.unwrap_or((header_len / 4) as u8);
        let mut fragment = if self.dont_fragment {
            V4_DONT_FRAGMENT
        } else {
            0
        };
        if let Some(Fragment { offset_bytes, more }) = self.fragment {
            fragment |= (offset_bytes / 8) | if more { V4_MORE_FRAGMENTS } else { 0 };
        }
        let mut header = vec![self.version.unwrap_or(4) << 4 | ihl_words & 0xf, self.tos];
        header.extend(self.announced(header_len + segment_len).to_be_bytes());
        header.extend((self.ident as u16).to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol.unwrap_or(self.transport), 0, 0]);
        header.extend(src);
        header.extend(dst);
        header.extend(&self.ip_options);
        let mut check = Sum::default().bytes(&header).checksum();
        if self.bad_ip_checksum {
            check ^= 0x0100;
        }
        header[10..12].copy_from_slice(&check.to_be_bytes());
        header
    }

    fn headers_v6(&self, segment_len: usize) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some(Fragment { offset_bytes, more }) = self.fragment {
            let mut body = (offset_bytes | u16::from(more)).to_be_bytes().to_vec();
            body.extend(self.ident.to_be_bytes());
            extensions.push((V6_FRAGMENT, body));
        }
        let own = self.protocol.unwrap_or(self.transport);
        let mut chain = Vec::new();
        for (index, (number, body)) in extensions.iter().enumerate() {
            let next = extensions.get(index + 1).map_or(own, |(number, _)| *number);
            let len = (2 + body.len()).next_multiple_of(8);
            // A fragment header has no length: the byte is reserved.
            let units = if *number == V6_FRAGMENT {
                0
            } else {
                (len / 8 - 1) as u8
            };
            let mut header = vec![next, units];
            header.extend(body);
            match len - header.len() {
                0 => {}
                1 => header.push(0), // Pad1
                pad => {
                    header.extend([1, (pad - 2) as u8]); // PadN
                    header.resize(len, 0);
                }
            }
            chain.extend(header);
        }
        let first = u32::from(self.version.unwrap_or(6)) << 28
            | u32::from(self.tos) << 20
            | self.flow_label & 0xf_ffff;
        let mut header = first.to_be_bytes().to_vec();
        header.extend(self.announced(chain.len() + segment_len).to_be_bytes());
        header.extend([
            extensions.first().map_or(own, |(number, _)| *number),
            self.ttl,
        ]);
        header.extend(octets(self.src));
        header.extend(octets(self.dst));
        header.extend(chain);
        header
    }

    fn announced(&self, len: usize) -> u16 {
        self.ip_len_bytes
            .unwrap_or_else(|| u16::try_from(len).expect("an IP packet has at most 65535 bytes"))
    }

    fn transport(&self) -> Vec<u8> {
        if self
            .fragment
            .is_some_and(|fragment| fragment.offset_bytes > 0)
        {
            return self.payload.clone();
        }
        let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (mut segment, check_at) = if matches!(self.transport, ICMP | ICMPV6) {
            let rest = self.icmp_rest.to_be_bytes();
            ([&self.icmp[..], &[0, 0], &rest].concat(), 2)
        } else if self.transport == UDP {
            let len = (8 + self.payload.len()) as u16;
            ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), 6)
        } else {
            let header_len = 20 + self.tcp_options.len();
            let words = self.data_offset_words.unwrap_or((header_len / 4) as u8);
            let mut header = ports;
            header.extend(self.seq.to_be_bytes());
            header.extend(self.ack.to_be_bytes());
            header.extend([words << 4, self.flags]);
            header.extend(self.window.to_be_bytes());
            header.extend([0; 4]); // checksum, urgent pointer
            header.extend(&self.tcp_options);
            (header, 16)
        };
        segment.extend(&self.payload);
        let pseudo = if self.transport == ICMP {
            Sum::default()
        } else {
            Sum::pseudo_header(
                &octets(self.src),
                &octets(self.dst),
                self.transport,
                segment.len(),
            )
        };
        let full = pseudo.bytes(&segment).checksum();
        let check = match self.checksum {
            // A UDP checksum of 0 means none: a computed 0 is sent as its other representation.
            Checksum::Good if self.transport == UDP && full == 0 => 0xffff,
            Checksum::Good => full,
            Checksum::Bad => full ^ 0x0100,
            Checksum::Partial => pseudo.folded(),
            Checksum::None => 0,
        };
        segment[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
        segment
    }
}

/// The bytes of an address in network order.
pub(super) fn octets(addr: SocketAddr) -> Vec<u8> {
    match addr {
        SocketAddr::V4(addr) => addr.ip().octets().to_vec(),
        SocketAddr::V6(addr) => addr.ip().octets().to_vec(),
    }
}
