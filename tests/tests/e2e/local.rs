//! Clients on the host itself: the kernel hooks of their sockets send them where the packet hooks send
//! everybody else, and they see the VIP.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use shifter_common::wire::{LocalClientsStatus, LocalSlotStatus, Slot};
use shifter_daemon::model::{Affinity, HookSpec, LocalClientsSpec, OnEmpty, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::{self, Plan, Report, Sources},
    netns::Inside,
    world::{Family, OTHER, Options, VIP, World},
};

use crate::{
    cgroup,
    stage::{ORDERS, PORT, PORT_A, PORT_B, Stage, orders, vip},
};

fn local(stage: &Stage) -> LocalClientsStatus {
    stage.daemon.status().local_clients
}

fn slot(status: &LocalClientsStatus, slot: Slot) -> LocalSlotStatus {
    let found = status
        .slots
        .iter()
        .find(|s| s.service == ORDERS && s.slot == slot);
    found.expect("every slot is listed").clone()
}

/// Outcomes that were counted.
fn outcomes(status: &LocalClientsStatus) -> BTreeMap<String, u64> {
    let counted = status.outcomes.iter().filter(|(_, count)| *count > 0);
    counted.cloned().collect()
}

fn counted(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    rows.iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// Load from the host itself.
fn load(stage: &Stage, plan: &Plan) -> Report {
    load::run(&stage.world.host().inside(), plan)
}

fn with(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = orders();
    change(&mut spec);
    spec
}

/// An IPv4 address as IPv6 sockets name it.
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Both families and mapped addresses: connections go by weight, every one is counted with its backend,
/// and getpeername(2) says the VIP. Connections to other addresses are left alone.
#[test]
fn clients_on_the_host_are_steered_and_see_the_vip() {
    let stage = Stage::new(HookSpec::Tc);
    let names = [vip(Family::V4), vip(Family::V6), mapped(vip(Family::V4))];
    for (weight_bp, expected) in [(0, "a"), (10_000, "b")] {
        stage.set_weight(weight_bp);
        for target in names {
            let report = load(&stage, &Plan::connections(target, 4, 100));
            report.assert_clean();
            assert_eq!(
                report.backend(expected).connections,
                100,
                "{target}: {report:?}"
            );
        }
    }
    let status = local(&stage);
    assert_eq!(
        (&*status.state, &*status.reason),
        (
            "on",
            &*format!("hooks on the cgroup {}", cgroup::root().display())
        )
    );
    assert_eq!(outcomes(&status), counted(&[("selected", 600)]));
    for (name, port) in [(Slot::A, PORT_A), (Slot::B, PORT_B)] {
        let slot = slot(&status, name);
        assert_eq!(slot.selected_count, 300, "{slot:?}");
        assert_eq!((slot.failed_over_count, slot.unserved_count), (0, 0));
        let backends = counted(&[
            (&OTHER.port(Family::V4, port).to_string(), 200),
            (&OTHER.port(Family::V6, port).to_string(), 100),
        ]);
        assert_eq!(
            slot.backends.into_iter().collect::<BTreeMap<_, _>>(),
            backends
        );
    }
    let direct = OTHER.port(Family::V4, PORT_A);
    let peers = stage.world.host().run(|| {
        [names[0], names[1], names[2], direct].map(|addr| {
            TcpStream::connect(addr)
                .and_then(|stream| stream.peer_addr())
                .ok()
        })
    });
    assert_eq!(peers, [names[0], names[1], names[2], direct].map(Some));
    // No packet of all these was the packet path's.
    let service = stage.service();
    assert!(
        service.slots.iter().all(|slot| slot.counters.selected == 0),
        "{service:?}"
    );
}

/// MPTCP clients (protocol 262) are steered too. The kernel runs the hook of connect(2) for the first
/// subflow and that of getpeername(2) for the socket above it, so these see the backend's address.
#[test]
fn mptcp_clients_of_the_host_are_steered() {
    use std::os::fd::FromRawFd as _;

    use nix::{
        libc,
        sys::socket::{SockaddrStorage, connect},
    };
    const IPPROTO_MPTCP: libc::c_int = 262;
    let stage = Stage::new(HookSpec::Tc);
    let target = vip(Family::V4);
    let peer = stage.world.host().run(|| {
        // SAFETY: the call takes plain integers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor; nobody else owns it.
        let stream = unsafe { TcpStream::from_raw_fd(fd) };
        connect(fd, &SockaddrStorage::from(target)).map(|()| stream.peer_addr().ok())
    });
    assert_eq!(peer, Ok(Some(OTHER.port(Family::V4, PORT_A))));
    assert_eq!(outcomes(&local(&stage)), counted(&[("selected", 1)]));
}

/// A weight in between is met: 2,000 connections at 25 % leave five standard deviations of room.
#[test]
fn clients_on_the_host_are_shared_by_weight() {
    let stage = Stage::new(HookSpec::Tc);
    stage.set_weight(2_500);
    let report = load(&stage, &Plan::connections(vip(Family::V4), 8, 2_000));
    report.assert_clean();
    let share = report.share("b");
    assert!((share - 0.25).abs() < 0.05, "{share}");
    assert_eq!(
        slot(&local(&stage), Slot::B).selected_count,
        report.backend("b").connections
    );
}

/// With client affinity all connections of a bound address stay together, those of unbound sockets
/// count as the VIP's own address, and remote clients of the same address would go there too.
#[test]
fn affinity_to_the_client_holds_for_the_host_itself() {
    let spec = with(|spec| spec.affinity = Affinity::Client);
    let stage = Stage::with(HookSpec::Tc, Options::default(), spec);
    stage.set_weight(5_000);
    stage
        .world
        .host()
        .ip("route add local 10.9.128.0/17 dev lo");
    let mut versions = BTreeMap::<String, u32>::new();
    for turn in 0..64_u8 {
        let sources = Sources {
            first: IpAddr::from([10, 9, 128, turn]),
            count: 1,
        };
        let plan = Plan {
            sources: Some(sources),
            ..Plan::connections(vip(Family::V4), 2, 8)
        };
        let report = load(&stage, &plan);
        report.assert_clean();
        let served: Vec<&str> = ["a", "b"]
            .into_iter()
            .filter(|name| report.backend(name).connections > 0)
            .collect();
        assert_eq!(served.len(), 1, "{sources:?} was served by {served:?}");
        *versions.entry(served.concat()).or_default() += 1;
    }
    // 64 addresses at one half: fewer than 12 on one side would be five standard deviations away.
    assert!(
        versions.values().all(|count| *count > 11) && versions.len() == 2,
        "{versions:?}"
    );
    let unbound = load(&stage, &Plan::connections(vip(Family::V4), 4, 50));
    let sources = Sources {
        first: VIP.ip(Family::V4),
        count: 1,
    };
    let plan = Plan {
        sources: Some(sources),
        ..Plan::connections(vip(Family::V4), 4, 50)
    };
    let bound = load(&stage, &plan);
    assert_eq!(
        unbound.backend("a").connections,
        bound.backend("a").connections
    );
    assert!(
        [0, 50].contains(&bound.backend("a").connections),
        "{bound:?}"
    );
}

/// Sockets of another network namespace are not the host's own, whatever cgroup they are in: a client
/// and a container are steered by their packets where these come in, or not at all.
#[test]
fn sockets_of_other_namespaces_are_not_touched() {
    let stage = Stage::new(HookSpec::Tc);
    stage
        .load(&Plan::connections(vip(Family::V4), 4, 100))
        .assert_clean();
    assert_eq!(outcomes(&local(&stage)), counted(&[]));
    assert_eq!(stage.service().slots[0].counters.selected, 100);
}

/// Nothing to serve with: `drop` is told to the caller at once, `pass` is the host's own affair.
#[test]
fn a_service_without_an_eligible_slot_refuses_or_passes() {
    for (on_empty, expected) in [
        (OnEmpty::Drop, "refused_unserved"),
        (OnEmpty::Pass, "pass_unserved"),
    ] {
        let stage = Stage::with(
            HookSpec::Tc,
            Options::default(),
            with(|spec| spec.on_empty = on_empty),
        );
        stage.a.set_ready(false);
        stage.b.set_ready(false);
        stage.wait("no slot is eligible", |s| {
            s.slots.iter().all(|slot| !slot.eligible)
        });
        // It asks itself at the VIP whether it is up, which passes as well.
        let own = (on_empty == OnEmpty::Pass)
            .then(|| Backend::start(stage.world.host(), Spec::new("own", &VIP.ports(PORT))));
        let before = outcomes(&local(&stage)).get(expected).copied().unwrap_or(0);
        for family in Family::ALL {
            let report = load(&stage, &Plan::connections(vip(family), 1, 5));
            match on_empty {
                OnEmpty::Drop => {
                    let error = stage.world.host().run(|| TcpStream::connect(vip(family)));
                    let kind = error.err().map(|error| error.kind());
                    assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
                    assert_eq!(report.requests, 0, "{report:?}");
                }
                OnEmpty::Pass => {
                    report.assert_clean();
                    assert_eq!(report.backend("own").connections, 5);
                }
            }
        }
        let status = local(&stage);
        let more = if on_empty == OnEmpty::Drop { 12 } else { 10 };
        let count = before + more;
        assert_eq!(outcomes(&status), counted(&[(expected, count)]));
        assert_eq!(slot(&status, Slot::A).unserved_count, count);
        drop(own);
    }
}

/// A slot whose version fails is left at once, connections that are open on it go on; the shift back
/// takes effect on the next connection.
#[test]
fn open_connections_of_the_host_outlive_drain_and_failure() {
    let stage = Stage::new(HookSpec::Tc);
    let host = stage.world.host().inside();
    let open = std::thread::spawn(move || {
        let plan = Plan {
            rate_per_s: Some(200.0),
            ..Plan::keep_alive(vip(Family::V4), 8, Duration::from_secs(5))
        };
        load::run(&host, &plan)
    });
    std::thread::sleep(Duration::from_millis(1_000));
    stage.daemon.drain(ORDERS, Slot::A, false).expect("drains");
    let drained = load(&stage, &Plan::connections(vip(Family::V6), 4, 100));
    drained.assert_clean();
    assert_eq!(drained.backend("b").connections, 100);
    let status = local(&stage);
    assert_eq!(slot(&status, Slot::A).failed_over_count, 100, "{status:?}");
    let open = open.join().expect("the load ran");
    open.assert_clean();
    assert_eq!((open.connections, open.backend("a").connections), (8, 8));
}

/// The kernel steers the host's own clients with no daemon; a start takes the hooks over, `detach`
/// takes them off, and somebody else's programs on the same cgroup stay as they are.
#[test]
fn the_hooks_outlive_the_daemon_and_leave_with_detach() {
    let foreign = cgroup::Foreign::attach();
    let before = cgroup::programs();
    let mut stage = Stage::new(HookSpec::Tc);
    let ours = cgroup::pinned(&stage.daemon.bpffs());
    assert_eq!(ours.len(), 8, "{ours:?}");
    stage.daemon.kill9();
    load(&stage, &Plan::connections(vip(Family::V4), 4, 100)).assert_clean();
    stage.daemon.start_again();
    assert_eq!(
        cgroup::pinned(&stage.daemon.bpffs()),
        ours,
        "the same links"
    );
    assert_eq!(outcomes(&local(&stage)), counted(&[("selected", 100)]));
    assert!(ours.values().all(|id| cgroup::programs().contains(id)));
    stage.daemon.detach(true).expect("detaches");
    assert_eq!(stage.daemon.wait(), Some(0));
    let after = cgroup::programs();
    assert!(
        ours.values().all(|id| !after.contains(id)),
        "{ours:?} {after:?}"
    );
    assert!(before.contains(&foreign.id()) && after.contains(&foreign.id()));
    let refused = stage
        .world
        .host()
        .run(|| TcpStream::connect(vip(Family::V4)));
    assert!(refused.is_err(), "nobody serves the VIP itself");
}

/// `clients = "off"` attaches nothing, and takes off what an earlier start attached.
#[test]
fn the_node_file_switches_the_hooks() {
    let mut stage = Stage::new(HookSpec::Tc);
    assert_eq!(cgroup::pinned(&stage.daemon.bpffs()).len(), 8);
    stage.daemon.stop();
    let mut node = stage.daemon.node_spec();
    node.local_clients = LocalClientsSpec::Off;
    stage
        .daemon
        .write_node(&shifter_tests::daemon::node_toml(&node));
    stage.daemon.start_again();
    assert!(cgroup::pinned(&stage.daemon.bpffs()).is_empty());
    let status = local(&stage);
    assert_eq!(
        (&*status.state, &*status.reason),
        ("off", "the node file says [local] clients = \"off\"")
    );
    stage
        .load(&Plan::connections(vip(Family::V4), 4, 50))
        .assert_clean();
}

/// Two services on one host: a backend of one that calls the other's VIP, and one that calls its own,
/// are clients of the host like any other.
#[test]
fn a_backend_on_the_host_calls_its_own_vip() {
    let world = World::pair(Options::default());
    let _a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let mut spec = orders();
    spec.slots[1].backends.clear();
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec]);
    daemon.wait_until_ready();
    // From the backend's own address, as the backend itself would call.
    for family in Family::ALL {
        let sources = Sources {
            first: OTHER.ip(family),
            count: 1,
        };
        let plan = Plan {
            sources: Some(sources),
            ..Plan::connections(vip(family), 4, 50)
        };
        let report = load::run(&world.host().inside(), &plan);
        report.assert_clean();
        assert_eq!(report.backend("a").connections, 50);
    }
}

