//! How changes are told to people.

use shifter_common::wire::{ConfigChange, Effect};

use super::{NODE, SERVICE};
use crate::config::{diff, diff_node, parse_node, parse_service};

/// A change as one line.
fn line(change: &ConfigChange) -> String {
    let ConfigChange {
        service,
        key,
        before,
        after,
        effect,
        reason,
    } = change;
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    format!("{service} {key}: {before} -> {after} {effect:?}{reason}")
}

#[test]
fn each_changed_key_of_a_service_is_told_once() {
    const SLOT_B: &str = "[slot.b]\nbackends = [\"10.0.0.12:1\", \"10.0.0.12:2\"]\n";
    let rows: &[(&str, &str, &[&str])] = &[
        ("", "", &[]),
        (
            "vip = \"10.0.0.10:443\"",
            "vip = [\"10.0.0.9:443\", \"10.0.0.10:443\"]",
            &[r#"orders service.vip: ["10.0.0.10:443"] -> ["10.0.0.9:443", "10.0.0.10:443"] Now"#],
        ),
        (
            "[slot.a]",
            "plane = \"nat\"\non_full = \"failover\"\non_empty = \"pass\"\ndefault_slot = \"b\"\n[slot.a]",
            &[
                r#"orders service.plane: "auto" -> "nat" Now"#,
                "orders service.default_slot: \"a\" -> \"b\" Now (traffic stays where it is; \
                 a start that finds no state will use it)",
                r#"orders service.on_empty: "drop" -> "pass" Now"#,
                r#"orders service.on_full: "stay" -> "failover" Now"#,
            ],
        ),
        (
            "[slot.a]",
            "observe = [\"http\"]\n[slot.a]",
            &[
                "orders service.observe: connections -> connections, http Now (new connections; \
                 those that are open stay as they are)",
            ],
        ),
        (
            "[slot.a]",
            "affinity = \"client\"\n[slot.a]",
            &[
                "orders service.affinity: \"connection\" -> \"client\" Now (new connections of a \
               client may go to another version or backend than before)",
            ],
        ),
        (
            "[\"10.0.0.12:1\", \"10.0.0.12:2\"]",
            "[\"10.0.0.12:2\", { addr = \"10.0.0.12:1\", weight = 100 }]",
            &[],
        ),
        (
            "[\"10.0.0.12:1\", \"10.0.0.12:2\"]",
            "[\"10.0.0.12:3\", { addr = \"10.0.0.12:1\", weight = 5 }]",
            &[
                "orders slot.b.backends: [\"10.0.0.12:1\", \"10.0.0.12:2\"] -> \
               [{ addr = \"10.0.0.12:1\", weight = 5 }, \"10.0.0.12:3\"] Now",
            ],
        ),
        (
            SLOT_B,
            "",
            &[r#"orders slot.b.backends: ["10.0.0.12:1", "10.0.0.12:2"] -> [] Now"#],
        ),
        (
            "[slot.b]",
            "[probe]\nreadiness = { http = \"/ready\", timeout = \"1s\" }\n[slot.b]",
            &[
                "orders probe.readiness:  -> { http = \"/ready\", interval = \"1s\", \
               timeout = \"1s\", success_threshold = 3, failure_threshold = 3 } Now",
            ],
        ),
        (
            "[slot.b]",
            "[probe]\nreadiness = { http = \"/\", host = \"x\" }\n[slot.b]",
            &[
                "orders probe.readiness:  -> { http = \"/\", host = \"x\", interval = \"1s\", \
               timeout = \"500ms\", success_threshold = 3, failure_threshold = 3 } Now",
            ],
        ),
        (
            "[slot.b]",
            "[probe]\nreadiness = { tcp = true }\n[drain]\ntimeout = \"2h\"\n\
             [rollback]\nestablished = \"reset\"\n[slot.b]",
            &[
                "orders probe.readiness:  -> { tcp = true, interval = \"1s\", \
                 timeout = \"500ms\", success_threshold = 3, failure_threshold = 3 } Now",
                r#"orders drain.timeout: "1m" -> "2h" Now"#,
                r#"orders rollback.established: "drain" -> "reset" Now"#,
            ],
        ),
        (
            "[slot.b]",
            "[outlier]\nejection = \"1m\"\n[slot.b]",
            &[
                "orders outlier:  -> { consecutive_errors = 5, compare_peers = true, \
                 min_flows = 50, interval = \"10s\", ejection = \"1m\", max_ejection = \"10m\", \
                 max_ejected_percent = 50 } Now",
            ],
        ),
        (
            "[slot.b]",
            "[rollback]\ncooldown = \"1m\"\nkeep_warm = \"0s\"\n[rollout]\nsteps = [{ weight = 0.5 }, \
             { pause = true }]\n[[gate]]\nat = \"each-step\"\nfile = \"/go\"\n[slot.b]",
            &[
                "orders rollback.cooldown: \"30m\" -> \"1m\" Now (for rollouts that begin from now on)",
                "orders rollback.keep_warm: \"24h\" -> \"0s\" Now (for rollouts that begin from now on)",
                "orders rollout: { strategy = \"5-20-50\", steps = [{ weight = 5, bake = \"5m\" }, \
                 { weight = 20, bake = \"5m\" }, { weight = 50, bake = \"5m\" }], watch = \"1h\", \
                 progress_deadline = \"2h\", warm = \"5m\", unready = \"1m\" } -> { strategy = \"canary\", \
                 steps = [{ weight = 0.5, bake = \"5m\", pause = true }], watch = \"1h\", \
                 progress_deadline = \"2h\", warm = \"5m\", unready = \"1m\" } Now (for rollouts that begin \
                 from now on)",
                "orders gate:  -> { name = \"each-step\", at = \"each-step\", file = \"/go\", \
                 timeout = \"30s\", retries = 0 } Now (for rollouts that begin from now on)",
            ],
        ),
        (
            "[slot.b]",
            "[[target]]\nfrom = [\"10.7.0.0/16\", \"10.0.0.0/8\"]\nto = \"canary\"\n[[target]]\n\
             from = \"10.1.0.0/16\"\nto = \"baseline\"\n[slot.b]",
            &[
                "orders target: [] -> [\"10.0.0.0/8\" to \"canary\", \"10.1.0.0/16\" to \"baseline\", \
                 \"10.7.0.0/16\" to \"canary\"] Now (open connections stay where they are)",
            ],
        ),
    ];
    let old_text = format!("{SERVICE}{SLOT_B}");
    let old = parse_service("f", &old_text).expect("is good");
    for (from, to, expected) in rows {
        let new = parse_service("f", &old_text.replacen(from, to, 1)).expect(to);
        let lines: Vec<_> = diff(&old, &new).iter().map(line).collect();
        assert_eq!(lines, *expected, "{to}");
    }
}

/// Of a thousand backends, a person is shown the ones that changed.
#[test]
fn long_lists_are_told_by_what_differs() {
    let with = |ports: std::ops::Range<u16>, extra: &str| {
        let backends: Vec<_> = ports.map(|port| format!("\"10.0.0.11:{port}\"")).collect();
        let text = SERVICE.replace("\"10.0.0.11:8443\"", &(backends.join(", ") + extra));
        parse_service("f", &text).expect("is good")
    };
    let old = with(1..1_001, "");
    for (new, expected) in [
        (
            with(1..1_001, ", \"10.0.0.12:1\""),
            "orders slot.a.backends: [… 1000 in all] -> [\"10.0.0.12:1\", … 1000 more] Now",
        ),
        (
            with(2..1_001, ""),
            "orders slot.a.backends: [\"10.0.0.11:1\", … 999 more] -> [… 999 in all] Now",
        ),
        (
            with(2_001..2_003, ""),
            "orders slot.a.backends: [\"10.0.0.11:1\", \"10.0.0.11:2\", \"10.0.0.11:3\", \
             \"10.0.0.11:4\", \"10.0.0.11:5\", \"10.0.0.11:6\", \"10.0.0.11:7\", \"10.0.0.11:8\", \
             … 992 more] -> [\"10.0.0.11:2001\", \"10.0.0.11:2002\"] Now",
        ),
    ] {
        let lines: Vec<_> = diff(&old, &new).iter().map(line).collect();
        assert_eq!(lines, [expected]);
    }
}

#[test]
fn no_key_of_the_node_file_changes_under_a_running_daemon() {
    let old = parse_node("f", &format!("{NODE}[[interface]]\nname = \"eth1\"\n")).expect("good");
    let new = parse_node(
        "f",
        "[[interface]]\nname = \"eth0\"\nhook = \"xdp\"\n[[interface]]\nname = \"eth2\"\n\
         hook = \"tc\"\nchecksums_complete = true\n\
         [control]\nsocket = \"/run/s\"\n[metrics]\nlisten = false\n[state]\ndir = \"/s\"\n\
         [bpf]\nbpffs = \"/b\"\n[services]\ndir = \"/d\"\n[tables]\nservices = 1\nbackends = 2\n\
         flows = 2048\npending = 4096\ntable_entries = 8192\n[idle]\nhandshake = \"11s\"\n\
         established = \"61s\"\nhalf_closed = \"62s\"\nclosed = \"12s\"\n",
    )
    .expect("good");
    assert_eq!(diff_node(&old, &old), []);
    let changes = diff_node(&old, &new);
    for change in &changes {
        assert_eq!(change.effect, Effect::Refused, "{}", change.key);
        assert_eq!(
            change.reason,
            "restart shifterd to put it in force: systemctl restart shifterd"
        );
        assert_eq!(change.service, "");
    }
    let lines: Vec<_> = changes
        .iter()
        .map(|c| format!("{}: {} -> {}", c.key, c.before, c.after))
        .collect();
    assert_eq!(
        lines,
        [
            "interface.eth0: { hook = \"auto\", checksums_complete = false } -> \
             { hook = \"xdp\", checksums_complete = false }",
            "interface.eth1: { hook = \"auto\", checksums_complete = false } -> ",
            "interface.eth2:  -> { hook = \"tc\", checksums_complete = true }",
            r#"control.socket: "/run/shifter/shifter.sock" -> "/run/s""#,
            r#"metrics.listen: "127.0.0.1:9977" -> false"#,
            r#"state.dir: "/var/lib/shifter" -> "/s""#,
            r#"bpf.bpffs: "/sys/fs/bpf" -> "/b""#,
            r#"services.dir: "services.d" -> "/d""#,
            "tables.services: 1024 -> 1",
            "tables.backends: 16384 -> 2",
            "tables.flows: 262144 -> 2048",
            "tables.pending: 65536 -> 4096",
            "tables.table_entries: 4194304 -> 8192",
            r#"idle.handshake: "130s" -> "11s""#,
            r#"idle.established: "120h" -> "61s""#,
            r#"idle.half_closed: "1h" -> "62s""#,
            r#"idle.closed: "65s" -> "12s""#,
        ]
    );
}
