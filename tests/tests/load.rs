//! The load client against servers that lie, fall silent or break off: each must be noticed and
//! counted under its name, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use shifter_tests::{
    backend::{Backend, Spec},
    load::{
        self,
        ErrorKind::{self, *},
        Line, Plan, Report, Sources,
    },
    netns::Netns,
    process::Process,
    world::{CLIENT_POOL, Family, Options, Place, VIP, World},
};

/// What the lying server does with one request.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// An answer of a backend on a connection.
    Answer(&'static str, &'static str),
    /// An answer of v1 on connection 1, and no FIN, though one was asked for.
    Stay,
    /// An answer of v1 on connection 1, and something more a little later.
    Trail,
    /// These bytes, and nothing after them.
    Bytes(&'static str),
    /// Nothing; the connection stays open.
    Silence,
    /// A FIN.
    Close,
    /// A RST.
    Reset,
}

use Act::{Answer, Bytes, Close, Reset as Rst, Silence, Stay, Trail};

/// Serves connections, each with the next script, then ends; returns who connected.
fn lie(
    netns: &Netns,
    addr: SocketAddr,
    scripts: Vec<Vec<Act>>,
) -> thread::JoinHandle<Vec<SocketAddr>> {
    let listener = netns
        .run(|| TcpListener::bind(addr))
        .expect("an address of the host");
    thread::spawn(move || {
        let serve = |script: Vec<Act>| {
            let (stream, peer) = listener.accept().expect("a client");
            // Pieces stay pieces.
            stream.set_nodelay(true).expect("nodelay");
            thread::spawn(move || script.into_iter().all(|act| perform(&stream, act)));
            peer
        };
        scripts.into_iter().map(serve).collect()
    })
}

/// False if the connection ends with it.
fn perform(mut stream: &TcpStream, act: Act) -> bool {
    let mut request = [0; 1024];
    if !stream.read(&mut request).is_ok_and(|count| count > 0) {
        return false;
    }
    let close = String::from_utf8_lossy(&request).contains("Connection: close");
    let answer = |backend: &str, connection: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Backend: {backend}\r\n\
             X-Connection: {connection}\r\n\r\nhi"
        )
    };
    let text = match act {
        Answer(backend, connection) => answer(backend, connection),
        Stay | Trail => answer("v1", "1"),
        Bytes(text) => text.to_owned(),
        Close => return false,
        Silence => {
            // Until the client has had enough.
            let _ = stream.read(&mut request);
            return false;
        }
        Rst => {
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(stream, sockopt::Linger, &at_once).expect("linger");
            return false;
        }
    };
    // In two pieces: an answer need not come at once.
    let (one, other) = text.split_at(text.len() / 2);
    let sent = [one, other].map(|part| {
        let sent = stream.write_all(part.as_bytes()).is_ok();
        thread::sleep(Duration::from_millis(1));
        sent
    });
    match act {
        Stay => {
            // Until the client has had enough.
            let _ = stream.read(&mut request);
        }
        Trail => {
            thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(b"x");
        }
        _ => {}
    }
    sent == [true, true] && !close
}

const OK: Act = Answer("v1", "1");

