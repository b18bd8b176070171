//! Opening a flow: who answers, who is believed, who is asked again.

use shifter_common::{steering::Slot, verdict::Verdict::*};

use crate::{
    plans::*,
    script::{Script, Step::*},
};

pub fn scripts() -> Vec<Script> {
    let syn = || tcp(C, V, SYN, 100, 0).tcp_options(&[2, 4, 5, 180]);
    let answer = || tcp(A, C, SYN | ACK, 900, 101);
    let opened = || {
        vec![
            In(syn(), SteeredNew, Some(syn().to(A))),
            Out(answer(), SteeredReply, Some(answer().from(V))),
        ]
    };
    let ack = |ack_number| tcp(C, V, ACK, 101, ack_number);
    vec![
        Script {
            name: "a handshake over IPv4",
            plan: plan(),
            steps: [
                opened(),
                vec![In(ack(901), SteeredFlow, Some(ack(901).to(A)))],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "a handshake over IPv6 with options and payload",
            plan: to_b(),
            steps: {
                let syn = tcp(C6, V6, SYN, u32::MAX, 0).tcp_options(&[2, 4, 5, 160, 1, 3, 3, 7]);
                let answer = tcp(B6, C6, SYN | ACK, u32::MAX, 0);
                let data = tcp(C6, V6, ACK, 0, 0).payload("GET / HTTP/1.1\r\n\r\nx");
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(B6))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V6))),
                    In(data.clone(), SteeredFlow, Some(data.to(B6))),
                ]
            },
            counters: &[
                ("b.selected", 1),
                ("b.established", 1),
                ("b/[2001:db8::20]:9090.selected", 1),
                ("b/[2001:db8::20]:9090.established", 1),
                ("b/[2001:db8::20]:9090.packets_in", 2),
                ("b/[2001:db8::20]:9090.packets_out", 1),
            ],
        },
        Script {
            name: "IPv4 options stay where they are",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0).ip_options(&[7, 7, 4, 0, 0, 0, 0, 0]);
                vec![In(syn.clone(), SteeredNew, Some(syn.to(A)))]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "an ACK with a guessed number does not establish",
            plan: plan(),
            steps: [
                opened(),
                vec![In(
                    ack(90_000_000),
                    SteeredFlow,
                    Some(ack(90_000_000).to(A)),
                )],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "a retransmitted SYN keeps its choice across a weight change",
            plan: plan(),
            steps: vec![
                In(syn(), SteeredNew, Some(syn().to(A))),
                Publish(to_b()),
                In(syn(), SteeredFlow, Some(syn().to(A))),
                Out(answer(), SteeredReply, Some(answer().from(V))),
                In(syn(), SteeredFlow, Some(syn().to(A))),
                Out(answer(), SteeredReply, Some(answer().from(V))),
            ],
            counters: &[
                ("a.selected", 1),
                ("a.unanswered", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.unanswered", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "a SYN without an answer is selected again when its backend fails",
            plan: plan(),
            steps: vec![
                In(syn(), SteeredNew, Some(syn().to(A))),
                Publish(without(plan(), Slot::A)),
                In(syn(), SteeredNew, Some(syn().to(B))),
            ],
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
            name: "a SYN with another number is another connection",
            plan: plan(),
            steps: {
                let other = tcp(C, V, SYN, 7_000, 0);
                vec![
                    In(syn(), SteeredNew, Some(syn().to(A))),
                    Publish(to_b()),
                    In(other.clone(), SteeredNew, Some(other.to(B))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "a refused handshake is selected again",
            plan: plan(),
            steps: {
                let refusal = tcp(A, C, RST | ACK, 0, 101);
                let again = tcp(C, V, SYN, 5_000, 0);
                vec![
                    In(syn(), SteeredNew, Some(syn().to(A))),
                    Out(refusal.clone(), SteeredReply, Some(refusal.from(V))),
                    Publish(to_b()),
                    In(again.clone(), SteeredNew, Some(again.to(B))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.refused", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.refused", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "a SYN/ACK lost on the way to a full accept queue is repeated after the ACK",
            plan: plan(),
            steps: [
                opened(),
                vec![
                    In(ack(901), SteeredFlow, Some(ack(901).to(A))),
                    Out(answer(), SteeredReply, Some(answer().from(V))),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "a second SYN/ACK with another number establishes by that number",
            plan: plan(),
            steps: {
                let again = tcp(A, C, SYN | ACK, 5_000, 101);
                [
                    opened(),
                    vec![
                        In(syn(), SteeredFlow, Some(syn().to(A))),
                        Out(again.clone(), SteeredReply, Some(again.from(V))),
                        In(ack(5_001), SteeredFlow, Some(ack(5_001).to(A))),
                    ],
                ]
                .concat()
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "TCP Fast Open: data with the SYN, an answer before the ACK",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0).payload("GET /");
                let answer = tcp(A, C, SYN | ACK, 900, 106);
                let early = tcp(A, C, ACK, 901, 106).payload("HTTP/1.1 200");
                let ack = tcp(C, V, ACK, 106, 913);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(A))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V))),
                    Out(early.clone(), SteeredReply, Some(early.from(V))),
                    In(ack.clone(), SteeredFlow, Some(ack.to(A))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "TCP Fast Open: the backend is done before the client's ACK, so a FIN closes the flow",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0).payload("GET /");
                let answer = tcp(A, C, SYN | ACK, 900, 106);
                let early = tcp(A, C, FIN | ACK, 901, 106).payload("HTTP/1.1 200");
                let ack = tcp(C, V, ACK, 106, 914);
                let fin = tcp(C, V, FIN | ACK, 106, 914);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.clone().to(A))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V))),
                    Out(early.clone(), SteeredReply, Some(early.from(V))),
                    In(ack.clone(), SteeredFlow, Some(ack.to(A))),
                    In(fin.clone(), SteeredFlow, Some(fin.to(A))),
                    // The port is free again.
                    In(
                        syn.clone().seq(5_000_000),
                        SteeredNew,
                        Some(syn.seq(5_000_000).to(A)),
                    ),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a.closed", 1),
                ("a/10.0.0.20:8080.selected", 2),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.closed", 1),
                ("a/10.0.0.20:8080.packets_in", 4),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "a forged reset does not end a handshake",
            plan: plan(),
            steps: {
                let forged = tcp(C, V, RST, 7_000_000, 0);
                [
                    opened(),
                    vec![
                        In(forged.clone(), SteeredFlow, Some(forged.to(A))),
                        In(ack(901), SteeredFlow, Some(ack(901).to(A))),
                    ],
                ]
                .concat()
            },
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
