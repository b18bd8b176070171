//! Which listeners are captured, and what is said of those that are not.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::libc;

use shifter_common::{
    socket::SOCKETS_PER_BACKEND,
    wire::{ServiceStatus, Slot},
};
use shifter_daemon::model::{HookSpec, ProbeCheck, ServiceSpec};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::Netns,
    world::{Family, Options, World},
};

use crate::{
    greeter::{Greeter, Kind, ask, open, put_into_map},
    stage::{ORDERS, counter, orders, slot, vip},
};

fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts
        .iter()
        .map(|t| t.parse().expect("an address"))
        .collect()
}

/// A service without probes, for clients of these families.
fn spec(families: &[Family], a: &[&str], b: &[&str]) -> ServiceSpec {
    let mut spec = orders(&addrs(a), &addrs(b));
    spec.vips = families.iter().map(|family| vip(*family)).collect();
    spec.readiness.check = ProbeCheck::None;
    spec
}

fn start(world: &World, spec: ServiceSpec) -> Daemon {
    Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec])
}

fn is_eligible(daemon: &Daemon, which: Slot) -> bool {
    let service = daemon.service(ORDERS).expect("known");
    slot(&service, which).eligible
}

fn wait_until_eligible(daemon: &Daemon) {
    daemon.wait_for("both slots are eligible", |status| {
        status.services[0].slots.iter().all(|slot| slot.eligible)
    });
}

/// Families of the VIPs, backends of version a and of b, and what a and b listen on.
type Row = (
    &'static [Family],
    [&'static [&'static str]; 2],
    [&'static [&'static str]; 2],
);

const BOTH: &[Family] = &Family::ALL;
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

const ROWS: &[Row] = &[
    // Specific addresses.
    (
        BOTH,
        [
            &["10.0.0.20:81", "[2001:db8::20]:81"],
            &["10.0.0.20:82", "[2001:db8::20]:82"],
        ],
        [
            &["10.0.0.20:81", "[2001:db8::20]:81"],
            &["10.0.0.20:82", "[2001:db8::20]:82"],
        ],
    ),
    // One dual-stack wildcard for both families, named as such and by addresses.
    (
        BOTH,
        [&["[::]:81"], &["[::]:82"]],
        [&["[::]:81"], &["[::]:82"]],
    ),
    (
        BOTH,
        [&["10.0.0.20:81", "[2001:db8::20]:81"], &["[::]:82"]],
        [&["[::]:81"], &["[::]:82"]],
    ),
    // IPv4 wildcards, and a dual-stack one where an IPv4 one is named.
    (
        V4,
        [&["0.0.0.0:81"], &["0.0.0.0:82"]],
        [&["0.0.0.0:81"], &["[::]:82"]],
    ),
    (
        V4,
        [&["10.0.0.20:81"], &["10.0.0.20:82"]],
        [&["0.0.0.0:81"], &["[::]:82"]],
    ),
    // Loopback, where nobody from outside could connect.
    (
        V4,
        [&["127.0.0.1:81"], &["127.0.0.1:82"]],
        [&["127.0.0.1:81"], &["127.0.0.1:82"]],
    ),
    (
        V6,
        [&["[::1]:81"], &["[::1]:82"]],
        [&["[::1]:81"], &["[::1]:82"]],
    ),
];

