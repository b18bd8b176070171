//! nginx as a backend: what tests of shifter read from its answers must be true.

use std::io::ErrorKind;

use shifter_tests::{
    backend::{Backend, Spec},
    http::{ask, connect, get},
    load::{self, Plan},
    scratch,
    world::{BACKEND, CLIENT, Family, OTHER, Options, VIP, World},
    wrk::Wrk,
};

#[test]
fn answers_say_who_gave_them() {
    let world = World::routed(Options::default());
    let spec = |name, listen: &[_]| Spec::new(name, listen);
    let backends = [
        Backend::start(world.host(), spec("port", &VIP.ports(8080))),
        Backend::start(world.host(), spec("address", &OTHER.ports(80))),
        Backend::start(world.backend(), spec("routed", &BACKEND.ports(80))),
    ];
    for backend in &backends {
        for addr in backend.listen() {
            world.client().run(|| {
                let mut stream = connect(*addr).expect("connect");
                let local = stream.local_addr().expect("connected");
                let mut answers =
                    [(); 3].map(|()| ask(&mut stream, "GET", "/", None).expect("answer"));
                for answer in &answers {
                    assert_eq!(
                        (answer.status, &*answer.backend),
                        (200, backend.name()),
                        "{addr}"
                    );
                    assert_eq!(answer.remote, Some(local), "{addr}");
                    assert_eq!(answer.body.len(), 128);
                }
                let family = if addr.is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                };
                assert_eq!(local.ip(), CLIENT.ip(family));
                let first = std::mem::take(&mut answers[0].connection);
                assert!(
                    !first.is_empty()
                        && answers[1..].iter().all(|answer| answer.connection == first)
                );
                let other = get(*addr, "/").expect("another connection");
                assert_ne!(
                    other.connection, first,
                    "connections of {addr} have their own numbers"
                );
            });
        }
    }
}

#[test]
fn bodies_have_the_length_asked_for() {
    let world = World::pair(Options::default());
    for body_bytes in [0, 1, 2_048, 2_049, 1_000_000] {
        let spec = Spec {
            body_bytes,
            ..Spec::new("sized", &VIP.ports(80))
        };
        let backend = Backend::start(world.host(), spec);
        for addr in backend.listen() {
            let answer = world.client().run(|| get(*addr, "/")).expect("answer");
            assert_eq!(
                (answer.status, answer.body.len()),
                (200, body_bytes),
                "{addr}"
            );
        }
    }
}

#[test]
fn readiness_changes_under_an_open_connection() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V4, 80);
    let spec = Spec {
        ready: false,
        ..Spec::new("v1", &[addr])
    };
    let backend = Backend::start(world.host(), spec);
    let mut stream = world.client().run(|| connect(addr)).expect("connect");
    let mut status = |path: &str| ask(&mut stream, "GET", path, None).expect("answer").status;
    for (ready, expected) in [
        (false, 503),
        (true, 200),
        (true, 200),
        (false, 503),
        (false, 503),
    ] {
        backend.set_ready(ready);
        assert_eq!((status("/ready"), status("/")), (expected, 200));
    }
}

#[test]
fn it_can_be_killed_and_started_again() {
    let world = World::pair(Options::default());
    let addr = VIP.port(Family::V6, 80);
    let mut backend = Backend::start(world.host(), Spec::new("v1", &[addr]));
    let mut stream = world.client().run(|| connect(addr)).expect("connect");
    let first = ask(&mut stream, "GET", "/", None)
        .expect("answer")
        .connection;
    backend.kill();
    let err = ask(&mut stream, "GET", "/", None).expect_err("its sockets are closed");
    assert!(
        matches!(
            err.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
        ),
        "{err}"
    );
    let err = world
        .client()
        .run(|| get(addr, "/"))
        .expect_err("nobody listens");
    assert_eq!(err.kind(), ErrorKind::ConnectionRefused);
    backend.start_again();
    let again = world.client().run(|| get(addr, "/")).expect("answer");
    assert_eq!(again.backend, "v1");
    assert_ne!(again.connection, first, "another run has other connections");
    backend.stop();
    assert!(world.client().run(|| get(addr, "/")).is_err());
    assert!(world.host().pids().is_empty(), "{}", backend.log());
}

