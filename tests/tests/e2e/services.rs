//! Two services on one host.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::ReuseAddr,
};
use shifter_daemon::model::{HookSpec, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service},
    world::{CLIENT, Family, OTHER, Options, VIP, World},
};

use crate::stage::{ORDERS, PORT, PORT_A, PORT_B, orders};

/// Port of the second service's VIP.
const PORT_2: u16 = 81;

/// One slot each: orders with version a, billing with version b.
fn both() -> [ServiceSpec; 2] {
    let mut first = orders();
    first.slots[1].backends.clear();
    let mut second = service("billing", &VIP.ports(PORT_2), &OTHER.ports(PORT_B), &[]);
    second.readiness = first.readiness.clone();
    [first, second]
}

/// A connection from a port of the caller's choice.
fn connect_from(source: SocketAddr, target: SocketAddr) -> TcpStream {
    let family = if source.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket: OwnedFd =
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, ReuseAddr, &true).expect("may share its port");
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source)).expect("binds");
    connect(socket.as_raw_fd(), &SockaddrStorage::from(target)).expect("connects");
    socket.into()
}

/// Who answers a request.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut bytes = [0; 4096];
    let len = stream.read(&mut bytes).expect("answered");
    let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("X-Backend: "));
    line.unwrap_or(&text).to_owned()
}

/// One client address and port, two connections at a time to two services: each keeps its own backend.
#[test]
fn one_client_port_serves_two_services() {
    let world = World::pair(Options::default());
    let _a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let _b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(PORT_B)));
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &both());
    daemon.wait_until_ready();
    for family in Family::ALL {
        for port in 30_000..30_020 {
            let source = CLIENT.port(family, port);
            let (mut first, mut second) = world.client().run(|| {
                (
                    connect_from(source, VIP.port(family, PORT)),
                    connect_from(source, VIP.port(family, PORT_2)),
                )
            });
            for _ in 0..3 {
                assert_eq!(
                    (ask(&mut first), ask(&mut second)),
                    ("a".into(), "b".into())
                );
            }
        }
    }
    for name in [ORDERS, "billing"] {
        let slot = &daemon.service(name).expect("known").slots[0];
        assert_eq!(
            (slot.counters.selected, slot.counters.established),
            (40, 40),
            "{name}"
        );
    }
}

/// A backend cannot serve two services, nor a VIP be a backend, whatever name comes first: the file is
/// refused with its place and both names, and what was in force stays.
#[test]
fn an_address_of_two_services_is_refused_with_both_names() {
    let world = World::pair(Options::default());
    let _a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let _b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(PORT_B)));
    let [orders, billing] = both();
    let daemon = Daemon::start(
        world.host(),
        Node::new(HookSpec::Tc),
        &[orders.clone(), billing],
    );
    daemon.wait_until_ready();
    let (v4, vip) = (OTHER.port(Family::V4, PORT_B), VIP.port(Family::V4, PORT_2));
    let rows = [
        (
            v4,
            format!("backend \"{v4}\" is a backend of service \"billing\" (in "),
            "replies of a shared server could not be told apart; let it listen on a port for each \
             service",
        ),
        (
            vip,
            format!("backend \"{vip}\" is a VIP of service \"billing\" (in "),
            "a packet is steered once, so one service cannot lead to another; write the address of \
             a server",
        ),
    ];
    for (taken, message, help) in rows {
        let mut changed = orders.clone();
        changed.slots[0].backends[0].addr = taken;
        daemon.write_service(&changed);
        let report = daemon.apply().expect("answers");
        let [problem] = &report.diagnostics[..] else {
            panic!("{report:?}")
        };
        assert!(
            problem.file.ends_with("services.d/orders.toml"),
            "{problem:?}"
        );
        assert!(
            problem.line > 0 && problem.message.starts_with(&message),
            "{problem:?}"
        );
        assert_eq!(problem.help, help);
        let kept = daemon.service(ORDERS).expect("known");
        assert_eq!(
            kept.slots[0].backends[0].addr,
            OTHER.port(Family::V4, PORT_A).to_string()
        );
    }
    // The file of the one that holds it is gone: the kernel still steers it, and it holds on.
    daemon.remove_service("billing");
    let mut changed = orders;
    changed.slots[0].backends[0].addr = v4;
    daemon.write_service(&changed);
    let report = daemon.apply().expect("answers");
    let [problem] = &report.diagnostics[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        problem.message,
        format!(
            "backend \"{v4}\" is a backend of service \"billing\" (in force, its file is gone)"
        )
    );
}
