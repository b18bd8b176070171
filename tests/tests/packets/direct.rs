//! Connections to a backend's own address, on ports that a flow through the VIP used before.

use shifter_common::verdict::Verdict::*;

use crate::{
    established::established,
    plans::*,
    script::{Script, Step::*},
};

pub fn scripts() -> Vec<Script> {
    vec![
        Script {
            name: "a direct connection is left alone",
            plan: plan(),
            steps: vec![
                In(tcp(C, A, SYN, 1, 0), PassForeign, None),
                Out(tcp(A, C, SYN | ACK, 5, 2), PassDirect, None),
                In(tcp(C, A, ACK, 2, 6), PassForeign, None),
                Out(tcp(A, C, ACK, 6, 2).payload("hello"), PassDirect, None),
            ],
            counters: &[],
        },
        Script {
            name: "a direct connection on the port of a closed flow",
            plan: plan(),
            steps: {
                let fin = tcp(C, V, FIN | ACK, 101, 901);
                let fin_back = tcp(A, C, FIN | ACK, 901, 102);
                [
                    established(),
                    vec![
                        In(fin.clone(), SteeredFlow, Some(fin.to(A))),
                        Out(fin_back.clone(), SteeredReply, Some(fin_back.from(V))),
                        In(tcp(C, A, SYN, 8_000_000, 0), PassForeign, None),
                        Out(tcp(A, C, SYN | ACK, 70, 8_000_001), PassDirect, None),
                        Out(
                            tcp(A, C, ACK, 71, 8_000_001).payload("hello"),
                            PassDirect,
                            None,
                        ),
                    ],
                ]
                .concat()
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.closed", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.closed", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "a direct connection is refused on the port of a closed flow",
            plan: plan(),
            steps: {
                let reset = tcp(C, V, RST, 101, 0);
                [
                    established(),
                    vec![
                        In(reset.clone(), SteeredFlow, Some(reset.to(A))),
                        In(tcp(C, A, SYN, 8_000_000, 0), PassForeign, None),
                        Out(tcp(A, C, RST | ACK, 0, 8_000_001), PassDirect, None),
                    ],
                ]
                .concat()
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.reset_by_client", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.reset_by_client", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "a direct connection while a handshake through the VIP is open",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(A))),
                    In(tcp(C, A, SYN, 8_000_000, 0), PassForeign, None),
                    Out(tcp(A, C, SYN | ACK, 70, 8_000_001), PassDirect, None),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "data of a direct connection while a handshake through the VIP is open",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(A))),
                    Out(
                        tcp(A, C, ACK, 71, 8_000_001).payload("hello"),
                        PassDirect,
                        None,
                    ),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "a direct connection on the port of a refused flow",
            plan: plan(),
            steps: {
                let syn = tcp(C, V, SYN, 100, 0);
                let refusal = tcp(A, C, RST | ACK, 0, 101);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(A))),
                    Out(refusal.clone(), SteeredReply, Some(refusal.from(V))),
                    In(tcp(C, A, SYN, 8_000_000, 0), PassForeign, None),
                    Out(tcp(A, C, SYN | ACK, 70, 8_000_001), PassDirect, None),
                    Out(
                        tcp(A, C, ACK, 71, 8_000_001).payload("hello"),
                        PassDirect,
                        None,
                    ),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.refused", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.refused", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
    ]
}
