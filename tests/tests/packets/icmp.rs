//! ICMP errors about flows, translated in both directions, and those that are about nothing of ours.

use shifter_common::verdict::Verdict::*;
use shifter_tests::packet::Packet;

use crate::{
    established::established,
    plans::*,
    script::{Script, Step, Step::*},
};

/// A router between client and host.
const R: &str = "10.9.0.1:0";
const R6: &str = "[2001:db8:9::1]:0";
/// A router behind the host, such as the host itself.
const H: &str = "10.2.0.1:0";
const H6: &str = "[2001:db8:2::1]:0";

/// Everything that was sent, and the least a router quotes.
const ALL: usize = 10_000;
const LEAST_V4: usize = 28;
const LEAST_V6: usize = 48;

/// An error from the network about a packet of the VIP, and what the backend gets.
fn inward(error: &Packet, quote: impl Fn(&'static str) -> Packet, ends: Ends, len: usize) -> Step {
    In(
        error.clone().quoting(&quote(ends.vip), len),
        SteeredError,
        Some(
            error
                .clone()
                .to(ends.backend)
                .quoting(&quote(ends.backend), len),
        ),
    )
}

/// An error about a packet to the backend, and what the client gets. `from`: the source it gets.
fn outward(
    error: &Packet,
    from: Option<&'static str>,
    quote: impl Fn(&'static str) -> Packet,
    ends: Ends,
    len: usize,
) -> Step {
    let translated = error.clone().quoting(&quote(ends.vip), len);
    Out(
        error.clone().quoting(&quote(ends.backend), len),
        SteeredErrorReply,
        Some(match from {
            Some(from) => translated.from(from),
            None => translated,
        }),
    )
}

#[derive(Clone, Copy)]
struct Ends {
    vip: &'static str,
    backend: &'static str,
}

const V4_ENDS: Ends = Ends { vip: V, backend: A };
const V6_ENDS: Ends = Ends {
    vip: V6,
    backend: A6,
};

fn open6() -> Step {
    let syn = tcp(C6, V6, SYN, 100, 0);
    In(syn.clone(), SteeredNew, Some(syn.to(A6)))
}

fn open_udp(client: &'static str, ends: Ends) -> Step {
    let query = udp(client, ends.vip, "query");
    In(query.clone(), SteeredNew, Some(query.to(ends.backend)))
}

pub fn scripts() -> Vec<Script> {
    let data = |from| tcp(from, C, ACK, 901, 101).payload(vec![7; 1_400]);
    let data6 = |from| tcp(from, C6, ACK, 901, 101).payload(vec![7; 1_400]);
    let request = |to| tcp(C, to, ACK, 101, 901).payload("GET /");
    let request6 = |to| tcp(C6, to, SYN, 100, 0);
    let too_big = |from, to| Packet::icmp(from, to, 3, 4).icmp_rest(1_300);
    let too_big6 = |from, to| Packet::icmp(from, to, 2, 0).icmp_rest(1_300);
    vec![
        Script {
            name: "errors of the network about TCP",
            plan: plan(),
            steps: [
                established(),
                vec![
                    inward(&too_big(R, V), data, V4_ENDS, LEAST_V4),
                    // As much as Linux quotes, with the TCP checksum.
                    inward(&too_big(R, V), data, V4_ENDS, 548),
                    inward(&Packet::icmp(R, V, 11, 0), data, V4_ENDS, 48),
                    inward(&Packet::icmp(R, V, 3, 1), data, V4_ENDS, LEAST_V4),
                    inward(
                        &Packet::icmp(R, V, 12, 0).icmp_rest(0x1400_0000),
                        |from| data(from).ip_options(&[7, 7, 4, 0, 0, 0, 0, 0]),
                        V4_ENDS,
                        100,
                    ),
                    // Behind the quote a trailer, which is no checksum.
                    inward(&too_big(R, V).trailer_to(100), data, V4_ENDS, LEAST_V4),
                    // A router has cut the packet, and another speaks of the first part.
                    inward(
                        &Packet::icmp(R, V, 11, 1),
                        |from| data(from).fragment(0, true),
                        V4_ENDS,
                        LEAST_V4,
                    ),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 9),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "errors of the network about TCP over IPv6",
            plan: plan(),
            steps: vec![
                open6(),
                inward(&too_big6(R6, V6), data6, V6_ENDS, 1_232),
                inward(&Packet::icmp(R6, V6, 1, 0), data6, V6_ENDS, LEAST_V6),
                inward(&Packet::icmp(R6, V6, 3, 0), data6, V6_ENDS, ALL),
                inward(
                    &Packet::icmp(R6, V6, 4, 0).extension(60, &[1, 4, 0, 0, 0, 0]),
                    |from| data6(from).extension(60, &[1, 4, 0, 0, 0, 0]),
                    V6_ENDS,
                    600,
                ),
            ],
            counters: &[
                ("a.selected", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 5),
            ],
        },
        Script {
            name: "errors from the way to the backend, and of the backend",
            plan: plan(),
            steps: [
                established(),
                vec![
                    open6(),
                    outward(&too_big(H, C), None, request, V4_ENDS, ALL),
                    outward(&Packet::icmp(H, C, 11, 0), None, request, V4_ENDS, LEAST_V4),
                    outward(&Packet::icmp(A, C, 3, 2), Some(V), request, V4_ENDS, ALL),
                    // A closed port ends no TCP flow: that takes a RST.
                    outward(&Packet::icmp(A, C, 3, 3), Some(V), request, V4_ENDS, ALL),
                    outward(&too_big6(H6, C6), None, request6, V6_ENDS, ALL),
                    outward(
                        &Packet::icmp(A6, C6, 1, 1),
                        Some(V6),
                        request6,
                        V6_ENDS,
                        LEAST_V6,
                    ),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 5),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
                ("a/[2001:db8::20]:8080.packets_out", 2),
            ],
        },
        Script {
            name: "errors about UDP, with a checksum and without",
            plan: udp_plan(),
            steps: {
                let answer = |from| udp(from, C, "answer");
                let bare = |from| udp(from, C, "answer").no_checksum();
                let query6 = |to| udp(C6, to, "query");
                vec![
                    open_udp(C, V4_ENDS),
                    open_udp(C6, V6_ENDS),
                    inward(&too_big(R, V), answer, V4_ENDS, LEAST_V4),
                    inward(&too_big(R, V), bare, V4_ENDS, ALL),
                    outward(&Packet::icmp(H6, C6, 3, 0), None, query6, V6_ENDS, ALL),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
                ("a/[2001:db8::20]:8080.packets_out", 1),
            ],
        },
        Script {
            name: "a UDP backend whose port is closed refuses, and the next datagram selects again",
            plan: udp_plan(),
            steps: {
                let query = |to| udp(C, to, "query");
                let query6 = |to| udp(C6, to, "query");
                let answer6 = udp(A6, C6, "answer");
                let to_b = shifter_daemon::dataplane::ServicePlan {
                    weight_bp: 10_000,
                    ..udp_plan()
                };
                vec![
                    open_udp(C, V4_ENDS),
                    open_udp(C6, V6_ENDS),
                    Out(answer6.clone(), SteeredReply, Some(answer6.from(V6))),
                    // From the way: not the backend's own word.
                    outward(&Packet::icmp(H, C, 3, 3), None, query, V4_ENDS, ALL),
                    Publish(to_b),
                    In(query(V), SteeredFlow, Some(query(A))),
                    outward(&Packet::icmp(A, C, 3, 3), Some(V), query, V4_ENDS, ALL),
                    outward(&Packet::icmp(A6, C6, 1, 4), Some(V6), query6, V6_ENDS, ALL),
                    In(query(V), SteeredNew, Some(query(B))),
                    In(query6(V6), SteeredNew, Some(query6(B6))),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a.refused", 1),
                ("a.reset_by_backend", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.refused", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 2),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.established", 1),
                ("a/[2001:db8::20]:8080.reset_by_backend", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
                ("a/[2001:db8::20]:8080.packets_out", 2),
                ("b.selected", 2),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
                ("b/[2001:db8::20]:9090.selected", 1),
                ("b/[2001:db8::20]:9090.packets_in", 1),
            ],
        },
        Script {
            name: "errors about nothing of ours pass",
            plan: plan(),
            steps: vec![
                // No such flow.
                In(
                    too_big(R, V).quoting(&data(V), LEAST_V4),
                    PassErrorNoFlow,
                    None,
                ),
                Out(
                    too_big(H, C).quoting(&request(A), LEAST_V4),
                    PassErrorNoFlow,
                    None,
                ),
                // Another port of the VIP's address.
                In(
                    too_big(R, V).quoting(&data("10.0.0.10:80"), LEAST_V4),
                    PassForeign,
                    None,
                ),
                Out(
                    too_big(H, C).quoting(&request("10.0.0.20:22"), LEAST_V4),
                    PassForeign,
                    None,
                ),
                // Not sent to whom it is about.
                In(
                    too_big(R, "10.0.0.12:0").quoting(&data(V), LEAST_V4),
                    PassForeign,
                    None,
                ),
                Out(
                    too_big(H, "10.9.0.3:0").quoting(&request(A), LEAST_V4),
                    PassForeign,
                    None,
                ),
                // The quote ends before the ports, or in its IP header.
                In(too_big(R, V).quoting(&data(V), 27), PassTruncated, None),
                In(
                    too_big6(R6, V6).quoting(&data6(V6), 39),
                    PassTruncated,
                    None,
                ),
                // A later fragment has no ports.
                In(
                    too_big(R, V).quoting(&data(V).fragment(1_480, false), 100),
                    PassFragment,
                    None,
                ),
                // An error about an echo reply.
                In(
                    too_big(R, V).quoting(&Packet::icmp(V, C, 0, 0), 28),
                    PassProtocol,
                    None,
                ),
                // An error that is itself in parts.
                In(
                    too_big(R, V).quoting(&data(V), 548).fragment(0, true),
                    PassFragment,
                    None,
                ),
            ],
            counters: &[],
        },
    ]
}
