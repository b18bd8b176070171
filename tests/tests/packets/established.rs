//! Flows in the middle of their life and at its end.

use shifter_common::{steering::Slot, verdict::Verdict::*};

use crate::{
    plans::*,
    script::{Script, Step, Step::*},
};

/// A complete handshake with slot a.
pub fn established() -> Vec<Step> {
    let syn = tcp(C, V, SYN, 100, 0);
    let answer = tcp(A, C, SYN | ACK, 900, 101);
    let ack = tcp(C, V, ACK, 101, 901);
    vec![
        In(syn.clone(), SteeredNew, Some(syn.to(A))),
        Out(answer.clone(), SteeredReply, Some(answer.from(V))),
        In(ack.clone(), SteeredFlow, Some(ack.to(A))),
    ]
}

/// A packet of the client that goes to slot a.
fn to_a(flags: u8, seq: u32, ack: u32) -> Step {
    let packet = tcp(C, V, flags, seq, ack);
    In(packet.clone(), SteeredFlow, Some(packet.to(A)))
}

/// A packet of slot a that goes to the client.
fn from_a(flags: u8, seq: u32, ack: u32) -> Step {
    let packet = tcp(A, C, flags, seq, ack);
    Out(packet.clone(), SteeredReply, Some(packet.from(V)))
}

pub fn scripts() -> Vec<Script> {
    let new_to_b = |seq| {
        let syn = tcp(C, V, SYN, seq, 0);
        In(syn.clone(), SteeredNew, Some(syn.to(B)))
    };
    vec![
        Script {
            name: "data both ways while weight and readiness change",
            plan: plan(),
            steps: {
                let request = tcp(C, V, ACK, 101, 901).payload(vec![7; 333]);
                let response = tcp(A, C, ACK, 901, 434).payload(vec![9; 1_400]);
                [
                    established(),
                    vec![
                        Publish(to_b()),
                        In(request.clone(), SteeredFlow, Some(request.to(A))),
                        Publish(without(to_b(), Slot::A)),
                        Out(response.clone(), SteeredReply, Some(response.from(V))),
                        to_a(ACK, 434, 2_301),
                    ],
                ]
                .concat()
            },
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
            name: "closed by both, then the port is used again after a rollback",
            plan: plan(),
            steps: [
                established(),
                vec![
                    to_a(FIN | ACK, 101, 901),
                    from_a(ACK, 901, 102),
                    from_a(FIN | ACK, 901, 102),
                    to_a(ACK, 102, 902),
                    Publish(to_b()),
                    new_to_b(70_000),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.closed", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.closed", 1),
                ("a/10.0.0.20:8080.packets_in", 4),
                ("a/10.0.0.20:8080.packets_out", 3),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "reset by the client, then the port is used again",
            plan: plan(),
            steps: [
                established(),
                vec![to_a(RST, 101, 0), Publish(to_b()), new_to_b(70_000)],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.reset_by_client", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.reset_by_client", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "reset by the backend after the client's FIN, counted once",
            plan: plan(),
            steps: [
                established(),
                vec![
                    to_a(FIN | ACK, 101, 901),
                    from_a(RST, 901, 0),
                    from_a(RST, 901, 0),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.reset_by_backend", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.reset_by_backend", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 3),
            ],
        },
        Script {
            name: "a SYN into a living flow is the backend's to answer",
            plan: plan(),
            steps: [established(), vec![Publish(to_b()), to_a(SYN, 70_000, 0)]].concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "forged ends are not believed, and the port is not free",
            plan: plan(),
            steps: [
                established(),
                vec![
                    to_a(RST, 0x7000_0000, 0),
                    from_a(RST, 0x7000_0000, 0),
                    to_a(FIN | ACK, 0x7000_0000, 901),
                    Publish(to_b()),
                    to_a(SYN, 70_000, 0),
                    to_a(ACK, 101, 901),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 6),
                ("a/10.0.0.20:8080.packets_out", 2),
            ],
        },
        Script {
            name: "a SYN after a long silence of a dead backend selects again",
            plan: plan(),
            steps: [
                established(),
                vec![
                    Publish(without(plan(), Slot::A)),
                    to_a(SYN, 70_000, 0),
                    Silence,
                    new_to_b(70_000),
                ],
            ]
            .concat(),
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a.failed_over", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "an operator's reset turns every packet into a reset, and frees the port",
            plan: plan(),
            steps: {
                let request = tcp(C, V, ACK | flag_psh(), 101, 901).payload("more");
                let response = tcp(A, C, ACK, 901, 101).payload("late");
                [
                    established(),
                    vec![
                        Reset(Slot::B, 0),
                        Reset(Slot::A, 1),
                        Reset(Slot::A, 0),
                        In(
                            request.clone(),
                            SteeredReset,
                            Some(request.to(A).flags(RST | ACK)),
                        ),
                        Out(
                            response.clone(),
                            SteeredReset,
                            Some(response.from(V).flags(RST | ACK)),
                        ),
                        Publish(to_b()),
                        new_to_b(70_000),
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
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
    ]
}

/// The push flag, which steering never looks at.
const fn flag_psh() -> u8 {
    0x08
}
