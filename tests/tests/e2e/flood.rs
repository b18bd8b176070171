//! A flood of SYNs, and tables that are too small: established connections stay.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use shifter_common::wire::{DaemonStatus, Slot};
use shifter_daemon::model::HookSpec;
use shifter_tests::{
    daemon::Node,
    flood::Flood,
    load::Plan,
    world::{CLIENT, Family, HOST_IF, OTHER, Options},
};

use crate::{
    kept::Kept,
    stage::{PORT_A, Stage, orders, slot, vip},
};

/// SYNs that the programs must have seen.
const SYNS: u64 = 1_000_000;
/// Connections that are open meanwhile.
const ESTABLISHED: usize = 1_000;

fn daemon(stage: &Stage) -> DaemonStatus {
    stage.daemon.status().daemon
}

fn verdict(daemon: &DaemonStatus, label: &str) -> u64 {
    let found = daemon.verdicts.iter().find(|(name, _)| name == label);
    found.map_or(0, |(_, count)| *count)
}

/// SYNs that were given a backend and came to nothing: those of the flood.
fn unanswered(stage: &Stage) -> u64 {
    let counters = slot(&stage.service(), Slot::A).counters;
    counters.selected - counters.established
}

/// Where the flood goes, from the client's end of the link.
fn flood(stage: &Stage, seed: u64) -> Flood {
    let link = stage
        .world
        .host()
        .ip(&format!("-brief link show {HOST_IF}"));
    let mac = link.split_whitespace().nth(2).expect("a hardware address");
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
        .collect();
    eprintln!("seed {seed}");
    let SocketAddr::V4(target) = vip(Family::V4) else {
        panic!("the VIP is IPv4");
    };
    Flood {
        interface: "eth0".into(),
        to: bytes.try_into().expect("six bytes"),
        target,
        seed,
    }
}

/// A million SYNs from random addresses beside a thousand open connections: none breaks, new clients
/// connect meanwhile, and what was evicted are handshakes.
fn a_million_syns(hook: HookSpec, seed: u64) {
    let stage = Stage::new(hook);
    // Answers to the flood leave by the same way and end at the client.
    let (host, client) = (stage.world.host(), stage.world.client());
    host.ip(&format!("route add 172.16.0.0/12 via {}", CLIENT.v4));
    client.ip("route add blackhole 172.16.0.0/12");
    // Nobody waits for the answers' retransmissions.
    host.sysctl("net.ipv4.tcp_synack_retries", "1");
    let mut kept = Kept::open(client, vip(Family::V4), ESTABLISHED);
    let mut sender = client.run(|| flood(&stage, seed).open());
    let is_over = AtomicBool::new(false);
    let (sent_count, turns_count, clients_count) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let end = Instant::now() + Duration::from_secs(180);
            let mut sent_count = 0;
            while unanswered(&stage) < SYNS {
                assert!(
                    Instant::now() < end,
                    "the flood takes too long: {sent_count} sent"
                );
                for _ in 0..1_000 {
                    sent_count += sender.send().expect("is sent");
                }
            }
            is_over.store(true, Ordering::Release);
            sent_count
        });
        let speaking = scope.spawn(|| {
            let mut turns_count = 0;
            while !is_over.load(Ordering::Acquire) {
                let spoken = kept.speak(turns_count % ESTABLISHED);
                assert_eq!(spoken, Ok(()), "connection {}", turns_count % ESTABLISHED);
                turns_count += 1;
            }
            turns_count
        });
        let mut clients_count = 0;
        while !is_over.load(Ordering::Acquire) {
            let report = stage.load(&Plan {
                connect_timeout: Duration::from_secs(30),
                timeout: Duration::from_secs(30),
                ..Plan::connections(vip(Family::V4), 2, 20)
            });
            report.assert_clean();
            clients_count += report.requests;
        }
        (
            flooding.join().expect("the flood"),
            speaking.join().expect("the connections"),
            clients_count,
        )
    });
    println!(
        "{sent_count} SYNs; {turns_count} requests on open connections, {clients_count} new ones"
    );
    assert!(turns_count > 0 && clients_count > 0);
    assert_eq!(kept.broken(), [] as [&str; 0]);
    let daemon = daemon(&stage);
    assert_eq!(
        daemon.flows_evicted_count, 0,
        "no established flow was evicted"
    );
    let least_evicted = SYNS - daemon.pending_capacity_count;
    assert!(
        daemon.pending_evicted_count >= least_evicted * 9 / 10,
        "{daemon:#?}"
    );
    assert!(daemon.pending_count <= daemon.pending_capacity_count);
    let dropped: u64 = daemon
        .verdicts
        .iter()
        .filter(|(name, _)| name.starts_with("drop_"))
        .map(|(_, count)| *count)
        .sum();
    assert_eq!(dropped, 0, "{:?}", daemon.verdicts);
    let service = stage.service();
    let established = slot(&service, Slot::A).counters.established;
    // A handshake may lose its entry to the flood twice; the second time it is found established.
    let opened = ESTABLISHED as u64 + clients_count;
    let rescued = verdict(&daemon, "steered_rescued");
    println!("{rescued} segments found their flow by its socket or cookie");
    assert!(established <= opened, "{established} of {opened}");
    assert!(
        established + rescued >= opened,
        "{established} and {rescued} of {opened}"
    );
}

#[test]
fn tc() {
    a_million_syns(HookSpec::Tc, 0x5f1);
}

#[test]
fn xdp() {
    a_million_syns(HookSpec::Xdp, 0x5f2);
}

/// Four times as many connections as the table holds: each survives, because its backend's socket is
/// found when its entry is gone. With backends elsewhere nothing could be found.
#[test]
fn a_table_that_is_too_small_breaks_no_connection() {
    let mut node = Node::new(HookSpec::Tc);
    node.sizes.flows_count = 1_024;
    let stage = Stage::on(node, Options::default(), orders());
    let client = stage.world.client();
    let mut kept = Family::ALL.map(|family| Kept::open(client, vip(family), 2_000));
    for kept in &mut kept {
        assert_eq!(kept.broken(), [] as [&str; 0]);
    }
    // A weight of its own changes nothing: they are looked for in both slots.
    stage.set_weight(10_000);
    for kept in &mut kept {
        assert_eq!(kept.broken(), [] as [&str; 0]);
    }
    let found = daemon(&stage);
    let opened: u64 = kept.iter().map(|kept| kept.len() as u64).sum();
    // Each turn over four times as many as fit finds nearly none left from the turn before.
    assert!(
        found.flows_evicted_count >= 2 * (opened - 1_024),
        "{found:#?}"
    );
    assert!(
        verdict(&found, "steered_rescued") >= 2 * (opened - 1_024),
        "{found:#?}"
    );
    assert!(found.flows_count <= found.flows_capacity_count);
    let service = stage.service();
    assert_eq!(
        slot(&service, Slot::A).counters.established,
        opened,
        "counted once"
    );
    assert_eq!(slot(&service, Slot::B).counters.selected, 0);
    let vips = Family::ALL.map(|family| OTHER.port(family, PORT_A).to_string());
    let listed = stage
        .daemon
        .flows(crate::stage::ORDERS, 10_000)
        .expect("flows")
        .flows;
    assert!(
        listed.iter().all(|flow| vips.contains(&flow.backend)),
        "{listed:?}"
    );
}
