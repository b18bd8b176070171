//! The interfaces of the node file.

use crate::{
    doctor::{
        Check, Facts, InterfaceFacts,
        interface::{Interface, InterfaceError},
    },
    hook::{Hook, decide_hook},
};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let Some(interfaces) = &facts.interfaces else {
        let check = Check::ok(
            "interfaces",
            "no node file was read, so none was checked",
            "the node file names the interfaces clients come in by",
        );
        return vec![check.warn("shifterd --doctor --config /etc/shifter/shifter.toml")];
    };
    interfaces
        .iter()
        .flat_map(|interface| interface_checks(facts, interface))
        .collect()
}

fn interface_checks(facts: &Facts, interface: &InterfaceFacts) -> Vec<Check> {
    let name = &interface.spec.name;
    match &interface.found {
        Err(error) => vec![absence(name, error)],
        Ok(found) => vec![
            presence(found),
            xdp_program(facts, found),
            hook(facts, interface, found.clone()),
        ],
    }
}

const CLIENTS: &str = "clients come in by it";

fn absence(name: &str, error: &InterfaceError) -> Check {
    let check = |found| Check::ok(format!("interface {name}"), found, CLIENTS);
    match error {
        InterfaceError::Missing(_) => {
            check("there is none of this name".to_owned()).fail("ip -br link")
        }
        InterfaceError::Netlink { errno, .. } => {
            check(format!("cannot be inspected: {errno}")).fail(format!("ip -d link show {name}"))
        }
    }
}

fn presence(interface: &Interface) -> Check {
    let Interface {
        name, mtu_bytes, ..
    } = interface;
    let state = if interface.up { "up" } else { "down" };
    let mut found = format!(
        "{state}, driver {}, mtu {mtu_bytes}",
        interface.driver_name()
    );
    if interface.is_virtual {
        found.push_str(", virtual");
    }
    if let Some(master) = &interface.master {
        found.push_str(&format!(", enslaved to {master}"));
    }
    let check = Check::ok(format!("interface {name}"), found, CLIENTS);
    if interface.up {
        check
    } else {
        check.warn(format!("ip link set dev {name} up"))
    }
}

fn xdp_program(facts: &Facts, interface: &Interface) -> Check {
    let name = &interface.name;
    let check = |found| {
        Check::ok(
            format!("XDP on {name}"),
            found,
            "a foreign program sees packets first, and an interface has room for one",
        )
    };
    let Some(program) = interface.xdp_program() else {
        return check("no program".to_owned());
    };
    if interface
        .xdp_prog_id
        .is_some_and(|id| facts.own_programs.contains(&id))
    {
        return check(format!("shifter's own: {program}"));
    }
    check(format!("foreign program {program}")).warn(format!("ip link set dev {name} xdp off"))
}

