//! What the network says about the path reaches the one it is about: path MTU discovery and
//! traceroute through the VIP.

use std::net::{SocketAddr, TcpStream};

use shifter_daemon::model::{HookSpec, Protocol};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::Netns,
    world::{
        BACKEND, CLIENT, Dual, FAR, Family, HOST_BACKEND_IF, HOST_TO_CLIENT, HOST_TO_ROUTER, OTHER,
        Options, Place, ROUTER_CLIENT_IF, VIP, World,
    },
};

use crate::{
    stage::{ORDERS, PORT, PORT_A, vip},
    transfer,
};

/// Less than the 1,500 bytes of all other links, and enough for IPv6.
const NARROW: &str = "1300";

fn verdict(daemon: &Daemon, name: &str) -> u64 {
    let verdicts = daemon.status().daemon.verdicts;
    let found = verdicts.iter().find(|(verdict, _)| verdict == name);
    found.unwrap_or_else(|| panic!("no verdict {name}")).1
}

fn node(hook: HookSpec, options: Options) -> Node {
    let mut node = Node::new(hook);
    // True, and asserted where it is: XDP may then rewrite what is forwarded.
    node.interfaces[0].checksums_complete = !options.tx_checksum;
    node
}

/// The router's way to the client and the host's way to the backend carry smaller packets than
/// both ends believe. Each end learns it from the ICMP error about its own packets, which are, for the
/// other side, packets of somebody else.
fn black_hole(hook: HookSpec, options: Options, backend: Dual) {
    let what = format!("{hook:?} {options:?} {backend:?}");
    let world = World::new(&FAR, options);
    let place = if backend == BACKEND {
        Place::Backend
    } else {
        Place::Host
    };
    transfer::serve(&world.get(place).inside(), &backend.ports(PORT_A));
    let spec = transfer::plain(&VIP.ports(PORT), &backend.ports(PORT_A));
    let daemon = Daemon::start(world.host(), node(hook, options), &[spec]);
    narrow(world.get(Place::Router), CLIENT, ROUTER_CLIENT_IF);
    narrow(world.host(), BACKEND, HOST_BACKEND_IF);
    for family in Family::ALL {
        let done = transfer::exchange(&world.client().inside(), || TcpStream::connect(vip(family)));
        assert!(done.is_ok(), "{what} {family:?}: {done:?}");
    }
    assert!(verdict(&daemon, "steered_error") >= 2, "{what}");
    if place == Place::Backend {
        assert!(verdict(&daemon, "steered_error_reply") >= 2, "{what}");
    }
    let service = daemon.service(ORDERS).expect("the service is known");
    assert_eq!(service.slots[0].counters.established, 2, "{what}");
}

/// A route that carries less than its link. (A smaller MTU of the interface would apply to what it
/// receives as well: veth drops that without a word.)
fn narrow(netns: &Netns, to: Dual, interface: &str) {
    for (addr, family) in [
        (format!("{}/32", to.v4), "-4"),
        (format!("{}/128", to.v6), "-6"),
    ] {
        netns.ip(&format!(
            "{family} route add {addr} dev {interface} mtu {NARROW}"
        ));
    }
}

#[test]
fn the_path_mtu_is_found_at_tc() {
    for options in Options::all_offloads() {
        black_hole(HookSpec::Tc, options, BACKEND);
    }
}

#[test]
fn the_path_mtu_is_found_at_native_xdp() {
    let complete = Options {
        tx_checksum: false,
        ..Options::default()
    };
    black_hole(HookSpec::Xdp, complete, BACKEND);
    black_hole(HookSpec::Xdp, complete, OTHER);
    // Offloaded checksums are safe with backends on the host itself.
    black_hole(HookSpec::Xdp, Options::default(), OTHER);
}

