//! The worlds themselves, without shifter: what tests of shifter take for granted.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use shifter_tests::world::{
    BACKEND, CLIENT, CLIENT_POOL, Dual, Family, HOST_IF, OTHER, Options, Place, VIP, World,
};

/// A feature of an interface as ethtool shows it.
fn feature(world: &World, place: Place, interface: &str, name: &str) -> String {
    let shown = world.get(place).tool("ethtool", &["-k", interface]);
    let line = shown
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in:\n{shown}"))
        .trim_end_matches(" [fixed]")
        .to_owned()
}

#[test]
fn offloads_are_as_asked_for() {
    for options in Options::all_offloads() {
        let world = World::pair(options);
        let switch = |on: bool| if on { "on" } else { "off" };
        for (place, interface) in [(Place::Client, "eth0"), (Place::Host, HOST_IF)] {
            let seen = ["tx-checksumming", "generic-receive-offload"]
                .map(|name| feature(&world, place, interface, name));
            assert_eq!(
                seen,
                [switch(options.tx_checksum), switch(options.gro)],
                "{options:?} {place:?}"
            );
        }
    }
}

/// Who connects from where to where, and what the server must see as the client.
const CONNECTIONS: &[(Place, Option<Dual>, Place, Dual, Dual)] = &[
    (Place::Client, None, Place::Host, VIP, CLIENT),
    (Place::Client, None, Place::Host, OTHER, CLIENT),
    (Place::Client, None, Place::Backend, BACKEND, CLIENT),
    (
        Place::Client,
        Some(CLIENT_POOL),
        Place::Host,
        VIP,
        CLIENT_POOL,
    ),
    (
        Place::Client,
        Some(CLIENT_POOL),
        Place::Backend,
        BACKEND,
        CLIENT_POOL,
    ),
    (Place::Backend, None, Place::Host, VIP, BACKEND),
    (Place::Backend, None, Place::Client, CLIENT, BACKEND),
];

#[test]
fn every_place_reaches_every_other_with_every_offload() {
    // Longer than all windows and segments: offloaded and merged packets are among it.
    let sent: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    for options in Options::all_offloads() {
        let world = World::routed(options);
        for &(from, source, at, addr, seen_as) in CONNECTIONS {
            for family in Family::ALL {
                let what = format!("{options:?} {from:?} -> {at:?} {family:?}");
                let server = addr.port(family, 8080);
                let listener = world
                    .get(at)
                    .run(|| TcpListener::bind(server))
                    .expect("an address of its own");
                let echo = thread::spawn(move || {
                    let (mut stream, peer) = listener.accept().expect("a client");
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).expect("its bytes");
                    stream.write_all(&bytes).expect("send them back");
                    peer
                });
                let mut stream = world
                    .get(from)
                    .run(|| match source {
                        None => TcpStream::connect(server),
                        Some(source) => connect_from(source.ip(family), server),
                    })
                    .unwrap_or_else(|err| panic!("{what}: {err}"));
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .expect("a timeout");
                let mut writer = stream.try_clone().expect("clone");
                let bytes = sent.clone();
                let writing = thread::spawn(move || {
                    writer.write_all(&bytes).expect("send");
                    writer.shutdown(std::net::Shutdown::Write).expect("end");
                });
                let mut received = Vec::new();
                stream
                    .read_to_end(&mut received)
                    .unwrap_or_else(|err| panic!("{what}: {err}"));
                writing.join().expect("writer");
                assert!(received == sent, "{what}: bytes differ");
                assert_eq!(
                    echo.join().expect("server").ip(),
                    seen_as.ip(family),
                    "{what}"
                );
            }
        }
    }
}

fn connect_from(
    source: std::net::IpAddr,
    server: std::net::SocketAddr,
) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let socket = if server.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.bind((source, 0).into())?;
        let stream = socket.connect(server).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}

#[test]
#[should_panic(expected = "this world has no backend")]
fn a_missing_place_is_named() {
    World::pair(Options::default()).backend();
}

/// A client may use nearly every port; where servers listen, their ports are not taken by chance.
#[test]
fn only_the_client_uses_all_ports() {
    let world = World::routed(Options::default());
    let range = |place| {
        let text = world
            .get(place)
            .tool("cat", &["/proc/sys/net/ipv4/ip_local_port_range"]);
        let numbers: Vec<u32> = text
            .split_whitespace()
            .map(|number| number.parse().expect("a port"))
            .collect();
        (numbers[0], numbers[1])
    };
    assert_eq!(range(Place::Client), (1024, 65535));
    for place in [Place::Host, Place::Backend] {
        assert!(range(place).0 > 30_000, "{place:?}: {:?}", range(place));
    }
}
