//! VLAN tags in the frame: 802.1Q, QinQ, and too many. Tags that the NIC has taken out are not there.

use shifter_common::verdict::Verdict::*;

use crate::{
    plans::*,
    script::{Script, Step::*},
};

pub fn scripts() -> Vec<Script> {
    let tagged = |name, tag: fn(shifter_tests::packet::Packet) -> shifter_tests::packet::Packet| {
        let (syn, answer) = (
            tag(tcp(C, V, SYN, 100, 0)),
            tag(tcp(A, C, SYN | ACK, 900, 101)),
        );
        let data = tag(tcp(C, V, ACK, 101, 901)
            .payload("GET /")
            .ip_options(&[1, 1, 1, 1]));
        let syn6 = tag(tcp(C6, V6, SYN, 100, 0));
        let error = tag(shifter_tests::packet::Packet::icmp("10.9.0.1:0", V, 3, 4))
            .icmp_rest(1_400)
            .quoting(&tcp(V, C, ACK, 901, 101), 28);
        let translated = error.clone().to(A).quoting(&tcp(A, C, ACK, 901, 101), 28);
        Script {
            name,
            plan: plan(),
            steps: vec![
                In(syn.clone(), SteeredNew, Some(syn.to(A))),
                Out(answer.clone(), SteeredReply, Some(answer.from(V))),
                In(data.clone(), SteeredFlow, Some(data.to(A))),
                In(syn6.clone(), SteeredNew, Some(syn6.to(A6))),
                In(error, SteeredError, Some(translated)),
            ],
            counters: &[
                ("a.selected", 2),
                ("a.established", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.packets_in", 3),
                ("a/10.0.0.20:8080.packets_out", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.packets_in", 1),
            ],
        }
    };
    vec![
        tagged("802.1Q", |packet| packet.vlan(7)),
        tagged("QinQ", |packet| packet.vlan(7).vlan(8)),
        Script {
            name: "three tags",
            plan: plan(),
            steps: vec![
                In(tcp(C, V, SYN, 1, 0).vlan(7).vlan(8).vlan(9), PassTags, None),
                In(
                    tcp(C, V, SYN, 1, 0).vlan(7).ethertype(0x0806),
                    PassNotIp,
                    None,
                ),
            ],
            counters: &[],
        },
    ]
}
