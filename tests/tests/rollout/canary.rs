//! A version gets its traffic step by step, and nobody fails for it.

use std::time::Duration;

use shifter_common::wire::{RolloutOutcome, Slot};
use shifter_tests::load::Plan;

use crate::stage::{Stage, slot, vip};

/// The everyday deploy: 5, 20 and 50 %, everything, drained, committed, under load all the time.
#[test]
fn a_canary_goes_to_everything_without_a_failure() {
    let mut stage = Stage::new(
        "steps = [{ weight = 5, bake = \"2s\" }, { weight = 20, bake = \"2s\" }, \
         { weight = 50, bake = \"2s\" }]\nwatch = \"2s\"",
    );
    // Connections that stay open must end on their own: the old version drains for them.
    let held = stage.load_beside(Plan {
        rate_per_s: Some(20.0),
        ..Plan::keep_alive(vip(), 4, Duration::from_secs(11))
    });
    let churn = stage.load_beside(Plan {
        rate_per_s: Some(300.0),
        ..Plan::churn(vip(), 8, Duration::from_secs(18))
    });
    stage.start("3.2.0");
    let again = stage
        .daemon
        .start_rollout("orders", "3.2.0")
        .expect("idempotent");
    assert!(again.already.is_some(), "{again:?}");
    for (phase, weight_bp) in [
        ("Baking(1", 500),
        ("Baking(2", 2_000),
        ("Baking(3", 5_000),
        ("Draining", 10_000),
    ] {
        let service = stage.wait_for(phase);
        assert_eq!(service.weight_bp, weight_bp, "{phase}");
        assert_eq!(service.effective_bp, weight_bp, "{phase}");
    }
    let service = stage.wait_for("Succeeded");
    let rollout = service.rollout.as_ref().expect("a rollout");
    assert_eq!(rollout.outcome, RolloutOutcome::Succeeded);
    assert_eq!((service.baseline, service.weight_bp), (Slot::B, 0));
    assert_eq!(slot(&service, Slot::B).version.as_deref(), Some("3.2.0"));
    let (held, churn) = (held.join().expect("it ran"), churn.join().expect("it ran"));
    held.assert_clean();
    churn.assert_clean();
    assert!(churn.backend("a").requests > 100, "{churn:#?}");
    assert!(churn.backend("b").requests > 100, "{churn:#?}");
    // Nobody needs the old version any more.
    stage.a.kill();
    let after = stage.load(&Plan::connections(vip(), 4, 200));
    after.assert_clean();
    assert_eq!(
        after.backend("b").requests,
        200,
        "the new version serves everybody"
    );
    let transitions = stage.transitions();
    let phases: Vec<&str> = transitions
        .iter()
        .filter_map(|text| text.split(" -> ").nth(1)?.split([' ', '(']).next())
        .collect();
    let mut distinct = phases.clone();
    distinct.dedup();
    assert_eq!(
        distinct,
        [
            "Gated",
            "Warming",
            "Shifting",
            "Baking",
            "Shifting",
            "Baking",
            "Shifting",
            "Baking",
            "Promoting",
            "Draining",
            "Watching",
            "Succeeded"
        ],
        "{transitions:#?}"
    );
}
