//! UDP: question and answer over many ports while weights change.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use shifter_common::wire::{EstablishedPolicy, Slot};
use shifter_daemon::model::{HookSpec, ProbeCheck, Protocol, ServiceSpec};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::Inside,
    world::{CLIENT, Family, OTHER, Options, VIP, World},
};

use crate::stage::{ORDERS, PORT, PORT_A, PORT_B, orders, slot, vip};

const PORTS_COUNT: usize = 100;
const CHANGES_COUNT: usize = 60;
/// Nothing is lost here, so this only ends waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers every datagram with a name and what it got.
fn serve(netns: &Inside, name: u8, addrs: &[SocketAddr]) {
    for addr in addrs {
        let socket = netns.run(|| UdpSocket::bind(addr)).expect("a free port");
        thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let answer = [&[name], &buffer[..len]].concat();
                let _ = socket.send_to(&answer, from);
            }
        });
    }
}

/// A client port, connected: answers from another address than the VIP are not received.
struct Asker {
    socket: UdpSocket,
    asked: u32,
}

impl Asker {
    fn new(netns: &Inside, family: Family) -> Self {
        let socket = netns.run(|| {
            let socket = UdpSocket::bind(CLIENT.port(family, 0)).expect("a port");
            socket.connect(vip(family)).expect("a route");
            socket
        });
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, asked: 0 }
    }

    /// Asks once; gives who answered.
    #[track_caller]
    fn ask(&mut self) -> u8 {
        self.asked += 1;
        let question = self.asked.to_be_bytes();
        self.socket.send(&question).expect("sent");
        let mut buffer = [0; 100];
        let len = self.socket.recv(&mut buffer).expect("an answer");
        assert_eq!(buffer[1..len], question, "the answer to another question");
        buffer[0]
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        protocol: Protocol::Udp,
        readiness: shifter_daemon::model::ProbeSpec {
            check: ProbeCheck::None,
            ..orders().readiness
        },
        ..orders()
    }
}

fn under_changes(hook: HookSpec, options: Options) {
    let world = World::pair(options);
    serve(&world.host().inside(), b'a', &OTHER.ports(PORT_A));
    serve(&world.host().inside(), b'b', &OTHER.ports(PORT_B));
    let daemon = Daemon::start(world.host(), Node::new(hook), &[spec()]);
    let client = world.client().inside();
    let is_over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let mut askers: Vec<Asker> = (0..PORTS_COUNT)
            .map(|index| Asker::new(&client, Family::ALL[index % 2]))
            .collect();
        let (daemon, set_over) = (&daemon, Arc::clone(&is_over));
        scope.spawn(move || {
            for weight_bp in [5_000, 0, 10_000].into_iter().cycle().take(CHANGES_COUNT) {
                let changed = daemon.set_weight(ORDERS, weight_bp);
                thread::sleep(Duration::from_millis(5));
                if changed.is_err() {
                    set_over.store(true, Ordering::Release);
                }
                changed.expect("a weight");
            }
            set_over.store(true, Ordering::Release);
        });
        let chosen: Vec<u8> = askers.iter_mut().map(Asker::ask).collect();
        while !is_over.load(Ordering::Acquire) {
            for (asker, chosen) in askers.iter_mut().zip(&chosen) {
                assert_eq!(asker.ask(), *chosen, "a port keeps its backend");
            }
        }
    });
    let service = daemon.service(ORDERS).expect("the service is known");
    let established: u64 = service.slots.iter().map(|s| s.counters.established).sum();
    let live: u64 = service.slots.iter().map(|s| s.live_flows_count).sum();
    assert_eq!(
        (established, live),
        (PORTS_COUNT as u64, PORTS_COUNT as u64)
    );
    assert_eq!(service.protocol, "udp");
}

#[test]
fn every_port_keeps_its_backend_and_no_answer_is_lost_at_tc() {
    for options in Options::all_offloads() {
        under_changes(HookSpec::Tc, options);
    }
}

#[test]
fn every_port_keeps_its_backend_and_no_answer_is_lost_at_native_xdp() {
    for tx_checksum in [true, false] {
        under_changes(
            HookSpec::Xdp,
            Options {
                tx_checksum,
                ..Options::default()
            },
        );
    }
}

/// A rollback that resets forgets the flows: the next datagram of each goes to the old version.
#[test]
fn a_rollback_that_resets_brings_every_port_back() {
    let world = World::pair(Options::default());
    serve(&world.host().inside(), b'a', &OTHER.ports(PORT_A));
    serve(&world.host().inside(), b'b', &OTHER.ports(PORT_B));
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec()]);
    let client = world.client().inside();
    daemon.set_weight(ORDERS, 10_000).expect("a weight");
    let mut askers: Vec<Asker> = (0..20)
        .map(|index| Asker::new(&client, Family::ALL[index % 2]))
        .collect();
    assert!(askers.iter_mut().all(|asker| asker.ask() == b'b'));
    let changed = daemon
        .rollback(ORDERS, Some(EstablishedPolicy::Drain))
        .expect("a rollback");
    assert_eq!(changed.flows_reset_count, 0);
    assert!(askers.iter_mut().all(|asker| asker.ask() == b'b'));
    let changed = daemon
        .rollback(ORDERS, Some(EstablishedPolicy::Reset))
        .expect("a rollback");
    assert_eq!(changed.flows_reset_count, 20);
    assert!(askers.iter_mut().all(|asker| asker.ask() == b'a'));
    let service = daemon.service(ORDERS).expect("the service is known");
    assert_eq!(slot(&service, Slot::B).live_flows_count, 0);
}

/// A TCP service and a UDP service have the same VIP and the same backends.
#[test]
fn one_address_serves_both_protocols() {
    let world = World::pair(Options::default());
    serve(&world.host().inside(), b'u', &OTHER.ports(PORT_A));
    crate::transfer::serve(&world.host().inside(), &OTHER.ports(PORT_A));
    let mut udp = crate::transfer::plain(&VIP.ports(PORT), &OTHER.ports(PORT_A));
    udp.protocol = Protocol::Udp;
    let mut tcp = crate::transfer::plain(&VIP.ports(PORT), &OTHER.ports(PORT_A));
    tcp.name = "orders-tcp".into();
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[udp, tcp]);
    let client = world.client().inside();
    for family in Family::ALL {
        assert_eq!(Asker::new(&client, family).ask(), b'u');
        let done = crate::transfer::exchange(&client, || std::net::TcpStream::connect(vip(family)));
        assert!(done.is_ok(), "{family:?}: {done:?}");
    }
    for (name, protocol) in [(ORDERS, "udp"), ("orders-tcp", "tcp")] {
        let service = daemon.service(name).expect("known");
        assert_eq!(service.protocol, protocol);
        assert_eq!(service.slots[0].counters.established, 2, "{name}");
    }
}
