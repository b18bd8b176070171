//! What good files mean, key by key.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{NODE, SERVICE};
use crate::{
    config::{parse_node, parse_service},
    model::{
        Affinity, BackendSpec, EstablishedPolicy, HookSpec, IdleSpec, InterfaceSpec,
        LocalClientsSpec, NodeSpec, OnEmpty, OnFull, OutlierSpec, Plane, Prefix, ProbeCheck,
        ProbeSpec, Protocol, Readmit, ServiceSpec, SizeSpec, Slot, SlotSpec, Target,
    },
};

fn addr(text: &str) -> SocketAddr {
    text.parse().expect(text)
}

fn backend(text: &str, weight: u16) -> BackendSpec {
    BackendSpec {
        addr: addr(text),
        weight,
    }
}

fn no_probe() -> ProbeSpec {
    ProbeSpec {
        port: None,
        check: ProbeCheck::None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        success_threshold: 3,
        failure_threshold: 3,
    }
}

/// What the smallest service file means.
fn smallest() -> ServiceSpec {
    ServiceSpec {
        name: "orders".into(),
        vips: vec![addr("10.0.0.10:443")],
        protocol: Protocol::Tcp,
        plane: Plane::Auto,
        affinity: Affinity::Connection,
        default_slot: Slot::A,
        on_empty: OnEmpty::Drop,
        readmit: Readmit::Probe,
        on_full: Default::default(),
        manages_vips: false,
        slots: [
            SlotSpec {
                backends: vec![backend("10.0.0.11:8443", 100)],
                user: None,
            },
            SlotSpec {
                backends: Vec::new(),
                user: None,
            },
        ],
        targets: Default::default(),
        readiness: no_probe(),
        outlier: None,
        observe: Default::default(),
        breaker: Default::default(),
        drain_timeout: Duration::from_secs(60),
        rollback_established: EstablishedPolicy::Drain,
        rollout: Default::default(),
    }
}

#[test]
fn the_smallest_service_file_has_defaults() {
    assert_eq!(parse_service("f", SERVICE), Ok(smallest()));
}

/// Each row changes the smallest file and what it means.
#[test]
fn each_key_of_a_service_file_does_what_it_says() {
    type Change = fn(&mut ServiceSpec);
    const NAME: &str = "name = \"orders\"";
    const VIP: &str = "vip = \"10.0.0.10:443\"";
    const SLOT_A: &str = "[slot.a]\nbackends = [\"10.0.0.11:8443\"]\n";
    let rows: &[(&str, &str, Change)] = &[
        (NAME, "name = \"o\"", |spec| spec.name = "o".into()),
        (NAME, "name = \"4-orders-2\"", |spec| {
            spec.name = "4-orders-2".into()
        }),
        (VIP, "vip = [\"10.0.0.10:443\", \"10.0.0.10:80\"]", |spec| {
            spec.vips.push(addr("10.0.0.10:80"));
        }),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\nprotocol = \"tcp\"\nplane = \"auto\"",
            |_| {},
        ),
        (VIP, "vip = \"10.0.0.10:443\"\nplane = \"nat\"", |spec| {
            spec.plane = Plane::Nat
        }),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\naffinity = \"client\"",
            |spec| {
                spec.affinity = Affinity::Client;
            },
        ),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\naffinity = \"connection\"",
            |_| {},
        ),
        (VIP, "vip = \"10.0.0.10:443\"\nprotocol = \"udp\"", |spec| {
            spec.protocol = Protocol::Udp;
        }),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\non_empty = \"pass\"",
            |spec| {
                spec.on_empty = OnEmpty::Pass;
            },
        ),
        (VIP, "vip = \"10.0.0.10:443\"\non_empty = \"drop\"", |_| {}),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\non_full = \"failover\"",
            |spec| {
                spec.on_full = OnFull::Failover;
            },
        ),
        (VIP, "vip = \"10.0.0.10:443\"\nmanage_vip = true", |spec| {
            spec.manages_vips = true;
        }),
        (VIP, "vip = \"10.0.0.10:443\"\ndefault_slot = \"a\"", |_| {}),
        (VIP, "vip = \"10.0.0.10:443\"\nobserve = []", |_| {}),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\nobserve = [\"connections\", \"http\"]",
            |spec| spec.observe.http = true,
        ),
        (
            VIP,
            "vip = \"10.0.0.10:443\"\nobserve = [\"latency\"]",
            |spec| spec.observe.latency = true,
        ),
        (
            SLOT_A,
            "[slot.b]\nbackends = [\"10.0.0.11:8443\"]\n",
            |spec| {
                spec.slots.swap(0, 1);
                spec.default_slot = Slot::B;
            },
        ),
        (
            SLOT_A,
            "[slot]\na.backends = [{ addr = \"10.0.0.10:8443\" }, \"10.0.0.11:8443\"]\n\
             b.backends = [{ addr = \"10.0.0.12:8443\", weight = 1000 },\n\
             { addr = \"10.0.0.13:8443\", weight = 0 }]\n",
            |spec| {
                spec.slots[0]
                    .backends
                    .insert(0, backend("10.0.0.10:8443", 100));
                spec.slots[1].backends = vec![
                    backend("10.0.0.12:8443", 1_000),
                    backend("10.0.0.13:8443", 0),
                ];
            },
        ),
        (
            SLOT_A,
            "[slot.a]\nbackends = [\"10.0.0.11:8443\"]\n[slot.b]\n[probe]\n[drain]\n[rollback]\n",
            |_| {},
        ),
        (
            SLOT_A,
            "[slot.b]\nbackends = [\"10.0.0.11:8443\"]\n[slot.a]\nbackends = []\n",
            |spec| {
                spec.slots.swap(0, 1);
                spec.default_slot = Slot::B;
            },
        ),
    ];
    for (from, to, change) in rows {
        let text = SERVICE.replacen(from, to, 1);
        assert!(text != SERVICE || from == to, "{from}");
        let mut expected = smallest();
        change(&mut expected);
        assert_eq!(parse_service("f", &text), Ok(expected), "{text}");
    }
    let both = SERVICE
        .replace(VIP, "vip = \"10.0.0.10:443\"\ndefault_slot = \"b\"")
        .replace(
            SLOT_A,
            &format!("{SLOT_A}[slot.b]\nbackends = [\"10.0.0.12:1\"]\n"),
        );
    assert_eq!(
        parse_service("f", &both).map(|spec| spec.default_slot),
        Ok(Slot::B)
    );
}

