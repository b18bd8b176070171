//! Forwarding and filters in the way of steered packets.

use crate::doctor::{Check, Destination, Facts, InterfaceFacts};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![rp_filter(facts), ip_forward(facts), ipv6_forwarding(facts)]
}

/// What a setting for forwarding means where packets go to `destination`: nothing, something
/// perhaps, or everything.
fn judge_forwarding(check: Check, on: bool, destination: Destination, remedy: String) -> Check {
    let Check {
        name, found, why, ..
    } = check;
    if on {
        return Check::ok(name, found, why);
    }
    match destination {
        Destination::Host => Check::ok(
            name,
            format!("{found}; not needed: every backend is on this host"),
            why,
        ),
        Destination::Unknown => Check::ok(name, found, why).warn(remedy),
        Destination::Elsewhere(backend) => Check::ok(
            name,
            format!("{found}, and backend {backend} is elsewhere"),
            why,
        )
        .fail(remedy),
    }
}

fn ip_forward(facts: &Facts) -> Check {
    let why = "packets for a backend that is not an address of this host are forwarded";
    // The kernel asks the interface a packet came in by.
    let off: Vec<_> = present(facts)
        .filter(|interface| interface.forwarding == Some(0))
        .map(|interface| interface.spec.name.as_str())
        .collect();
    let (on, found) = match facts.ip_forward {
        Some(0) => (false, "off".to_owned()),
        None => (false, "not readable".to_owned()),
        Some(_) if off.is_empty() => (true, "on".to_owned()),
        Some(_) => (false, format!("on, but off for {}", off.join(", "))),
    };
    let remedy = match off[..] {
        [interface, ..] if facts.ip_forward.is_some_and(|value| value != 0) => {
            sysctl("net.ipv4.conf", interface, "forwarding", 1)
        }
        _ => "sysctl -w net.ipv4.ip_forward=1".to_owned(),
    };
    judge_forwarding(
        Check::ok("ip_forward", found, why),
        on,
        facts.destination(false),
        remedy,
    )
}

fn ipv6_forwarding(facts: &Facts) -> Check {
    let why = "packets for a backend that is not an address of this host are forwarded; with it on, \
               router advertisements count only where accept_ra=2";
    let (on, found) = match facts.ipv6_forwarding {
        Some(0) => (false, "off"),
        None => (false, "not readable"),
        Some(_) => (true, "on"),
    };
    let remedy = "sysctl -w net.ipv6.conf.all.forwarding=1".to_owned();
    judge_forwarding(
        Check::ok("IPv6 forwarding", found, why),
        on,
        facts.destination(true),
        remedy,
    )
}

fn rp_filter(facts: &Facts) -> Check {
    const STRICT: u32 = 1;
    let why = "strict filtering drops packets whose way back leads out by another interface, as \
               clients' and routed backends' may; no counter of shifter sees them";
    let values: Vec<_> = present(facts)
        .map(|interface| {
            let value = interface
                .rp_filter
                .map_or_else(|| "?".into(), |value| value.to_string());
            format!("{}={value}", interface.spec.name)
        })
        .collect();
    let strict = present(facts).find(|interface| interface.rp_filter == Some(STRICT));
    let found = if values.is_empty() {
        "no interfaces to look at".into()
    } else {
        values.join(" ")
    };
    let Some(strict) = strict else {
        return Check::ok("rp_filter", found, why);
    };
    if facts.backends.is_some() && facts.forwarded_backend().is_none() {
        let found = format!("{found}; every backend is on this host");
        return Check::ok("rp_filter", found, why);
    }
    Check::ok("rp_filter", format!("{found} (strict)"), why).warn(sysctl(
        "net.ipv4.conf",
        &strict.spec.name,
        "rp_filter",
        2,
    ))
}

/// Interfaces of the node file that are there.
fn present(facts: &Facts) -> impl Iterator<Item = &InterfaceFacts> {
    facts
        .interfaces
        .iter()
        .flatten()
        .filter(|interface| interface.found.is_ok())
}

