//! Frames in words, for assertion messages. Never panics: broken frames are what it is for.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    ETHERTYPE_V4, ETHERTYPE_V6, ICMP, ICMPV6, TCP, TPID_CUSTOMER, TPID_SERVICE, UDP,
    V4_DONT_FRAGMENT, V4_MORE_FRAGMENTS, V6_FRAGMENT, frame::octets, sum::Sum,
};

/// Names of the TCP flags, lowest bit first.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// One line that says what a frame is: addresses, ports, flags, numbers, and whether its checksums
/// are right (`ok`), `partial` (the pseudo-header's sum alone, as checksum offload leaves it) or `bad`.
pub fn describe(frame: &[u8]) -> String {
    let mut text = String::new();
    if let Err(Short { what, want, have }) = ethernet(frame, &mut text) {
        let gap = if text.is_empty() || text.ends_with(' ') {
            ""
        } else {
            ", "
        };
        let _ = write!(text, "{gap}cut in the {what}: {have} of {want} bytes");
    }
    text
}

/// What differs between the frame wanted and the frame seen, in words and as bytes from the first
/// difference on; `None` if they are equal.
pub fn difference(expected: &[u8], actual: &[u8]) -> Option<String> {
    if expected == actual {
        return None;
    }
    let at = expected
        .iter()
        .zip(actual)
        .take_while(|(left, right)| left == right)
        .count();
    let hex = |frame: &[u8]| -> String {
        let rest = frame.get(at..).unwrap_or_default();
        rest.iter()
            .take(24)
            .map(|byte| format!("{byte:02x} "))
            .collect()
    };
    Some(format!(
        "first difference at byte {at}\n  expected ({:>4} bytes): {}\n  actual   ({:>4} bytes): {}\n  \
         expected from there: {}\n  actual from there:   {}",
        expected.len(),
        describe(expected),
        actual.len(),
        describe(actual),
        hex(expected),
        hex(actual),
    ))
}

/// A frame that ends inside a header.
struct Short {
    what: &'static str,
    want: usize,
    have: usize,
}

fn take<'a>(
    bytes: &'a [u8],
    len: usize,
    what: &'static str,
) -> Result<(&'a [u8], &'a [u8]), Short> {
    bytes.split_at_checked(len).ok_or(Short {
        what,
        want: len,
        have: bytes.len(),
    })
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn mac(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

fn ethernet(frame: &[u8], text: &mut String) -> Result<(), Short> {
    let (header, mut rest) = take(frame, 14, "Ethernet header")?;
    let _ = write!(text, "{} > {} ", mac(&header[6..12]), mac(&header[..6]));
    let mut ethertype = be16(&header[12..]);
    while ethertype == TPID_CUSTOMER || ethertype == TPID_SERVICE {
        let (tag, inner) = take(rest, 4, "VLAN tag")?;
        let _ = write!(text, "vlan {} ", be16(tag) & 0xfff);
        ethertype = be16(&tag[2..]);
        rest = inner;
    }
    match ethertype {
        ETHERTYPE_V4 => v4(rest, text),
        ETHERTYPE_V6 => v6(rest, text),
        other => {
            let _ = write!(text, "ethertype {other:#06x}, {} bytes", rest.len());
            Ok(())
        }
    }
}

/// What the transport header needs to know of the IP header.
struct Carrier {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// How the IP header goes on behind the addresses.
    notes: String,
    /// A fragment: its checksum cannot be judged; behind offset 0 it has no ports either.
    fragment: Option<u16>,
    /// Bytes the IP header announces behind itself.
    announced: usize,
}

fn v4(bytes: &[u8], text: &mut String) -> Result<(), Short> {
    let (fixed, _) = take(bytes, 20, "IPv4 header")?;
    if fixed[0] >> 4 != 4 {
        let _ = write!(text, "IP version {} in an IPv4 frame, ", fixed[0] >> 4);
    }
    let header_len = usize::from(fixed[0] & 0xf) * 4;
    if header_len < 20 {
        let _ = write!(text, "IPv4 header of {header_len} bytes (20 is the least)");
        return Ok(());
    }
    let (header, rest) = take(bytes, header_len, "IPv4 options")?;
    let flags = be16(&fixed[6..]);
    let offset = (flags & 0x1fff) * 8;
    let more = flags & V4_MORE_FRAGMENTS != 0;
    let mut notes = format!("ttl {} id {}", fixed[8], be16(&fixed[4..]));
    if fixed[1] != 0 {
        let _ = write!(notes, " tos {:#04x}", fixed[1]);
    }
    if flags & V4_DONT_FRAGMENT != 0 {
        notes += " DF";
    }
    if header_len > 20 {
        let _ = write!(notes, " options {}", hex(&header[20..]));
    }
    let good = Sum::default().bytes(header).folded() == 0xffff;
    notes += if good { " ip ok" } else { " ip bad" };
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::from_octets([
            fixed[at],
            fixed[at + 1],
            fixed[at + 2],
            fixed[at + 3],
        ]))
    };
    let carrier = Carrier {
        src: address(12),
        dst: address(16),
        protocol: fixed[9],
        notes,
        fragment: (more || offset > 0).then_some(offset),
        announced: usize::from(be16(&fixed[2..])).saturating_sub(header_len),
    };
    transport(&carrier, rest, text)
}

