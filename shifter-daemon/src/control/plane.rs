//! Which plane steers a service, and why.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::model::{Plane, Protocol, ServiceSpec};

/// What the choice depends on besides the service's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Addresses of the host's interfaces.
    pub local: BTreeSet<IpAddr>,
    /// Whether the socket plane can be had; else why not.
    pub socket_plane: Result<(), String>,
}

/// The plane a service is steered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Never [`Plane::Auto`].
    pub plane: Plane,
    /// Why.
    pub reason: String,
}

/// Chooses the plane of a service.
///
/// # Errors
/// The reason why the service can be steered by none as its file has it, and what would be right.
pub fn choose_plane(spec: &ServiceSpec, host: &HostView) -> Result<Steering, String> {
    let backends = || spec.slots.iter().flat_map(|slot| &slot.backends);
    let elsewhere = backends()
        .map(|backend| backend.addr)
        .find(|addr| !is_here(*addr, &host.local));
    let only_socket = backends()
        .map(|backend| backend.addr)
        .find(|addr| addr.ip().is_unspecified() || addr.ip().is_loopback());
    let steering = |plane, reason: String| Ok(Steering { plane, reason });
    if spec.protocol == Protocol::Udp && spec.plane == Plane::Auto {
        return steering(Plane::Nat, "UDP is steered by the nat plane only".into());
    }
    match (spec.plane, elsewhere, &host.socket_plane) {
        (Plane::Nat, ..) => steering(Plane::Nat, "asked for".into()),
        (Plane::Socket, Some(addr), _) => Err(format!(
            "plane = \"socket\", but backend {addr} is no address of this host: bring the address \
             up, or write plane = \"nat\""
        )),
        (Plane::Socket, None, Err(why)) => Err(format!("plane = \"socket\" cannot be had: {why}")),
        (Plane::Socket, None, Ok(())) => steering(Plane::Socket, "asked for".into()),
        (Plane::Auto, None, Ok(())) => steering(
            Plane::Socket,
            "TCP, and every backend is an address of this host".into(),
        ),
        (Plane::Auto, Some(addr), _) => match only_socket {
            Some(local) => Err(format!(
                "backend {local} can be served by the socket plane only, and backend {addr} is no \
                 address of this host: let both slots listen here, or write addresses that packets \
                 can be sent to"
            )),
            None => steering(
                Plane::Nat,
                format!("backend {addr} is no address of this host"),
            ),
        },
        (Plane::Auto, None, Err(why)) => match only_socket {
            Some(local) => Err(format!(
                "backend {local} can be served by the socket plane only, which cannot be had: {why}"
            )),
            None => steering(Plane::Nat, format!("the socket plane cannot be had: {why}")),
        },
    }
}

fn is_here(addr: SocketAddr, local: &BTreeSet<IpAddr>) -> bool {
    let ip = addr.ip();
    ip.is_unspecified() || ip.is_loopback() || local.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// plane, backends, whether the socket plane can be had, expected plane or error, and its reason
    type Row = (
        &'static str,
        &'static [&'static str],
        bool,
        Result<Plane, ()>,
        &'static str,
    );

    const ROWS: &[Row] = &[
        ("nat", &["10.0.0.20:81"], true, Ok(Plane::Nat), "asked for"),
        (
            "socket",
            &["10.0.0.20:81"],
            true,
            Ok(Plane::Socket),
            "asked for",
        ),
        (
            "socket",
            &["10.2.0.2:81"],
            true,
            Err(()),
            "plane = \"socket\", but backend 10.2.0.2:81 is no address of this host: bring the \
             address up, or write plane = \"nat\"",
        ),
        (
            "socket",
            &["[::]:81"],
            false,
            Err(()),
            "plane = \"socket\" cannot be had: no cgroup",
        ),
        (
            "auto",
            &["10.0.0.20:81", "127.0.0.1:82", "[::]:83", "0.0.0.0:84"],
            true,
            Ok(Plane::Socket),
            "TCP, and every backend is an address of this host",
        ),
        (
            "auto",
            &["10.0.0.20:81", "10.2.0.2:81"],
            true,
            Ok(Plane::Nat),
            "backend 10.2.0.2:81 is no address of this host",
        ),
        (
            "auto",
            &["10.0.0.20:81"],
            false,
            Ok(Plane::Nat),
            "the socket plane cannot be had: no cgroup",
        ),
        (
            "auto",
            &["127.0.0.1:81", "10.2.0.2:81"],
            true,
            Err(()),
            "backend 127.0.0.1:81 can be served by the socket plane only, and backend 10.2.0.2:81 \
             is no address of this host: let both slots listen here, or write addresses that \
             packets can be sent to",
        ),
        (
            "auto",
            &["[::]:81"],
            false,
            Err(()),
            "backend [::]:81 can be served by the socket plane only, which cannot be had: no cgroup",
        ),
    ];

    #[test]
    fn planes_and_reasons() {
        for (plane, backends, is_possible, expected, reason) in ROWS {
            let backends: Vec<_> = backends.iter().map(|b| format!("{b:?}")).collect();
            let text = "[service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\n[slot.a]\nbackends = \
                 [\"10.0.0.20:1\"]\n";
            let mut spec = crate::config::parse_service("orders.toml", text).expect("a service");
            spec.plane = match *plane {
                "nat" => Plane::Nat,
                "socket" => Plane::Socket,
                _ => Plane::Auto,
            };
            spec.slots[0].backends = backends
                .iter()
                .map(|b| crate::model::BackendSpec {
                    addr: b.trim_matches('"').parse().expect("an address"),
                    weight: 100,
                })
                .collect();
            let host = HostView {
                local: ["10.0.0.20".parse().expect("an address")].into(),
                socket_plane: if *is_possible {
                    Ok(())
                } else {
                    Err("no cgroup".into())
                },
            };
            let found = choose_plane(&spec, &host);
            let (plane, text) = match found {
                Ok(steering) => (Ok(steering.plane), steering.reason),
                Err(why) => (Err(()), why),
            };
            assert_eq!((plane, text.as_str()), (*expected, *reason));
        }
    }
}
