//! What the doctor says of the host's own packet filter.

use std::collections::BTreeMap;

use shifter_daemon::{
    doctor::{Report, Status},
    model::HookSpec,
};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::Inside,
    world::{OTHER, Options, World},
};

use crate::stage::{PORT_A, orders};

/// The checks of the doctor inside a namespace, by name.
fn doctor(host: &Inside, daemon: &Daemon) -> BTreeMap<String, (Status, String)> {
    let mut command = host.command(shifter_tests::daemon::shifterd());
    command
        .args(["--doctor", "--json", "--config"])
        .arg(daemon.node_file());
    let output = command.output().expect("shifterd runs");
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    report
        .checks
        .into_iter()
        .map(|check| {
            (
                check.name,
                (check.status, format!("{}: {}", check.found, check.remedy)),
            )
        })
        .collect()
}

/// Real rules: one on the VIP's port alone, one that knows the backends' ports too, a ban in the manner
/// of fail2ban, and one that drops what comes in for a backend as Docker's raw table has it.
#[test]
fn the_doctor_names_rules_that_are_bypassed_or_in_the_way() {
    let world = World::pair(Options::default());
    let host = world.host().inside();
    let daemon = Daemon::prepare(world.host(), Node::new(HookSpec::Tc), &[orders()]);
    let before = doctor(&host, &daemon);
    for name in ["filter on VIP ports", "filter on backend addresses"] {
        assert_eq!(before[name].0, Status::Ok, "{before:?}");
    }
    let backend = OTHER.v4;
    host.tool_with_input(
        "nft",
        &["-f", "-"],
        &format!(
            "table inet filter {{
            chain in {{ type filter hook input priority 0; policy accept;
                tcp dport {{ 80, 8081, 8082 }} accept
                tcp dport 22 drop
                tcp dport 80 drop
            }}
        }}
        table inet f2b-table {{
            set addr-set-web {{ type ipv4_addr; elements = {{ 192.0.2.1 }}; }}
            chain f2b-chain {{ type filter hook input priority -1; policy accept;
                tcp dport 80 ip saddr @addr-set-web reject
            }}
        }}
        table ip raw {{
            chain PREROUTING {{ type filter hook prerouting priority -300; policy accept;
                ip daddr {backend} iifname != \"docker0\" drop
            }}
        }}"
        ),
    );
    let after = doctor(&host, &daemon);
    let (status, text) = &after["filter on VIP ports"];
    assert_eq!(*status, Status::Warn);
    for part in [
        "inet filter in handle 5 (drop) has port 80, not 8081; ",
        "inet f2b-table f2b-chain handle 3 (reject) has port 80, not 8081: write the backends' ports \
         into these rules too: nft -a list ruleset",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.matches("handle").count(), 2, "{text}");
    let (status, text) = &after["filter on backend addresses"];
    assert_eq!(*status, Status::Warn);
    let start = format!(
        "ip raw PREROUTING handle 2 (drop) meets packets to {backend}:{PORT_A}: for Docker: "
    );
    assert!(text.starts_with(&start), "{text}");
}
