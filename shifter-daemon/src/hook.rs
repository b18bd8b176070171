//! Which hook an interface gets, and why. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{doctor::interface::Interface, model::HookSpec};

/// Where packets of clients meet shifter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP, run by the driver.
    Xdp,
    /// XDP, run by the kernel's stack.
    XdpGeneric,
    /// TC ingress.
    Tc,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        })
    }
}

/// A hook that was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {remedy}")]
pub struct HookRefusal {
    /// What stands in the way.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Chooses the hook of an interface, with the reason.
///
/// `interface` is without shifter's own XDP program ([`Interface::without_own_xdp`]).
/// `forwarded_backend` is a backend that is not an address of this host, if there is one
/// ([`first_forwarded`]).
///
/// # Errors
/// Why the hook that was asked for cannot be had, and what to do.
pub fn choose_hook(
    interface: &Interface,
    spec: HookSpec,
    checksums_complete: bool,
    forwarded_backend: Option<SocketAddr>,
) -> Result<(Hook, String), String> {
    decide_hook(interface, spec, checksums_complete, forwarded_backend)
        .map_err(|refusal| refusal.to_string())
}

/// As [`choose_hook`], with the parts of a refusal apart.
///
/// # Errors
/// As [`choose_hook`].
pub fn decide_hook(
    interface: &Interface,
    spec: HookSpec,
    checksums_complete: bool,
    forwarded_backend: Option<SocketAddr>,
) -> Result<(Hook, String), HookRefusal> {
    if let Some(refusal) = member(interface) {
        return Err(refusal);
    }
    match spec {
        HookSpec::Tc => Ok((Hook::Tc, with_advice("asked for".into(), interface))),
        HookSpec::Auto => Ok(match obstacle(interface) {
            Some(reason) => (Hook::Tc, with_advice(reason, interface)),
            None => (
                Hook::Xdp,
                format!("driver {} is a real NIC's", interface.driver_name()),
            ),
        }),
        HookSpec::Xdp => {
            let reason = xdp(interface, Hook::Xdp, checksums_complete, forwarded_backend)?;
            Ok((Hook::Xdp, with_advice(reason, interface)))
        }
        HookSpec::XdpGeneric => {
            let reason = xdp(
                interface,
                Hook::XdpGeneric,
                checksums_complete,
                forwarded_backend,
            )?;
            Ok((Hook::XdpGeneric, with_advice(reason, interface)))
        }
    }
}

/// A member of a bond sees a part of its packets only: a flow may come in by one and its replies leave
/// by another.
fn member(interface: &Interface) -> Option<HookRefusal> {
    let name = &interface.name;
    let master = interface.master.as_ref()?;
    matches!(master.kind.as_str(), "bond" | "team").then(|| HookRefusal {
        why: format!(
            "{name} is a member of {master}: packets of a flow come in and go out by any member"
        ),
        remedy: format!("name {} instead", master.name),
    })
}

/// What else to say of a choice.
fn with_advice(reason: String, interface: &Interface) -> String {
    match &interface.master {
        Some(master) if master.kind == "bridge" => format!(
            "{reason}; only clients behind this port are steered, those behind all ports if {} is \
             named instead",
            master.name
        ),
        _ => reason,
    }
}

/// What speaks against XDP where shifter may choose.
fn obstacle(interface: &Interface) -> Option<String> {
    let driver = interface.driver_name();
    if let Some(program) = interface.xdp_program() {
        return Some(format!("a foreign XDP program is attached: {program}"));
    }
    if interface.is_virtual {
        return Some(format!(
            "driver {driver} is virtual: XDP cannot see offloaded checksums"
        ));
    }
    if let Some(master) = &interface.master {
        return Some(format!(
            "it is enslaved to {master}, which owns its receive path"
        ));
    }
    if interface.driver.is_none() {
        return Some("its driver is not known".into());
    }
    if interface.native_xdp == Some(false) {
        return Some(format!("driver {driver} does not run XDP programs"));
    }
    None
}

/// The reason for XDP where it was asked for.
fn xdp(
    interface: &Interface,
    hook: Hook,
    checksums_complete: bool,
    forwarded_backend: Option<SocketAddr>,
) -> Result<String, HookRefusal> {
    let (name, driver) = (&interface.name, interface.driver_name());
    if let Some(program) = interface.xdp_program() {
        return Err(HookRefusal {
            why: format!("hook = \"{hook}\" on {name}: a foreign XDP program holds it: {program}"),
            remedy: format!("use hook = \"tc\", or take it off: ip link set dev {name} xdp off"),
        });
    }
    if hook == Hook::Xdp && interface.native_xdp == Some(false) {
        return Err(HookRefusal {
            why: format!("hook = \"xdp\" on {name}: driver {driver} does not run XDP programs"),
            remedy: "use hook = \"tc\", \"auto\" or \"xdp-generic\"".into(),
        });
    }
    if !interface.is_virtual {
        return Ok("asked for".into());
    }
    if checksums_complete {
        return Ok(format!(
            "asked for; driver {driver} is virtual, and the node file says checksums are complete"
        ));
    }
    match forwarded_backend {
        None => Ok(format!(
            "asked for; driver {driver} is virtual, but all backends are addresses of this host, \
             which does not check offloaded checksums again"
        )),
        Some(backend) => Err(HookRefusal {
            why: format!(
                "hook = \"{hook}\" on {name}: driver {driver} is virtual, XDP cannot see offloaded \
                 checksums, and packets forwarded to backend {backend} would carry wrong ones"
            ),
            remedy: "use hook = \"tc\", or on the peer: ethtool -K PEER tx-checksumming off, and \
                     here: checksums_complete = true"
                .into(),
        }),
    }
}

/// The first backend whose packets this host forwards, because its address is not one of `local`
/// (the addresses of the host's interfaces).
pub fn first_forwarded(
    backends: impl IntoIterator<Item = SocketAddr>,
    local: &BTreeSet<IpAddr>,
) -> Option<SocketAddr> {
    backends
        .into_iter()
        .find(|backend| !backend.ip().is_loopback() && !local.contains(&backend.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::interface::Master;

    fn nic() -> Interface {
        Interface {
            name: "eth0".into(),
            ifindex: 2,
            driver: Some("ixgbe".into()),
            native_xdp: Some(true),
            up: true,
            mtu_bytes: 1500,
            ..Interface::default()
        }
    }

    fn veth() -> Interface {
        Interface {
            driver: Some("veth".into()),
            is_virtual: true,
            ..nic()
        }
    }

    fn held() -> Interface {
        let xdp_prog_name = Some("xdp_filter".to_owned());
        Interface {
            xdp_prog_id: Some(7),
            xdp_prog_name,
            ..nic()
        }
    }

    fn enslaved(name: &str, kind: &str) -> Interface {
        Interface {
            master: Some(Master {
                name: name.into(),
                kind: kind.into(),
            }),
            ..nic()
        }
    }

    fn member() -> Interface {
        enslaved("bond0", "bond")
    }

    fn port() -> Interface {
        enslaved("br0", "bridge")
    }

    fn without_xdp() -> Interface {
        Interface {
            driver: Some("e1000".into()),
            native_xdp: Some(false),
            ..nic()
        }
    }

    fn nameless() -> Interface {
        Interface {
            driver: None,
            native_xdp: None,
            ..nic()
        }
    }

    fn old_kernel() -> Interface {
        Interface {
            native_xdp: None,
            ..nic()
        }
    }

    #[test]
    fn hooks() {
        use HookSpec::{Auto, Tc, Xdp, XdpGeneric};
        let local = None;
        let away = Some(SocketAddr::from(([10, 1, 0, 2], 8080)));
        type Row = (Interface, HookSpec, bool, Option<SocketAddr>, &'static str);
        #[rustfmt::skip]
        let rows: Vec<Row> = vec![
            (nic(),         Auto, false, local, "xdp: driver ixgbe is a real NIC's"),
            (nic(),         Auto, false, away,  "xdp: driver ixgbe is a real NIC's"),
            (old_kernel(),  Auto, false, away,  "xdp: driver ixgbe is a real NIC's"),
            (veth(),        Auto, false, local, "tc: driver veth is virtual: XDP cannot see \
                offloaded checksums"),
            (veth(),        Auto, true,  away,  "tc: driver veth is virtual: XDP cannot see \
                offloaded checksums"),
            (held(),        Auto, false, local, "tc: a foreign XDP program is attached: \
                xdp_filter (id 7)"),
            (port(),        Auto, false, local, "tc: it is enslaved to bridge br0, which owns its \
                receive path; only clients behind this port are steered, those behind all ports if \
                br0 is named instead"),
            (enslaved("blue", "vrf"), Auto, false, local, "tc: it is enslaved to vrf blue, which \
                owns its receive path"),
            (member(),      Auto, false, local, "refused: eth0 is a member of bond bond0: packets \
                of a flow come in and go out by any member; name bond0 instead"),
            (member(),      Tc,   false, local, "refused: eth0 is a member of bond bond0: packets \
                of a flow come in and go out by any member; name bond0 instead"),
            (enslaved("team0", "team"), Xdp, true, local, "refused: eth0 is a member of team \
                team0: packets of a flow come in and go out by any member; name team0 instead"),
            (without_xdp(), Auto, false, local, "tc: driver e1000 does not run XDP programs"),
            (nameless(),    Auto, false, local, "tc: its driver is not known"),

            (nic(),         Tc,   false, away,  "tc: asked for"),
            (held(),        Tc,   false, away,  "tc: asked for"),

            (nic(),         Xdp,  false, away,  "xdp: asked for"),
            (old_kernel(),  Xdp,  false, away,  "xdp: asked for"),
            (port(),        Tc,   false, away,  "tc: asked for; only clients behind this port are \
                steered, those behind all ports if br0 is named instead"),
            (port(),        Xdp,  false, away,  "xdp: asked for; only clients behind this port are \
                steered, those behind all ports if br0 is named instead"),
            (without_xdp(), XdpGeneric, false, away, "xdp-generic: asked for"),
            (veth(),        XdpGeneric, false, local, "xdp-generic: asked for; driver veth is \
                virtual, but all backends are addresses of this host, which does not check \
                offloaded checksums again"),
            (veth(),        XdpGeneric, false, away, "refused: hook = \"xdp-generic\" on eth0: \
                driver veth is virtual, XDP cannot see offloaded checksums, and packets forwarded \
                to backend 10.1.0.2:8080 would carry wrong ones; use hook = \"tc\", or on the \
                peer: ethtool -K PEER tx-checksumming off, and here: checksums_complete = true"),
            (held(),        XdpGeneric, false, local, "refused: hook = \"xdp-generic\" on eth0: a \
                foreign XDP program holds it: xdp_filter (id 7); use hook = \"tc\", or take it \
                off: ip link set dev eth0 xdp off"),
            (veth(),        Xdp,  false, local, "xdp: asked for; driver veth is virtual, but all \
                backends are addresses of this host, which does not check offloaded checksums \
                again"),
            (veth(),        Xdp,  true,  away,  "xdp: asked for; driver veth is virtual, and the \
                node file says checksums are complete"),
            (veth(),        Xdp,  false, away,  "refused: hook = \"xdp\" on eth0: driver veth is \
                virtual, XDP cannot see offloaded checksums, and packets forwarded to backend \
                10.1.0.2:8080 would carry wrong ones; use hook = \"tc\", or on the peer: \
                ethtool -K PEER tx-checksumming off, and here: checksums_complete = true"),
            (held(),        Xdp,  true,  local, "refused: hook = \"xdp\" on eth0: a foreign XDP \
                program holds it: xdp_filter (id 7); use hook = \"tc\", or take it off: \
                ip link set dev eth0 xdp off"),
            (without_xdp(), Xdp,  true,  local, "refused: hook = \"xdp\" on eth0: driver e1000 \
                does not run XDP programs; use hook = \"tc\", \"auto\" or \"xdp-generic\""),
        ];
        for (interface, spec, complete, forwarded, expected) in rows {
            let found = match choose_hook(&interface, spec, complete, forwarded) {
                Ok((hook, reason)) => format!("{hook}: {reason}"),
                Err(refusal) => format!("refused: {refusal}"),
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn forwarded_backends() {
        let local: BTreeSet<IpAddr> = ["10.0.0.1", "2001:db8::1"]
            .iter()
            .flat_map(|ip| ip.parse())
            .collect();
        #[rustfmt::skip]
        let rows: &[(&[&str], Option<&str>)] = &[
            (&[],                                                   None),
            (&["10.0.0.1:80", "[2001:db8::1]:80"],                  None),
            (&["127.0.0.1:80", "127.9.9.9:80", "[::1]:80"],         None),
            (&["10.0.0.1:80", "10.0.0.2:81", "10.0.0.3:82"],        Some("10.0.0.2:81")),
            (&["[2001:db8::2]:80"],                                 Some("[2001:db8::2]:80")),
        ];
        for (backends, expected) in rows {
            let backends = backends.iter().flat_map(|backend| backend.parse());
            let expected = expected.and_then(|backend| backend.parse().ok());
            assert_eq!(first_forwarded(backends, &local), expected);
        }
    }
}
