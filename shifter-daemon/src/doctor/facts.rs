//! What is known of the host before anything is judged: plain values, so that every judgement can
//! be tested with facts no single host has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use nix::errno::Errno;

use super::{
    feature::{Feature, Lack},
    interface::{Interface, InterfaceError},
    netfilter::Netfilter,
};
use crate::{
    hook::first_forwarded,
    model::{InterfaceSpec, LocalClientsSpec},
};

/// Everything the checks look at. Values that could not be read are `None`.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub kernel_release: String,
    /// What became of using each feature.
    pub features: BTreeMap<Feature, Result<(), Lack>>,
    /// The kernel describes its types in `/sys/kernel/btf/vmlinux`.
    pub btf: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// The node file's bpffs.
    pub bpffs: PathBuf,
    /// What lies there.
    pub bpffs_state: BpffsState,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `/sys/kernel/security/lsm`.
    pub lsm: Option<String>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<u32>,
    /// `net.ipv6.conf.all.forwarding`.
    pub ipv6_forwarding: Option<u32>,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<String>,
    /// The interfaces of the node file; `None` without a node file.
    pub interfaces: Option<Vec<InterfaceFacts>>,
    /// Ids of the programs shifter has pinned.
    pub own_programs: BTreeSet<u32>,
    /// Backends of all services; `None` if they are not known.
    pub backends: Option<Vec<SocketAddr>>,
    /// VIPs of all services, as far as they are known.
    pub vips: Vec<SocketAddr>,
    /// Rules of the packet filter.
    pub netfilter: Netfilter,
    /// Whether clients on the host itself are to be steered.
    pub local_clients: LocalClientsSpec,
    /// Addresses of the host's interfaces.
    pub local_addresses: BTreeSet<IpAddr>,
    /// The services that are steered to listening sockets, as far as they are known.
    pub socket_services: Vec<SocketService>,
    /// Where MPTCP sockets listen.
    pub mptcp_listeners: BTreeSet<SocketAddr>,
    /// Maps of `SO_REUSEPORT` groups that applications have made.
    pub reuseport_maps_count: usize,
}

/// A service that is steered to listening sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketService {
    /// Name.
    pub name: String,
    /// Addresses clients connect to.
    pub vips: Vec<SocketAddr>,
    /// Where its versions listen.
    pub backends: Vec<SocketAddr>,
}

/// An interface of the node file.
#[derive(Clone, Debug)]
pub struct InterfaceFacts {
    /// What the file says.
    pub spec: InterfaceSpec,
    /// What the kernel says.
    pub found: Result<Interface, InterfaceError>,
    /// The higher of the interface's `rp_filter` and that of `all`, as the kernel takes it.
    pub rp_filter: Option<u32>,
    /// `net.ipv4.conf.INTERFACE.forwarding`.
    pub forwarding: Option<u32>,
}

/// What lies where the bpffs should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpffsState {
    /// A BPF file system.
    Mounted,
    /// Another file system.
    Other,
    /// It cannot be looked at.
    Unreadable(Errno),
}

/// Where the packets of steered flows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The backends are not known.
    Unknown,
    /// All backends are addresses of this host.
    Host,
    /// This backend is somewhere else: its packets are forwarded.
    Elsewhere(SocketAddr),
}

impl Facts {
    /// Where packets of IPv4 (`v6` false) or IPv6 flows go.
    pub fn destination(&self, v6: bool) -> Destination {
        self.destination_of(|backend| backend.is_ipv6() == v6)
    }

    /// A backend whose packets are forwarded, of either family.
    pub fn forwarded_backend(&self) -> Option<SocketAddr> {
        match self.destination_of(|_| true) {
            Destination::Elsewhere(backend) => Some(backend),
            Destination::Unknown | Destination::Host => None,
        }
    }

    fn destination_of(&self, which: impl Fn(&SocketAddr) -> bool) -> Destination {
        let Some(backends) = &self.backends else {
            return Destination::Unknown;
        };
        let backends = backends.iter().copied().filter(which);
        match first_forwarded(backends, &self.local_addresses) {
            Some(backend) => Destination::Elsewhere(backend),
            None => Destination::Host,
        }
    }
}

/// Facts of a host where nothing is wrong.
#[cfg(test)]
pub(super) fn healthy() -> Facts {
    use crate::model::HookSpec;
    let spec = InterfaceSpec {
        name: "eth0".into(),
        hook: HookSpec::Auto,
        checksums_complete: false,
    };
    let found = Interface {
        name: "eth0".into(),
        ifindex: 2,
        driver: Some("ixgbe".into()),
        native_xdp: Some(true),
        up: true,
        mtu_bytes: 1500,
        ..Interface::default()
    };
    Facts {
        kernel_release: "6.18.0".into(),
        features: Feature::ALL
            .into_iter()
            .map(|feature| (feature, Ok(())))
            .collect(),
        btf: true,
        jit: Some(1),
        bpffs: "/sys/fs/bpf".into(),
        bpffs_state: BpffsState::Mounted,
        capabilities: u64::MAX,
        lockdown: Some("[none] integrity confidentiality".into()),
        lsm: Some("lockdown,capability,bpf".into()),
        ip_forward: Some(1),
        ipv6_forwarding: Some(1),
        cgroup2: Some("/sys/fs/cgroup".into()),
        interfaces: Some(vec![InterfaceFacts {
            spec,
            found: Ok(found),
            rp_filter: Some(2),
            forwarding: Some(1),
        }]),
        own_programs: BTreeSet::new(),
        backends: Some(vec![SocketAddr::from(([10, 1, 0, 2], 8080))]),
        vips: vec![SocketAddr::from(([10, 0, 0, 10], 443))],
        netfilter: Netfilter::Rules(Vec::new()),
        local_clients: LocalClientsSpec::Auto,
        local_addresses: [IpAddr::from([10, 0, 0, 1])].into(),
        socket_services: Vec::new(),
        mptcp_listeners: BTreeSet::new(),
        reuseport_maps_count: 0,
    }
}
