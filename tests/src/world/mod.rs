//! Worlds: hosts and networks made of namespaces, veth pairs and routes.

mod topology;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::TcpStream,
    time::{Duration, Instant},
};

pub use self::topology::*;
use crate::netns::Netns;

/// Port on which nobody ever listens in a world.
const CLOSED_PORT: u16 = 9;

/// How a world's links behave.
///
/// What the kernel does with veth (seen on 6.18): tx-checksum on is its default, and then packets
/// between namespaces carry the pseudo-header's sum alone (`CHECKSUM_PARTIAL`), which a native XDP
/// program sees and cannot complete. GRO off is its default; on, the receiving end gets NAPI and merges
/// segments before TC. A native XDP program needs nothing of the peer to pass or drop packets, and
/// brings NAPI by itself; attaching it switches off segmentation offload (TSO) at the peer. For XDP_TX
/// the peer needs NAPI too: GRO on, or a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Checksum offload at both ends of every link. Off also takes segmentation offload away.
    pub tx_checksum: bool,
    /// Generic receive offload at both ends of every link.
    pub gro: bool,
    /// Reverse path filter everywhere: 0 off, 1 strict, 2 loose.
    pub rp_filter: u8,
}

impl Default for Options {
    /// What a veth pair is by itself.
    fn default() -> Self {
        Self {
            tx_checksum: true,
            gro: false,
            rp_filter: 0,
        }
    }
}

impl Options {
    /// Every combination of offloads, for tests that must hold in all.
    pub fn all_offloads() -> Vec<Self> {
        let pairs = [(true, true), (true, false), (false, true), (false, false)];
        pairs
            .map(|(tx_checksum, gro)| Self {
                tx_checksum,
                gro,
                ..Self::default()
            })
            .to_vec()
    }
}

/// Namespaces, linked and with addresses; removed on drop.
#[derive(Debug)]
pub struct World {
    places: BTreeMap<Place, Netns>,
}

impl World {
    /// Builds a topology and waits until every address answers every place.
    ///
    /// # Panics
    /// If the kernel refuses something, or an address does not answer in 5 s.
    pub fn new(topology: &Topology, options: Options) -> Self {
        let places = topology
            .places
            .iter()
            .map(|place| (*place, Netns::new(place.name())));
        let world = Self {
            places: places.collect(),
        };
        for (place, netns) in &world.places {
            set_sysctls(*place, netns, options);
        }
        for Link { near, far } in topology.links {
            world.get(near.place).ip(&format!(
                "link add {} type veth peer name {} netns {}",
                near.name,
                far.name,
                world.get(far.place).path().display(),
            ));
        }
        for end in ends(topology) {
            let (netns, name) = (world.get(end.place), end.name);
            let switch = |on: bool| if on { "on" } else { "off" };
            let (tx, gro) = (switch(options.tx_checksum), switch(options.gro));
            netns.tool("ethtool", &["-K", name, "tx", tx, "gro", gro]);
            // A neighbour solicitation that is lost is sent again soon, instead of after a second.
            netns.sysctl(&format!("net.ipv6.neigh.{name}.retrans_time_ms"), "20");
            netns.ip(&format!("link set {name} up"));
        }
        // Addresses come when the links are up: one that is older than its link's carrier joins its
        // multicast group late.
        for place in topology.places {
            world.set_addresses(*place, topology);
        }
        world.wait_until_linked(topology);
        world
    }

    /// A client and a host, [`PAIR`].
    ///
    /// # Panics
    /// As [`World::new`].
    pub fn pair(options: Options) -> Self {
        Self::new(&PAIR, options)
    }

    /// A client, a host and a namespace behind it, [`ROUTED`].
    ///
    /// # Panics
    /// As [`World::new`].
    pub fn routed(options: Options) -> Self {
        Self::new(&ROUTED, options)
    }

    /// The namespace of a place.
    ///
    /// # Panics
    /// If the topology has no such place.
    #[track_caller]
    pub fn get(&self, place: Place) -> &Netns {
        let netns = self.places.get(&place);
        netns.unwrap_or_else(|| panic!("this world has no {}", place.name()))
    }

    /// Where load comes from.
    pub fn client(&self) -> &Netns {
        self.get(Place::Client)
    }