/// UDP over the same tables: a socket keeps its backend while that answers, sees the VIP as its peer,
/// and leaves a backend that is out of traffic and mute. The VIP is entered by hand.
#[test]
fn datagrams_of_the_host_are_steered_both_ways() {
    let stage = Stage::new(HookSpec::Tc);
    publish_udp(&stage);
    let host = stage.world.host().inside();
    for family in Family::ALL {
        let a = Echo::start(&host, OTHER.port(family, PORT_A), "a");
        let b = Echo::start(&host, OTHER.port(family, PORT_B), "b");
        let any = family.pick("0.0.0.0:0", "[::]:0");
        let socket = || host.run(|| UdpSocket::bind(any)).expect("a socket");
        let vip = vip(family);

        stage.set_weight(0);
        let free = socket();
        let connected = socket();
        connected.connect(vip).expect("connects");
        assert_eq!(connected.peer_addr().ok(), Some(vip));
        for turn in 0..5 {
            // A weight that changes moves new sockets only.
            assert_eq!(
                ask(&free, Some(vip)),
                Ok((vip, "a".into())),
                "{family:?} {turn}"
            );
            assert_eq!(
                ask(&connected, None),
                Ok((vip, "a".into())),
                "{family:?} {turn}"
            );
            stage.set_weight(10_000);
        }
        assert_eq!(ask(&socket(), Some(vip)), Ok((vip, "b".into())));
        // Who answers may be out of traffic: the socket stays. Who is mute loses it.
        stage.daemon.drain(ORDERS, Slot::A, false).expect("drains");
        assert_eq!(ask(&free, Some(vip)), Ok((vip, "a".into())), "{family:?}");
        stage
            .daemon
            .drain(ORDERS, Slot::A, true)
            .expect("drains no more");
        stage.set_weight(0);
        let left = socket();
        a.mute();
        left.send_to(b"?", vip).expect("sent");
        assert_eq!(a.heard_of(&left), 1);
        stage.daemon.drain(ORDERS, Slot::A, false).expect("drains");
        assert_eq!(ask(&left, Some(vip)), Ok((vip, "b".into())), "{family:?}");
        stage
            .daemon
            .drain(ORDERS, Slot::A, true)
            .expect("drains no more");
        // A datagram that comes straight from a backend is shown as that.
        let direct = socket();
        assert_eq!(ask(&direct, Some(b.addr)), Ok((b.addr, "b".into())));
    }
    let counted = outcomes(&local(&stage));
    // Of each family: free, connected, another, left twice; free five times again.
    assert_eq!(counted.get("selected"), Some(&10), "{counted:?}");
    assert_eq!(counted.get("kept"), Some(&10), "{counted:?}");
}