fn hook(facts: &Facts, interface: &InterfaceFacts, found: Interface) -> Check {
    let name = format!("hook on {}", interface.spec.name);
    let why = "where programs meet the packets";
    let found = found.without_own_xdp(|id| facts.own_programs.contains(&id));
    let spec = &interface.spec;
    // What rests on the backends cannot be promised while they are not known.
    let unsure = facts.backends.is_none() && found.is_virtual && !spec.checksums_complete;
    match decide_hook(
        &found,
        spec.hook,
        spec.checksums_complete,
        facts.forwarded_backend(),
    ) {
        Ok((hook @ (Hook::Xdp | Hook::XdpGeneric), _)) if unsure => Check::ok(
            name,
            format!("{hook}: driver {} is virtual", found.driver_name()),
            "XDP cannot see offloaded checksums: right only if every backend is an address of this \
             host",
        )
        .warn(format!(
            "with a backend elsewhere, set hook = \"tc\" for {}",
            spec.name
        )),
        Ok((hook, reason)) => Check::ok(name, format!("{hook}: {reason}"), why),
        Err(refusal) => Check::ok(name, "refused", refusal.why).fail(refusal.remedy),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::{
        doctor::{Status, interface::Master, judge, judge::complaints},
        model::HookSpec,
    };

    fn interface(facts: &mut Facts, change: impl FnOnce(&mut InterfaceFacts)) {
        if let Some(first) = facts.interfaces.iter_mut().flatten().next() {
            change(first);
        }
    }

    fn found(facts: &mut Facts, change: impl FnOnce(&mut Interface)) {
        interface(facts, |eth0| {
            eth0.found.iter_mut().for_each(change_once(change))
        });
    }

    fn change_once<T>(change: impl FnOnce(&mut T)) -> impl FnMut(&mut T) {
        let mut change = Some(change);
        move |thing| {
            if let Some(change) = change.take() {
                change(thing);
            }
        }
    }

    fn foreign(facts: &mut Facts) {
        found(facts, |eth0| {
            eth0.xdp_prog_id = Some(7);
            eth0.xdp_prog_name = Some("xdp_filter".into());
        });
    }

    #[test]
    fn each_failing_check_says_what_why_and_what_to_do() {
        let room = "a foreign program sees packets first, and an interface has room for one";
        let held = format!(
            "warn XDP on eth0: foreign program xdp_filter (id 7) | {room} | \
             ip link set dev eth0 xdp off"
        );
        type Row = (Box<dyn FnOnce(&mut Facts)>, Vec<String>);
        #[rustfmt::skip]
        let rows: Vec<Row> = vec![
            (Box::new(|facts| facts.interfaces = None), vec![
                "warn interfaces: no node file was read, so none was checked | the node file \
                 names the interfaces clients come in by | \
                 shifterd --doctor --config /etc/shifter/shifter.toml".into()]),
            (Box::new(|facts| interface(facts, |eth0| {
                eth0.found = Err(InterfaceError::Missing("eth0".into()));
            })), vec!["fail interface eth0: there is none of this name | clients come in by it | \
                 ip -br link".into()]),
            (Box::new(|facts| interface(facts, |eth0| {
                eth0.found =
                    Err(InterfaceError::Netlink { name: "eth0".into(), errno: Errno::EPERM });
            })), vec!["fail interface eth0: cannot be inspected: EPERM: Operation not permitted | \
                 clients come in by it | ip -d link show eth0".into()]),
            (Box::new(|facts| found(facts, |eth0| eth0.up = false)), vec![
                "warn interface eth0: down, driver ixgbe, mtu 1500 | clients come in by it | \
                 ip link set dev eth0 up".into()]),
            (Box::new(foreign), vec![held.clone()]),
            (Box::new(|facts| {
                foreign(facts);
                interface(facts, |eth0| eth0.spec.hook = HookSpec::Xdp);
            }), vec![held,
                "fail hook on eth0: refused | hook = \"xdp\" on eth0: a foreign XDP program holds \
                 it: xdp_filter (id 7) | use hook = \"tc\", or take it off: \
                 ip link set dev eth0 xdp off".into()]),
            (Box::new(|facts| {
                interface(facts, |eth0| eth0.spec.hook = HookSpec::Xdp);
                found(facts, |eth0| {
                    eth0.driver = Some("veth".into());
                    eth0.is_virtual = true;
                });
            }), vec!["fail hook on eth0: refused | hook = \"xdp\" on eth0: driver veth is virtual, \
                 XDP cannot see offloaded checksums, and packets forwarded to backend \
                 10.1.0.2:8080 would carry wrong ones | use hook = \"tc\", or on the peer: \
                 ethtool -K PEER tx-checksumming off, and here: checksums_complete = true".into()]),
            (Box::new(|facts| {
                facts.backends = None;
                interface(facts, |eth0| eth0.spec.hook = HookSpec::Xdp);
                found(facts, |eth0| {
                    eth0.driver = Some("veth".into());
                    eth0.is_virtual = true;
                });
            }), vec!["warn hook on eth0: xdp: driver veth is virtual | XDP cannot see offloaded \
                 checksums: right only if every backend is an address of this host | \
                 with a backend elsewhere, set hook = \"tc\" for eth0".into()]),
        ];
        for (change, expected) in rows {
            assert_eq!(complaints(change), expected);
        }
    }

    /// Lines that are not complaints still say how things are.
    #[test]
    fn what_is_well_is_shown() {
        let mut facts = crate::doctor::facts::healthy();
        foreign(&mut facts);
        facts.own_programs = [7].into();
        found(&mut facts, |eth0| {
            eth0.master = Some(Master {
                name: "br0".into(),
                kind: "bridge".into(),
            });
        });
        let report = judge(&facts);
        assert_eq!(report.worst(), Status::Ok);
        let shown: Vec<_> = report
            .checks
            .iter()
            .filter(|check| check.name.ends_with("eth0"))
            .map(|check| format!("{}: {}", check.name, check.found))
            .collect();
        assert_eq!(
            shown,
            [
                "interface eth0: up, driver ixgbe, mtu 1500, enslaved to bridge br0",
                "XDP on eth0: shifter's own: xdp_filter (id 7)",
                "hook on eth0: tc: it is enslaved to bridge br0, which owns its receive path; only \
                 clients behind this port are steered, those behind all ports if br0 is named \
                 instead",
            ]
        );
    }
}
