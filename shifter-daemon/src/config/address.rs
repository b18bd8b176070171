//! Addresses with ports: VIPs, backends, the metrics endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    field::Field,
    report::{Report, shown},
};

/// What an address is for, hence which addresses are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Clients connect to it.
    Vip,
    /// Packets are sent to it.
    Backend,
    /// The daemon itself listens there.
    Listen,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Backend => "backend",
            Self::Listen => "address",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Vip => "\"10.0.0.10:443\" or \"[2001:db8::10]:443\"",
            Self::Backend => "\"10.0.0.11:8443\" or \"[2001:db8::11]:8443\"",
            Self::Listen => "\"127.0.0.1:9977\" or \"[::1]:9977\"",
        }
    }
}

/// Reads a string with an address and port that is possible for its role.
pub(super) fn read(field: &Field<'_>, role: Role, report: &mut Report<'_>) -> Option<SocketAddr> {
    let text = field.string(report)?;
    let checked = parse(text, role).and_then(|addr| {
        check(addr, role)
            .map(|()| addr)
            .map_err(|(what, help)| (format!("{} {} {what}", role.name(), shown_addr(addr)), help))
    });
    match checked {
        Ok(addr) => Some(addr),
        Err((message, help)) => {
            report.value(&field.at(), message, help);
            None
        }
    }
}

/// As the file would have it, zone index and all.
fn shown_addr(addr: SocketAddr) -> String {
    format!("\"{addr}\"")
}

fn parse(text: &str, role: Role) -> Result<SocketAddr, (String, String)> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let name = role.name();
    let write = format!("write {}", role.example());
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let help = match ip {
            IpAddr::V4(ip) => format!("write \"{ip}:PORT\""),
            IpAddr::V6(ip) => format!("write \"[{ip}]:PORT\""),
        };
        return Err((format!("{name} {} has no port", shown(text)), help));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.contains('%') {
        let help = "write an address that is the same on every interface".to_owned();
        return Err((format!("{name} {} has a zone", shown(text)), help));
    }
    if bare.parse::<IpAddr>().is_ok() {
        let message = format!("{name} {} has no valid port", shown(text));
        return Err((message, "write a port of 1 to 65535".to_owned()));
    }
    if is_host_name(bare) && (port.is_empty() || port.parse::<u16>().is_ok()) {
        let message = format!("{name} {} is a name, not an address", shown(text));
        return Err((message, format!("names are not looked up; {write}")));
    }
    Err((
        format!("{name} {} is not an address and a port", shown(text)),
        write,
    ))
}

/// Whether the text looks like a host name: letters somewhere, and nothing else a name cannot have.
fn is_host_name(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// What is wrong with an address in this role, to be read after the address, and what would be
/// right.
fn check(addr: SocketAddr, role: Role) -> Result<(), (&'static str, String)> {
    const MANY: &str = "is a multicast or broadcast address";
    let ip = addr.ip();
    let no = |what, help: &str| Err((what, help.to_owned()));
    if addr.port() == 0 {
        return no("has port 0", "write a port of 1 to 65535");
    }
    if let SocketAddr::V6(v6) = addr {
        if v6.scope_id() != 0 {
            return no(
                "has a zone",
                "write an address that is the same on every interface",
            );
        }
        if let Some(v4) = v6.ip().to_ipv4_mapped() {
            let help = format!("write it as \"{}\"", SocketAddr::from((v4, addr.port())));
            return Err(("is an IPv4 address in IPv6 form", help));
        }
    }
    if role == Role::Listen {
        return if ip.is_multicast() || is_broadcast(ip) {
            no(
                MANY,
                "write an address of this host, or false for no endpoint",
            )
        } else {
            Ok(())
        };
    }
    if ip.is_unspecified() {
        return match role {
            Role::Vip => no(
                "stands for any address",
                "name each address clients connect to; a service can have 8",
            ),
            // Whether the plane can use it is a question of the whole file.
            _ => Ok(()),
        };
    }
    if ip.is_multicast() || is_broadcast(ip) {
        return no(MANY, "write an address that one host has");
    }
    if is_link_local_v6(ip) {
        return no(
            "is link-local",
            "write an address that is the same on every interface",
        );
    }
    if ip.is_loopback() {
        return match role {
            Role::Vip => no(
                "is loopback: no client of the network reaches it",
                "write the address clients connect to",
            ),
            _ => Ok(()),
        };
    }
    Ok(())
}

/// Why the nat plane cannot send packets to a backend, to be read after its address, and what would
/// be right; `None` if it can.
pub(super) fn unreachable_by_nat(addr: SocketAddr) -> Option<(&'static str, &'static str)> {
    let ip = addr.ip();
    if ip.is_unspecified() {
        return Some((
            "is no address packets can be sent to",
            "write the one address of the server, also if it listens on all of its host, or plane = \
             \"socket\"",
        ));
    }
    ip.is_loopback().then_some((
        if ip.is_ipv4() {
            "is loopback: it needs route_localnet, which shifter never sets"
        } else {
            "is loopback: the kernel drops what is sent there from outside"
        },
        "let the server listen on an address of this host and write that one, or plane = \"socket\"",
    ))
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(&ip))
}