fn v6(bytes: &[u8], text: &mut String) -> Result<(), Short> {
    let (fixed, mut rest) = take(bytes, 40, "IPv6 header")?;
    let first = be32(fixed);
    if first >> 28 != 6 {
        let _ = write!(text, "IP version {} in an IPv6 frame, ", first >> 28);
    }
    let mut notes = format!("hop limit {}", fixed[7]);
    if first >> 20 & 0xff != 0 {
        let _ = write!(notes, " class {:#04x}", first >> 20 & 0xff);
    }
    if first & 0xf_ffff != 0 {
        let _ = write!(notes, " label {:#x}", first & 0xf_ffff);
    }
    let mut announced = usize::from(be16(&fixed[4..]));
    let mut protocol = fixed[6];
    let mut fragment = None;
    while fragment.is_none() && matches!(protocol, 0 | 43 | V6_FRAGMENT | 60 | 135) {
        let (start, _) = take(rest, 8, "IPv6 extension header")?;
        let len = if protocol == V6_FRAGMENT {
            8
        } else {
            8 + usize::from(start[1]) * 8
        };
        let (header, inner) = take(rest, len, "IPv6 extension header")?;
        if protocol == V6_FRAGMENT {
            fragment = Some(be16(&header[2..]) & !7);
            let _ = write!(notes, " id {}", be32(&header[4..]));
        } else {
            let _ = write!(notes, " extension {protocol}");
        }
        protocol = header[0];
        announced = announced.saturating_sub(len);
        rest = inner;
    }
    let address = |at: usize| {
        let mut octets = [0_u8; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let carrier = Carrier {
        src: address(8),
        dst: address(24),
        protocol,
        notes,
        fragment,
        announced,
    };
    transport(&carrier, rest, text)
}

fn transport(carrier: &Carrier, bytes: &[u8], text: &mut String) -> Result<(), Short> {
    let Carrier {
        src,
        dst,
        protocol,
        notes,
        fragment,
        announced,
    } = carrier;
    if matches!(*protocol, ICMP | ICMPV6) && fragment.is_none() {
        return icmp(carrier, bytes, text);
    }
    let later = fragment.is_some_and(|offset| offset > 0);
    if later || !matches!(*protocol, TCP | UDP) {
        let _ = write!(text, "{src} > {dst} {notes}");
        if let Some(offset) = fragment {
            let _ = write!(text, " fragment at {offset}");
        }
        let _ = write!(text, ", protocol {protocol}, {} bytes", bytes.len());
        return Ok(());
    }
    let (what, fixed_len) = if *protocol == TCP {
        ("TCP header", 20)
    } else {
        ("UDP header", 8)
    };
    if bytes.len() < 4 {
        let _ = write!(text, "{src} > {dst} {notes}");
    }
    let (ports, _) = take(bytes, 4, what)?;
    let from = SocketAddr::new(*src, be16(ports));
    let to = SocketAddr::new(*dst, be16(&ports[2..]));
    let _ = write!(text, "{from} > {to} {notes}");
    if fragment.is_some() {
        *text += " first fragment";
    }
    let (header, _) = take(bytes, fixed_len, what)?;
    let (header_len, check) = if *protocol == TCP {
        let names = FLAGS
            .iter()
            .enumerate()
            .filter(|(bit, _)| header[13] >> bit & 1 == 1);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        let names = if names.is_empty() {
            "no flags".into()
        } else {
            names.join("|")
        };
        let (seq, ack, window) = (be32(&header[4..]), be32(&header[8..]), be16(&header[14..]));
        let _ = write!(text, ", {names} seq {seq} ack {ack} win {window}");
        (usize::from(header[12] >> 4) * 4, be16(&header[16..]))
    } else {
        *text += ", udp";
        (8, be16(&header[6..]))
    };
    if header_len < fixed_len {
        let _ = write!(text, ", TCP header of {header_len} bytes (20 is the least)");
        return Ok(());
    }
    let (header, _) = take(bytes, header_len, "TCP options")?;
    if header_len > 20 {
        let _ = write!(text, " options {}", hex(&header[20..]));
    }
    if *announced > bytes.len() {
        let _ = write!(
            text,
            ", cut: {} of {announced} bytes behind the IP header",
            bytes.len()
        );
        return Ok(());
    }
    let segment = &bytes[..*announced];
    let Some(payload_len) = segment.len().checked_sub(header_len) else {
        let _ = write!(
            text,
            ", IP length ends inside the header: {announced} of {header_len} bytes"
        );
        return Ok(());
    };
    let _ = write!(text, ", {payload_len} bytes");
    if bytes.len() > segment.len() {
        let _ = write!(text, " + trailer {}", bytes.len() - segment.len());
    }
    let (src, dst) = (octets(from), octets(to));
    let pseudo = Sum::pseudo_header(&src, &dst, *protocol, segment.len());
    *text += match () {
        () if fragment.is_some() => ", checksum of a fragment",
        () if *protocol == UDP && check == 0 => ", no checksum",
        () if pseudo.bytes(segment).folded() == 0xffff => ", checksum ok",
        () if pseudo.folded() == check => ", checksum partial",
        () => ", checksum bad",
    };
    Ok(())
}

fn icmp(carrier: &Carrier, bytes: &[u8], text: &mut String) -> Result<(), Short> {
    let Carrier {
        src,
        dst,
        protocol,
        notes,
        announced,
        ..
    } = carrier;
    let _ = write!(text, "{src} > {dst} {notes}");
    let (header, _) = take(bytes, 8, "ICMP header")?;
    let (kind, code) = (header[0], header[1]);
    let _ = write!(
        text,
        ", icmp {kind}/{code} {:#x}, {} bytes",
        be32(&header[4..]),
        bytes.len() - 8
    );
    if let Some(message) = bytes.get(..*announced) {
        let (src, dst) = (SocketAddr::new(*src, 0), SocketAddr::new(*dst, 0));
        let pseudo = match *protocol {
            ICMP => Sum::default(),
            _ => Sum::pseudo_header(&octets(src), &octets(dst), *protocol, message.len()),
        };
        *text += if pseudo.bytes(message).folded() == 0xffff {
            ", checksum ok"
        } else {
            ", checksum bad"
        };
    }
    let is_error = match *protocol {
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => kind < 128,
    };
    if is_error {
        *text += " about ";
        return if *protocol == ICMP {
            v4(&bytes[8..], text)
        } else {
            v6(&bytes[8..], text)
        };
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