#[test]
fn no_start_is_reported_with_the_log() {
    let world = World::pair(Options::default());
    let taken = VIP.port(Family::V4, 80);
    let _first = Backend::start(world.host(), Spec::new("first", &[taken]));
    let rows = [
        ("second", taken, "Address already in use"),
        (
            "foreign",
            BACKEND.port(Family::V4, 80),
            "Cannot assign requested address",
        ),
    ];
    for (name, addr, why) in rows {
        // Two servers on one address: nginx tries for a while before it gives up.
        let panic =
            std::panic::catch_unwind(|| Backend::start(world.host(), Spec::new(name, &[addr])));
        let panic = panic.err().unwrap_or_else(|| panic!("{name} started"));
        let text = panic.downcast::<String>().expect("a message");
        let start = format!("nginx {name} does not answer at {addr}: ");
        assert!(text.starts_with(&start) && text.contains(why), "{text}");
    }
}

#[test]
fn thousands_of_connections_stay_on_one_backend() {
    let world = World::routed(Options::default());
    let backend = Backend::start(world.backend(), Spec::new("v1", &BACKEND.ports(80)));
    for addr in backend.listen() {
        let plan = Plan {
            requests_per_connection: Some(3),
            ..Plan::connections(*addr, 5_000, 5_000)
        };
        let report = load::run(world.client(), &plan);
        report.assert_clean();
        assert_eq!(
            (report.attempts, report.connections, report.requests),
            (5_000, 5_000, 15_000)
        );
        let v1 = report.backend("v1");
        assert_eq!((v1.connections, v1.requests, v1.errors), (5_000, 15_000, 0));
    }
}

#[test]
fn wrk_finds_it_too() {
    let world = World::pair(Options::default());
    let backend = Backend::start(world.host(), Spec::new("v1", &VIP.ports(80)));
    for (addr, close) in backend.listen().iter().zip([false, true]) {
        let wrk = Wrk {
            target: *addr,
            threads: 1,
            connections: 8,
            duration_s: 1,
            close,
        };
        let report = wrk.run(world.client());
        assert!(
            report.requests > 100 && report.requests_per_s > 100.0,
            "{report:?}"
        );
        assert!(
            report.p50 <= report.p99 && !report.p50.is_zero(),
            "{report:?}"
        );
        assert_eq!(
            (report.bad_statuses, report.connect_errors),
            (0, 0),
            "{report:?}"
        );
    }
    let closed = Wrk {
        target: VIP.port(Family::V4, 81),
        threads: 1,
        connections: 1,
        duration_s: 1,
        close: false,
    };
    let panic = std::panic::catch_unwind(|| closed.run(world.client())).expect_err("refused");
    let text = panic.downcast::<String>().expect("a message");
    assert!(text.contains("unable to connect"), "{text}");
}

/// Nothing of it lies anywhere but in its scratch directory.
#[test]
fn it_leaves_nothing() {
    let before = std::fs::read_dir("/var/lib/nginx")
        .map(Iterator::count)
        .unwrap_or(0);
    let world = World::pair(Options::default());
    let backend = Backend::start(world.host(), Spec::new("v1", &VIP.ports(80)));
    let pids = world.host().pids();
    assert_eq!(pids.len(), 2, "a master and a worker");
    drop(backend);
    assert_eq!(world.host().pids(), []);
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid}"
        );
    }
    assert_eq!(
        std::fs::read_dir("/var/lib/nginx")
            .map(Iterator::count)
            .unwrap_or(0),
        before
    );
    let own = shifter_tests::reap::belongings(std::process::id());
    assert!(
        own.iter().all(|path| !path.ends_with("nginx-v1")),
        "{own:?} in {}",
        scratch::ROOT
    );
}
