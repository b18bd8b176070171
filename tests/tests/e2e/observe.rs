//! What is seen of the versions' answers agrees with what servers and clients saw themselves.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use shifter_common::wire::{ObservedStatus, ServiceStatus, Slot};
use shifter_daemon::model::{HookSpec, ObserveSpec, Prefix, ProbeCheck, ServiceSpec};
use shifter_tests::{
    conversation::{classes, converse, drop_answers, logged},
    http::{ask, connect},
    netns::Inside,
    world::{Family, OTHER, Options},
};

use crate::stage::{ORDERS, PORT_A, Stage, orders, slot, vip};

/// Everything is looked at, and nobody but the clients asks anything.
fn observed() -> ServiceSpec {
    let mut spec = orders();
    spec.readiness.check = ProbeCheck::None;
    spec.observe = ObserveSpec {
        latency: true,
        http: true,
    };
    spec
}

fn seen(service: &ServiceStatus, of: Slot) -> &ObservedStatus {
    slot(service, of).observed.as_ref().expect("it is observed")
}

/// Until what was seen is what the servers say: they write after they have sent.
fn agree(stage: &Stage, earlier: &[BTreeMap<u16, u64>; 2]) -> ServiceStatus {
    stage.wait("the counts agree with the servers' logs", |service| {
        let servers = [
            (Slot::A, &stage.a, &earlier[0]),
            (Slot::B, &stage.b, &earlier[1]),
        ];
        servers
            .iter()
            .all(|(of, server, earlier)| classes(seen(service, *of)) == logged(server, earlier))
    })
}

#[test]
fn responses_are_those_of_the_servers_logs_also_when_packets_get_lost() {
    for (family, loses) in [(Family::V4, false), (Family::V6, false), (Family::V4, true)] {
        let stage = Stage::with(HookSpec::Tc, Options::default(), observed());
        let earlier = [stage.a.statuses(), stage.b.statuses()];
        stage.b.set_ready(false);
        stage.set_weight(5_000);
        let client = stage.world.client().inside();
        if loses {
            drop_answers(&client);
        }
        converse(&client, vip(family), 8);
        let service = agree(&stage, &earlier);
        let (a, b) = (seen(&service, Slot::A), seen(&service, Slot::B));
        let name = format!("{family:?}, {loses}: {a:?} {b:?}");
        for seen in [a, b] {
            let counts = classes(seen);
            assert!(counts["2xx"] > 100 && counts["4xx"] > 20, "{name}");
            assert!(!counts.contains_key("unknown"), "{name}");
            let established = slot(&service, if seen == a { Slot::A } else { Slot::B })
                .counters
                .established;
            assert_eq!(seen.connect.count, established, "{name}");
            // On some connections nothing was asked: the last one of a client after an error.
            let first_count = seen.first_byte.count;
            assert!(
                (established - 48..=established).contains(&first_count),
                "{name}"
            );
            assert!(seen.first_byte.p50_ns > 0 && seen.first_byte.p99_ns >= seen.first_byte.p50_ns);
        }
        assert!(
            !classes(a).contains_key("5xx") && classes(b)["5xx"] > 20,
            "{name}"
        );
        let text = stage.daemon.metrics().body;
        let text = String::from_utf8(text).expect("text");
        let count = classes(b)["5xx"];
        let line = format!(
            "shifter_slot_responses_total{{service=\"orders\",slot=\"b\",class=\"5xx\"}} {count}\n"
        );
        assert!(text.contains(&line), "{text}");
    }
}

/// A server that takes its time: one connection in eight waits long.
fn slow_server(netns: &Inside, addr: SocketAddr) -> thread::JoinHandle<()> {
    let listener = netns.run(|| TcpListener::bind(addr).expect("a free address"));
    thread::spawn(move || {
        for nth in 0..CLIENTS_COUNT {
            let (mut stream, _) = listener.accept().expect("a client");
            thread::spawn(move || {
                let mut request = [0; 256];
                let _ = stream.read(&mut request).expect("a request");
                thread::sleep(if nth % 8 == 7 { LONG } else { SHORT });
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .expect("a client that waits");
            });
        }
    })
}

const CLIENTS_COUNT: usize = 64;
const SHORT: Duration = Duration::from_millis(120);
const LONG: Duration = Duration::from_millis(900);

