//! IPv6 extension headers: followed, refused, and so long that the rest lies in another buffer.

use shifter_common::verdict::Verdict::{self, *};
use shifter_tests::packet::Packet;

use crate::{
    plans::*,
    script::{Script, Step::*},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AH: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];
/// Type 2, no segments left, an address.
const ROUTE_AT_ITS_END: &[u8] = &[2, 0, 0, 0, 0, 0];
const ROUTE_ON_ITS_WAY: &[u8] = &[2, 1, 0, 0, 0, 0];

const ONE_NEW_FLOW: &[(&str, u64)] = &[
    ("a.selected", 1),
    ("a/[2001:db8::20]:8080.selected", 1),
    ("a/[2001:db8::20]:8080.packets_in", 1),
];

/// A handshake and data, every packet with these headers.
fn steered(name: &'static str, extend: impl Fn(Packet) -> Packet) -> Script {
    let syn = extend(tcp(C6, V6, SYN, 100, 0));
    let answer = extend(tcp(A6, C6, SYN | ACK, 900, 101));
    let ack = extend(tcp(C6, V6, ACK, 101, 901).payload("GET /"));
    // The numbers count the payload alone: a FIN behind it is believed.
    let fin = extend(tcp(C6, V6, FIN | ACK, 106, 901));
    let fin_back = extend(tcp(A6, C6, FIN | ACK, 901, 107));
    Script {
        name,
        plan: plan(),
        steps: vec![
            In(syn.clone(), SteeredNew, Some(syn.to(A6))),
            Out(answer.clone(), SteeredReply, Some(answer.from(V6))),
            In(ack.clone(), SteeredFlow, Some(ack.to(A6))),
            In(fin.clone(), SteeredFlow, Some(fin.to(A6))),
            Out(fin_back.clone(), SteeredReply, Some(fin_back.from(V6))),
        ],
        counters: &[
            ("a.selected", 1),
            ("a.established", 1),
            ("a.closed", 1),
            ("a/[2001:db8::20]:8080.selected", 1),
            ("a/[2001:db8::20]:8080.established", 1),
            ("a/[2001:db8::20]:8080.closed", 1),
            ("a/[2001:db8::20]:8080.packets_in", 3),
            ("a/[2001:db8::20]:8080.packets_out", 2),
        ],
    }
}

fn passed(name: &'static str, packet: Packet, verdict: Verdict) -> Script {
    Script {
        name,
        plan: plan(),
        steps: vec![In(packet, verdict, None)],
        counters: &[],
    }
}

pub fn scripts() -> Vec<Script> {
    let syn = || tcp(C6, V6, SYN, 100, 0);
    let many = |count| (0..count).fold(syn(), |packet, _| packet.extension(DESTINATION, PADDING));
    vec![
        steered("destination options", |p| p.extension(DESTINATION, PADDING)),
        steered("hop-by-hop options", |p| p.extension(HOP_BY_HOP, PADDING)),
        steered("a route at its end", |p| {
            p.extension(ROUTING, ROUTE_AT_ITS_END)
        }),
        steered("all in order, behind two tags", |p| {
            p.vlan(5)
                .vlan(6)
                .extension(HOP_BY_HOP, &[1; 14])
                .extension(DESTINATION, PADDING)
                .extension(ROUTING, ROUTE_AT_ITS_END)
                .extension(DESTINATION, &[0; 62])
        }),
        steered("a fragment that is the whole packet", |p| {
            p.fragment(0, false)
        }),
        Script {
            name: "UDP behind extension headers, and none of its checksum",
            plan: udp_plan(),
            steps: {
                let query = udp(C6, V6, "query").extension(DESTINATION, PADDING);
                vec![In(query.clone(), SteeredNew, Some(query.to(A6)))]
            },
            counters: ONE_NEW_FLOW,
        },
        Script {
            name: "six headers are followed",
            plan: plan(),
            steps: vec![In(many(6), SteeredNew, Some(many(6).to(A6)))],
            counters: ONE_NEW_FLOW,
        },
        passed("seven headers", many(7), PassExtension),
        passed(
            "hop-by-hop options behind others",
            syn()
                .extension(DESTINATION, PADDING)
                .extension(HOP_BY_HOP, PADDING),
            PassExtension,
        ),
        passed(
            "a route on its way",
            syn().extension(ROUTING, ROUTE_ON_ITS_WAY),
            PassExtension,
        ),
        passed(
            "mobility",
            syn().extension(MOBILITY, PADDING),
            PassExtension,
        ),
        passed("AH", syn().extension(AH, &[0; 10]), PassSecured),
        passed(
            "a fragment behind options",
            syn().extension(DESTINATION, PADDING).fragment(0, true),
            PassFragment,
        ),
        passed(
            "an echo request behind options",
            Packet::icmp(C6, V6, 128, 0).extension(DESTINATION, PADDING),
            PassProtocol,
        ),
        passed(
            "a chain that ends before its end",
            syn()
                .extension(DESTINATION, &[0; 254])
                .truncate(14 + 40 + 80),
            PassTruncated,
        ),
        passed(
            "a fragment header that is cut",
            syn().extension(FRAGMENT, &[0; 6]).truncate(14 + 40 + 2),
            PassTruncated,
        ),
    ]
}

/// Frames of more than a page: what lies behind the first 3,520 bytes is in another buffer, which only
/// XDP's test run can do.
pub fn jumbo_scripts() -> Vec<Script> {
    let long = |packet: Packet| {
        packet
            .extension(DESTINATION, &[0; 2_046])
            .extension(DESTINATION, &[0; 2_046])
    };
    let syn = long(tcp(C6, V6, SYN, 100, 0));
    let data = tcp(C, V, ACK, 101, 901).payload(vec![7; 8_900]);
    let error = Packet::icmp("[2001:db8:9::1]:0", V6, 2, 0)
        .icmp_rest(1_280)
        .extension(DESTINATION, &[0; 2_046])
        .extension(DESTINATION, &[0; 2_046]);
    let about = |end| tcp(end, C6, ACK, 901, 101);
    vec![
        Script {
            name: "a TCP header in another buffer",
            plan: plan(),
            steps: vec![
                In(syn.clone(), SteeredNew, Some(syn.to(A6))),
                In(
                    error.clone().quoting(&about(V6), 60),
                    SteeredError,
                    Some(error.to(A6).quoting(&about(A6), 60)),
                ),
            ],
            counters: &[
                ("a.selected", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 2),
            ],
        },
        Script {
            name: "a jumbo frame",
            plan: plan(),
            steps: [
                crate::established::established(),
                vec![In(data.clone(), SteeredFlow, Some(data.to(A)))],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
    ]
}
