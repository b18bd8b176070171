//! What a sweep removes, and what it leaves.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map};
use shifter_common::{
    abi::{FlowEntry, FlowKey, map},
    tcp::Phase,
    verdict::Verdict::*,
};
use shifter_daemon::{dataplane::Dataplane as _, model::IdleSpec};

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
};

/// A handshake that nobody completes goes after its time; a connection that says nothing stays.
#[test]
fn a_silent_connection_outlives_a_silent_handshake() {
    let mut kernel = Kernel::with(Hook::Tc, |node| {
        node.idle = IdleSpec {
            handshake: Duration::from_secs(1),
            closed: Duration::from_secs(1),
            ..IdleSpec::default()
        };
    });
    kernel.publish(&plan());
    let shake = |client: &'static str, steps: usize| {
        let packets = [
            (true, tcp(client, V, SYN, 1, 0)),
            (false, tcp(A, client, SYN | ACK, 9, 2)),
            (true, tcp(client, V, ACK, 2, 10)),
            (true, tcp(client, V, RST | ACK, 2, 10)),
        ];
        for (is_in, packet) in packets.iter().take(steps) {
            let frame = packet.build();
            let ran = if *is_in {
                kernel.ingress(&frame)
            } else {
                kernel.egress(&frame)
            };
            assert!([SteeredNew, SteeredReply, SteeredFlow].contains(&ran.verdict));
        }
    };
    shake("10.9.0.2:40001", 1);
    shake("10.9.0.2:40002", 2);
    shake("10.9.0.2:40003", 3);
    shake("10.9.0.2:40004", 4);
    let table = kernel.dataplane().flow_table();
    let counts = |census: shifter_daemon::dataplane::Census| {
        let evicted = (census.flows_evicted_count, census.pending_evicted_count);
        (census.flows_count, census.pending_count, evicted)
    };
    assert_eq!(counts(table.sweep().expect("a sweep")), (2, 2, (0, 0)));
    // Three ticks of 2^30 ns.
    std::thread::sleep(Duration::from_millis(3_300));
    assert_eq!(
        counts(table.census().expect("a census")),
        (2, 2, (0, 0)),
        "looking removes nothing"
    );
    assert_eq!(counts(table.sweep().expect("a sweep")), (1, 0, (0, 0)));
    assert_eq!(counts(table.census().expect("a census")), (1, 0, (0, 0)));
    let left = table.flows("orders").expect("flows");
    assert_eq!(left[0].key.client_port.to_host(), 40_003);
}

/// A million flows fit into 128 MiB of the kernel's memory; a quarter of them are counted and swept.
/// The times are printed for people.
#[test]
fn a_million_flows_fit_and_are_counted_and_swept() {
    const FLOWS: u32 = 1_000_000;
    const ENTERED: u32 = 250_000;
    let mut kernel = Kernel::with(Hook::Tc, |node| node.sizes.flows_count = FLOWS);
    kernel.publish(&plan());
    let data = kernel.pinned(map::FLOWS);
    let fdinfo = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let fdinfo = std::fs::read_to_string(fdinfo).expect("the map's facts");
    let memlock_bytes: u64 = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .and_then(|number| number.trim().parse().ok())
        .expect("memlock");
    println!(
        "{FLOWS} flows: {memlock_bytes} bytes, {} each",
        memlock_bytes / u64::from(FLOWS)
    );
    assert!(memlock_bytes <= 128 << 20, "{memlock_bytes} bytes");

    let map = Map::from_map_data(data).expect("a known type");
    let mut flows: HashMap<_, FlowKey, FlowEntry> = map.try_into().expect("the flow table");
    let entry = FlowEntry {
        phase: Phase::Established as u32,
        last_seen_ticks: u32::MAX,
        ..FlowEntry::default()
    };
    for number in 0..ENTERED {
        let key = FlowKey {
            client: IpAddr::from((10 << 24 | number).to_be_bytes()).into(),
            ..FlowKey::default()
        };
        flows.insert(key, entry, 0).expect("there is room");
    }
    let table = kernel.dataplane().flow_table();
    let begun = Instant::now();
    let census = table.census().expect("a census");
    println!("a census of {}: {:?}", census.flows_count, begun.elapsed());
    assert!(
        census.flows_count >= u64::from(ENTERED) * 99 / 100,
        "{}",
        census.flows_count
    );
    assert_eq!(census.live.get(&0), Some(&census.flows_count));
    let begun = Instant::now();
    let swept = table.sweep().expect("a sweep");
    println!("a sweep of {}: {:?}", swept.flows_count, begun.elapsed());
    assert_eq!(
        swept.flows_count, census.flows_count,
        "none has been silent for too long"
    );
}
