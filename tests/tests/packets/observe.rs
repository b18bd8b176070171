//! What the programs see of a version's answers: times, and the status of responses. What a segment means is
//! tested where it is decided; here it is whether the right segments are looked at, once each.

use std::{net::SocketAddr, thread, time::Duration};

use shifter_common::{
    breaker::BreakerCounters,
    histogram::{BUCKET_COUNT, bucket},
    observe::{Observed, Response, map},
    steering::Slot,
    verdict::Verdict,
};
use shifter_daemon::{
    dataplane::{Dataplane as _, ServicePlan},
    model::{BreakerSpec, ObserveSpec, Prefix},
};
use shifter_tests::packet::Packet;

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
};

const ORDERS: &str = "orders";
const GET: &str = "GET / HTTP/1.1\r\nHost: orders\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n";

const ALL: ObserveSpec = ObserveSpec {
    latency: true,
    http: true,
};

fn observed_plan(observe: ObserveSpec) -> ServicePlan {
    ServicePlan { observe, ..plan() }
}

fn observed(kernel: &mut Kernel, slot: Slot) -> Observed {
    let reading = kernel.dataplane().read(ORDERS).expect("a reading");
    let slots = reading.observed.expect("it is observed");
    *slots[slot.index() as usize].0
}

fn count(counts: &[u64; BUCKET_COUNT]) -> u64 {
    counts.iter().sum()
}

/// A connection, as a client and its backend see it.
struct Wire {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
    /// Next numbers of the client and of the backend.
    next: [u32; 2],
}

impl Wire {
    /// With numbers that wrap soon.
    fn open(kernel: &Kernel, client: &str, vip: &str, backends: [&str; 2]) -> Self {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mut this = Self {
            client: parse(client),
            vip: parse(vip),
            backend: parse(backends[0]),
            next: [u32::MAX - 30, u32::MAX - 60],
        };
        let syn = Packet::tcp(this.client, this.vip)
            .flags(SYN)
            .seq(this.next[0]);
        let ran = kernel.ingress(&syn.build());
        assert_eq!(ran.verdict, Verdict::SteeredNew);
        let port_at = if this.vip.is_ipv6() { 56 } else { 36 };
        let port = u16::from_be_bytes([ran.bytes[port_at], ran.bytes[port_at + 1]]);
        this.backend.set_port(port);
        this.next[0] = this.next[0].wrapping_add(1);
        let answer = Packet::tcp(this.backend, this.client)
            .flags(SYN | ACK)
            .seq(this.next[1])
            .ack(this.next[0]);
        for _ in 0..2 {
            assert_eq!(
                kernel.egress(&answer.build()).verdict,
                Verdict::SteeredReply
            );
        }
        this.next[1] = this.next[1].wrapping_add(1);
        this.ask(kernel, "");
        this
    }

    /// Data of the client, sent twice.
    fn ask(&mut self, kernel: &Kernel, data: &str) {
        let packet = Packet::tcp(self.client, self.vip)
            .flags(ACK)
            .seq(self.next[0])
            .ack(self.next[1])
            .payload(data);
        for _ in 0..2 {
            let ran = kernel.ingress(&packet.build());
            assert_eq!(ran.verdict, Verdict::SteeredFlow);
        }
        self.next[0] = self.next[0].wrapping_add(data.len() as u32);
    }

    /// Data of the backend, sent twice.
    fn answer(&mut self, kernel: &Kernel, data: &str) {
        let packet = Packet::tcp(self.backend, self.client)
            .flags(ACK)
            .seq(self.next[1])
            .ack(self.next[0])
            .payload(data);
        for _ in 0..2 {
            let ran = kernel.egress(&packet.build());
            assert_eq!(ran.verdict, Verdict::SteeredReply);
        }
        self.next[1] = self.next[1].wrapping_add(data.len() as u32);
    }
}

/// What it is about; requests and answers in turn; counts in the order of the classes.
type Row<'a> = (
    &'a str,
    &'a [(&'a str, &'a [&'a str])],
    [u64; Response::COUNT],
);

const FAMILIES: [(&str, &str, [&str; 2]); 2] = [(C, V, [A, B]), (C6, V6, [A6, B6])];

#[test]
fn every_response_counts_once_however_often_it_is_sent() {
    let headers = format!("HTTP/1.1 404 Not Found\r\nX: {}", "x".repeat(1_300));
    let rows: [Row<'_>; 6] = [
        (
            "kept alive",
            &[(GET, &[OK]), (GET, &[BAD]), (GET, &[OK, "body"])],
            [0, 2, 0, 0, 1, 0],
        ),
        (
            "100 and redirection",
            &[
                (GET, &["HTTP/1.1 100 Continue\r\n\r\n"]),
                ("body", &["HTTP/1.1 301 Moved\r\n\r\n"]),
            ],
            [1, 0, 1, 0, 0, 0],
        ),
        (
            "long headers",
            &[(GET, &[&headers, &headers])],
            [0, 0, 0, 1, 0, 1],
        ),
        (
            "split",
            &[(GET, &["HTTP/1.1 5", "00 Oh no\r\n\r\n"])],
            [0, 0, 0, 0, 0, 1],
        ),
        ("short", &[(GET, &["x"])], [0, 0, 0, 0, 0, 1]),
        (
            "TLS",
            &[(
                "\x16\x03\x01\x02\0\x01\0\x01\0\x01\0\x01\0\x01\0\x01",
                &[BAD, BAD],
            )],
            [0, 0, 0, 0, 0, 1],
        ),
    ];
    for hook in [Hook::Xdp, Hook::Tc] {
        let mut kernel = Kernel::new(hook);
        kernel.publish(&observed_plan(ALL));
        let (mut connections_count, mut total) = (0, [0; Response::COUNT]);
        for (client, vip, backends) in FAMILIES {
            for (name, turns, expected) in rows {
                connections_count += 1;
                let client = client.replace("40000", &(40_000 + connections_count).to_string());
                let mut wire = Wire::open(&kernel, &client, vip, backends);
                for (request, answers) in turns {
                    wire.ask(&kernel, request);
                    for answer in *answers {
                        wire.answer(&kernel, answer);
                    }
                }
                for (sum, count) in total.iter_mut().zip(expected) {
                    *sum += count;
                }
                let seen = observed(&mut kernel, Slot::A);
                assert_eq!(seen.responses, total, "{name}, {hook:?}, {client}");
                assert_eq!(count(&seen.connect.counts), connections_count, "{name}");
                assert_eq!(count(&seen.first_byte.counts), connections_count, "{name}");
                assert_eq!(observed(&mut kernel, Slot::B), Observed::default());
            }
        }
    }
}

