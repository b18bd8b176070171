//! The ways from a client to a service: shifter, its peers, and no way at all.
//!
//! Each way has a world of its own, so that none pays for another's hooks. To add one, add a variant
//! to [`Way`] and say how it is set up and how its weight is changed.

mod haproxy;
mod nftables;
mod nginx;
mod store;

use std::{net::SocketAddr, time::Duration};

use nix::unistd::Pid;
use shifter_daemon::model::{HookSpec, ObserveSpec, Plane};

use self::{haproxy::Haproxy, nftables::Nftables, nginx::NginxStream, store::Store};
use super::cpu;
use crate::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service},
    netns::Inside,
    world::{Family, OTHER, Options, VIP, World},
};

/// Port of the VIP.
pub const PORT: u16 = 80;
/// Ports of the two versions.
pub const PORTS: [u16; 2] = [8_081, 8_082];
/// Names of the two versions, as their answers say.
pub const VERSIONS: [&str; 2] = ["a", "b"];
/// The service's name.
const SERVICE: &str = "bench";

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To version a itself.
    Direct,
    /// shifter's socket plane. Connections are observed as always: counted, tagged, their end judged.
    ShifterSocket,
    /// The same with times and HTTP statuses observed: `observe = ["latency", "http"]`.
    ShifterSocketHttp,
    /// shifter's nat plane at TC.
    ShifterTc,
    /// shifter's nat plane at XDP, native.
    ShifterXdp,
    /// The same at TC with shifterd stopped: weights are changed by the store alone.
    ShifterStore,
    /// DNAT by nftables with `numgen`, which tracks connections.
    Nftables,
    /// HAProxy, passing bytes.
    HaproxyTcp,
    /// HAProxy, reading HTTP.
    HaproxyHttp,
    /// nginx's stream module.
    NginxStream,
}

impl Way {
    /// Those that requests are measured on, the reference first.
    pub const MEASURED: [Self; 9] = [
        Self::Direct,
        Self::ShifterSocket,
        Self::ShifterSocketHttp,
        Self::ShifterTc,
        Self::ShifterXdp,
        Self::Nftables,
        Self::HaproxyTcp,
        Self::HaproxyHttp,
        Self::NginxStream,
    ];
    /// Those whose weights can be changed, each in the way its makers tell to.
    pub const MOVABLE: [Self; 6] = [
        Self::ShifterStore,
        Self::ShifterSocket,
        Self::ShifterTc,
        Self::Nftables,
        Self::HaproxyTcp,
        Self::NginxStream,
    ];

    /// In tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::ShifterSocket => "shifter, socket plane",
            Self::ShifterSocketHttp => "the same, HTTP observed",
            Self::ShifterTc => "shifter, nat plane, TC",
            Self::ShifterXdp => "shifter, nat plane, XDP",
            Self::ShifterStore => "shifter, the store alone",
            Self::Nftables => "nftables DNAT",
            Self::HaproxyTcp => "HAProxy TCP",
            Self::HaproxyHttp => "HAProxy HTTP",
            Self::NginxStream => "nginx stream",
        }
    }

    /// Time between two changes. nginx goes on giving connections to its old workers for a while; all
    /// others have long ended then.
    pub const fn change_interval(self) -> Duration {
        match self {
            Self::NginxStream => Duration::from_millis(200),
            _ => Duration::from_millis(60),
        }
    }

    /// The program that must be installed for it, and its Debian package.
    pub const fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Direct
            | Self::ShifterSocket
            | Self::ShifterSocketHttp
            | Self::ShifterTc
            | Self::ShifterXdp
            | Self::ShifterStore => None,
            Self::Nftables => Some(("nft", "nftables")),
            Self::HaproxyTcp | Self::HaproxyHttp => Some(("haproxy", "haproxy")),
            Self::NginxStream => Some(("nginx", "nginx")),
        }
    }
}

/// What stands between the client and the backends.
enum Between {
    Nothing,
    Shifter(Box<Daemon>),
    Store(Store, Box<Daemon>),
    Nftables(Nftables),
    Haproxy(Haproxy),
    Nginx(NginxStream),
}

/// A way, set up: both versions run, all connections go to version a.
pub struct Setup {
    way: Way,
    between: Between,
    backends: [Backend; 2],
    // Dropped last: everything above runs in it.
    world: World,
}

