//! Which slot and which backend a new flow gets, and what happens when there is none.

use shifter_common::{steering::Slot, verdict::Verdict::*};
use shifter_daemon::{dataplane::ServicePlan, model::OnEmpty};

use crate::{
    plans::*,
    script::{Script, Step::*},
};

pub fn scripts() -> Vec<Script> {
    let syn = |seq| tcp(C, V, SYN, seq, 0);
    let neither = || without(without(plan(), Slot::A), Slot::B);
    let pass = |plan: ServicePlan| ServicePlan {
        on_empty: OnEmpty::Pass,
        ..plan
    };
    vec![
        Script {
            name: "the wanted slot is not eligible",
            plan: without(plan(), Slot::A),
            steps: vec![In(syn(1), SteeredNew, Some(syn(1).to(B)))],
            counters: &[
                ("a.failed_over", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "the canary is not eligible",
            plan: without(to_b(), Slot::B),
            steps: vec![In(syn(1), SteeredNew, Some(syn(1).to(A)))],
            counters: &[
                ("b.failed_over", 1),
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "no slot is eligible: dropped, then served when one is",
            plan: plan(),
            steps: vec![
                Publish(neither()),
                In(syn(1), DropUnserved, None),
                Publish(plan()),
                In(syn(1), SteeredNew, Some(syn(1).to(A))),
            ],
            counters: &[
                ("a.unserved", 1),
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "no slot is eligible: passed, if the service says so",
            plan: pass(plan()),
            steps: vec![Publish(pass(neither())), In(syn(1), PassUnserved, None)],
            counters: &[("a.unserved", 1)],
        },
        Script {
            name: "a change of the plane: known flows go on, new ones are the listeners'",
            plan: plan(),
            steps: {
                let answer = tcp(A, C, SYN | ACK, 9, 2);
                let (ack, other) = (tcp(C, V, ACK, 2, 10), tcp("10.9.0.2:50000", V, SYN, 5, 0));
                vec![
                    In(syn(1), SteeredNew, Some(syn(1).to(A))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V))),
                    In(ack.clone(), SteeredFlow, Some(ack.clone().to(A))),
                    Publish(on_sockets(plan())),
                    In(ack.clone(), SteeredFlow, Some(ack.to(A))),
                    In(other.clone(), PassSocketPlane, None),
                    In(tcp("10.9.0.2:50000", V, ACK, 6, 1), PassSocketPlane, None),
                    Publish(plan()),
                    In(other.clone(), SteeredNew, Some(other.to(A))),
                ]
            },
            counters: &[
                ("a.established", 1),
                ("a.selected", 2),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 4),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("a/10.0.0.20:8080.selected", 2),
            ],
        },
        Script {
            name: "a new service takes its VIP when it can serve it, not before",
            plan: neither(),
            steps: vec![
                In(syn(1), PassForeign, None),
                Publish(plan()),
                In(syn(1), SteeredNew, Some(syn(1).to(A))),
            ],
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "an empty slot with full weight",
            plan: {
                let mut plan = to_b();
                plan.slots[1] = Default::default();
                plan
            },
            steps: vec![In(syn(1), SteeredNew, Some(syn(1).to(A)))],
            counters: &[
                ("b.failed_over", 1),
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "one client port to two VIPs with one backend",
            plan: two_vips(&[A]),
            steps: {
                let other = tcp(C, V2, SYN, 5, 0);
                vec![
                    In(syn(1), SteeredNew, Some(syn(1).to(A))),
                    In(other, DropPortConflict, None),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "the second VIP's replies find their own VIP",
            plan: two_vips(&[A]),
            steps: {
                let syn = tcp(C, V2, SYN, 5, 0);
                let answer = tcp(A, C, SYN | ACK, 9, 6);
                vec![
                    In(syn.clone(), SteeredNew, Some(syn.to(A))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V2))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
        Script {
            name: "a VIP taken out keeps its flows and gets no new ones",
            plan: two_vips(&[A]),
            steps: {
                let syn2 = tcp(C, V2, SYN, 5, 0);
                let answer = tcp(A, C, SYN | ACK, 9, 6);
                let ack = tcp(C, V2, ACK, 6, 10);
                let mut one = two_vips(&[A]);
                one.vips.pop();
                vec![
                    In(syn2.clone(), SteeredNew, Some(syn2.to(A))),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V2))),
                    Publish(one),
                    In(ack.clone(), SteeredFlow, Some(ack.to(A))),
                    In(tcp("10.9.0.2:50000", V2, SYN, 5, 0), PassForeign, None),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 2),
                ("a/10.0.0.20:8080.packets_out", 1),
            ],
        },
    ]
}
