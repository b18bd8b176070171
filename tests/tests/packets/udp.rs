//! UDP: datagrams open flows, answers confirm them, silence ends them.

use shifter_common::{steering::Slot, verdict::Verdict::*};
use shifter_daemon::dataplane::ServicePlan;
use shifter_tests::packet::Packet;

use crate::{
    plans::*,
    script::{Script, Step, Step::*},
};

const QUERY: &str = "query";
const ANSWER: &str = "answer";

fn query() -> Packet {
    udp(C, V, QUERY)
}

/// A query that opens a flow to an address.
fn new_to(backend: &'static str) -> Step {
    In(query(), SteeredNew, Some(query().to(backend)))
}

/// A query of a known flow.
fn goes_on_to(backend: &'static str) -> Step {
    In(query(), SteeredFlow, Some(query().to(backend)))
}

fn answer_of(backend: &'static str) -> Step {
    let answer = udp(backend, C, ANSWER);
    Out(answer.clone(), SteeredReply, Some(answer.from(V)))
}

fn udp_to_b() -> ServicePlan {
    ServicePlan {
        weight_bp: 10_000,
        ..udp_plan()
    }
}

/// The payload that makes a datagram's checksum come out as zero once it is sent to `to`.
fn zero_sum_payload(from: &'static str, to: &'static str) -> [u8; 2] {
    (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| {
            let frame = Packet::udp(from, to).payload(payload).build();
            let check_at = frame.len() - 2 - 2;
            frame[check_at..check_at + 2] == [0xff, 0xff]
        })
        .expect("one of all")
}

/// What is written below once a query has been sent to slot a once and `more` times again.
pub fn scripts() -> Vec<Script> {
    let zero_v4 = Packet::udp(C, V).payload(zero_sum_payload(C, A));
    let zero_v6 = Packet::udp(C6, V6).payload(zero_sum_payload(C6, A6));
    vec![
        Script {
            name: "a question and its answer keep their backend while weight and readiness change",
            plan: udp_plan(),
            steps: vec![
                new_to(A),
                Publish(udp_to_b()),
                goes_on_to(A),
                answer_of(A),
                goes_on_to(A),
                Publish(without(udp_to_b(), Slot::A)),
                goes_on_to(A),
                answer_of(A),
            ],
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 4),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "UDP over IPv6",
            plan: udp_plan(),
            steps: {
                let (query, answer) = (udp(C6, V6, QUERY), udp(A6, C6, ANSWER));
                vec![
                    In(query.clone(), SteeredNew, Some(query.to(A6))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V6))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.established", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
                ("a/[2001:db8::20]:8080.packets_out", 1),
            ],
        },
        Script {
            name: "no checksum stays none, a computed 0 is written as 0xffff",
            plan: udp_plan(),
            steps: {
                let none = query().no_checksum();
                let back = udp(A, C, ANSWER).no_checksum();
                vec![
                    In(none.clone(), SteeredNew, Some(none.to(A))),
                    Out(back.clone(), SteeredReply, Some(back.from(V))),
                    In(zero_v4.clone(), SteeredFlow, Some(zero_v4.to(A))),
                    In(zero_v6.clone(), SteeredNew, Some(zero_v6.to(A6))),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
            ],
        },
        Script {
            name: "an unanswered flow ends after half a minute",
            plan: udp_plan(),
            steps: vec![
                new_to(A),
                Publish(udp_to_b()),
                Age(20),
                goes_on_to(A),
                Age(31),
                new_to(B),
            ],
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "an answered flow ends after three minutes",
            plan: udp_plan(),
            steps: vec![
                new_to(A),
                answer_of(A),
                Publish(udp_to_b()),
                Age(120),
                goes_on_to(A),
                Age(181),
                new_to(B),
            ],
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "a backend that failed before it answered loses its flow at once",
            plan: udp_plan(),
            steps: vec![new_to(A), Publish(without(udp_plan(), Slot::A)), new_to(B)],
            counters: &[
                ("a.selected", 1),
                ("a.failed_over", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "a backend that failed and went silent loses its flow",
            plan: udp_plan(),
            steps: vec![
                new_to(A),
                answer_of(A),
                Publish(without(udp_plan(), Slot::A)),
                goes_on_to(A),
                Age(3),
                new_to(B),
            ],
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.failed_over", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "an operator's reset forgets flows, answered or not, and they select again",
            plan: udp_plan(),
            steps: {
                let other = udp("10.9.0.3:40000", V, QUERY);
                vec![
                    new_to(A),
                    answer_of(A),
                    In(other.clone(), SteeredNew, Some(other.clone().to(A))),
                    Publish(udp_to_b()),
                    Reset(Slot::B, 0),
                    Reset(Slot::A, 2),
                    Reset(Slot::A, 0),
                    Out(udp(A, C, ANSWER), PassDirect, None),
                    new_to(B),
                    In(other.clone(), SteeredNew, Some(other.to(B))),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 2),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 2),
                ("b/10.0.0.20:9090.selected", 2),
                ("b/10.0.0.20:9090.packets_in", 2),
            ],
        },
        Script {
            name: "TCP to the address of a UDP service",
            plan: udp_plan(),
            steps: vec![
                In(tcp(C, V, SYN, 1, 0), PassForeign, None),
                Out(tcp(A, C, ACK, 1, 1), PassForeign, None),
                Out(udp(A, C, "unasked"), PassDirect, None),
            ],
            counters: &[],
        },
        Script {
            name: "no slot is eligible",
            plan: udp_plan(),
            steps: vec![
                Publish(without(without(udp_plan(), Slot::A), Slot::B)),
                In(query(), DropUnserved, None),
            ],
            counters: &[("a.unserved", 1)],
        },
    ]
}