    /// Where shifter runs.
    pub fn host(&self) -> &Netns {
        self.get(Place::Host)
    }

    /// The namespace behind the host.
    ///
    /// # Panics
    /// If the topology has none.
    #[track_caller]
    pub fn backend(&self) -> &Netns {
        self.get(Place::Backend)
    }

    fn set_addresses(&self, place: Place, topology: &Topology) {
        let netns = self.get(place);
        let (mut v4, mut v6) = (String::new(), String::new());
        for end in ends(topology).filter(|end| end.place == place) {
            let (name, addr) = (end.name, end.addr);
            let _ = writeln!(v4, "addr add {}/24 dev {name}", addr.v4);
            let _ = writeln!(v6, "addr add {}/64 dev {name} nodad", addr.v6);
        }
        for local in topology.locals.iter().filter(|local| local.place == place) {
            let _ = writeln!(v4, "addr add {}/32 dev lo", local.addr.v4);
            let _ = writeln!(v6, "addr add {}/128 dev lo nodad", local.addr.v6);
        }
        for route in topology.routes.iter().filter(|route| route.place == place) {
            let _ = writeln!(v4, "route add default via {}", route.via.v4);
            let _ = writeln!(v6, "route add default via {}", route.via.v6);
        }
        match place {
            Place::Client => {
                let _ = writeln!(v4, "route add local {}/16 dev lo", CLIENT_POOL.v4);
                let _ = writeln!(v6, "route add local {}/112 dev lo", CLIENT_POOL.v6);
            }
            // Whoever is the client's neighbour.
            Place::Host | Place::Router
                if ends(topology).any(|end| end.place == place && end.addr == HOST_TO_CLIENT) =>
            {
                let _ = writeln!(v4, "route add {}/16 via {}", CLIENT_POOL.v4, CLIENT.v4);
                let _ = writeln!(v6, "route add {}/112 via {}", CLIENT_POOL.v6, CLIENT.v6);
            }
            Place::Host | Place::Router | Place::Backend => {}
        }
        netns.tool_with_input("ip", &["-4", "-batch", "-"], &v4);
        netns.tool_with_input("ip", &["-6", "-batch", "-"], &v6);
    }

    /// A closed port of every address refuses every place: links, routes and neighbours work.
    fn wait_until_linked(&self, topology: &Topology) {
        let addrs: Vec<Dual> = ends(topology)
            .map(|end| end.addr)
            .chain(topology.locals.iter().map(|local| local.addr))
            .collect();
        for (place, netns) in &self.places {
            netns.run(|| {
                for addr in addrs.iter().flat_map(|addr| addr.ports(CLOSED_PORT)) {
                    wait_until_refused(*place, addr);
                }
            });
        }
    }
}

/// Both ends of every link.
fn ends(topology: &Topology) -> impl Iterator<Item = End> {
    topology.links.iter().flat_map(|link| [link.near, link.far])
}

fn set_sysctls(place: Place, netns: &Netns, options: Options) {
    let rp_filter = options.rp_filter.to_string();
    let common = [
        // No waiting for duplicate addresses, no router that changes routes.
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.accept_ra", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv4.conf.all.rp_filter", &*rp_filter),
        ("net.ipv4.conf.default.rp_filter", &*rp_filter),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.core.somaxconn", "65535"),
        ("net.ipv4.tcp_max_syn_backlog", "65535"),
        ("net.ipv6.ip_nonlocal_bind", "1"),
    ];
    let of_client = [
        // A client that opens 10,000 connections a second uses all ports, and each again after a
        // second. Elsewhere such a range would take ports that servers want to listen on.
        ("net.ipv4.ip_local_port_range", "1024 65535"),
        ("net.ipv4.tcp_tw_reuse", "1"),
    ];
    let of_client = of_client.iter().filter(|_| place == Place::Client);
    for (name, value) in common.iter().chain(of_client) {
        netns.sysctl(name, value);
    }
}

fn wait_until_refused(place: Place, addr: std::net::SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let seen = TcpStream::connect_timeout(&addr, Duration::from_millis(300)).map(drop);
        match &seen {
            Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => return,
            _ => assert!(
                Instant::now() < deadline,
                "{addr} does not answer the {}: {seen:?}",
                place.name()
            ),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