#[test]
fn each_key_of_probe_drain_and_rollback_does_what_it_says() {
    type Change = fn(&mut ServiceSpec);
    let ms = Duration::from_millis;
    let rows: &[(&str, Change)] = &[
        ("[probe]\nreadiness = { tcp = true }", |spec| {
            spec.readiness.check = ProbeCheck::Tcp
        }),
        ("[probe.readiness]\nhttp = \"/ready?a=b%20c\"", |spec| {
            spec.readiness.check = ProbeCheck::Http {
                path: "/ready?a=b%20c".into(),
                host: None,
            };
        }),
        (
            "[probe]\nreadiness = { http = \"/\", host = \"[2001:db8::1]:80\" }",
            |spec| {
                spec.readiness.check = ProbeCheck::Http {
                    path: "/".into(),
                    host: Some("[2001:db8::1]:80".into()),
                };
            },
        ),
        (
            "[probe]\nreadiness = { tcp = true, success_threshold = 1, failure_threshold = 1000 }",
            |spec| {
                spec.readiness.check = ProbeCheck::Tcp;
                spec.readiness.success_threshold = 1;
                spec.readiness.failure_threshold = 1_000;
            },
        ),
        ("[outlier]", |spec| {
            spec.outlier = Some(OutlierSpec {
                consecutive_errors: 5,
                compare_peers: true,
                min_flows: 50,
                interval: Duration::from_secs(10),
                ejection: Duration::from_secs(30),
                max_ejection: Duration::from_secs(300),
                max_ejected_percent: 50,
            });
        }),
        (
            "[outlier]\nconsecutive_errors = 1\ncompare_peers = false\nmin_flows = 1000\n\
             interval = \"1s\"\nejection = \"2s\"\nmax_ejection = \"24h\"\n\
             max_ejected_percent = 100",
            |spec| {
                spec.outlier = Some(OutlierSpec {
                    consecutive_errors: 1,
                    compare_peers: false,
                    min_flows: 1_000,
                    interval: Duration::from_secs(1),
                    ejection: Duration::from_secs(2),
                    max_ejection: Duration::from_hours(24),
                    max_ejected_percent: 100,
                });
            },
        ),
        (
            "[probe]\nreadiness = { tcp = true, port = 65535 }",
            |spec| {
                spec.readiness.check = ProbeCheck::Tcp;
                spec.readiness.port = Some(65_535);
            },
        ),
        ("[drain]\ntimeout = \"720h\"", |spec| {
            spec.drain_timeout = Duration::from_hours(720)
        }),
        ("[drain]\ntimeout = \"1s\"", |spec| {
            spec.drain_timeout = Duration::from_secs(1)
        }),
        ("[rollback]\nestablished = \"reset\"", |spec| {
            spec.rollback_established = EstablishedPolicy::Reset;
        }),
        ("[rollback]\nestablished = \"drain\"", |_| {}),
    ];
    for (more, change) in rows {
        let text = format!("{SERVICE}{more}\n");
        let mut expected = smallest();
        change(&mut expected);
        assert_eq!(parse_service("f", &text), Ok(expected), "{text}");
    }
    // A timeout that is not given is never longer than the interval.
    for (times, interval, timeout) in [
        ("", ms(1_000), ms(500)),
        (", interval = \"10ms\"", ms(10), ms(10)),
        (", interval = \"700ms\"", ms(700), ms(500)),
        (
            ", interval = \"1h\", timeout = \"1h\"",
            ms(3_600_000),
            ms(3_600_000),
        ),
        (
            ", interval = \"200ms\", timeout = \"200ms\"",
            ms(200),
            ms(200),
        ),
        (", timeout = \"1ms\"", ms(1_000), ms(1)),
    ] {
        let text = format!("{SERVICE}[probe]\nreadiness = {{ tcp = true{times} }}\n");
        let expected = ProbeSpec {
            check: ProbeCheck::Tcp,
            interval,
            timeout,
            ..no_probe()
        };
        assert_eq!(
            parse_service("f", &text).map(|spec| spec.readiness),
            Ok(expected),
            "{text}"
        );
    }
}

