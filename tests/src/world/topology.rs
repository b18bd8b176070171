//! Which places there are, how they are linked and what their addresses are: data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A namespace of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Where load comes from.
    Client,
    /// Where shifter runs.
    Host,
    /// A network behind the host, as a container's.
    Backend,
    /// Between client and host.
    Router,
}

impl Place {
    /// Name in messages and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Host => "host",
            Self::Backend => "backend",
            Self::Router => "router",
        }
    }
}

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// One of two values.
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// An address in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dual {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Dual {
    const fn new(v4: [u8; 4], v6: [u16; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = v6;
        Self {
            v4: Ipv4Addr::from_octets(v4),
            v6: Ipv6Addr::new(a, b, c, d, e, f, g, h),
        }
    }

    /// The address of a family.
    pub fn ip(self, family: Family) -> IpAddr {
        family.pick(self.v4.into(), self.v6.into())
    }

    /// The address of a family with a port.
    pub fn port(self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// Both addresses with a port.
    pub fn ports(self, port: u16) -> Vec<SocketAddr> {
        Family::ALL.map(|family| self.port(family, port)).to_vec()
    }
}

/// What clients connect to: an address of the host that no link carries.
pub const VIP: Dual = Dual::new([10, 0, 0, 10], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10]);
/// Another address of the host, for backends "on another address".
pub const OTHER: Dual = Dual::new([10, 0, 0, 20], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20]);
/// The client.
pub const CLIENT: Dual = Dual::new([10, 1, 0, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
/// The host, as the client's router.
pub const HOST_TO_CLIENT: Dual = Dual::new([10, 1, 0, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);
/// The backend namespace.
pub const BACKEND: Dual = Dual::new([10, 2, 0, 2], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 2]);
/// The host, as the backend's router.
pub const HOST_TO_BACKEND: Dual = Dual::new([10, 2, 0, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
/// The host, as the router's next hop.
pub const HOST_TO_ROUTER: Dual = Dual::new([10, 3, 0, 1], [0x2001, 0xdb8, 3, 0, 0, 0, 0, 1]);
/// The router, as the host's next hop.
pub const ROUTER_TO_HOST: Dual = Dual::new([10, 3, 0, 2], [0x2001, 0xdb8, 3, 0, 0, 0, 0, 2]);
/// First of 65,536 addresses that are all the client's: it may bind any of them.
pub const CLIENT_POOL: Dual = Dual::new([10, 9, 0, 0], [0x2001, 0xdb8, 9, 0, 0, 0, 0, 0]);

/// The host's interface towards the client, where shifter is attached.
pub const HOST_IF: &str = "eth0";
/// The router's interface towards the client.
pub const ROUTER_CLIENT_IF: &str = "down0";
/// The host's interface towards the backend namespace.
pub const HOST_BACKEND_IF: &str = "back0";

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Where it is.
    pub place: Place,
    /// Its name there.
    pub name: &'static str,
    /// Its address; the networks are /24 and /64.
    pub addr: Dual,
}

/// A veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// One end.
    pub near: End,
    /// The other.
    pub far: End,
}

/// An address on a loopback interface.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Where it is.
    pub place: Place,
    /// The address.
    pub addr: Dual,
}

/// A route to everything that is not linked.
#[derive(Clone, Copy, Debug)]
pub struct DefaultRoute {
    /// Where it is.
    pub place: Place,
    /// The router.
    pub via: Dual,
}

/// Places, links, addresses and routes.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// Namespaces.
    pub places: &'static [Place],
    /// Links between them.
    pub links: &'static [Link],
    /// Addresses without a link.
    pub locals: &'static [Local],
    /// Routes.
    pub routes: &'static [DefaultRoute],
}

const BACKEND_LINK: Link = Link {
    near: End {
        place: Place::Host,
        name: HOST_BACKEND_IF,
        addr: HOST_TO_BACKEND,
    },
    far: End {
        place: Place::Backend,
        name: "eth0",
        addr: BACKEND,
    },
};

const CLIENT_LINK: Link = Link {
    near: End {
        place: Place::Client,
        name: "eth0",
        addr: CLIENT,
    },
    far: End {
        place: Place::Host,
        name: HOST_IF,
        addr: HOST_TO_CLIENT,
    },
};

const HOST_LOCALS: &[Local] = &[
    Local {
        place: Place::Host,
        addr: VIP,
    },
    Local {
        place: Place::Host,
        addr: OTHER,
    },
];

/// A client and a host.
///
/// ```text
/// client                       host
/// eth0 10.1.0.2 ──────────── 10.1.0.1 eth0      lo 10.0.0.10 (VIP), 10.0.0.20
/// ```
pub const PAIR: Topology = Topology {
    places: &[Place::Client, Place::Host],
    links: &[CLIENT_LINK],
    locals: HOST_LOCALS,
    routes: &[DefaultRoute {
        place: Place::Client,
        via: HOST_TO_CLIENT,
    }],
};

/// A client, a host, and a namespace behind the host, which forwards. The IPv6 addresses have the
/// same pattern: `2001:db8:1::2`, `2001:db8::10` and so on.
///
/// ```text
/// client                       host                              backend
/// eth0 10.1.0.2 ──────────── 10.1.0.1 eth0
///                              lo 10.0.0.10 (VIP), 10.0.0.20
///                                  back0 10.2.0.1 ──────────── 10.2.0.2 eth0
/// ```
pub const ROUTED: Topology = Topology {
    places: &[Place::Client, Place::Host, Place::Backend],
    links: &[CLIENT_LINK, BACKEND_LINK],
    locals: HOST_LOCALS,
    routes: &[
        DefaultRoute {
            place: Place::Client,
            via: HOST_TO_CLIENT,
        },
        DefaultRoute {
            place: Place::Backend,
            via: HOST_TO_BACKEND,
        },
    ],
};

/// As [`ROUTED`], with a router between client and host.
///
/// ```text
/// client                    router                  host                     backend
/// eth0 10.1.0.2 ──── 10.1.0.1 down0
///                             up0 10.3.0.2 ──── 10.3.0.1 eth0
///                                               back0 10.2.0.1 ──── 10.2.0.2 eth0
/// ```
pub const FAR: Topology = Topology {
    places: &[Place::Client, Place::Router, Place::Host, Place::Backend],
    links: &[
        Link {
            near: CLIENT_LINK.near,
            far: End {
                place: Place::Router,
                name: ROUTER_CLIENT_IF,
                addr: HOST_TO_CLIENT,
            },
        },
        Link {
            near: End {
                place: Place::Router,
                name: "up0",
                addr: ROUTER_TO_HOST,
            },
            far: End {
                place: Place::Host,
                name: HOST_IF,
                addr: HOST_TO_ROUTER,
            },
        },
        BACKEND_LINK,
    ],
    locals: HOST_LOCALS,
    routes: &[
        DefaultRoute {
            place: Place::Client,
            via: HOST_TO_CLIENT,
        },
        DefaultRoute {
            place: Place::Router,
            via: HOST_TO_ROUTER,
        },
        DefaultRoute {
            place: Place::Host,
            via: ROUTER_TO_HOST,
        },
        DefaultRoute {
            place: Place::Backend,
            via: HOST_TO_BACKEND,
        },
    ],
};