/// Every kind of listener gets exactly the connections of its version, whether it is older than
/// shifter or younger, and clients on the host are steered as all others.
#[test]
fn every_kind_of_listener() {
    for (families, [a, b], [listen_a, listen_b]) in ROWS {
        for is_older in [true, false] {
            let world = World::pair(Options::default());
            let listen = || {
                let of = |name: &str, at: &[&str]| {
                    at.iter()
                        .map(|at| Greeter::start(world.host(), name, at))
                        .collect::<Vec<_>>()
                };
                (of("a", listen_a), of("b", listen_b))
            };
            let older = is_older.then(listen);
            let daemon = start(&world, spec(families, a, b));
            let younger = (!is_older).then(listen);
            wait_until_eligible(&daemon);
            for (weight_bp, name) in [(0, "a"), (10_000, "b")] {
                daemon.set_weight(ORDERS, weight_bp).expect("accepted");
                for family in *families {
                    for from in [world.client(), world.host()] {
                        let answer = ask(from, vip(*family));
                        assert_eq!(
                            answer.as_deref().ok(),
                            Some(name),
                            "{a:?} {b:?} on {listen_a:?} {listen_b:?}, older {is_older}, {family:?}: \
                             {answer:?}"
                        );
                    }
                }
            }
            drop((older, younger));
        }
    }
}

/// What cannot be captured leaves its version out, with the reason and the remedy, and counts as no
/// error of it.
#[test]
fn what_cannot_be_captured_is_named() {
    let mptcp = Kind {
        is_mptcp: true,
        ..Kind::default()
    };
    let v6_only = Kind {
        is_v6_only: true,
        ..Kind::default()
    };
    let own_map = Kind {
        is_shared: true,
        is_in_own_map: true,
        ..Kind::default()
    };
    type Row = (
        &'static str,
        Kind,
        &'static [bool],
        &'static str,
        Option<&'static str>,
    );
    // Where, what, whether it is older than shifter, why it is out, and what counts younger ones.
    let rows: [Row; 4] = [
        (
            "[::]:82",
            mptcp,
            &[true, false],
            "MPTCP socket, which the kernel cannot steer to: start a Go server with \
             GODEBUG=multipathtcp=0, or write plane = \"nat\"",
            Some("capture_mptcp"),
        ),
        (
            "[::]:82",
            own_map,
            // A younger one finds itself captured before it can put its listener anywhere.
            &[true],
            "is in a SO_REUSEPORT map of the application, and the kernel allows no second one: write \
             plane = \"nat\"",
            None,
        ),
        (
            "[::]:82",
            v6_only,
            &[true, false],
            "takes IPv6 only, and the service has an IPv4 VIP",
            None,
        ),
        (
            "0.0.0.0:83",
            Kind::default(),
            &[true, false],
            "nobody listens there",
            None,
        ),
    ];
    for (at, kind, ages, reason, counted_by) in rows {
        for &is_older in ages {
            let world = World::pair(Options::default());
            let _a = Greeter::start(world.host(), "a", "[::]:81");
            let listen = || Greeter::with(world.host(), "b", at, kind);
            let older = is_older.then(listen);
            let daemon = start(&world, spec(BOTH, &["[::]:81"], &["[::]:82"]));
            let younger = (!is_older).then(listen);
            daemon.set_weight(ORDERS, 10_000).expect("accepted");
            let status = daemon.wait_for("slot b says why it is out", |status| {
                status.services[0].slots[1].reason.contains(reason)
            });
            assert!(!status.services[0].slots[1].eligible);
            assert!(is_eligible(&daemon, Slot::A));
            for family in Family::ALL {
                let answer = ask(world.client(), vip(family));
                assert_eq!(
                    answer.as_deref().ok(),
                    Some("a"),
                    "{at} {kind:?}: {answer:?}"
                );
            }
            let service = daemon.service(ORDERS).expect("known");
            assert_no_error(&service);
            if let (Some(name), false) = (counted_by, is_older) {
                assert!(counter(&service, Slot::B, name) >= 1, "{name}");
            }
            drop((older, younger));
        }
    }
}

/// Nothing is held against either version: neither by its counters nor by the breaker.
#[track_caller]
fn assert_no_error(service: &ServiceStatus) {
    for which in Slot::ALL {
        let counters = &slot(service, which).counters;
        let errors = [
            counters.refused,
            counters.reset_by_backend,
            counters.unanswered,
            counter(service, which, "aborted"),
            counter(service, which, "no_listener"),
            counter(service, which, "unserved"),
        ];
        assert_eq!(errors, [0; 6], "{which:?}");
    }
    let of_breaker = service.breaker.errors.iter();
    assert_eq!(of_breaker.map(|(_, count)| count).sum::<u64>(), 0);
}

