//! Weights are kept, in both families, with no packet touched.

use shifter_common::wire::Slot;
use shifter_tests::{load::Plan, world::Family};

use crate::stage::{Stage, slot, vip};

/// Every weight is the share of new connections that version b gets, whoever connects.
#[test]
fn weights_are_shares() {
    let stage = Stage::new();
    for (weight_bp, low, high) in [
        (0, 0.0, 0.0),
        (1_000, 0.07, 0.13),
        (5_000, 0.46, 0.54),
        (10_000, 1.0, 1.0),
    ] {
        stage.set_weight(weight_bp);
        for family in Family::ALL {
            let report = stage.load(&Plan::connections(vip(family), 16, 2_000));
            report.assert_clean();
            let share = report.share("b");
            assert!(
                (low..=high).contains(&share),
                "{weight_bp} {family:?}: {share}"
            );
        }
    }
    let service = stage.service();
    assert_eq!(service.plane, "socket");
    let established: u64 = Slot::ALL
        .map(|s| slot(&service, s).counters.established)
        .iter()
        .sum();
    assert_eq!(established, 16_000, "{service:#?}");
    for (s, most) in [(Slot::A, 16_000), (Slot::B, 16_000)] {
        let counters = &slot(&service, s).socket;
        let count = |name: &str| counters.iter().find(|(n, _)| n == name).map(|(_, c)| *c);
        assert!((1..most).contains(&count("lookups").expect("listed")));
        for cause in [
            "no_listener",
            "not_admitted",
            "other_backend",
            "other_slot",
            "unserved",
        ] {
            assert_eq!(count(cause), Some(0), "{cause}");
        }
    }
    // The packets went past the other plane.
    let status = stage.daemon.status();
    let verdict = |name: &str| {
        let found = status.daemon.verdicts.iter().find(|(n, _)| n == name);
        found.map_or(0, |(_, count)| *count)
    };
    assert_eq!(verdict("steered_new"), 0);
    assert_eq!(verdict("steered_flow"), 0);
    // At least a SYN, a request and a FIN each.
    assert!(verdict("pass_socket_plane") >= 3 * 16_000);
}