/// The command that sets a value. A name with a dot needs slashes as separators.
fn sysctl(tree: &str, interface: &str, key: &str, value: u32) -> String {
    if interface.contains('.') {
        format!(
            "sysctl -w {}/{interface}/{key}={value}",
            tree.replace('.', "/")
        )
    } else {
        format!("sysctl -w {tree}.{interface}.{key}={value}")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::doctor::judge::complaints;

    fn interface(facts: &mut Facts, change: impl FnOnce(&mut InterfaceFacts)) {
        if let Some(first) = facts.interfaces.iter_mut().flatten().next() {
            change(first);
        }
    }

    fn backends(facts: &mut Facts, addresses: Option<&[&str]>) {
        facts.backends = addresses.map(|all| {
            all.iter()
                .flat_map(|text| text.parse::<SocketAddr>())
                .collect()
        });
    }

    const FORWARDED: &str =
        "packets for a backend that is not an address of this host are forwarded";
    const ADVERTISEMENTS: &str = "with it on, router advertisements count only where accept_ra=2";
    const STRICT: &str = "strict filtering drops packets whose way back leads out by another \
         interface, as clients' and routed backends' may; no counter of shifter sees them";

    #[test]
    fn each_failing_check_says_what_why_and_what_to_do() {
        type Row = (Box<dyn FnOnce(&mut Facts)>, Vec<String>);
        #[rustfmt::skip]
        let rows: Vec<Row> = vec![
            (Box::new(|facts| facts.ip_forward = Some(0)), vec![format!(
                "fail ip_forward: off, and backend 10.1.0.2:8080 is elsewhere | {FORWARDED} | \
                 sysctl -w net.ipv4.ip_forward=1")]),
            (Box::new(|facts| facts.ip_forward = None), vec![format!(
                "fail ip_forward: not readable, and backend 10.1.0.2:8080 is elsewhere | \
                 {FORWARDED} | sysctl -w net.ipv4.ip_forward=1")]),
            (Box::new(|facts| interface(facts, |eth0| eth0.forwarding = Some(0))), vec![format!(
                "fail ip_forward: on, but off for eth0, and backend 10.1.0.2:8080 is elsewhere | \
                 {FORWARDED} | sysctl -w net.ipv4.conf.eth0.forwarding=1")]),
            (Box::new(|facts| { facts.ip_forward = Some(0); backends(facts, None); }), vec![format!(
                "warn ip_forward: off | {FORWARDED} | sysctl -w net.ipv4.ip_forward=1")]),
            (Box::new(|facts| {
                facts.ip_forward = Some(0);
                backends(facts, Some(&["10.0.0.1:80", "127.0.0.1:80", "[2001:db8::2]:80"]));
            }), vec![]),
            (Box::new(|facts| facts.ipv6_forwarding = Some(0)), vec![]),
            (Box::new(|facts| {
                facts.ipv6_forwarding = Some(0);
                backends(facts, Some(&["10.0.0.1:80", "[2001:db8::2]:80"]));
            }), vec![format!(
                "fail IPv6 forwarding: off, and backend [2001:db8::2]:80 is elsewhere | \
                 {FORWARDED}; {ADVERTISEMENTS} | sysctl -w net.ipv6.conf.all.forwarding=1")]),
            (Box::new(|facts| { facts.ipv6_forwarding = None; backends(facts, None); }),
                vec![format!(
                "warn IPv6 forwarding: not readable | {FORWARDED}; {ADVERTISEMENTS} | \
                 sysctl -w net.ipv6.conf.all.forwarding=1")]),
            (Box::new(|facts| interface(facts, |eth0| eth0.rp_filter = Some(1))), vec![format!(
                "warn rp_filter: eth0=1 (strict) | {STRICT} | \
                 sysctl -w net.ipv4.conf.eth0.rp_filter=2")]),
            (Box::new(|facts| {
                interface(facts, |eth0| eth0.rp_filter = Some(1));
                backends(facts, None);
            }), vec![format!(
                "warn rp_filter: eth0=1 (strict) | {STRICT} | \
                 sysctl -w net.ipv4.conf.eth0.rp_filter=2")]),
            (Box::new(|facts| {
                interface(facts, |eth0| eth0.rp_filter = Some(1));
                backends(facts, Some(&["10.0.0.1:80"]));
            }), vec![]),
            (Box::new(|facts| interface(facts, |eth0| {
                eth0.rp_filter = Some(1);
                eth0.spec.name = "eth0.10".into();
                eth0.found = eth0.found.clone().map(|found| crate::doctor::interface::Interface {
                    name: "eth0.10".into(), ..found });
            })), vec![format!(
                "warn rp_filter: eth0.10=1 (strict) | {STRICT} | \
                 sysctl -w net/ipv4/conf/eth0.10/rp_filter=2")]),
        ];
        for (change, expected) in rows {
            assert_eq!(complaints(change), expected);
        }
    }
}