/// Between a listener and its captor there is room for one map: an application that would put a captured
/// listener into a map of its own is told so by the kernel, and its version is served.
#[test]
fn a_captured_listener_is_in_no_other_map() {
    let world = World::pair(Options::default());
    let _a = Greeter::start(world.host(), "a", "[::]:81");
    let daemon = start(&world, spec(BOTH, &["[::]:81"], &["[::]:82"]));
    let kind = Kind {
        is_shared: true,
        ..Kind::default()
    };
    let at = addrs(&["[::]:82"])[0];
    let listener = world.host().run(|| open(at, kind)).expect("listens");
    let error = put_into_map(&listener).expect_err("it is captured");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
    wait_until_eligible(&daemon);
}

/// A group of listeners is held by all of its members: whichever closes, the others go on.
#[test]
fn a_shared_port_outlives_its_members() {
    let world = World::pair(Options::default());
    let kind = Kind {
        is_shared: true,
        ..Kind::default()
    };
    let member = || Some(Greeter::with(world.host(), "a", "10.0.0.20:81", kind));
    // Two older than shifter, two younger.
    let mut members = [member(), member(), None, None];
    let daemon = start(&world, spec(V4, &["10.0.0.20:81"], &[]));
    daemon.wait_for("slot a is eligible", |status| {
        status.services[0].slots[0].eligible
    });
    (members[2], members[3]) = (member(), member());
    // Each in turn is the only one left; then the others come back.
    for survivor in 0..members.len() {
        for (i, place) in members.iter_mut().enumerate() {
            if i != survivor {
                *place = None;
            }
            for _ in 0..3 {
                let answer = ask(world.client(), vip(Family::V4));
                assert_eq!(
                    answer.as_deref().ok(),
                    Some("a"),
                    "{survivor} {i}: {answer:?}"
                );
            }
        }
        for place in &mut members {
            *place = place.take().or_else(member);
        }
    }
    let service = daemon.service(ORDERS).expect("known");
    assert_eq!(counter(&service, Slot::A, "unserved"), 0);
    assert_eq!(slot(&service, Slot::B).counters.established, 0);
}

/// A group with more members than shifter holds: when all that are held close without a word, being older than
/// the programs, the first connection that finds none of them makes the daemon look for the others.
#[test]
fn a_large_group_outlives_those_that_are_held() {
    let world = World::pair(Options::default());
    let kind = Kind {
        is_shared: true,
        ..Kind::default()
    };
    let members = |count| -> Vec<Greeter> {
        let member = |_| Greeter::with(world.host(), "a", "10.0.0.20:81", kind);
        (0..count).map(member).collect()
    };
    let older = members(SOCKETS_PER_BACKEND);
    let daemon = start(&world, spec(V4, &["10.0.0.20:81"], &[]));
    daemon.wait_for("slot a is eligible", |status| {
        status.services[0].slots[0].eligible
    });
    let _younger = members(3);
    let full = |daemon: &Daemon| {
        let service = daemon.service(ORDERS).expect("known");
        counter(&service, Slot::A, "capture_full")
    };
    assert_eq!(full(&daemon), 3);
    drop(older);
    // With no other version to go to, whoever finds nobody is refused.
    let refused = ask(world.client(), vip(Family::V4)).map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused));
    // The daemon's own round comes every ten seconds.
    sleep(Duration::from_millis(500));
    for _ in 0..3 {
        let answer = ask(world.client(), vip(Family::V4));
        assert_eq!(answer.as_deref().ok(), Some("a"), "{answer:?}");
    }
    let service = daemon.service(ORDERS).expect("known");
    assert_eq!(counter(&service, Slot::A, "unserved"), 1);
}