/// Enters the VIPs and backends of the service for UDP too.
fn publish_udp(stage: &Stage) {
    use aya::maps::{HashMap, Map, MapData};
    use shifter_common::abi::{BackendService, VipEntry, VipKey, map};
    fn copy<V: aya::Pod>(stage: &Stage, name: &str) {
        let pin = stage
            .daemon
            .bpffs()
            .join("shifter")
            .join("v1")
            .join("maps")
            .join(name);
        let data = MapData::from_pin(pin).expect("the pin");
        let mut map = HashMap::<_, VipKey, V>::try_from(Map::HashMap(data)).expect("a hash map");
        let entries: Vec<_> = map.iter().map(|entry| entry.expect("an entry")).collect();
        for (key, value) in entries {
            map.insert(
                VipKey {
                    protocol: 17,
                    ..key
                },
                value,
                0,
            )
            .expect("room");
        }
    }
    copy::<VipEntry>(stage, map::VIPS);
    copy::<BackendService>(stage, map::BACKEND_SERVICES);
}

/// A UDP server that answers each datagram with its name.
struct Echo {
    addr: SocketAddr,
    is_mute: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<u16>>>,
}

impl Echo {
    fn start(host: &Inside, addr: SocketAddr, name: &'static str) -> Self {
        let socket = host
            .run(|| UdpSocket::bind(addr))
            .expect("the backend's address");
        let echo = Self {
            addr,
            is_mute: Arc::default(),
            heard: Arc::default(),
        };
        let (is_mute, heard) = (Arc::clone(&echo.is_mute), Arc::clone(&echo.heard));
        std::thread::spawn(move || {
            let mut bytes = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                heard.lock().expect("whole").push(from.port());
                if !is_mute.load(Ordering::SeqCst) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            }
        });
        echo
    }

    fn mute(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }

    /// Datagrams that came from a socket; waits for the first.
    fn heard_of(&self, socket: &UdpSocket) -> usize {
        let port = socket.local_addr().expect("bound").port();
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let heard = self.heard.lock().expect("whole");
            let count = heard.iter().filter(|from| **from == port).count();
            if count > 0 || Instant::now() > end {
                return count;
            }
            drop(heard);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends a datagram, to an address or on a connected socket, and gives who answered what.
fn ask(socket: &UdpSocket, to: Option<SocketAddr>) -> Result<(SocketAddr, String), String> {
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let sent = match to {
        Some(to) => socket.send_to(b"?", to),
        None => socket.send(b"?"),
    };
    sent.map_err(|error| format!("sending: {error}"))?;
    let mut bytes = [0; 16];
    let (len, from) = socket
        .recv_from(&mut bytes)
        .map_err(|error| format!("receiving: {error}"))?;
    Ok((from, String::from_utf8_lossy(&bytes[..len]).into_owned()))
}
