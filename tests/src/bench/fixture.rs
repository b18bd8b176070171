//! Results with numbers that nobody measured, for the tests of what shows them.

use super::{
    results::{
        Change, ChangeRow, EndToEnd, EndToEndRow, Machine, PacketRow, Packets, Results, Verified,
    },
    spread::{Spread, rounded},
};

/// A spread around a middle.
fn around(median: f64) -> Spread {
    let times = |factor: f64| rounded(median * factor);
    Spread {
        count: 9,
        min: times(0.5),
        q1: times(0.9),
        median: times(1.0),
        q3: times(1.1),
        p99: times(1.5),
        max: times(2.0),
    }
}

/// Something of every part.
pub fn results() -> Results {
    let packet = |id: &str, family: &str, ns, target_ns| PacketRow {
        id: id.to_owned(),
        words: "established flow".to_owned(),
        hook: "XDP".to_owned(),
        family: family.to_owned(),
        flows_count: 1_000,
        batch_packets: 20_000,
        with_maker_ns: around(ns + 24.0),
        maker_ns: around(37.0),
        ns: around(ns),
        target_ns,
    };
    let request = |way: &str, ratio, target_cpu_ratio| EndToEndRow {
        way: way.to_owned(),
        load: "keep-alive".to_owned(),
        requests: 100_000,
        errors: 3,
        requests_per_s: around(50_000.0),
        p50_us: around(400.0),
        p99_us: around(900.0),
        mean_us: around(410.0),
        cpu_us: around(20.0 / ratio),
        cpu_load_us: around(10.0),
        cpu_backends_us: around(9.0),
        cpu_between_us: around(0.5),
        cpu_softirq_us: around(0.5),
        cpu_ratio: around(ratio),
        cpu_nftables_ratio: Some(around(1.02)),
        rate_ratio: around(0.98),
        p50_above_direct_us: around(1.5),
        target_cpu_ratio,
        target_above_direct_us: None,
    };
    let moved = |way: &str, last, wrong_after_return| ChangeRow {
        way: way.to_owned(),
        changes: 600,
        connections: 654_321,
        failed: wrong_after_return / 2,
        failures: vec!["connecting: Connection refused (os error 111)".to_owned()],
        command_us: around(4_000.0),
        last_on_old_us: around(last),
        wrong_after_return,
    };
    Results {
        machine: Machine {
            date: "2026-01-02".to_owned(),
            kernel: "6.18.0".to_owned(),
            cpu: "a processor".to_owned(),
            cpus_count: 2,
            jit: true,
            load: 0.25,
            programs: vec!["nginx/1.22.1".to_owned(), "HAProxy 2.6".to_owned()],
        },
        quick: false,
        packets: Some(Packets {
            noop_xdp_ns: around(13.0),
            noop_tc_ns: around(17.0),
            programs: vec![Verified {
                name: "xdp_ingress".to_owned(),
                instructions: 123_456,
            }],
            rows: vec![
                packet("floor/xdp/v4/1000", "v4", 84.0, None),
                packet("established/xdp/v4/1000", "v4", 105.0, Some(110.0)),
                packet("established/xdp/v6/1000", "v6", 333.0, None),
            ],
        }),
        end_to_end: Some(EndToEnd {
            measurement_s: 2,
            connections: 32,
            rows: vec![
                request("direct", 1.0, None),
                request("shifter, nat plane, TC", 0.93, Some(0.94)),
            ],
        }),
        change: Some(Change {
            rows: vec![
                moved("shifter, the store alone", 0.0, 0),
                moved("nftables DNAT", 3_000.0, 4),
            ],
        }),
    }
}
