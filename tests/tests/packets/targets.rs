//! Target rules: whose new flows do not follow the weight.

use std::net::{IpAddr, SocketAddr};

use shifter_common::{select::Target, steering::Slot, verdict::Verdict::*};
use shifter_daemon::{
    dataplane::{Dataplane as _, ServicePlan},
    model::{Prefix, Targets},
};
use shifter_tests::packet::Packet;

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
    script::{Script, Step::*},
};

fn rules(rows: &[(&str, u8, Target)]) -> Targets {
    rows.iter()
        .map(|(addr, len, target)| {
            let addr: IpAddr = addr.parse().expect("an address of this file");
            (Prefix::of(addr, *len).expect("a length"), *target)
        })
        .collect()
}

fn with(rows: &[(&str, u8, Target)], plan: ServicePlan) -> ServicePlan {
    ServicePlan {
        targets: rules(rows),
        ..plan
    }
}

pub fn scripts() -> Vec<Script> {
    let syn = |seq| tcp(C, V, SYN, seq, 0);
    let other = |seq| tcp("10.9.1.2:40000", V, SYN, seq, 0);
    let canary = &[("10.9.0.0", 24, Target::Canary)];
    vec![
        Script {
            name: "targeted clients go to the canary at weight 0, others do not",
            plan: with(canary, plan()),
            steps: vec![
                In(syn(1), SteeredNew, Some(syn(1).to(B))),
                In(other(1), SteeredNew, Some(other(1).to(A))),
            ],
            counters: &[
                ("b.selected", 1),
                ("b.targeted", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "targeted clients stay on the baseline at full weight",
            plan: with(&[("10.9.0.2", 32, Target::Baseline)], to_b()),
            steps: vec![
                In(syn(1), SteeredNew, Some(syn(1).to(A))),
                In(other(1), SteeredNew, Some(other(1).to(B))),
            ],
            counters: &[
                ("a.selected", 1),
                ("a.targeted", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "a rule names a part: when the slots change parts its clients go along",
            plan: with(canary, plan()),
            steps: {
                let mut swapped = with(canary, plan());
                swapped.baseline = Slot::B;
                vec![
                    Publish(swapped),
                    In(syn(1), SteeredNew, Some(syn(1).to(A))),
                    In(other(1), SteeredNew, Some(other(1).to(B))),
                ]
            },
            counters: &[
                ("a.selected", 1),
                ("a.targeted", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("b.selected", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.packets_in", 1),
            ],
        },
        Script {
            name: "the slot of a target is not eligible: its clients fail over",
            plan: with(canary, without(plan(), Slot::B)),
            steps: vec![In(syn(1), SteeredNew, Some(syn(1).to(A)))],
            counters: &[
                ("b.failed_over", 1),
                ("a.selected", 1),
                ("a.targeted", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "no slot is eligible: a target changes nothing",
            plan: with(canary, plan()),
            steps: vec![
                Publish(with(canary, without(without(plan(), Slot::A), Slot::B))),
                In(syn(1), DropUnserved, None),
            ],
            counters: &[("b.unserved", 1)],
        },
        Script {
            name: "held back: the canary's clients follow the weight, those of the baseline do not",
            plan: ServicePlan {
                held: true,
                ..with(
                    &[
                        ("10.9.0.0", 24, Target::Canary),
                        ("10.9.1.0", 24, Target::Baseline),
                    ],
                    plan(),
                )
            },
            steps: vec![
                In(syn(1), SteeredNew, Some(syn(1).to(A))),
                In(other(1), SteeredNew, Some(other(1).to(A))),
            ],
            counters: &[
                ("a.selected", 2),
                ("a.targeted", 1),
                ("a/10.0.0.20:8080.selected", 2),
                ("a/10.0.0.20:8080.packets_in", 2),
            ],
        },
        Script {
            name: "a change of rules touches no flow that is open",
            plan: with(canary, plan()),
            steps: {
                let answer = tcp(B, C, SYN | ACK, 9, 2);
                let ack = tcp(C, V, ACK, 2, 10);
                vec![
                    In(syn(1), SteeredNew, Some(syn(1).to(B))),
                    Publish(with(&[("10.9.0.0", 24, Target::Baseline)], plan())),
                    Out(answer.clone(), SteeredReply, Some(answer.from(V))),
                    Publish(plan()),
                    In(ack.clone(), SteeredFlow, Some(ack.to(B))),
                    In(
                        tcp("10.9.0.2:40001", V, SYN, 1, 0),
                        SteeredNew,
                        Some(tcp("10.9.0.2:40001", A, SYN, 1, 0)),
                    ),
                ]
            },
            counters: &[
                ("b.selected", 1),
                ("b.targeted", 1),
                ("b.established", 1),
                ("b/10.0.0.20:9090.selected", 1),
                ("b/10.0.0.20:9090.established", 1),
                ("b/10.0.0.20:9090.packets_in", 2),
                ("b/10.0.0.20:9090.packets_out", 1),
                ("a.selected", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
            ],
        },
        Script {
            name: "IPv6: the longest prefix decides, and ::/0 holds no IPv4 client",
            plan: with(
                &[
                    ("::", 0, Target::Canary),
                    ("2001:db8:9::", 48, Target::Baseline),
                    ("2001:db8:9::8", 125, Target::Canary),
                ],
                plan(),
            ),
            steps: {
                let (far, near) = ("[2001:db8:8::2]:40000", "[2001:db8:9::9]:40000");
                let syn6 = |from, to| tcp(from, to, SYN, 1, 0);
                vec![
                    In(syn(1), SteeredNew, Some(syn(1).to(A))),
                    In(syn6(C6, V6), SteeredNew, Some(syn6(C6, A6))),
                    In(syn6(far, V6), SteeredNew, Some(syn6(far, B6))),
                    In(syn6(near, V6), SteeredNew, Some(syn6(near, B6))),
                ]
            },
            counters: &[
                ("a.selected", 2),
                ("a.targeted", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.packets_in", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
                ("b.selected", 2),
                ("b.targeted", 2),
                ("b/[2001:db8::20]:9090.selected", 2),
                ("b/[2001:db8::20]:9090.packets_in", 2),
            ],
        },
    ]
}

/// What the rules say, by trying each.
fn naive(rules: &Targets, client: IpAddr) -> Target {
    rules
        .iter()
        .filter(|(prefix, _)| prefix.contains(client))
        .max_by_key(|(prefix, _)| prefix.len_bits())
        .map_or(Target::Baseline, |(_, target)| *target)
}

/// Sets of rules one after the other in the real trie, each against a reference that tries every
/// rule; and a dataplane that is opened anew knows them.
#[test]
fn the_kernel_finds_what_the_reference_finds() {
    const SEED: u64 = 20_261_125;
    eprintln!("seed {SEED}");
    let mut state = SEED;
    let mut below = |limit: u32| {
        // xorshift64* (Vigna 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::from(limit)) as u32
    };
    let mut kernel = Kernel::new(Hook::Tc);
    let (vip, a): (SocketAddr, SocketAddr) = (V.parse().expect("a VIP"), A.parse().expect("a"));
    let mut targeted_count = 0;
    for round in 0..20_u16 {
        let rules: Targets = (0..below(30))
            .filter_map(|_| {
                let addr = IpAddr::from((10 << 24 | below(4) << 16 | below(8) << 5).to_be_bytes());
                let len = [0, 8, 14, 15, 16, 24, 26, 27, 28, 32][below(10) as usize];
                let target = [Target::Baseline, Target::Canary][below(2) as usize];
                Some((Prefix::of(addr, len)?, target))
            })
            .collect();
        kernel.publish(&ServicePlan {
            targets: rules.clone(),
            ..plan()
        });
        for port in 0..50 {
            let client = IpAddr::from((10 << 24 | below(5) << 16 | below(300)).to_be_bytes());
            let from = SocketAddr::new(client, 10_000 + round * 100 + port);
            let syn = Packet::tcp(from, vip).flags(SYN).seq(1).build();
            let ran = kernel.ingress(&syn);
            assert_eq!(ran.verdict, SteeredNew);
            let is_a = ran.bytes[36..38] == a.port().to_be_bytes();
            let expected = naive(&rules, client);
            assert_eq!(is_a, expected == Target::Baseline, "{client} by {rules:?}");
            targeted_count += u32::from(!is_a);
        }
        let published = kernel.dataplane().published().expect("the kernel answers");
        assert_eq!(published[0].targets, rules);
        if round % 5 == 4 {
            kernel.reopen();
            let published = kernel.dataplane().published().expect("the kernel answers");
            assert_eq!(published[0].targets, rules, "read back from the trie");
        }
    }
    assert!(targeted_count > 100, "{targeted_count} of 1,000 by a rule");
}
