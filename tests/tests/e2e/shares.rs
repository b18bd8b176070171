//! The share of new flows each version gets is the weight, within what chance allows.

use shifter_daemon::model::HookSpec;
use shifter_tests::{load::Plan, world::Family};

use crate::stage::{Stage, vip};

/// At least so many connections a weight.
const CONNECTIONS_COUNT: u64 = 20_000;

#[test]
fn the_observed_share_is_the_weight() {
    let stage = Stage::new(HookSpec::Tc);
    let rows = [
        (100, Family::V4),
        (500, Family::V6),
        (5_000, Family::V4),
        (9_500, Family::V6),
    ];
    for (weight_bp, family) in rows {
        stage.set_weight(weight_bp);
        let report = stage.load(&Plan::connections(vip(family), 32, CONNECTIONS_COUNT));
        report.assert_clean();
        assert_eq!(report.connections, CONNECTIONS_COUNT);
        let weight = f64::from(weight_bp) / 10_000.0;
        let error = (report.share("b") - weight).abs();
        let limit = 4.0 * (weight * (1.0 - weight) / CONNECTIONS_COUNT as f64).sqrt();
        assert!(
            error <= limit,
            "{weight_bp} bp over {family:?}: off by {error}, limit {limit}"
        );
    }
    let service = stage.service();
    let selected: u64 = service
        .slots
        .iter()
        .map(|slot| slot.counters.selected)
        .sum();
    let established: u64 = service
        .slots
        .iter()
        .map(|slot| slot.counters.established)
        .sum();
    assert_eq!((selected, established), (80_000, 80_000));
}

#[test]
fn a_client_stays_on_its_version_with_client_affinity() {
    let mut spec = crate::stage::orders();
    spec.affinity = shifter_daemon::model::Affinity::Client;
    let stage = Stage::with(HookSpec::Tc, Default::default(), spec);
    let mut canary_at = Vec::new();
    for weight_bp in [0, 2_000, 5_000, 8_000, 10_000, 5_000, 0] {
        stage.set_weight(weight_bp);
        let report = stage.load(&Plan::connections(vip(Family::V4), 4, 100));
        report.assert_clean();
        let share = report.share("b");
        assert!(
            share == 0.0 || share == 1.0,
            "{weight_bp} bp: one client on both versions"
        );
        canary_at.push((weight_bp, share == 1.0));
    }
    // Raising the weight only adds: once on the canary, on it at every higher weight.
    for (low, on_canary) in &canary_at {
        for (high, still) in &canary_at {
            assert!(high < low || !on_canary || *still, "{canary_at:?}");
        }
    }
    assert!(!canary_at[0].1 && canary_at[4].1, "{canary_at:?}");
}
