//! A version that does not keep up: its accept queue is full.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use shifter_common::wire::Slot;
use shifter_daemon::model::{HookSpec, OnFull, ProbeCheck, ServiceSpec};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::Netns,
    world::{Family, Options, World},
};

use crate::{
    greeter::{Greeter, Kind, ask},
    stage::{ORDERS, counter, orders, vip},
};

const STUCK: &str = "10.0.0.20:81";
const FREE: &str = "10.0.0.20:82";
const OTHER_SLOT: &str = "10.0.0.20:83";

/// A listener whose application accepts nothing; two connections fill its queue.
fn stuck(netns: &Netns) -> TcpListener {
    let at: SocketAddr = STUCK.parse().expect("an address");
    netns.run(|| {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Tcp,
        )
        .expect("a socket");
        setsockopt(&socket, sockopt::ReuseAddr, &true).expect("an option");
        setsockopt(&socket, sockopt::ReusePort, &true).expect("an option");
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at)).expect("a free port");
        listen(&socket, Backlog::new(1).expect("a number")).expect("listens");
        TcpListener::from(socket)
    })
}

/// Connects past shifter until there is no room.
fn fill(from: &Netns) -> Vec<TcpStream> {
    let at: SocketAddr = STUCK.parse().expect("an address");
    from.run(|| {
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 200, "it takes them all");
        }
        waiting
    })
}

fn spec(a: &[&str], b: &[&str], on_full: OnFull) -> ServiceSpec {
    let addrs = |texts: &[&str]| -> Vec<SocketAddr> {
        let addrs = texts.iter().map(|text| text.parse());
        addrs.map(|addr| addr.expect("an address")).collect()
    };
    let mut spec = orders(&addrs(a), &addrs(b));
    spec.vips = vec![vip(Family::V4)];
    spec.readiness.check = ProbeCheck::None;
    spec.on_full = on_full;
    spec
}

fn start(world: &World, spec: &ServiceSpec) -> Daemon {
    let daemon = Daemon::start(
        world.host(),
        Node::new(HookSpec::Tc),
        std::slice::from_ref(spec),
    );
    daemon.wait_for("every backend listens", |status| {
        let slots = &status.services[0].slots;
        let mut backends = slots.iter().flat_map(|slot| &slot.backends);
        backends.all(|backend| backend.ready)
    });
    daemon
}

/// Who answers so many connections; `None` for those that got no room.
fn answers(world: &World, count: usize) -> Vec<Option<String>> {
    let one = || {
        let connected = world
            .client()
            .run(|| TcpStream::connect_timeout(&vip(Family::V4), Duration::from_millis(300)));
        connected.ok()?;
        Some(ask(world.client(), vip(Family::V4)).unwrap_or_default())
    };
    (0..count).map(|_| one()).collect()
}

/// By default a connection waits for the one it was chosen for; with `failover` another backend of the
/// slot takes it. A change is in force with the next connection.
#[test]
fn another_backend_takes_what_has_no_room() {
    let world = World::pair(Options::default());
    let _stuck = stuck(world.host());
    let _free = Greeter::start(world.host(), "free", FREE);
    let daemon = start(&world, &spec(&[STUCK, FREE], &[], OnFull::Stay));
    let _waiting = fill(world.client());
    let tried = (0..40).map(|_| {
        world
            .client()
            .run(|| TcpStream::connect_timeout(&vip(Family::V4), Duration::from_millis(100)))
            .is_ok()
    });
    let served_count = tried.filter(|is_served| *is_served).count();
    assert!((5..35).contains(&served_count), "{served_count} of 40");
    let service = daemon.service(ORDERS).expect("known");
    assert!(counter(&service, Slot::A, "queue_full") >= 40 - served_count as u64);
    assert_eq!(counter(&service, Slot::A, "other_backend"), 0);

    daemon.write_service(&spec(&[STUCK, FREE], &[], OnFull::Failover));
    let report = daemon.apply().expect("applies");
    assert!(report.diagnostics.is_empty(), "{report:?}");
    for answer in answers(&world, 40) {
        assert_eq!(answer.as_deref(), Some("free"));
    }
    let service = daemon.service(ORDERS).expect("known");
    assert!(counter(&service, Slot::A, "other_backend") > 20);
    for name in ["unserved", "no_listener", "not_assigned"] {
        assert_eq!(counter(&service, Slot::A, name), 0, "{name}");
    }
    let text = String::from_utf8(daemon.metrics().body).expect("text");
    let line =
        "shifter_slot_lookup_misses_total{service=\"orders\",slot=\"a\",cause=\"queue_full\"} ";
    let count = text.lines().find_map(|l| l.strip_prefix(line));
    let count: u64 = count.expect("a sample").parse().expect("a number");
    assert!(count >= counter(&service, Slot::A, "queue_full"), "{count}");
}

/// Without another backend the other slot takes it; where nobody has room it waits, and is served
/// when there is some.
#[test]
fn the_other_slot_takes_it_and_else_it_waits() {
    let world = World::pair(Options::default());
    let stuck = stuck(world.host());
    let other = Greeter::start(world.host(), "other", OTHER_SLOT);
    let daemon = start(&world, &spec(&[STUCK], &[OTHER_SLOT], OnFull::Failover));
    let waiting = fill(world.client());
    for answer in answers(&world, 10) {
        assert_eq!(answer.as_deref(), Some("other"));
    }
    let service = daemon.service(ORDERS).expect("known");
    assert!(counter(&service, Slot::A, "other_slot") >= 20);
    drop(other);
    let lookups = counter(&service, Slot::A, "lookups");
    let late = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            world
                .client()
                .run(|| TcpStream::connect_timeout(&vip(Family::V4), Duration::from_secs(10)))
        });
        daemon.wait_for("it has asked", |status| {
            counter(&status.services[0], Slot::A, "lookups") > lookups
        });
        for _ in &waiting {
            stuck.accept().expect("one of those that wait");
        }
        client.join().expect("no panic")
    });
    late.expect("room at its next try");
    let service = daemon.service(ORDERS).expect("known");
    assert_eq!(counter(&service, Slot::A, "unserved"), 0);
}

/// Of a group the member that has room is found.
#[test]
fn a_member_of_a_group_that_has_room_is_found() {
    let world = World::pair(Options::default());
    let _stuck = stuck(world.host());
    let shared = Kind {
        is_shared: true,
        ..Kind::default()
    };
    let _free = Greeter::with(world.host(), "free", STUCK, shared);
    let _daemon = start(&world, &spec(&[STUCK], &[], OnFull::Failover));
    let _waiting = fill(world.client());
    for answer in answers(&world, 20) {
        assert_eq!(answer.as_deref(), Some("free"));
    }
}
