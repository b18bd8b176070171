//! What a packet filter does not see any more once packets are rewritten before it, and what it stops.

use std::collections::BTreeSet;

use crate::doctor::{Check, Facts, Netfilter, Rule};

/// Rules that are named one by one.
const SHOWN_MAX_COUNT: usize = 3;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![bypassed(facts), stopped(facts)]
}

/// The rules, if they could be read; else the check that says why not.
fn rules(facts: &Facts, name: &str, why: &str) -> Result<Vec<Rule>, Box<Check>> {
    match &facts.netfilter {
        Netfilter::Rules(rules) => Ok(rules.clone()),
        Netfilter::NoTool => Err(Box::new(Check::ok(
            name,
            "no nft here to list rules with",
            why,
        ))),
        Netfilter::Unknown(error) => Err(Box::new(
            Check::ok(name, error, why).warn("nft -j list ruleset"),
        )),
    }
}

/// Rules on the port of a VIP, a fail2ban ban among them, that leave out a backend's port: packets of
/// steered flows have that one by then.
fn bypassed(facts: &Facts) -> Check {
    let (name, why) = (
        "filter on VIP ports",
        "rules see packets after the nat plane has put in a backend's port",
    );
    let rules = match rules(facts, name, why) {
        Ok(rules) => rules,
        Err(check) => return *check,
    };
    let vips: BTreeSet<u16> = facts.vips.iter().map(std::net::SocketAddr::port).collect();
    let backends: BTreeSet<u16> = facts
        .backends
        .iter()
        .flatten()
        .map(std::net::SocketAddr::port)
        .collect();
    let found: Vec<String> = rules
        .iter()
        .filter(|rule| {
            !matches!(
                rule.hook.as_deref(),
                Some("output" | "postrouting" | "egress")
            )
        })
        .filter_map(|rule| {
            let vip = vips.iter().find(|port| rule.covers(**port))?;
            let missing = backends.iter().find(|port| !rule.covers(**port))?;
            Some(format!(
                "{} handle {} ({}) has port {vip}, not {missing}",
                rule.chain, rule.handle, rule.action
            ))
        })
        .collect();
    if found.is_empty() {
        return Check::ok(name, "no rule on them alone", why);
    }
    Check::ok(name, listed(&found), why)
        .warn("write the backends' ports into these rules too: nft -a list ruleset")
}

/// Rules that drop what comes in for a backend's address, as Docker has for its containers.
fn stopped(facts: &Facts) -> Check {
    let (name, why) = (
        "filter on backend addresses",
        "packets that are steered come in by the clients' interface with the backend's address",
    );
    let rules = match rules(facts, name, why) {
        Ok(rules) => rules,
        Err(check) => return *check,
    };
    let found: Vec<String> = rules
        .iter()
        .filter(|rule| matches!(rule.action.as_str(), "drop" | "reject"))
        .filter_map(|rule| {
            let mut backends = facts.backends.iter().flatten();
            let backend = backends.find(|addr| {
                rule.addresses.contains(&addr.ip())
                    && (rule.ports.is_empty() || rule.covers(addr.port()))
            })?;
            Some(format!(
                "{} handle {} ({}) meets packets to {backend}",
                rule.chain, rule.handle, rule.action
            ))
        })
        .collect();
    if found.is_empty() {
        return Check::ok(name, "no rule drops what is for a backend", why);
    }
    Check::ok(name, listed(&found), why).warn(
        "for Docker: \"allow-direct-routing\": true in /etc/docker/daemon.json (28.2 and newer), or \
         docker network create -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected; \
         else: nft delete rule FAMILY TABLE CHAIN handle N",
    )
}

fn listed(found: &[String]) -> String {
    let shown = found
        .iter()
        .take(SHOWN_MAX_COUNT)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match found.len().saturating_sub(SHOWN_MAX_COUNT) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::judge::complaints;

    const BYPASSED: &str = "rules see packets after the nat plane has put in a backend's port | write \
                            the backends' ports into these rules too: nft -a list ruleset";

    fn rule(hook: &str, ports: &[(u16, u16)], action: &str) -> Rule {
        Rule {
            chain: "inet filter in".into(),
            handle: 7,
            hook: Some(hook.into()),
            ports: ports.to_vec(),
            addresses: Vec::new(),
            action: action.into(),
        }
    }

    fn with(rules: Vec<Rule>) -> Vec<String> {
        complaints(|facts| facts.netfilter = Netfilter::Rules(rules))
    }

    /// The healthy host has a VIP on port 443 and a backend at 10.1.0.2:8080.
    #[test]
    fn rules_that_are_bypassed_or_in_the_way_are_named() {
        let docker = |port: &[(u16, u16)]| Rule {
            addresses: vec![[10, 1, 0, 2].into()],
            ..rule("prerouting", port, "drop")
        };
        let in_the_way = "warn filter on backend addresses: inet filter in handle 7 (drop) meets \
            packets to 10.1.0.2:8080 | packets that are steered come in by the clients' interface with \
            the backend's address | for Docker: \"allow-direct-routing\": true in \
            /etc/docker/daemon.json (28.2 and newer), or docker network create -o \
            com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected; else: nft delete rule FAMILY \
            TABLE CHAIN handle N";
        let one = "inet filter in handle 7 (drop) has port 443, not 8080";
        let rows: Vec<(Vec<Rule>, Vec<String>)> = vec![
            (vec![], vec![]),
            (
                vec![rule("input", &[(443, 443)], "drop")],
                vec![format!("warn filter on VIP ports: {one} | {BYPASSED}")],
            ),
            (
                vec![rule("input", &[(443, 443)], "drop"); 5],
                vec![format!(
                    "warn filter on VIP ports: {one}; {one}; {one}; and 2 more | {BYPASSED}"
                )],
            ),
            (
                vec![rule("input", &[(443, 443), (8000, 8100)], "drop")],
                vec![],
            ),
            (vec![rule("input", &[(22, 22)], "drop")], vec![]),
            (vec![rule("output", &[(443, 443)], "drop")], vec![]),
            (vec![docker(&[])], vec![in_the_way.to_owned()]),
            (vec![docker(&[(8080, 8080)])], vec![in_the_way.to_owned()]),
            (vec![docker(&[(22, 22)])], vec![]),
            (
                vec![Rule {
                    action: "accept".into(),
                    ..docker(&[])
                }],
                vec![],
            ),
        ];
        for (rules, expected) in rows {
            assert_eq!(with(rules.clone()), expected, "{rules:?}");
        }
    }

    #[test]
    fn rules_that_cannot_be_read_are_no_rules_that_are_fine() {
        assert_eq!(
            complaints(|facts| facts.netfilter = Netfilter::NoTool),
            Vec::<String>::new()
        );
        let silent = complaints(|facts| {
            facts.netfilter = Netfilter::Unknown("nft did not answer within 3 s".into());
        });
        assert_eq!(
            silent[0],
            "warn filter on VIP ports: nft did not answer within 3 s | rules see \
            packets after the nat plane has put in a backend's port | nft -j list ruleset"
        );
        assert_eq!(silent.len(), 2);
    }
}