/// A server that pauses shuts its listener down and listens on it again, as HAProxy does: nobody is refused
/// meanwhile, and the version has its connections back.
#[test]
fn a_listener_pauses() {
    for is_older in [true, false] {
        let world = World::pair(Options::default());
        let _a = Greeter::start(world.host(), "a", "[::]:81");
        let at = addrs(&["[::]:82"])[0];
        let listen = || {
            let kind = Kind::default();
            world.host().run(|| open(at, kind)).expect("listens")
        };
        let older = is_older.then(listen);
        let daemon = start(&world, spec(BOTH, &["[::]:81"], &["[::]:82"]));
        let listener = older.unwrap_or_else(listen);
        wait_until_eligible(&daemon);
        daemon.set_weight(ORDERS, 10_000).expect("accepted");
        listener.set_nonblocking(true).expect("does not block");
        let accepted = |from: &Netns, family| {
            let stream = from.run(|| TcpStream::connect(vip(family)));
            let client = stream.expect("connects").local_addr().expect("bound");
            let end = Instant::now() + Duration::from_secs(3);
            let port = loop {
                match listener.accept() {
                    Ok((_, peer)) => break peer.port(),
                    Err(error) => assert!(Instant::now() < end, "{is_older} {family:?}: {error}"),
                }
                sleep(Duration::from_millis(2));
            };
            assert_eq!(port, client.port());
        };
        for _ in 0..2 {
            for family in Family::ALL {
                accepted(world.client(), family);
            }
            // SAFETY: the descriptor is open; nothing but the socket's state changes.
            let code = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
            assert_eq!(code, 0);
            for family in Family::ALL.into_iter().cycle().take(6) {
                let answer = ask(world.client(), vip(family));
                assert_eq!(answer.as_deref().ok(), Some("a"), "{is_older}: {answer:?}");
            }
            // SAFETY: as above.
            let code = unsafe { libc::listen(listener.as_raw_fd(), 128) };
            assert_eq!(code, 0);
            // The daemon looks at one that was bound before there were programs.
            sleep(Duration::from_millis(500));
        }
        let service = daemon.service(ORDERS).expect("known");
        assert!(slot(&service, Slot::B).eligible);
        assert_eq!(counter(&service, Slot::B, "unserved"), 0);
    }
}

/// A user may listen for a slot that names them, and for no other.
#[test]
fn the_user_of_a_slot_may_listen() {
    let world = World::pair(Options::default());
    let _a = Greeter::start(world.host(), "a", "[::]:81");
    let mut with_user = spec(BOTH, &["[::]:81"], &["[::]:8082"]);
    let daemon = start(&world, with_user.clone());
    let listen = as_nobody(&world);
    let status = daemon.wait_for("slot b says whom it does not trust", |status| {
        status.services[0].slots[1].reason.contains("user 65534")
    });
    assert!(
        status.services[0].slots[1]
            .reason
            .contains("name the user in [slot.b]")
    );
    with_user.slots[1].user = Some("nobody".into());
    daemon.write_service(&with_user);
    let report = daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    daemon.wait_for("slot b is eligible", |status| {
        status.services[0].slots[1].eligible
    });
    with_user.slots[1].user = Some("no-such-user".into());
    daemon.write_service(&with_user);
    let report = daemon.apply().expect("answers");
    let text = format!("{report:?}");
    assert!(
        text.contains("who does not exist here; create the user, or remove `user`"),
        "{text}"
    );
    drop(listen);
}

/// A listener that nobody (uid 65534) has bound. User ids belong to threads, as the kernel sees it.
fn as_nobody(world: &World) -> std::net::TcpListener {
    world.host().run(|| {
        // SAFETY: plain numbers; the raw call changes this thread only, which ends with the closure.
        let code = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(code, 0, "becoming nobody");
        std::net::TcpListener::bind("[::]:8082").expect("a free port")
    })
}