/// What a server does with the three requests of one connection; the answers counted; the error.
const LIES: &[(&str, &[Act], u64, Option<ErrorKind>)] = &[
    ("the truth", &[OK, OK, OK], 3, None),
    (
        "another backend",
        &[OK, Answer("v2", "1")],
        1,
        Some(BackendChanged),
    ),
    (
        "another backend, last",
        &[OK, OK, Answer("v2", "1")],
        2,
        Some(BackendChanged),
    ),
    (
        "another connection",
        &[OK, Answer("v1", "2")],
        1,
        Some(ConnectionChanged),
    ),
    ("no backend", &[Answer("", "1")], 0, Some(BadResponse)),
    (
        "no connection",
        &[OK, Answer("v1", "")],
        1,
        Some(BadResponse),
    ),
    (
        "an error",
        &[Bytes("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")],
        0,
        Some(BadStatus),
    ),
    (
        "no HTTP",
        &[Bytes("SSH-2.0-OpenSSH\r\n")],
        0,
        Some(BadResponse),
    ),
    (
        "no length",
        &[Bytes("HTTP/1.1 200 OK\r\n\r\n")],
        0,
        Some(BadResponse),
    ),
    (
        "two answers to one request",
        &[Bytes(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Backend: v1\r\nX-Connection: 1\r\n\r\nHTTP/1.1",
        )],
        0,
        Some(BadResponse),
    ),
    ("no end", &[OK, OK, Stay], 3, Some(Timeout)),
    (
        "something behind the end",
        &[OK, OK, Trail],
        3,
        Some(BadResponse),
    ),
    (
        "half an answer",
        &[
            OK,
            Bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"),
            Close,
        ],
        1,
        Some(Timeout),
    ),
    ("silence", &[OK, Silence], 1, Some(Timeout)),
    ("an end", &[OK, Close], 1, Some(Closed)),
    ("an end before any answer", &[Close], 0, Some(Closed)),
    ("a reset", &[OK, Rst], 1, Some(Reset)),
];

#[test]
fn every_lie_is_counted_under_its_name() {
    let world = World::pair(Options::default());
    for (number, &(what, script, requests, error)) in LIES.iter().enumerate() {
        for family in Family::ALL {
            let addr = VIP.port(family, 8000 + number as u16);
            let server = lie(world.host(), addr, vec![script.to_vec()]);
            let plan = Plan {
                requests_per_connection: Some(3),
                timeout: Duration::from_millis(700),
                ..Plan::connections(addr, 1, 1)
            };
            let report = load::run(world.client(), &plan);
            server.join().expect("server");
            let errors: BTreeMap<_, _> = error.into_iter().map(|kind| (kind, 1)).collect();
            assert_eq!(report.errors, errors, "{what}: {:?}", report.examples);
            assert_eq!(
                (report.attempts, report.connections, report.requests),
                (1, 1, requests),
                "{what}"
            );
            let v1 = report.backend("v1");
            // An error belongs to the backend that had answered before.
            let expected = if requests > 0 {
                (1, requests, u64::from(error.is_some()))
            } else {
                (0, 0, 0)
            };
            assert_eq!((v1.connections, v1.requests, v1.errors), expected, "{what}");
            assert_eq!(
                report.examples.len(),
                usize::from(error.is_some()),
                "{what}"
            );
        }
    }
}

#[test]
fn a_change_of_backend_is_told_in_words() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V4, 80);
    let server = lie(world.host(), addr, vec![vec![OK, Answer("v2", "7")]]);
    let plan = Plan {
        requests_per_connection: Some(2),
        ..Plan::connections(addr, 1, 1)
    };
    let report = load::run(world.client(), &plan);
    let client = server.join().expect("server")[0];
    let expected = format!("{client}, v1: BackendChanged: v2 answers on a connection of v1");
    assert_eq!(report.examples, [expected]);
    let panic = std::panic::catch_unwind(|| report.assert_clean()).expect_err("it is not clean");
    let text = panic.downcast::<String>().expect("a message");
    assert!(
        text.contains("BackendChanged: 1") && text.contains("v2 answers"),
        "{text}"
    );
}

/// Who has which route for the target, and the error it must be. The client's own routes refuse at
/// once; those of the host would be subject to the limit of ICMP errors a second.
const NETWORKS: &[(Option<(Place, &str)>, ErrorKind)] = &[
    (None, Refused),
    (Some((Place::Host, "blackhole")), ConnectTimeout),
    (Some((Place::Client, "unreachable")), Unreachable),
];

