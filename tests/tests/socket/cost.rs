//! What an open connection costs: nothing.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::programs::loaded_programs;
use nix::libc;
use shifter_daemon::{model::HookSpec, model::ProbeCheck};
use shifter_tests::{
    daemon::{Daemon, Node, shifterd},
    netns::{Inside, Netns},
    world::{Family, HOST_IF, OTHER, Options, World},
};

use crate::{
    own_cgroup::OwnCgroup,
    stage::{ORDERS, PORT_A, PORT_B, linked_programs, orders, vip},
};

/// Packets that the host must have taken in and sent before counts are compared.
const PACKETS_COUNT: u64 = 1_000_000;
/// Connections that carry them, of each family.
const CONNECTIONS_COUNT: usize = 3;

/// Counting of runs, for as long as it lives.
fn count_runs() -> OwnedFd {
    const BPF_ENABLE_STATS: libc::c_long = 32;
    let kind = [0_u32; 2];
    // SAFETY: the command takes one number and gives a descriptor that is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, kind.as_ptr(), 8);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    }
}

/// How often every program that is attached has run, by its name.
fn runs(links: &[&Path]) -> BTreeMap<String, u64> {
    let attached: Vec<u32> = links.iter().flat_map(|dir| linked_programs(dir)).collect();
    let programs = loaded_programs().filter_map(Result::ok);
    programs
        .filter(|program| attached.contains(&program.id()))
        .map(|program| {
            let name = program.name_as_str().expect("a name").to_owned();
            (name, program.run_count())
        })
        .collect()
}

/// TCP segments that a namespace has taken in and sent.
fn segments(netns: &Inside) -> u64 {
    let read = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let read = read.expect("readable");
    let line = read.lines().rfind(|line| line.starts_with("Tcp:"));
    let fields = line.expect("a line").split_whitespace().skip(10).take(2);
    fields
        .map(|field| field.parse::<u64>().expect("InSegs, OutSegs"))
        .sum()
}

/// Listens, and sends back whatever comes, so that both ends send data.
fn echo(netns: &Netns, at: SocketAddr) {
    let listener = netns.run(|| TcpListener::bind(at)).expect("listens");
    // The threads end with the test program, or with their connections.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..len]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Sends on a connection until the host has seen enough segments, and reads what comes back.
fn talk(mut stream: TcpStream, host: &Inside, end: u64) -> TcpStream {
    let mut reading = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while matches!(reading.read(&mut buffer), Ok(1..)) {}
    });
    let chunk = vec![0; 1 << 16];
    while segments(host) < end {
        for _ in 0..32 {
            stream.write_all(&chunk).expect("the connection holds");
        }
    }
    stream
}

/// A million packets of open connections run none of the programs, whether they come in by an interface that
/// the node file names or by another one: while no service needs them the programs are off the interfaces.
#[test]
fn open_connections_run_no_program() {
    let _stats = count_runs();
    for interface in [HOST_IF, "quiet0"] {
        let cgroup = OwnCgroup::enter();
        // Without checksum offload there is no segmentation offload: every segment is a packet.
        let world = World::pair(Options {
            tx_checksum: false,
            ..Options::default()
        });
        let host = world.host();
        host.ip("link add quiet0 type veth peer name quiet1");
        host.ip("link set quiet0 up");
        let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
        for at in a.iter().chain(&b) {
            echo(host, *at);
        }
        let mut spec = orders(&a, &b);
        // Probes are connections, which are looked up and watched.
        spec.readiness.check = ProbeCheck::None;
        let mut node = Node::new(HookSpec::Tc);
        node.program = cgroup.wrap(&shifterd());
        node.interfaces[0].name = interface.to_owned();
        node.patience = Duration::from_secs(30);
        let daemon = Daemon::start(host, node, &[spec]);
        daemon.wait_for("both slots are eligible", |status| {
            status.services[0].slots.iter().all(|slot| slot.eligible)
        });
        // They go with a look at the flow tables, of which there is one every ten seconds.
        daemon.wait_for("no program is on the interface", |status| {
            status.interfaces.iter().all(|one| one.hook == "none")
        });
        daemon.set_weight(ORDERS, 5_000).expect("accepted");

        let client = world.client();
        let streams = Family::ALL.map(|family| {
            let open = |_| client.run(|| TcpStream::connect(vip(family)).expect("a connection"));
            (0..CONNECTIONS_COUNT).map(open).collect::<Vec<_>>()
        });
        daemon.wait_for("all connections are counted", |status| {
            let slots = status.services[0].slots.iter();
            let live: u64 = slots.map(|slot| slot.live_flows_count).sum();
            live == 2 * CONNECTIONS_COUNT as u64
        });
        let version = format!("shifter/v{}", shifter_common::abi::ABI_VERSION);
        let dir = daemon.bpffs().join(version);
        let (sockets, links) = (dir.join("sockets"), dir.join("links"));
        let dirs = [sockets.as_path(), links.as_path()];
        let (before, begin) = (runs(&dirs), segments(host));
        assert!(
            before["socket_lookup"] >= 2 * CONNECTIONS_COUNT as u64,
            "{before:?}"
        );
        let talks: Vec<_> = streams
            .into_iter()
            .flatten()
            .map(|stream| {
                let inside = host.inside();
                std::thread::spawn(move || talk(stream, &inside, begin + PACKETS_COUNT))
            })
            .collect();
        let streams: Vec<TcpStream> = talks
            .into_iter()
            .map(|talk| talk.join().expect("ran"))
            .collect();
        let (after, packets_count) = (runs(&dirs), segments(host) - begin);
        assert!(packets_count >= PACKETS_COUNT, "{packets_count}");
        let differences: BTreeMap<&str, u64> = before
            .iter()
            .map(|(name, count)| (name.as_str(), after[name] - count))
            .collect();
        eprintln!("{interface}: {packets_count} packets, runs {differences:?}");
        assert!(
            differences.values().all(|count| *count == 0),
            "{differences:?}"
        );
        for stream in streams {
            // Its reader goes with it.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop((daemon, world));
        // The cgroup goes last.
        drop(cgroup);
    }
}