#[test]
fn times_are_those_between_the_packets() {
    let mut kernel = Kernel::new(Hook::Tc);
    let only_latency = ObserveSpec {
        latency: true,
        http: false,
    };
    kernel.publish(&observed_plan(only_latency));
    let mut wire = Wire::open(&kernel, C, V, [A, B]);
    wire.ask(&kernel, GET);
    thread::sleep(Duration::from_millis(30));
    wire.answer(&kernel, BAD);
    // Nothing more is looked at: the next request has another first byte.
    wire.ask(&kernel, GET);
    wire.answer(&kernel, BAD);
    let seen = observed(&mut kernel, Slot::A);
    assert_eq!(count(&seen.connect.counts), 1);
    assert_eq!(count(&seen.first_byte.counts), 1);
    let least = bucket(30_000_000);
    assert_eq!(
        count(&seen.first_byte.counts),
        seen.first_byte.counts[least..].iter().sum::<u64>()
    );
    assert!(seen.first_byte.sum_ns >= 30_000_000 && seen.connect.sum_ns > 0);
    assert_eq!(
        seen.responses,
        [0; Response::COUNT],
        "nobody asked for them"
    );
}

#[test]
fn a_service_that_is_not_observed_is_not_looked_at() {
    let mut kernel = Kernel::new(Hook::Tc);
    kernel.publish(&plan());
    let dialogue = |kernel: &Kernel, client: &str| {
        let mut wire = Wire::open(kernel, client, V, [A, B]);
        wire.ask(kernel, GET);
        wire.answer(kernel, BAD);
    };
    dialogue(&kernel, C);
    assert_eq!(
        kernel.dataplane().read(ORDERS).expect("a reading").observed,
        None
    );
    assert_eq!(kernel.entries(map::WATCHED), 0);
    // On, for new connections; and off again, at once for all. What was counted stays.
    kernel.publish(&observed_plan(ALL));
    let mut wire = Wire::open(&kernel, "10.9.0.2:40001", V, [A, B]);
    wire.ask(&kernel, GET);
    wire.answer(&kernel, OK);
    wire.ask(&kernel, GET);
    kernel.publish(&plan());
    wire.answer(&kernel, BAD);
    dialogue(&kernel, "10.9.0.2:40002");
    assert_eq!(observed(&mut kernel, Slot::A).responses, [0, 1, 0, 0, 0, 0]);
    assert_eq!(kernel.entries(map::WATCHED), 1);
    // A daemon that starts again goes on with the same row.
    kernel.reopen();
    kernel.publish(&observed_plan(ALL));
    dialogue(&kernel, "10.9.0.2:40003");
    assert_eq!(observed(&mut kernel, Slot::A).responses, [0, 1, 0, 0, 1, 0]);
}

/// The first 5xx of a connection is an error, the next ones and its reset are none; a version that answers
/// nothing else is out.
#[test]
fn the_first_5xx_of_a_connection_is_evidence() {
    let mut kernel = Kernel::new(Hook::Tc);
    let trial = ServicePlan {
        weight_bp: 500,
        rearms: true,
        breaker: BreakerSpec {
            settle: Duration::ZERO,
            min_sources: 1,
            trusted: [Prefix::of([20, 0, 0, 0].into(), 6).expect("a prefix")].into(),
            ..BreakerSpec::default()
        },
        ..observed_plan(ALL)
    };
    kernel.publish(&trial);
    let mut failed_count = 0;
    for nth in 0_u32..2_000 {
        let [_, _, high, low] = nth.to_be_bytes();
        let client = format!("20.0.{high}.{low}:40000");
        let mut wire = Wire::open(&kernel, &client, V, [A, B]);
        let is_canary = wire.backend.port() == 9_090;
        for _ in 0..3 {
            wire.ask(&kernel, GET);
            wire.answer(&kernel, if is_canary { BAD } else { OK });
        }
        if !is_canary {
            continue;
        }
        let reset = Packet::tcp(wire.backend, wire.client)
            .flags(RST | ACK)
            .seq(wire.next[1])
            .ack(wire.next[0]);
        kernel.egress(&reset.build());
        failed_count += 1;
        let reading = kernel.dataplane().breaker(ORDERS).expect("a reading");
        let expected = BreakerCounters {
            canary: failed_count,
            trips: reading.counters.trips,
            ..BreakerCounters::default()
        };
        assert_eq!(reading.counters, expected);
        if reading.counters.trips == 1 {
            break;
        }
    }
    assert!((1..=6).contains(&failed_count), "{failed_count} errors");
    let tripped = kernel.dataplane().tripped();
    assert_eq!(tripped.len(), 1);
    let responses = observed(&mut kernel, Slot::B).responses;
    assert_eq!(responses[Response::ServerError as usize], 3 * failed_count);
    assert_eq!(observed(&mut kernel, Slot::A).responses[4], 0);
}