#[test]
fn failed_handshakes_are_told_apart() {
    let world = World::pair(Options::default());
    for (number, (route, kind)) in NETWORKS.iter().enumerate() {
        for family in Family::ALL {
            let target = match route {
                None => VIP.port(family, 81),
                Some((place, route)) => {
                    let base = family.pick("10.3.0.", "2001:db8:3::");
                    let ip: IpAddr = format!("{base}{number}").parse().expect("an address");
                    world.get(*place).ip(&format!("route add {route} {ip}"));
                    SocketAddr::new(ip, 80)
                }
            };
            let plan = Plan {
                connect_timeout: Duration::from_millis(200),
                ..Plan::connections(target, 4, 10)
            };
            let report = load::run(world.client(), &plan);
            assert_eq!(
                report.errors,
                BTreeMap::from([(*kind, 10)]),
                "{:?}",
                report.examples
            );
            assert_eq!((report.attempts, report.connections), (10, 0));
        }
    }
}

#[test]
fn the_clients_own_limit_is_counted_apart() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V4, 80);
    let _backend = Backend::start(world.host(), Spec::new("v1", &[addr]));
    world
        .client()
        .sysctl("net.ipv4.ip_local_port_range", "50000 50003");
    let plan = Plan::keep_alive(addr, 10, Duration::from_millis(300));
    let report = load::run(world.client(), &plan);
    assert_eq!(report.connections, 4, "as many as there are ports");
    assert_eq!(
        report.errors.keys().collect::<Vec<_>>(),
        [&NoPort],
        "{:?}",
        report.examples
    );
    assert!(report.errors(NoPort) >= 6);
}

#[test]
fn clients_come_from_all_sources_in_turn() {
    let world = World::pair(Options::default());
    for family in Family::ALL {
        let addr = VIP.port(family, 80);
        let server = lie(world.host(), addr, vec![vec![OK]; 600]);
        let sources = Sources {
            first: CLIENT_POOL.ip(family),
            count: 300,
        };
        let plan = Plan {
            sources: Some(sources),
            ..Plan::connections(addr, 16, 600)
        };
        load::run(world.client(), &plan).assert_clean();
        let seen: Vec<IpAddr> = server
            .join()
            .expect("server")
            .iter()
            .map(SocketAddr::ip)
            .collect();
        let distinct: BTreeSet<IpAddr> = seen.iter().copied().collect();
        let expected: BTreeSet<IpAddr> = (0..300).map(|turn| sources.nth(turn)).collect();
        assert_eq!(distinct, expected);
    }
}

#[test]
fn load_ends_by_count_and_by_time() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V4, 80);
    let _backend = Backend::start(world.host(), Spec::new("v1", &[addr]));
    let time = Duration::from_millis(400);
    let base = Plan {
        time,
        ..Plan::connections(addr, 8, 100)
    };
    // The plan, and the bounds of connections and of requests.
    let rows = [
        (base.clone(), 100..=100, 100..=100),
        (
            Plan {
                requests_per_connection: Some(5),
                ..base.clone()
            },
            100..=100,
            500..=500,
        ),
        (
            Plan {
                connections: Some(0),
                ..base
            },
            0..=0,
            0..=0,
        ),
        (Plan::churn(addr, 8, time), 101..=u64::MAX, 101..=u64::MAX),
        (Plan::keep_alive(addr, 8, time), 8..=8, 101..=u64::MAX),
        // 50 requests a second for 0.4 s are 20, give or take what is under way.
        (
            Plan {
                rate_per_s: Some(50.0),
                ..Plan::churn(addr, 8, time)
            },
            5..=21,
            5..=21,
        ),
        (
            Plan {
                rate_per_s: Some(50.0),
                ..Plan::keep_alive(addr, 4, time)
            },
            4..=4,
            5..=21,
        ),
    ];
    for (plan, connections, requests) in rows {
        let report = load::run(world.client(), &plan);
        report.assert_clean();
        assert!(
            connections.contains(&report.connections),
            "{plan:?}: {report:?}"
        );
        assert!(requests.contains(&report.requests), "{plan:?}: {report:?}");
        assert_eq!(report.attempts, report.connections);
        assert_eq!(report.request.count, report.requests);
        assert_eq!(report.connect.count, report.connections);
    }
}