#[test]
fn both_families_need_a_backend_each_in_slots_that_are_in_use() {
    const VIPS: &str = "vip = [\"10.0.0.10:443\", \"[2001:db8::10]:443\"]";
    let text = SERVICE.replace("vip = \"10.0.0.10:443\"", VIPS).replace(
        "\"10.0.0.11:8443\"",
        "\"10.0.0.11:8443\", \"[2001:db8::11]:8443\"",
    );
    let spec = parse_service("f", &text).expect("both families have a backend");
    assert_eq!(
        spec.vips,
        [addr("10.0.0.10:443"), addr("[2001:db8::10]:443")]
    );
    let only_v6 = SERVICE
        .replace("10.0.0.1", "[2001:db8::10]:1")
        .replace("]:10:", "]:")
        .replace("[2001:db8::10]:11:8443", "[2001:db8::11]:8443");
    assert_eq!(
        parse_service("f", &only_v6).map(|spec| spec.slots[1].backends.len()),
        Ok(0)
    );
}

#[test]
fn target_rules_are_read_prefix_by_prefix() {
    let text = SERVICE.replace(
        "vip = \"10.0.0.10:443\"",
        "vip = [\"10.0.0.10:443\", \"[2001:db8::10]:443\"]",
    ) + "\n[slot.b]\n[[target]]\nfrom = [\"10.0.0.0/8\", \"2001:db8:7::/48\"]\nto = \"canary\"\n\
         [[target]]\nfrom = \"10.7.0.0/16\"\nto = \"baseline\"\n\
         [[target]]\nfrom = [\"0.0.0.0/0\", \"::/0\"]\nto = \"baseline\"\n";
    let text = text.replace(
        "backends = [\"10.0.0.11:8443\"]",
        "backends = [\"10.0.0.11:8443\", \"[2001:db8::11]:8443\"]",
    );
    let expected = [
        ("10.0.0.0", 8, Target::Canary),
        ("2001:db8:7::", 48, Target::Canary),
        ("10.7.0.0", 16, Target::Baseline),
        ("0.0.0.0", 0, Target::Baseline),
        ("::", 0, Target::Baseline),
    ];
    let expected = expected.map(|(addr, len, to)| {
        let addr = addr.parse().expect("an address");
        (Prefix::of(addr, len).expect("a length"), to)
    });
    let spec = parse_service("f", &text);
    assert_eq!(spec.map(|spec| spec.targets), Ok(expected.into()));
}

#[test]
fn a_service_has_at_most_1024_target_prefixes() {
    let with = |count: u32| {
        let prefixes: Vec<_> = (0..count)
            .map(|i| format!("\"10.{}.{}.0/24\"", i / 256, i % 256))
            .collect();
        format!(
            "{SERVICE}[[target]]\nto = \"canary\"\nfrom = [{}]\n",
            prefixes.join(", ")
        )
    };
    assert!(parse_service("f", &with(1_024)).is_ok());
    let found = parse_service("f", &with(1_025)).expect_err("one too many");
    assert_eq!(
        super::printed(&found),
        "f:6:1: a service must have at most 1024 target prefixes, found 1025\n    \
         help: name larger networks\n"
    );
}

/// What the smallest node file means.
fn smallest_node() -> NodeSpec {
    NodeSpec {
        interfaces: vec![InterfaceSpec {
            name: "eth0".into(),
            hook: HookSpec::Auto,
            checksums_complete: false,
        }],
        control_socket: "/run/shifter/shifter.sock".into(),
        metrics: Some(addr("127.0.0.1:9977")),
        state_dir: "/var/lib/shifter".into(),
        bpffs: "/sys/fs/bpf".into(),
        services_dir: "services.d".into(),
        local_clients: LocalClientsSpec::Auto,
        sizes: SizeSpec::default(),
        idle: IdleSpec::default(),
    }
}

