//! A backend that calls its own VIP and is selected itself.

use shifter_common::verdict::Verdict::*;
use shifter_tests::packet::{CLIENT_MAC, HOST_MAC, Packet};

use crate::{
    plans::*,
    script::{Script, Step::*},
};

/// The backend as a client, in both families, and what it sees of itself.
const CALLER: &str = "10.0.0.20:45000";
const CALLER6: &str = "[2001:db8::20]:45000";
const SEEN: &str = "10.0.0.10:45000";
const SEEN6: &str = "[2001:db8::10]:45000";
/// It calls from a port that is another VIP of the service.
const CALLER_AT_VIP: &str = "10.0.0.20:443";

/// The packet as it goes back by the interface.
fn turned(packet: &Packet, from: &'static str, to: &'static str) -> Option<Packet> {
    Some(packet.clone().from(from).to(to).macs(HOST_MAC, CLIENT_MAC))
}

fn script(
    name: &'static str,
    [caller, seen, vip, backend]: [&'static str; 4],
    counters: &'static [(&'static str, u64)],
) -> Script {
    let call = |flags, seq, ack, payload: &str| {
        let packet = tcp(caller, vip, flags, seq, ack).payload(payload);
        let output = turned(&packet, seen, backend);
        In(packet, SteeredTurned, output)
    };
    let answer = |flags, seq, ack, payload: &str| {
        let packet = tcp(backend, seen, flags, seq, ack).payload(payload);
        let output = turned(&packet, vip, caller);
        Back(packet, SteeredTurned, output)
    };
    Script {
        name,
        plan: plan(),
        steps: vec![
            call(SYN, 100, 0, ""),
            call(SYN, 100, 0, ""),
            answer(SYN | ACK, 900, 101, ""),
            call(ACK, 101, 901, "hello"),
            answer(ACK, 901, 106, "hello"),
            // What has nothing to do with it: the same backend to another port of the VIP, a
            // packet whose numbers belong to no flow, another client's.
            Back(tcp(backend, vip, SYN | ACK, 5, 5), PassNoFlow, None),
            In(tcp(caller, backend, SYN, 1, 0), PassForeign, None),
            call(FIN | ACK, 106, 906, ""),
            answer(FIN | ACK, 906, 107, ""),
        ],
        counters,
    }
}

pub fn scripts() -> Vec<Script> {
    vec![
        script(
            "a backend is its own client",
            [CALLER, SEEN, V, A],
            &[
                ("a.selected", 1),
                ("a.unanswered", 1),
                ("a.established", 1),
                ("a.closed", 1),
                ("a/10.0.0.20:8080.selected", 1),
                ("a/10.0.0.20:8080.unanswered", 1),
                ("a/10.0.0.20:8080.established", 1),
                ("a/10.0.0.20:8080.closed", 1),
                ("a/10.0.0.20:8080.packets_in", 4),
                ("a/10.0.0.20:8080.packets_out", 3),
            ],
        ),
        script(
            "a backend is its own client over IPv6",
            [CALLER6, SEEN6, V6, A6],
            &[
                ("a.selected", 1),
                ("a.unanswered", 1),
                ("a.established", 1),
                ("a.closed", 1),
                ("a/[2001:db8::20]:8080.selected", 1),
                ("a/[2001:db8::20]:8080.unanswered", 1),
                ("a/[2001:db8::20]:8080.established", 1),
                ("a/[2001:db8::20]:8080.closed", 1),
                ("a/[2001:db8::20]:8080.packets_in", 4),
                ("a/[2001:db8::20]:8080.packets_out", 3),
            ],
        ),
        Script {
            name: "a backend that calls itself from the port of a VIP is not understood",
            plan: plan(),
            steps: vec![In(tcp(CALLER_AT_VIP, V, SYN, 1, 0), DropPortConflict, None)],
            counters: &[],
        },
    ]
}
