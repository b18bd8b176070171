//! What services that are steered to listening sockets need of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::doctor::{Check, Facts};

/// Nothing without such services.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    if facts.socket_services.is_empty() {
        return Vec::new();
    }
    vec![vip_addresses(facts), mptcp(facts), reuseport_maps(facts)]
}

fn vip_addresses(facts: &Facts) -> Check {
    let why = "a connection is given to a listener only where its address is the host's own; on a \
               standby node it comes with the VIP";
    let mut missing: Vec<(IpAddr, &str)> = Vec::new();
    for service in &facts.socket_services {
        for vip in &service.vips {
            let is_known = missing.iter().any(|(ip, _)| *ip == vip.ip());
            if !facts.local_addresses.contains(&vip.ip()) && !is_known {
                missing.push((vip.ip(), &service.name));
            }
        }
    }
    if missing.is_empty() {
        return Check::ok("VIP addresses", "every VIP is an address of this host", why);
    }
    let found = missing.iter().map(|(ip, of)| format!("{ip} of {of}"));
    let found = format!("not on this host: {}", found.collect::<Vec<_>>().join(", "));
    let remedies = missing.iter().map(|(ip, _)| {
        let len_bits = if ip.is_ipv4() { 32 } else { 128 };
        format!("ip addr add {ip}/{len_bits} dev lo")
    });
    let remedy = remedies.collect::<Vec<_>>().join(" && ");
    Check::ok("VIP addresses", found, why).warn(remedy)
}

fn mptcp(facts: &Facts) -> Check {
    let why = "the kernel cannot steer to MPTCP sockets; a Go server makes them by default";
    let backends = facts.socket_services.iter().flat_map(|service| {
        let backends = service.backends.iter();
        backends.map(|backend| (*backend, service.name.as_str()))
    });
    let found = backends
        .flat_map(|(backend, of)| listeners_of(backend).map(move |at| (at, of)))
        .find(|(at, _)| facts.mptcp_listeners.contains(at));
    match found {
        None => Check::ok("MPTCP listeners", "none of a service", why),
        Some((at, of)) => Check::ok("MPTCP listeners", format!("{at} of {of}"), why)
            .fail("start the server with GODEBUG=multipathtcp=0, or write plane = \"nat\""),
    }
}

/// Where a listener may be that serves a backend.
fn listeners_of(backend: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let any_v4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let any_v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    [
        Some(backend.ip()),
        backend.is_ipv4().then_some(any_v4),
        Some(any_v6),
    ]
    .into_iter()
    .flatten()
    .map(move |ip| SocketAddr::new(ip, backend.port()))
}

fn reuseport_maps(facts: &Facts) -> Check {
    let why = "a listener that its application has put into such a map cannot be steered to";
    match facts.reuseport_maps_count {
        0 => Check::ok("SO_REUSEPORT maps", "none", why),
        count => Check::ok("SO_REUSEPORT maps", format!("{count} on this host"), why)
            .warn("shifterctl status names a backend that is in one: write plane = \"nat\" there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{SocketService, judge::complaints};

    fn orders(facts: &mut Facts) {
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        facts.local_addresses.extend(
            ["10.0.0.10", "2001:db8::10"].map(|ip| ip.parse::<IpAddr>().expect("an address")),
        );
        facts.socket_services = vec![SocketService {
            name: "orders".into(),
            vips: vec![
                addr("10.0.0.10:443"),
                addr("10.0.0.10:80"),
                addr("[2001:db8::10]:443"),
            ],
            backends: vec![addr("10.0.0.1:8443"), addr("[::]:9443")],
        }];
    }

    #[test]
    fn what_a_service_on_the_socket_plane_lacks_is_named_with_the_command() {
        const OWN: &str = "a connection is given to a listener only where its address is the host's \
                           own; on a standby node it comes with the VIP";
        const MPTCP: &str =
            "the kernel cannot steer to MPTCP sockets; a Go server makes them by default";
        const GO: &str = "start the server with GODEBUG=multipathtcp=0, or write plane = \"nat\"";
        let gone = |facts: &mut Facts, ips: &[&str]| {
            for ip in ips {
                facts
                    .local_addresses
                    .remove(&ip.parse().expect("an address"));
            }
        };
        let mptcp = |facts: &mut Facts, at: &str| {
            facts
                .mptcp_listeners
                .insert(at.parse().expect("an address"));
        };
        type Row<'r> = (&'r dyn Fn(&mut Facts), Vec<String>);
        let rows: [Row<'_>; 8] = [
            (&|_| {}, vec![]),
            (
                &|facts| gone(facts, &["10.0.0.10"]),
                vec![format!(
                    "warn VIP addresses: not on this host: 10.0.0.10 of orders | {OWN} | \
                 ip addr add 10.0.0.10/32 dev lo"
                )],
            ),
            (
                &|facts| gone(facts, &["10.0.0.10", "2001:db8::10"]),
                vec![format!(
                    "warn VIP addresses: not on this host: 10.0.0.10 of orders, 2001:db8::10 of orders | \
                 {OWN} | ip addr add 10.0.0.10/32 dev lo && ip addr add 2001:db8::10/128 dev lo"
                )],
            ),
            (
                &|facts| mptcp(facts, "0.0.0.0:8443"),
                vec![format!(
                    "fail MPTCP listeners: 0.0.0.0:8443 of orders | {MPTCP} | {GO}"
                )],
            ),
            (
                &|facts| mptcp(facts, "[::]:9443"),
                vec![format!(
                    "fail MPTCP listeners: [::]:9443 of orders | {MPTCP} | {GO}"
                )],
            ),
            (&|facts| mptcp(facts, "[::]:7443"), vec![]),
            (
                &|facts| facts.reuseport_maps_count = 2,
                vec![
                "warn SO_REUSEPORT maps: 2 on this host | a listener that its application has put \
                 into such a map cannot be steered to | shifterctl status names a backend that is \
                 in one: write plane = \"nat\" there".into()],
            ),
            (
                &|facts| facts.cgroup2 = None,
                vec![
                "fail cgroup v2: not mounted, and orders is on the socket plane | the kernel tells \
                 from there who listens | mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified".into()],
            ),
        ];
        for (change, expected) in rows {
            let found = complaints(|facts| {
                orders(facts);
                change(facts);
            });
            assert_eq!(found, expected);
        }
    }
}