/// Router, host, and the VIP itself, by TCP and UDP: the backend's address does not show, and no hop is
/// missing.
#[test]
fn traceroute_shows_the_way_to_the_vip() {
    for (protocol, manner) in [(Protocol::Tcp, "-T"), (Protocol::Udp, "-U")] {
        let world = World::new(&FAR, Options::default());
        // Nobody listens on the UDP port: that is an answer as well.
        transfer::serve(&world.backend().inside(), &BACKEND.ports(PORT_A));
        let mut spec = transfer::plain(&VIP.ports(PORT), &BACKEND.ports(PORT_A));
        spec.protocol = protocol;
        let _daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec]);
        for family in Family::ALL {
            let args = format!(
                "{manner} -p {PORT} -n -q 1 -w 3 -m 6 -N 1 {}",
                VIP.ip(family)
            );
            let args: Vec<&str> = args.split(' ').collect();
            let shown = world.client().tool("traceroute", &args);
            let hops: Vec<&str> = shown
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(1))
                .collect();
            let way = [HOST_TO_CLIENT, HOST_TO_ROUTER, VIP].map(|hop| hop.ip(family).to_string());
            assert_eq!(hops, way, "{protocol:?} {family:?}:\n{shown}");
        }
    }
}

/// Frames of 9,000 bytes lie in several buffers at XDP.
#[test]
fn jumbo_frames_pass_both_hooks() {
    for hook in [HookSpec::Tc, HookSpec::Xdp] {
        let options = Options::default();
        let world = World::pair(options);
        for netns in [world.client(), world.host()] {
            netns.ip("link set eth0 mtu 9000");
        }
        transfer::serve(&world.host().inside(), &OTHER.ports(PORT_A));
        let spec = transfer::plain(&VIP.ports(PORT), &OTHER.ports(PORT_A));
        let daemon = Daemon::start(world.host(), node(hook, options), &[spec]);
        for family in Family::ALL {
            let done =
                transfer::exchange(&world.client().inside(), || TcpStream::connect(vip(family)));
            assert!(done.is_ok(), "{hook:?} {family:?}: {done:?}");
        }
        let sent =
            daemon.service(ORDERS).expect("the service is known").slots[0].backends[0].in_bytes;
        assert!(sent as usize > transfer::LEN_BYTES, "{hook:?}: {sent}");
    }
}

/// Destination options in every packet of a client, by the socket option of RFC 3542.
#[test]
fn ipv6_extension_headers_are_steered() {
    for hook in [HookSpec::Tc, HookSpec::Xdp] {
        for tx_checksum in [true, false] {
            let options = Options {
                tx_checksum,
                ..Options::default()
            };
            let world = World::pair(options);
            transfer::serve(&world.host().inside(), &OTHER.ports(PORT_A));
            let spec = transfer::plain(&VIP.ports(PORT), &OTHER.ports(PORT_A));
            let daemon = Daemon::start(world.host(), node(hook, options), &[spec]);
            let target = vip(Family::V6);
            let done = transfer::exchange(&world.client().inside(), || with_options(target));
            assert!(done.is_ok(), "{hook:?} {options:?}: {done:?}");
            let established = daemon.service(ORDERS).expect("known").slots[0]
                .counters
                .established;
            assert_eq!(established, 1, "{hook:?} {options:?}");
        }
    }
}

/// Connects with hop-by-hop and destination options in every packet.
fn with_options(target: SocketAddr) -> std::io::Result<TcpStream> {
    use nix::{
        libc,
        sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
    };
    use std::os::fd::AsRawFd as _;
    let fd = socket(
        AddressFamily::Inet6,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Next header (the kernel's), length in 8 bytes beyond the first, PadN of 4.
    let options: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    for name in [libc::IPV6_HOPOPTS, libc::IPV6_DSTOPTS] {
        // SAFETY: the pointer and the length are those of a live array.
        let code = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::IPPROTO_IPV6,
                name,
                options.as_ptr().cast(),
                options.len() as libc::socklen_t,
            )
        };
        if code != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    connect(fd.as_raw_fd(), &SockaddrStorage::from(target))?;
    Ok(fd.into())
}
