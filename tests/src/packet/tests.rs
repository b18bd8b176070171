use std::net::SocketAddr;

use proptest::prelude::*;

use super::{flag::*, *};

/// Bytes a Linux 6.18 kernel sent over a veth pair with checksum offload off, and the builder's calls
/// that must give the same.
fn sent_by_a_kernel() -> Vec<(&'static str, Packet, &'static str)> {
    let (near, far) = (
        [0x7a, 0xb1, 0xb2, 0x7b, 0x59, 0x96],
        [0x12, 0x19, 0xdd, 0x35, 0x2b, 0x42],
    );
    let v4 = Packet::tcp4("192.0.2.1:40000", "192.0.2.2:8080")
        .macs(near, far)
        .window(64240)
        .ip_options(&[7, 7, 8, 0xc0, 0, 2, 1]);
    let v6 = Packet::tcp6("[2001:db8::1]:40000", "[2001:db8::2]:8080")
        .macs(near, far)
        .window(64800);
    vec![
        (
            "IPv4 SYN with a record route option",
            v4.clone()
                .ident(34903)
                .flags(SYN)
                .seq(287054475)
                .tcp_options(&[2, 4, 5, 0xb4]),
            "1219dd352b42 7ab1b27b5996 0800 4700003488574000 40061ba0c0000201 c0000202070708c0
             00020100 9c401f90111c1a8b 000000006002faf0 31ba0000020405b4",
        ),
        (
            "IPv4 SYN/ACK",
            v4.clone()
                .reversed()
                .flags(SYN | ACK)
                .seq(877218406)
                .ack(287054476)
                .tcp_options(&[2, 4, 5, 0xb4]),
            "7ab1b27b5996 1219dd352b42 0800 4700003400004000 4006a3f7c0000202 c0000201070708c0
             00020100 1f909c4034494a66 111c1a8c6012faf0 b2f90000020405b4",
        ),
        (
            "IPv4 data of odd length",
            v4.clone()
                .ident(34905)
                .flags(PSH | ACK)
                .seq(287054476)
                .ack(877218407)
                .payload("hello"),
            "1219dd352b42 7ab1b27b5996 0800 4700003588594000 40061b9dc0000201 c0000202070708c0
             00020100 9c401f90111c1a8c 34494a675018faf0 86d7000068656c6c6f",
        ),
        (
            "IPv4 FIN",
            v4.reversed()
                .ident(6136)
                .flags(FIN | ACK)
                .seq(877218407)
                .ack(287054481)
                .window(64235),
            "7ab1b27b5996 1219dd352b42 0800 4700003017f84000 40068c03c0000202 c0000201070708c0
             00020100 1f909c4034494a67 111c1a915011faeb cab50000",
        ),
        (
            "IPv6 SYN",
            v6.clone()
                .flow_label(0x693f4)
                .flags(SYN)
                .seq(3299050952)
                .tcp_options(&[2, 4, 5, 0xa0]),
            "1219dd352b42 7ab1b27b5996 86dd 600693f400180640 20010db8000000000000000000000001
             20010db8000000000000000000000002 9c401f90c4a385c8 000000006002fd20 39680000020405a0",
        ),
        (
            "IPv6 data of odd length",
            v6.clone()
                .flow_label(0x693f4)
                .flags(PSH | ACK)
                .seq(3299050953)
                .ack(4106542604)
                .payload("hello"),
            "1219dd352b42 7ab1b27b5996 86dd 600693f400190640 20010db8000000000000000000000001
             20010db8000000000000000000000002 9c401f90c4a385c9 f4c4de0c5018fd20 3a500000
             68656c6c6f",
        ),
        (
            "IPv6 FIN",
            v6.reversed()
                .flow_label(0xc0ec9)
                .flags(FIN | ACK)
                .seq(4106542604)
                .ack(3299050958)
                .window(64795),
            "7ab1b27b5996 1219dd352b42 86dd 600c0ec900140640 20010db8000000000000000000000002
             20010db8000000000000000000000001 1f909c40f4c4de0c c4a385ce5011fd1b 7e2e0000",
        ),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn frames_equal_those_of_a_kernel() {
    for (name, packet, hex) in sent_by_a_kernel() {
        if let Some(text) = difference(&bytes(hex), &packet.build()) {
            panic!("{name}: {text}");
        }
    }
}

/// A frame and the description it must have, behind the Ethernet addresses.
fn descriptions() -> Vec<(Packet, &'static str)> {
    let v4 = || Packet::tcp4("10.1.0.2:40000", "10.0.0.10:80");
    let v6 = || Packet::tcp6("[2001:db8:1::2]:40000", "[2001:db8::10]:80");
    const V4: &str = "10.1.0.2:40000 > 10.0.0.10:80 ttl 64 id 0 DF ip ok";
    const V6: &str = "[2001:db8:1::2]:40000 > [2001:db8::10]:80 hop limit 64";
    const ACK0: &str = "ACK seq 0 ack 0 win 65535";
    let row = |packet: Packet, text: String| (packet, &*text.leak());
    vec![
        row(
            v4().flags(SYN).seq(7),
            format!("{V4}, SYN seq 7 ack 0 win 65535, 0 bytes, checksum ok"),
        ),
        row(
            v6().payload("abc"),
            format!("{V6}, {ACK0}, 3 bytes, checksum ok"),
        ),
        row(
            v4().flags(0),
            format!("{V4}, no flags seq 0 ack 0 win 65535, 0 bytes, checksum ok"),
        ),
        row(
            v4().vlan(5),
            format!("vlan 5 {V4}, {ACK0}, 0 bytes, checksum ok"),
        ),
        row(
            v6().vlan(5).vlan(9),
            format!("vlan 5 vlan 9 {V6}, {ACK0}, 0 bytes, checksum ok"),
        ),
        row(
            v4().bad_checksum(),
            format!("{V4}, {ACK0}, 0 bytes, checksum bad"),
        ),
        row(
            v4().bad_ip_checksum(),
            format!("{}, {ACK0}, 0 bytes, checksum ok", V4.replace("ok", "bad")),
        ),
        row(
            v4().partial_checksum().payload("x"),
            format!("{V4}, {ACK0}, 1 bytes, checksum partial"),
        ),
        row(
            v6().partial_checksum().payload("x"),
            format!("{V6}, {ACK0}, 1 bytes, checksum partial"),
        ),
        row(
            v4().trailer_to(60),
            format!("{V4}, {ACK0}, 0 bytes + trailer 6, checksum ok"),
        ),
        row(
            v4().ip_options(&[7, 3, 4])
                .tos(0x28)
                .ttl(9)
                .ident(77)
                .dont_fragment(false),
            format!(
                "10.1.0.2:40000 > 10.0.0.10:80 ttl 9 id 77 tos 0x28 options 07030400 ip ok, {ACK0}, \
                 0 bytes, checksum ok"
            ),
        ),
        row(
            v6().extension(0, &[])
                .extension(60, &[1; 7])
                .tos(0x28)
                .flow_label(0xabc),
            format!(
                "{V6} class 0x28 label 0xabc extension 0 extension 60, {ACK0}, 0 bytes, checksum ok"
            ),
        ),
        row(
            v4().tcp_options(&[2, 4, 5, 0xb4]),
            format!("{V4}, {ACK0} options 020405b4, 0 bytes, checksum ok"),
        ),
        row(
            v4().fragment(0, true).ident(3).payload("abcd"),
            format!(
                "10.1.0.2:40000 > 10.0.0.10:80 ttl 64 id 3 ip ok first fragment, {ACK0}, 4 bytes, \
                 checksum of a fragment"
            ),
        ),
        row(
            v4().fragment(1480, false).ident(3).payload("abcd"),
            "10.1.0.2 > 10.0.0.10 ttl 64 id 3 ip ok fragment at 1480, protocol 6, 4 bytes".into(),
        ),
        row(
            v6().fragment(16, true).ident(3).payload("abcd"),
            "2001:db8:1::2 > 2001:db8::10 hop limit 64 id 3 fragment at 16, protocol 6, 4 bytes"
                .into(),
        ),
        row(
            Packet::udp4("10.1.0.2:53", "10.0.0.10:53").payload("abc"),
            "10.1.0.2:53 > 10.0.0.10:53 ttl 64 id 0 DF ip ok, udp, 3 bytes, checksum ok".into(),
        ),
        row(
            Packet::udp6("[2001:db8:1::2]:53", "[2001:db8::10]:53"),
            "[2001:db8:1::2]:53 > [2001:db8::10]:53 hop limit 64, udp, 0 bytes, checksum ok".into(),
        ),
        row(
            v4().protocol(50),
            "10.1.0.2 > 10.0.0.10 ttl 64 id 0 DF ip ok, protocol 50, 20 bytes".into(),
        ),
        row(v4().ethertype(0x0806), "ethertype 0x0806, 40 bytes".into()),
        row(
            v4().version(5),
            format!("IP version 5 in an IPv4 frame, {V4}, {ACK0}, 0 bytes, checksum ok"),
        ),
        row(
            v4().ihl_words(4),
            "IPv4 header of 16 bytes (20 is the least)".into(),
        ),
        row(
            v4().ihl_words(15),
            "cut in the IPv4 options: 40 of 60 bytes".into(),
        ),
        row(
            v4().data_offset_words(4),
            format!("{V4}, {ACK0}, TCP header of 16 bytes (20 is the least)"),
        ),
        row(
            v4().data_offset_words(6),
            format!("{V4}, {ACK0}, cut in the TCP options: 20 of 24 bytes"),
        ),
        row(
            v4().ip_len_bytes(30),
            format!("{V4}, {ACK0}, IP length ends inside the header: 10 of 20 bytes"),
        ),
        row(
            v4().ip_len_bytes(1500),
            format!("{V4}, {ACK0}, cut: 20 of 1480 bytes behind the IP header"),
        ),
        row(
            v4().truncate(30),
            "cut in the IPv4 header: 16 of 20 bytes".into(),
        ),
        row(
            v6().truncate(50),
            "cut in the IPv6 header: 36 of 40 bytes".into(),
        ),
        row(
            v4().truncate(40),
            format!("{V4}, cut in the TCP header: 6 of 20 bytes"),
        ),
        row(
            v4().truncate(36),
            "10.1.0.2 > 10.0.0.10 ttl 64 id 0 DF ip ok, cut in the TCP header: 2 of 4 bytes".into(),
        ),
        row(
            v4().payload("abcdef").truncate(56),
            format!("{V4}, {ACK0}, cut: 22 of 26 bytes behind the IP header"),
        ),
    ]
}

#[test]
fn descriptions_say_what_a_frame_is() {
    for (packet, expected) in descriptions() {
        let text = describe(&packet.build());
        assert_eq!(
            text,
            format!("02:00:00:00:01:02 > 02:00:00:00:01:01 {expected}"),
            "{packet:?}"
        );
    }
    assert_eq!(
        describe(&[0; 13]),
        "cut in the Ethernet header: 13 of 14 bytes"
    );
    assert_eq!(describe(&[]), "cut in the Ethernet header: 0 of 14 bytes");
}

#[test]
fn a_difference_names_the_first_byte_and_both_frames() {
    let one = Packet::tcp4("10.1.0.2:40000", "10.0.0.10:80");
    let other = one.clone().to("10.2.0.2:8080");
    assert_eq!(difference(&one.build(), &one.build()), None);
    let text = difference(&one.build(), &other.build()).expect("they differ");
    assert!(text.contains("first difference at byte 25\n"), "{text}"); // IPv4 checksum
    assert!(
        text.contains("expected (  54 bytes): 02:00:00:00:01:02 > "),
        "{text}"
    );
    assert!(text.contains("10.1.0.2:40000 > 10.2.0.2:8080"), "{text}");
    let text = difference(&one.build(), &[]).expect("they differ");
    assert!(text.contains("first difference at byte 0\n"), "{text}");
}

#[test]
fn tags_are_those_of_802_1q_and_qinq() {
    let plain = Packet::tcp4("10.1.0.2:40000", "10.0.0.10:80");
    let tags = |packet: Packet, len: usize| packet.build()[12..12 + len].to_vec();
    assert_eq!(tags(plain.clone(), 2), [0x08, 0x00]);
    assert_eq!(
        tags(plain.clone().vlan(5), 6),
        [0x81, 0x00, 0, 5, 0x08, 0x00]
    );
    let double = tags(plain.vlan(5).vlan(9), 10);
    assert_eq!(double, [0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 9, 0x08, 0x00]);
}

#[test]
#[should_panic(expected = "\"10.0.0.10\" is no address with a port, such as 10.0.0.10:80")]
fn an_address_without_port_is_refused() {
    let _ = Packet::tcp4("10.0.0.10", "10.0.0.10:80");
}

#[test]
#[should_panic(expected = "[2001:db8::10]:80 is no IPv4 address")]
fn families_are_not_mixed() {
    let _ = Packet::tcp4("10.1.0.2:40000", "[2001:db8::10]:80");
}

proptest! {
    /// Whatever is put in, the checksums are right, and a second sum in the kernel's own byte order
    /// (`shifter_common`) agrees.
    #[test]
    fn checksums_are_right(
        src: [u8; 4], dst: [u8; 4], ports: (u16, u16), seq: u32, ack: u32, flags: u8, window: u16,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        options in prop::collection::vec(any::<u8>(), 0..=40),
    ) {
        use shifter_common::checksum::{fold, sum_bytes};
        let src = SocketAddr::from((src, ports.0));
        let dst = SocketAddr::from((dst, ports.1));
        let packet = Packet::tcp(src, dst)
            .seq(seq).ack(ack).flags(flags).window(window).payload(&payload).ip_options(&options);
        let frame = packet.build();
        prop_assert!(describe(&frame).contains(" ip ok"), "{}", describe(&frame));
        prop_assert!(describe(&frame).ends_with(", checksum ok"), "{}", describe(&frame));
        let ip_len = usize::from(frame[14] & 0xf) * 4;
        prop_assert_eq!(fold(sum_bytes(&frame[14..14 + ip_len])), 0xffff);
        let segment = &frame[14 + ip_len..];
        let pseudo = [&frame[26..34], &[0, 6], &(segment.len() as u16).to_be_bytes()].concat();
        prop_assert_eq!(fold(sum_bytes(&pseudo) + sum_bytes(segment)), 0xffff);
        let bad = describe(&packet.bad_checksum().build());
        prop_assert!(bad.ends_with(", checksum bad") || bad.ends_with(", checksum partial"));
    }

    /// Garbage is described, not feared.
    #[test]
    fn describe_never_panics(
        garbage in prop::collection::vec(any::<u8>(), 0..120), tagged: bool, family in 0..3,
    ) {
        let mut frame = vec![0; 12];
        if tagged {
            frame.extend([0x81, 0x00, 0, 1]);
        }
        frame.extend(match family { 0 => [0x08, 0x00], 1 => [0x86, 0xdd], _ => [0x12, 0x34] });
        frame.extend(garbage);
        prop_assert!(!describe(&frame).is_empty());
        prop_assert!(difference(&frame, &frame[..frame.len() / 2]).is_some());
    }
}
