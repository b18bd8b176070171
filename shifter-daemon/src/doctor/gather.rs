//! Collects the facts from the running host.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use aya::maps::MapType;
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        utsname::uname,
    },
};

use super::{
    facts::{BpffsState, Facts, InterfaceFacts, SocketService},
    feature::Feature,
    interface, netfilter,
    pins::pinned_programs,
};
use crate::{
    model::{InterfaceSpec, LocalClientsSpec, NodeSpec},
    sock_diag::SockDiag,
};

/// Where bpffs lies unless a node file says otherwise.
const BPFFS: &str = "/sys/fs/bpf";

/// Looks at the host. `backends` are those of all services, if they are known.
pub fn gather(
    node: Option<&NodeSpec>,
    backends: Option<&[SocketAddr]>,
    vips: &[SocketAddr],
    socket_services: Vec<SocketService>,
) -> Facts {
    let bpffs = node.map_or_else(|| BPFFS.into(), |node| node.bpffs.clone());
    let release = uname()
        .ok()
        .and_then(|name| name.release().to_str().map(str::to_owned));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    Facts {
        kernel_release: release.unwrap_or_else(|| "unknown".into()),
        features: Feature::ALL
            .into_iter()
            .map(|feature| (feature, feature.probe()))
            .collect(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        bpffs_state: bpffs_state(&bpffs),
        own_programs: pinned_programs(&bpffs.join("shifter")),
        bpffs,
        capabilities: effective_capabilities(&status).unwrap_or(0),
        lockdown: line("/sys/kernel/security/lockdown"),
        lsm: line("/sys/kernel/security/lsm"),
        ip_forward: number("/proc/sys/net/ipv4/ip_forward"),
        ipv6_forwarding: number("/proc/sys/net/ipv6/conf/all/forwarding"),
        cgroup2: cgroup2_mount(&mounts),
        interfaces: node.map(|node| node.interfaces.iter().map(interface_facts).collect()),
        local_clients: node.map_or_else(LocalClientsSpec::default, |node| node.local_clients),
        backends: backends.map(<[_]>::to_vec),
        vips: vips.to_vec(),
        netfilter: netfilter::gather(),
        local_addresses: local_addresses(),
        mptcp_listeners: if socket_services.is_empty() {
            BTreeSet::new()
        } else {
            mptcp_listeners()
        },
        reuseport_maps_count: if socket_services.is_empty() {
            0
        } else {
            reuseport_maps_count()
        },
        socket_services,
    }
}

/// Where MPTCP sockets listen; empty if the kernel does not say.
pub(super) fn mptcp_listeners() -> BTreeSet<SocketAddr> {
    let found = SockDiag::open().and_then(|diag| diag.listeners(None));
    let found = found.unwrap_or_default().into_iter();
    found
        .filter(|listener| listener.is_mptcp)
        .map(|listener| listener.local)
        .collect()
}

/// How many maps of `SO_REUSEPORT` groups there are; 0 if the kernel does not say.
pub(super) fn reuseport_maps_count() -> usize {
    let maps = aya::maps::loaded_maps().filter_map(Result::ok);
    maps.filter(|map| matches!(map.map_type(), Ok(MapType::ReuseportSockArray)))
        .count()
}

/// Addresses of the host's interfaces, in the caller's network namespace. Empty if the kernel does
/// not list them.
pub fn local_addresses() -> BTreeSet<IpAddr> {
    let Ok(all) = getifaddrs() else {
        return BTreeSet::new();
    };
    all.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    })
    .collect()
}

pub(super) fn interface_facts(spec: &InterfaceSpec) -> InterfaceFacts {
    let found = interface::inspect(&spec.name);
    // A name that is no interface could be any path; nothing is read for it.
    let setting = |of: &str, key: &str| {
        found.as_ref().ok()?;
        number(&format!("/proc/sys/net/ipv4/conf/{of}/{key}"))
    };
    InterfaceFacts {
        rp_filter: setting(&spec.name, "rp_filter").max(setting("all", "rp_filter")),
        forwarding: setting(&spec.name, "forwarding"),
        spec: spec.clone(),
        found,
    }
}

fn bpffs_state(path: &Path) -> BpffsState {
    match statfs(path) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => BpffsState::Mounted,
        Ok(_) => BpffsState::Other,
        Err(errno) => BpffsState::Unreadable(errno),
    }
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u32> {
    line(path)?.parse().ok()
}

/// The bits of `CapEff` in `/proc/self/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

/// Where cgroup v2 is mounted.
pub fn cgroup2() -> Option<String> {
    cgroup2_mount(&fs::read_to_string("/proc/self/mounts").ok()?)
}

/// The first mount of cgroup v2 in `/proc/self/mounts`: `/sys/fs/cgroup`, or
/// `/sys/fs/cgroup/unified` beside version 1.
pub fn cgroup2_mount(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (place, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| place.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HookSpec, SizeSpec};

    #[test]
    fn capabilities_are_read() {
        let rows = [
            (
                "Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n",
                Some(0x1ff_ffff_ffff),
            ),
            ("CapEff:\t0\n", Some(0)),
            ("CapPrm:\tff\n", None),
            ("CapEff:\tzz\n", None),
        ];
        for (status, expected) in rows {
            assert_eq!(effective_capabilities(status), expected, "{status:?}");
        }
    }

    #[test]
    fn cgroup2_is_found_where_it_is() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let rows = [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (
                "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
                Some("/sys/fs/cgroup"),
            ),
            ("none /mnt/cgroup2 tmpfs rw 0 0\nbroken\n", None),
        ];
        for (mounts, expected) in rows {
            assert_eq!(cgroup2_mount(mounts).as_deref(), expected);
        }
    }

    #[test]
    fn a_file_system_is_what_the_kernel_says() {
        assert_eq!(bpffs_state(Path::new("/proc")), BpffsState::Other);
        let missing = bpffs_state(Path::new("/nope/bpf"));
        assert_eq!(missing, BpffsState::Unreadable(nix::errno::Errno::ENOENT));
    }

    #[test]
    fn the_host_is_looked_at() {
        let spec = |name: &str| InterfaceSpec {
            name: name.into(),
            hook: HookSpec::Tc,
            checksums_complete: false,
        };
        let node = NodeSpec {
            interfaces: vec![spec("lo"), spec("../../../../etc")],
            control_socket: "/run/shifter/shifter.sock".into(),
            metrics: None,
            state_dir: "/var/lib/shifter".into(),
            bpffs: "/proc".into(),
            services_dir: "/etc/shifter/services.d".into(),
            local_clients: LocalClientsSpec::Auto,
            sizes: SizeSpec::default(),
            idle: Default::default(),
        };
        let facts = gather(Some(&node), None, &[], Vec::new());
        assert_eq!(facts.bpffs_state, BpffsState::Other);
        assert!(facts.local_addresses.iter().any(IpAddr::is_loopback));
        let interfaces = facts.interfaces.unwrap_or_default();
        let found: Vec<_> = interfaces
            .iter()
            .map(|facts| {
                (
                    facts.found.is_ok(),
                    facts.rp_filter.is_some(),
                    facts.forwarding.is_some(),
                )
            })
            .collect();
        assert_eq!(found, [(true, true, true), (false, false, false)]);
        assert!(gather(None, None, &[], Vec::new()).interfaces.is_none());
    }
}