/// The percentiles of the kernel are those that the clients measure, up to the width of a bucket and to what
/// a busy machine adds to one of both.
#[test]
fn first_bytes_take_as_long_as_the_clients_say() {
    let mut stage = Stage::with(HookSpec::Tc, Options::default(), observed());
    stage.a.stop();
    let host = stage.world.host().inside();
    let server = slow_server(&host, OTHER.port(Family::V4, PORT_A));
    let client = stage.world.client().inside();
    let target = vip(Family::V4);
    let mut waits: Vec<Duration> = client.run(|| {
        let clients: Vec<_> = (0..CLIENTS_COUNT)
            .map(|_| {
                let mut stream = connect(target).expect("a connection");
                thread::spawn(move || {
                    let begin = Instant::now();
                    ask(&mut stream, "GET", "/", None).expect("an answer");
                    begin.elapsed()
                })
            })
            .collect();
        let waits = clients
            .into_iter()
            .map(|client| client.join().expect("it ran"));
        waits.collect()
    });
    server.join().expect("it ran");
    waits.sort_unstable();
    let service = stage.wait("all are counted", |service| {
        seen(service, Slot::A).first_byte.count == CLIENTS_COUNT as u64
    });
    let first = &seen(&service, Slot::A).first_byte;
    let quantile =
        |share: f64| waits[(share * CLIENTS_COUNT as f64).ceil() as usize - 1].as_nanos() as u64;
    for (name, kernel_ns, client_ns) in [
        ("p50", first.p50_ns, quantile(0.5)),
        ("p99", first.p99_ns, quantile(0.99)),
    ] {
        eprintln!("{name}: kernel {kernel_ns} ns, clients {client_ns} ns");
        let most_ns = client_ns / 8 + 30_000_000;
        assert!(
            kernel_ns.abs_diff(client_ns) <= most_ns,
            "{name}: {kernel_ns} {client_ns}"
        );
    }
    let sum_ns: u64 = waits.iter().map(|wait| wait.as_nanos() as u64).sum();
    assert!(
        first.sum_ns <= sum_ns,
        "{} {sum_ns}: the way to the host takes time",
        first.sum_ns
    );
    let shorter = |bound_ns| {
        first
            .shorter
            .iter()
            .find(|(bound, _)| *bound == bound_ns)
            .map(|(_, count)| *count)
    };
    assert_eq!(shorter(67_108_864), Some(0), "none before 120 ms");
    assert_eq!(
        shorter(536_870_912),
        Some(56),
        "seven in eight before 900 ms"
    );
}

/// A version that answers nothing but 5xx is out after a handful of clients, by the kernel alone.
#[test]
fn a_version_that_answers_5xx_is_out_after_a_handful_of_errors() {
    let mut spec = observed();
    spec.breaker.settle = Duration::ZERO;
    spec.breaker.trusted = [Prefix::of([10, 0, 0, 0].into(), 8).expect("a prefix")].into();
    let stage = Stage::with(HookSpec::Tc, Options::default(), spec);
    stage.set_weight(500);
    stage.b.set_ready(false);
    let client = stage.world.client().inside();
    let (mut bad_count, mut quiet_count) = (0, 0);
    for _ in 0..2_000 {
        let is_bad = client.run(|| {
            let mut stream = connect(vip(Family::V4)).expect("a connection");
            // However many there are on one connection.
            let answers =
                [(); 3].map(|()| ask(&mut stream, "GET", "/ready", None).expect("an answer"));
            answers.iter().any(|answer| answer.status == 503)
        });
        if is_bad {
            (bad_count, quiet_count) = (bad_count + 1, 0);
        } else {
            quiet_count += 1;
        }
        if bad_count > 0 && quiet_count == 400 {
            break;
        }
    }
    let service = stage.wait("the trip is known", |service| service.breaker.tripped);
    assert!(
        (1..=6).contains(&bad_count),
        "{bad_count}: {:?}",
        service.breaker
    );
    assert_eq!(quiet_count, 400, "the old version serves everybody");
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
    let errors: BTreeMap<_, _> = service.breaker.errors.iter().cloned().collect();
    assert_eq!(
        (errors["canary"], errors["baseline"], errors["trips"]),
        (bad_count, 0, 1)
    );
    assert_eq!(
        classes(seen(&service, Slot::B)),
        BTreeMap::from([("5xx".into(), 3 * bad_count)])
    );
    let events = stage.daemon.status().events;
    assert_eq!(
        events
            .iter()
            .filter(|event| event.what == "tripped")
            .count(),
        1
    );
    assert_eq!(service.name, ORDERS);
}
