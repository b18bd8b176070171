//! The host's packet filter as `nft` lists it: the rules that look at a destination's port or address.

use std::{
    io::Read as _,
    net::IpAddr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much it may say; a longer answer is cut and does not parse.
const ANSWER_MAX_BYTES: u64 = 16 << 20;

/// What is known of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netfilter {
    /// There is no `nft` on this host.
    NoTool,
    /// `nft` did not answer; why.
    Unknown(String),
    /// Rules that name a destination port or address.
    Rules(Vec<Rule>),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Family, table and chain: `inet filter input`.
    pub chain: String,
    /// Handle, to name the rule with.
    pub handle: u64,
    /// Hook of the chain, if it has one: `input`, `prerouting`.
    pub hook: Option<String>,
    /// Ranges of destination ports it matches, both ends included; empty if it does not look.
    pub ports: Vec<(u16, u16)>,
    /// Destination addresses it matches.
    pub addresses: Vec<IpAddr>,
    /// What it does: `drop`, `accept`, `dnat`.
    pub action: String,
}

impl Rule {
    /// Whether it matches a destination port.
    pub fn covers(&self, port: u16) -> bool {
        self.ports
            .iter()
            .any(|&(first, last)| (first..=last).contains(&port))
    }
}

/// Asks `nft`. Takes some milliseconds, at most 3 s.
pub(super) fn gather() -> Netfilter {
    let spawned = Command::new("nft")
        .args(["-j", "list", "ruleset"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Netfilter::NoTool,
        Err(error) => return Netfilter::Unknown(format!("nft: {error}")),
    };
    // Read beside, or a long answer would fill the pipe and wait for us while we wait for it.
    let reader = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            let mut text = Vec::new();
            stdout
                .take(ANSWER_MAX_BYTES)
                .read_to_end(&mut text)
                .map(|_| text)
        })
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Netfilter::Unknown(format!(
                    "nft did not answer within {} s",
                    PATIENCE.as_secs()
                ));
            }
        }
    };
    if !status.success() {
        return Netfilter::Unknown(format!("nft -j list ruleset: {status}"));
    }
    match reader.and_then(|reader| reader.join().ok()) {
        Some(Ok(text)) => parse(&text),
        _ => Netfilter::Unknown("nft's answer could not be read".into()),
    }
}

/// Reads the JSON of libnftables (libnftables-json(5)).
fn parse(text: &[u8]) -> Netfilter {
    let Ok(answer) = serde_json::from_slice::<Value>(text) else {
        return Netfilter::Unknown("nft's answer is no JSON".into());
    };
    let objects = answer["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let hook_of = |rule: &Value| {
        objects
            .iter()
            .map(|object| &object["chain"])
            .find_map(|chain| {
                let is_same = chain["family"] == rule["family"]
                    && chain["table"] == rule["table"]
                    && chain["name"] == rule["chain"];
                (is_same && !chain.is_null()).then(|| chain["hook"].as_str().map(str::to_owned))?
            })
    };
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let rules = objects
        .iter()
        .map(|object| &object["rule"])
        .filter_map(|rule| {
            let expressions = rule["expr"].as_array()?;
            let mut ports = Vec::new();
            let mut addresses = Vec::new();
            let mut action = String::new();
            for expression in expressions {
                let matched = &expression["match"];
                let (name, _) = expression.as_object()?.iter().next()?;
                let payload = &matched["left"]["payload"];
                let protocol = payload["protocol"].as_str();
                match payload["field"].as_str() {
                    _ if matched["op"] == "!=" => {}
                    Some("dport") if matches!(protocol, Some("tcp" | "udp" | "th")) => {
                        collect(&matched["right"], &mut |value| {
                            ports.extend(port_range(value))
                        });
                    }
                    Some("daddr") => collect(&matched["right"], &mut |value| {
                        addresses
                            .extend(value.as_str().and_then(|text| text.parse::<IpAddr>().ok()));
                    }),
                    _ => {}
                }
                if !matches!(name.as_str(), "match" | "counter" | "log" | "xt" | "limit") {
                    action.clone_from(name);
                }
            }
            if ports.is_empty() && addresses.is_empty() {
                return None;
            }
            Some(Rule {
                chain: [&rule["family"], &rule["table"], &rule["chain"]]
                    .map(word)
                    .join(" "),
                handle: rule["handle"].as_u64().unwrap_or(0),
                hook: hook_of(rule),
                ports,
                addresses,
                action,
            })
        });
    Netfilter::Rules(rules.collect())
}

/// The values of a right-hand side: one, or those of an anonymous set.
fn collect<'v>(value: &'v Value, take: &mut impl FnMut(&'v Value)) {
    match value["set"].as_array() {
        Some(elements) => elements.iter().for_each(take),
        None => take(value),
    }
}

fn port_range(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some((port(first)?, port(last)?)),
        _ => port(value).map(|port| (port, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nft 1.0.6 lists a table with these rules: `tcp dport 443 drop`, `tcp dport { 80, 443,
    /// 8000-8100 } accept`, `ip daddr 10.2.0.2 iifname != "docker0" drop`, `tcp sport 5 drop`, and a
    /// jump in a chain without a hook.
    const LISTED: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "f", "handle": 1}},
        {"chain": {"family": "inet", "table": "f", "name": "i", "handle": 1, "type": "filter",
            "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "f", "name": "more", "handle": 9}},
        {"rule": {"family": "inet", "table": "f", "chain": "i", "handle": 2, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                "right": 443}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "i", "handle": 4, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                "right": {"set": [80, 443, {"range": [8000, 8100]}]}}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "i", "handle": 5, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}},
                "right": "10.2.0.2"}},
            {"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}},
            {"drop": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "i", "handle": 6, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}},
                "right": 5}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "f", "chain": "more", "handle": 10, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                "right": 22}}, {"jump": {"target": "f2b"}}]}}]}"#;

    #[test]
    fn rules_are_read() {
        let rule =
            |chain: &str, handle, hook: Option<&str>, ports: &[(u16, u16)], action: &str| Rule {
                chain: chain.into(),
                handle,
                hook: hook.map(str::to_owned),
                ports: ports.to_vec(),
                addresses: Vec::new(),
                action: action.into(),
            };
        let input = Some("input");
        let mut docker = rule("inet f i", 5, input, &[], "drop");
        docker.addresses = vec![IpAddr::from([10, 2, 0, 2])];
        assert_eq!(
            parse(LISTED.as_bytes()),
            Netfilter::Rules(vec![
                rule("inet f i", 2, input, &[(443, 443)], "drop"),
                rule(
                    "inet f i",
                    4,
                    input,
                    &[(80, 80), (443, 443), (8000, 8100)],
                    "accept"
                ),
                docker,
                rule("inet f more", 10, None, &[(22, 22)], "jump"),
            ])
        );
        assert_eq!(parse(b"{}"), Netfilter::Rules(vec![]));
        assert_eq!(
            parse(&LISTED.as_bytes()[..LISTED.len() - 2]),
            Netfilter::Unknown("nft's answer is no JSON".into())
        );
    }
}