#[test]
fn each_key_of_the_node_file_does_what_it_says() {
    type Change = fn(&mut NodeSpec);
    let rows: &[(&str, Change)] = &[
        ("", |_| {}),
        ("hook = \"auto\"", |_| {}),
        ("hook = \"xdp\"\nchecksums_complete = true", |node| {
            node.interfaces[0].hook = HookSpec::Xdp;
            node.interfaces[0].checksums_complete = true;
        }),
        (
            "hook = \"tc\"\n[[interface]]\nname = \"a-name-of-15-by\"",
            |node| {
                node.interfaces[0].hook = HookSpec::Tc;
                let mut second = smallest_node().interfaces.remove(0);
                second.name = "a-name-of-15-by".into();
                node.interfaces.push(second);
            },
        ),
        ("[control]\nsocket = \"/run/s\"", |node| {
            node.control_socket = "/run/s".into()
        }),
        ("[metrics]\nlisten = false", |node| node.metrics = None),
        ("[metrics]\nlisten = \"[::]:1\"", |node| {
            node.metrics = Some(addr("[::]:1"))
        }),
        ("[state]\ndir = \"/srv/s\"", |node| {
            node.state_dir = "/srv/s".into()
        }),
        ("[bpf]\nbpffs = \"/bpf\"", |node| node.bpffs = "/bpf".into()),
        ("hook = \"xdp-generic\"", |node| {
            node.interfaces[0].hook = HookSpec::XdpGeneric
        }),
        ("[local]\nclients = \"auto\"", |_| {}),
        ("[local]\nclients = \"on\"", |node| {
            node.local_clients = LocalClientsSpec::On
        }),
        ("[local]\nclients = \"off\"", |node| {
            node.local_clients = LocalClientsSpec::Off
        }),
        (
            "[tables]\nservices = 1\nbackends = 2\nflows = 1_024\npending = 0x400\ntable_entries = 2048",
            |node| {
                node.sizes = SizeSpec {
                    services_count: 1,
                    backends_count: 2,
                    flows_count: 1_024,
                    pending_count: 1_024,
                    table_entries_count: 2_048,
                };
            },
        ),
        (
            "[idle]\nhandshake = \"10s\"\nestablished = \"8760h\"\nhalf_closed = \"1m\"\nclosed = \"1h\"",
            |node| {
                node.idle = IdleSpec {
                    handshake: Duration::from_secs(10),
                    established: Duration::from_hours(8_760),
                    half_closed: Duration::from_mins(1),
                    closed: Duration::from_hours(1),
                };
            },
        ),
        ("[idle]\nestablished = \"3h\"", |node| {
            node.idle.established = Duration::from_hours(3)
        }),
    ];
    for (more, change) in rows {
        let text = format!("{NODE}{more}\n");
        let mut expected = smallest_node();
        change(&mut expected);
        assert_eq!(parse_node("shifter.toml", &text), Ok(expected), "{text}");
    }
}

#[test]
fn the_services_directory_starts_from_the_node_file() {
    for (file, dir, expected) in [
        ("shifter.toml", None, "services.d"),
        ("/etc/shifter/shifter.toml", None, "/etc/shifter/services.d"),
        ("/etc/shifter/shifter.toml", Some("a/b"), "/etc/shifter/a/b"),
        (
            "/etc/shifter/shifter.toml",
            Some("../x"),
            "/etc/shifter/../x",
        ),
        (
            "/etc/shifter/shifter.toml",
            Some("/srv/services"),
            "/srv/services",
        ),
    ] {
        let services = dir
            .map(|dir| format!("[services]\ndir = \"{dir}\"\n"))
            .unwrap_or_default();
        let node = parse_node(file, &format!("{NODE}{services}"));
        assert_eq!(
            node.map(|node| node.services_dir),
            Ok(PathBuf::from(expected))
        );
    }
}

/// The ranges in the documentation hold at both ends.
#[test]
fn ranges_hold_at_both_ends() {
    for (key, least, most) in [
        ("services", 1_u64, 65_536_u64),
        ("backends", 1, 1_048_576),
        ("flows", 1_024, 33_554_432),
        ("pending", 1_024, 33_554_432),
        ("table_entries", 1_024, 268_435_456),
    ] {
        for (value, fits) in [
            (least - 1, false),
            (least, true),
            (most, true),
            (most + 1, false),
        ] {
            let text = format!("{NODE}[tables]\n{key} = {value}\n");
            assert_eq!(parse_node("f", &text).is_ok(), fits, "{key} = {value}");
        }
    }
}
