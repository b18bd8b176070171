//! The table as text for `nft -f`. Pure.

use std::{fmt::Write as _, net::SocketAddr};

use super::Bypass;
use crate::model::Protocol;

/// The table; it is shifter's own, and holds nothing else.
pub const TABLE: &str = "inet shifter_bypass";

/// The script that puts exactly these ways in force, in one transaction.
pub fn script(ways: &[Bypass]) -> String {
    // The first line makes the table that the second one removes; there is no other way to say
    // "remove it if it is there" that older versions of nft know.
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\n");
    let rules: Vec<String> = ways.iter().flat_map(rules).collect();
    if rules.is_empty() {
        return text;
    }
    let _ = writeln!(text, "table {TABLE} {{");
    for (chain, hook) in [("incoming", "prerouting"), ("local", "output")] {
        let _ = writeln!(text, "\tchain {chain} {{");
        let _ = writeln!(
            text,
            "\t\ttype nat hook {hook} priority -100; policy accept;"
        );
        for rule in &rules {
            let _ = writeln!(text, "\t\t{rule}");
        }
        text += "\t}\n";
    }
    text + "}\n"
}

/// One rule a VIP that has backends of its family.
fn rules(way: &Bypass) -> Vec<String> {
    let rule = |vip: &SocketAddr| {
        let family = if vip.is_ipv4() { "ip" } else { "ip6" };
        let targets = way
            .targets
            .iter()
            .filter(|(target, weight)| target.is_ipv4() == vip.is_ipv4() && *weight > 0);
        let mut places = Vec::new();
        let mut sum = 0_u32;
        for (target, weight) in targets {
            let last = sum + u32::from(*weight) - 1;
            let range = if last == sum {
                sum.to_string()
            } else {
                format!("{sum}-{last}")
            };
            places.push(format!("{range} : {} . {}", target.ip(), target.port()));
            sum = last + 1;
        }
        (sum > 0).then(|| {
            format!(
                "{family} daddr {} {} dport {} dnat {family} to numgen random mod {sum} map {{ {} }}",
                vip.ip(),
                protocol_name(way.protocol),
                vip.port(),
                places.join(", ")
            )
        })
    };
    way.vips.iter().filter_map(rule).collect()
}

/// As nft calls it.
const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_table_for_two_services() {
        let ways = [
            Bypass {
                service: "orders".into(),
                vips: vec![addr("10.0.0.10:80"), addr("[2001:db8::10]:80")],
                protocol: Protocol::Tcp,
                targets: vec![
                    (addr("10.0.0.20:8081"), 3),
                    (addr("10.0.0.21:8081"), 1),
                    (addr("10.0.0.22:8081"), 0),
                    (addr("[2001:db8::20]:8081"), 100),
                ],
            },
            Bypass {
                service: "web".into(),
                vips: vec![addr("10.0.0.11:80")],
                protocol: Protocol::Tcp,
                targets: vec![(addr("[2001:db8::20]:1"), 1)],
            },
        ];
        let rules = "\t\tip daddr 10.0.0.10 tcp dport 80 dnat ip to numgen random mod 4 map { 0-2 : \
                     10.0.0.20 . 8081, 3 : 10.0.0.21 . 8081 }\n\t\tip6 daddr 2001:db8::10 tcp dport 80 \
                     dnat ip6 to numgen random mod 100 map { 0-99 : 2001:db8::20 . 8081 }\n\t}\n";
        let expected = format!(
            "table inet shifter_bypass\ndelete table inet shifter_bypass\ntable inet shifter_bypass \
             {{\n\tchain incoming {{\n\t\ttype nat hook prerouting priority -100; policy accept;\n\
             {rules}\tchain local {{\n\t\ttype nat hook output priority -100; policy accept;\n\
             {rules}}}\n"
        );
        assert_eq!(script(&ways), expected);
    }

    #[test]
    fn nothing_leaves_nothing() {
        let expected = "table inet shifter_bypass\ndelete table inet shifter_bypass\n";
        assert_eq!(script(&[]), expected);
    }
}