impl Setup {
    /// Sets a way up.
    ///
    /// # Panics
    /// If something cannot be started.
    pub fn new(way: Way) -> Self {
        let world = World::pair(Options::default());
        let host = world.host();
        let start = |version: usize| {
            let listen = OTHER.ports(PORTS[version]);
            Backend::start(host, Spec::new(VERSIONS[version], &listen))
        };
        let backends = [start(0), start(1)];
        let between = match way {
            Way::Direct => Between::Nothing,
            Way::ShifterSocket | Way::ShifterSocketHttp => {
                let sees_http = way == Way::ShifterSocketHttp;
                let daemon = shifter(&world, HookSpec::Tc, Plane::Socket, sees_http);
                // The programs of the nat plane go with the first look at the flow tables.
                daemon.wait_for("no program is on the interface", |status| {
                    status.interfaces.iter().all(|one| one.hook == "none")
                });
                Between::Shifter(Box::new(daemon))
            }
            Way::ShifterTc => {
                Between::Shifter(Box::new(shifter(&world, HookSpec::Tc, Plane::Nat, false)))
            }
            Way::ShifterXdp => {
                Between::Shifter(Box::new(shifter(&world, HookSpec::Xdp, Plane::Nat, false)))
            }
            Way::ShifterStore => {
                let mut daemon = shifter(&world, HookSpec::Tc, Plane::Nat, false);
                daemon.stop();
                Between::Store(Store::open(&daemon.bpffs()), Box::new(daemon))
            }
            Way::Nftables => Between::Nftables(Nftables::start(host)),
            Way::HaproxyTcp => Between::Haproxy(Haproxy::start(host, "tcp")),
            Way::HaproxyHttp => Between::Haproxy(Haproxy::start(host, "http")),
            Way::NginxStream => Between::Nginx(NginxStream::start(host)),
        };
        Self {
            way,
            between,
            backends,
            world,
        }
    }

    /// Which way.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Where clients are.
    pub fn client(&self) -> Inside {
        self.world.client().inside()
    }

    /// Where clients connect to.
    pub fn target(&self) -> SocketAddr {
        match self.way {
            Way::Direct => OTHER.port(Family::V4, PORTS[0]),
            _ => VIP.port(Family::V4, PORT),
        }
    }

    /// The backends' processes.
    pub fn backend_pids(&self) -> Vec<Pid> {
        let of = |backend: &Backend| backend.pid().map(cpu::family).unwrap_or_default();
        self.backends.iter().flat_map(of).collect()
    }

    /// The processes between client and backends.
    pub fn between_pids(&self) -> Vec<Pid> {
        match &self.between {
            Between::Nothing | Between::Nftables(_) => Vec::new(),
            Between::Shifter(daemon) | Between::Store(_, daemon) => {
                daemon.pid().map(cpu::family).unwrap_or_default()
            }
            Between::Haproxy(haproxy) => cpu::family(haproxy.pid()),
            Between::Nginx(nginx) => cpu::family(nginx.pid()),
        }
    }

    /// Sends all new connections to a version, and returns when the way says that it is done.
    ///
    /// # Panics
    /// If the way refuses.
    pub fn send_to(&self, version: usize) {
        match &self.between {
            Between::Nothing => panic!("direct has no weights"),
            Between::Shifter(daemon) => {
                let weight_bp = [0, 10_000][version];
                if let Err(refusal) = daemon.set_weight(SERVICE, weight_bp) {
                    panic!("set-weight {weight_bp}: {refusal:?}");
                }
            }
            Between::Store(store, _) => store.set_weight([0, 10_000][version]),
            Between::Nftables(nftables) => nftables.send_to(version),
            Between::Haproxy(haproxy) => haproxy.send_to(version),
            Between::Nginx(nginx) => nginx.send_to(version),
        }
    }
}

/// shifterd with two slots, waited for until both are eligible. Backends are asked once a second,
/// as they would be.
fn shifter(world: &World, hook: HookSpec, plane: Plane, sees_http: bool) -> Daemon {
    let mut spec = service(
        SERVICE,
        &VIP.ports(PORT),
        &OTHER.ports(PORTS[0]),
        &OTHER.ports(PORTS[1]),
    );
    spec.plane = plane;
    spec.observe = ObserveSpec {
        latency: sees_http,
        http: sees_http,
    };
    spec.readiness.interval = Duration::from_secs(1);
    spec.readiness.timeout = Duration::from_millis(900);
    spec.readiness.failure_threshold = 5;
    let node = Node {
        patience: Duration::from_secs(30),
        ..Node::new(hook)
    };
    let daemon = Daemon::start(world.host(), node, &[spec]);
    daemon.wait_until_ready();
    daemon
}
