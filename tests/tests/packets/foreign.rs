//! Traffic that is none of ours passes untouched, whatever it looks like.

use shifter_common::verdict::Verdict as V_;

use crate::{
    plans::*,
    script::{Script, Step::*},
};
use shifter_tests::packet::Packet;

pub fn scripts() -> Vec<Script> {
    let pass = |name, packet: Packet, verdict| Script {
        name,
        plan: plan(),
        steps: vec![In(packet, verdict, None)],
        counters: &[],
    };
    vec![
        pass(
            "another port of the VIP",
            tcp(C, "10.0.0.10:80", SYN, 1, 0),
            V_::PassForeign,
        ),
        pass(
            "another address",
            tcp(C, "10.0.0.12:443", SYN, 1, 0),
            V_::PassForeign,
        ),
        pass(
            "another address over IPv6",
            tcp(C6, "[2001:db8::11]:443", SYN, 1, 0),
            V_::PassForeign,
        ),
        pass(
            "a backend's own address",
            tcp(C, A, SYN, 1, 0),
            V_::PassForeign,
        ),
        pass(
            "UDP to the VIP",
            Packet::udp4(C, V).payload("x"),
            V_::PassForeign,
        ),
        pass(
            "UDP over IPv6 to the VIP",
            Packet::udp6(C6, V6).payload("x"),
            V_::PassForeign,
        ),
        pass("ARP", tcp(C, V, SYN, 1, 0).ethertype(0x0806), V_::PassNotIp),
        pass(
            "a first fragment",
            tcp(C, V, ACK, 1, 1).fragment(0, true),
            V_::PassFragment,
        ),
        pass(
            "a later fragment",
            tcp(C, V, ACK, 1, 1).fragment(1_480, false),
            V_::PassFragment,
        ),
        pass(
            "an IPv6 fragment",
            tcp(C6, V6, ACK, 1, 1).fragment(0, true),
            V_::PassFragment,
        ),
        pass(
            "a later IPv6 fragment",
            tcp(C6, V6, ACK, 1, 1).fragment(1_480, false),
            V_::PassFragment,
        ),
        pass(
            "an echo request",
            Packet::icmp(C, V, 8, 0).payload("ping"),
            V_::PassProtocol,
        ),
        pass(
            "an IPv6 echo request",
            Packet::icmp(C6, V6, 128, 0).payload("ping"),
            V_::PassProtocol,
        ),
        pass(
            "a redirect",
            Packet::icmp(C, V, 5, 1).quoting(&tcp(V, C, ACK, 1, 1), 28),
            V_::PassProtocol,
        ),
        pass(
            "a neighbour solicitation",
            Packet::icmp(C6, V6, 135, 0).payload([0; 16]),
            V_::PassProtocol,
        ),
        pass("GRE", tcp(C, V, ACK, 1, 1).protocol(47), V_::PassProtocol),
        pass(
            "GRE over IPv6",
            tcp(C6, V6, ACK, 1, 1).protocol(47),
            V_::PassProtocol,
        ),
        pass("ESP", tcp(C, V, ACK, 1, 1).protocol(50), V_::PassSecured),
        pass("AH", tcp(C, V, ACK, 1, 1).protocol(51), V_::PassSecured),
        pass(
            "ESP over IPv6",
            tcp(C6, V6, ACK, 1, 1).protocol(50),
            V_::PassSecured,
        ),
        pass(
            "a UDP header cut short",
            udp(C, V, "").truncate(14 + 20 + 7),
            V_::PassTruncated,
        ),
        pass(
            "a header cut short",
            tcp(C, V, SYN, 1, 0).truncate(14 + 20 + 19),
            V_::PassTruncated,
        ),
        pass(
            "an IPv6 header cut short",
            tcp(C6, V6, SYN, 1, 0).truncate(14 + 40 + 19),
            V_::PassTruncated,
        ),
        pass(
            "an IPv4 header shorter than itself",
            tcp(C, V, SYN, 1, 0).ihl_words(4),
            V_::PassTruncated,
        ),
        pass(
            "an IPv4 header longer than the packet",
            tcp(C, V, SYN, 1, 0).ihl_words(15),
            V_::PassTruncated,
        ),
        pass(
            "data without a flow",
            tcp(C, V, ACK, 7, 7).payload("late"),
            V_::PassNoFlow,
        ),
        pass(
            "a reset without a flow",
            tcp(C, V, RST, 7, 0),
            V_::PassNoFlow,
        ),
        pass(
            "a SYN/ACK to the VIP",
            tcp(C, V, SYN | ACK, 7, 7),
            V_::PassNoFlow,
        ),
        pass("SYN with FIN", tcp(C, V, SYN | FIN, 7, 0), V_::DropBadFlags),
        pass(
            "SYN with RST",
            tcp(C6, V6, SYN | RST, 7, 0),
            V_::DropBadFlags,
        ),
        pass("no flags", tcp(C, V, 0, 7, 0), V_::DropBadFlags),
        pass(
            "impossible flags elsewhere",
            tcp(C, "10.0.0.12:443", SYN | FIN, 7, 0),
            V_::PassForeign,
        ),
        pass(
            "an IPv4 address mapped into IPv6",
            tcp("[2001:db8:9::2]:40000", "[::ffff:10.0.0.10]:443", SYN, 1, 0),
            V_::PassForeign,
        ),
        Script {
            name: "a packet of somebody else leaves",
            plan: plan(),
            steps: vec![
                Out(tcp("10.0.0.30:443", C, ACK, 1, 1), V_::PassForeign, None),
                Out(
                    Packet::udp4("10.0.0.20:8080", C).payload("x"),
                    V_::PassForeign,
                    None,
                ),
                Out(tcp("10.0.0.10:443", C, ACK, 1, 1), V_::PassForeign, None),
            ],
            counters: &[],
        },
        Script {
            name: "a frame that ends with its IPv4 header",
            plan: plan(),
            steps: vec![Raw(
                tcp(C, V, SYN, 1, 0).truncate(34).build(),
                V_::PassTruncated,
            )],
            counters: &[],
        },
    ]
}
