//! `status` and `flows`.

use std::time::{SystemTime, UNIX_EPOCH};

use shifter_common::{
    abi::{ABI_VERSION, FlowEntry, FlowKey},
    tcp::Phase,
    verdict::Verdict,
    wire::{Affinity, EstablishedPolicy, Role},
};

use super::session::{ORDERS, SEARCH, Session, store};
use crate::{dataplane::ListedFlow, model::Slot};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS), ("search.toml", SEARCH)];

#[tokio::test(start_paused = true)]
async fn status_tells_of_the_daemon_and_every_service() {
    let before_ms = unix_ms();
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("live search a 10.1.0.9:80 7", ""),
            ("live orders b 10.2.0.1:80 2", ""),
        ])
        .await;
    let status = session.status().await;
    let daemon = &status.daemon;
    assert_eq!(daemon.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (daemon.pid, daemon.abi_version),
        (std::process::id(), ABI_VERSION)
    );
    assert!((before_ms..=unix_ms()).contains(&daemon.started_unix_ms));
    assert_eq!((daemon.pins.as_str(), daemon.adopted), ("memory", false));
    assert_eq!(
        (daemon.flows_count, daemon.flows_capacity_count),
        (9, 1_000)
    );
    let labels: Vec<&str> = daemon
        .verdicts
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    let all: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
    assert_eq!(labels, all, "every verdict is listed");
    let live = |index: usize| {
        status.services[index]
            .slots
            .iter()
            .map(|s| s.live_flows_count)
    };
    assert!(live(0).eq([0, 2]) && live(1).eq([7, 0]), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_is_shown_as_decided_and_as_it_is() {
    let file = ORDERS
        .replace(
            "vip = \"10.0.0.10:80\"",
            "vip = [\"10.0.0.10:80\", \"10.0.0.11:81\"]\n\
            affinity = \"client\"\ndefault_slot = \"b\"",
        )
        .replace("\"10.1.0.1:80\"", "{ addr = \"10.1.0.1:80\", weight = 7 }");
    let mut session = Session::start(&[("orders.toml", &file)]);
    let never = session.service("orders").await;
    assert_eq!(
        (never.weight_by.as_str(), never.weight_set_unix_ms),
        ("shifterd", 0)
    );
    let before_ms = unix_ms();
    session
        .run(&[("weight orders 2500", "0 -> 2500, generation 2")])
        .await;
    let status = session.service("orders").await;
    assert!((before_ms..=unix_ms()).contains(&status.weight_set_unix_ms));
    assert_eq!(status.vips, ["10.0.0.10:80", "10.0.0.11:81"]);
    assert_eq!(
        (status.affinity, status.baseline),
        (Affinity::Client, Slot::B)
    );
    assert_eq!(
        (status.protocol.as_str(), status.plane.as_str()),
        ("tcp", "nat")
    );
    let roles: Vec<_> = status
        .slots
        .iter()
        .map(|slot| (slot.slot, slot.role))
        .collect();
    assert_eq!(roles, [(Slot::A, Role::Canary), (Slot::B, Role::Baseline)]);
    let backend = &status.slots[0].backends[0];
    assert_eq!(
        (backend.addr.as_str(), backend.weight, backend.ready),
        ("10.1.0.1:80", 7, true)
    );
    assert_eq!(backend.reason, "");
    session
        .run(&[("fails orders a 10.1.0.1:80 status 503", "")])
        .await;
    let backend = &session.service("orders").await.slots[0].backends[0];
    assert_eq!(
        (backend.ready, backend.reason.as_str()),
        (false, "status 503")
    );
}

/// A backend that left its slot keeps its flows, and they are counted.
#[tokio::test(start_paused = true)]
async fn flows_of_backends_that_left_are_of_their_slot() {
    let file = format!(
        "write orders.toml {}",
        ORDERS.replace("10.2.0.1", "10.2.0.7")
    );
    Session::start(FILES)
        .run(&[
            ("live orders b 10.2.0.1:80 3", ""),
            (&file, ""),
            (
                "apply",
                "orders slot.b.backends: [\"10.2.0.1:80\"] -> [\"10.2.0.7:80\"]",
            ),
            ("live orders b 10.2.0.7:80 2", ""),
            (
                "show orders",
                "0 bp by shifterd, effective 0, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 5 live of {\"10.2.0.7:80\": 2}",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_is_told_while_there_are_flows() {
    // file, live flows, what is told once the time is over
    let short = format!("{ORDERS}[drain]\ntimeout = \"1s\"\n");
    let by = "drained by root (uid 0)";
    let late = "drained by root (uid 0); still has flows after 90 s (drain.timeout = \"1s\")";
    let usual = "drained by root (uid 0); still has flows after 90 s (drain.timeout = \"1m\")";
    let rows = [
        (short.as_str(), 4, late),
        (ORDERS, 4, usual),
        (&short, 0, by),
    ];
    for (file, live_count, expected) in rows {
        let mut session = Session::start(&[("orders.toml", file)]);
        session
            .run(&[("drain orders b", "0 -> 0, generation 2")])
            .await;
        session
            .act(&format!("live orders b 10.2.0.1:80 {live_count}"))
            .await;
        assert_eq!(
            session.service("orders").await.slots[1].reason,
            by,
            "in time"
        );
        // The clock cannot be turned on, but the record can be turned back.
        let (dir, dataplane) = session.kill().await;
        set_drained_since(&dir, |since_unix_ms| since_unix_ms - 90_000);
        let session = Session::start_in(dir, dataplane);
        let slot = &session.service("orders").await.slots[1];
        assert_eq!(slot.reason, expected, "{file}");
        assert!(slot.drained && !slot.eligible);
    }
}

/// Turns the record of the drain of slot b to another time.
fn set_drained_since(dir: &tempfile::TempDir, to: impl Fn(u64) -> u64) {
    let mut state = store(&dir.path().join("state"));
    let mut record = state.service("orders").expect("a record").clone();
    let drained = record.drained.get_mut(&Slot::B).expect("a drain");
    drained.since_unix_ms = to(drained.since_unix_ms);
    state.save("orders", &record).expect("a disk");
}

/// A clock that was set back must not make a drain overdue, nor bring anything down.
#[tokio::test(start_paused = true)]
async fn a_drain_from_the_future_is_not_overdue() {
    let mut session = Session::start(FILES);
    session
        .run(&[("drain orders b", "0 -> 0, generation 2")])
        .await;
    session.run(&[("live orders b 10.2.0.1:80 1", "")]).await;
    let (dir, dataplane) = session.kill().await;
    set_drained_since(&dir, |_| u64::MAX);
    let session = Session::start_in(dir, dataplane);
    assert_eq!(
        session.service("orders").await.slots[1].reason,
        "drained by root (uid 0)"
    );
}

#[tokio::test(start_paused = true)]
async fn flows_come_newest_first_and_no_more_than_asked_for() {
    let mut session = Session::start(FILES);
    let flow = |port: u16, phase: u32, idle_ms| ListedFlow {
        key: FlowKey {
            client: "192.0.2.1"
                .parse::<std::net::IpAddr>()
                .expect("an address")
                .into(),
            client_port: shifter_common::addr::Be16::from_host(port),
            ..Default::default()
        },
        entry: FlowEntry {
            phase,
            ..Default::default()
        },
        vip: "10.0.0.10:80".parse().expect("an address"),
        idle_ms,
    };
    let established = Phase::Established as u32;
    session.dataplane.with(|state| {
        let flows = vec![
            flow(1, established, 300),
            flow(2, established, 100),
            flow(3, established, 200),
        ];
        state.flows.insert("orders".into(), flows)
    });
    session
        .run(&[
            ("flows orders", "2 of 3: 192.0.2.1:2 192.0.2.1:3"),
            ("flows search", "0 of 0: "),
        ])
        .await;
    // A phase that this version does not know cannot be shown, but is counted.
    session.dataplane.with(|state| {
        state.flows.insert(
            "orders".into(),
            vec![flow(1, 999, 0), flow(2, established, 1)],
        )
    });
    session
        .run(&[("flows orders", "1 of 2: 192.0.2.1:2")])
        .await;
}

#[test]
fn open_connections_stay_by_default() {
    assert_eq!(EstablishedPolicy::default(), EstablishedPolicy::Drain);
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64
}