/// A running shifter-load in a namespace.
fn shifter_load(netns: &Netns, args: &[&str]) -> Process {
    let mut command = netns.command(env!("CARGO_BIN_EXE_shifter-load"));
    Process::spawn(
        "shifter-load",
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
}

fn summary(lines: &[Line]) -> &Report {
    match lines.last() {
        Some(Line::Summary(report)) => report,
        other => panic!("the last line is {other:?}"),
    }
}

#[test]
fn the_program_reports_each_interval_and_sums_up_on_a_signal() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V4, 80);
    let _backend = Backend::start(world.host(), Spec::new("v1", &[addr]));
    let target = addr.to_string();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let args = [
            &*target,
            "--time-s",
            "60",
            "--interval-ms",
            "50",
            "--rate-per-s",
            "500",
        ];
        let mut process = shifter_load(world.client(), &args);
        let stdout = process.child().stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel::<Line>();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line =
                    serde_json::from_str(&line.expect("text")).expect("a line of the protocol");
                let _ = sender.send(line);
            }
        });
        let patience = Duration::from_secs(10);
        let mut lines: Vec<Line> = (0..3)
            .map(|_| receiver.recv_timeout(patience).expect("an interval"))
            .collect();
        process.signal(signal);
        assert_eq!(process.wait(patience).code(), Some(0));
        reader.join().expect("reader");
        lines.extend(receiver.try_iter());
        let summary = summary(&lines);
        summary.assert_clean();
        let intervals = lines.iter().filter_map(|line| match line {
            Line::Interval(report) => Some(report),
            Line::Summary(_) => None,
        });
        let in_intervals: u64 = intervals
            .map(|report| report.backend("v1").connections)
            .sum();
        let total = summary.backend("v1").connections;
        assert!(
            in_intervals > 0 && in_intervals <= total,
            "{in_intervals} of {total}"
        );
    }
}

#[test]
fn the_program_says_by_its_exit_code_whether_anything_failed() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V6, 80);
    let _backend = Backend::start(world.host(), Spec::new("v1", &[addr]));
    let closed = VIP.port(Family::V6, 81);
    for (target, code, connections, refused) in [(addr, 0, 20, 0), (closed, 1, 0, 20)] {
        let target = target.to_string();
        let args = [
            &*target,
            "--connections",
            "20",
            "--concurrency",
            "4",
            "--sources",
            "2001:db8:9::+50",
        ];
        let output = world
            .client()
            .command(env!("CARGO_BIN_EXE_shifter-load"))
            .args(args)
            .output();
        let output = output.expect("shifter-load");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<Line> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line"))
            .collect();
        let report = summary(&lines);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(
            (report.connections, report.errors(Refused)),
            (connections, refused)
        );
    }
}

#[test]
fn the_program_refuses_what_it_does_not_understand() {
    let rows: &[(&[&str], &str)] = &[
        (&[], "<TARGET>"),
        (&["10.0.0.10"], "invalid socket address syntax"),
        (
            &["10.0.0.10:80", "--time-s", "0"],
            "seconds from 0.001 to 600",
        ),
        (
            &["10.0.0.10:80", "--time-s", "601"],
            "seconds from 0.001 to 600",
        ),
        (
            &["10.0.0.10:80", "--rate-per-s=-1"],
            "requests a second from 0.001 to 1000000",
        ),
        (
            &["10.0.0.10:80", "--rate-per-s", "NaN"],
            "requests a second from 0.001 to 1000000",
        ),
        (&["10.0.0.10:80", "--interval-ms", "0"], "0 is not in 1.."),
        (
            &["10.0.0.10:80", "--sources", "10.9.0.0"],
            "such as 10.9.0.0+1000",
        ),
        (
            &["10.0.0.10:80", "--sources", "10.9.0.0+0"],
            "such as 10.9.0.0+1000",
        ),
        (
            &["10.0.0.10:80", "--sources", "2001:db8::+5"],
            "--sources 2001:db8::: another family than the target 10.0.0.10:80",
        ),
    ];
    for (args, expected) in rows {
        let output = Command::new(env!("CARGO_BIN_EXE_shifter-load"))
            .args(*args)
            .output();
        let output = output.expect("shifter-load");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected), "{args:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
