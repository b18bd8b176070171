//! Changes under load break nothing.

use std::time::Duration;

use shifter_daemon::model::HookSpec;
use shifter_tests::{
    load::Plan,
    world::{Family, Options},
};

use crate::stage::{Numbers, Stage, orders, vip};

/// 200 random weights under new and long-lived connections of both families: no failed request, and
/// no connection that changes its backend (the load client checks every response).
fn two_hundred_weights(hook: HookSpec, options: Options, seed: u64) {
    let stage = Stage::with(hook, options, orders());
    let mut numbers = Numbers::new(seed);
    let time = Duration::from_secs(8);
    let loads = [
        stage.load_beside(Plan {
            rate_per_s: Some(1_000.0),
            ..Plan::churn(vip(Family::V4), 16, time)
        }),
        stage.load_beside(Plan {
            rate_per_s: Some(1_000.0),
            ..Plan::churn(vip(Family::V6), 16, time)
        }),
        stage.load_beside(Plan {
            rate_per_s: Some(500.0),
            ..Plan::keep_alive(vip(Family::V4), 16, time)
        }),
    ];
    let before = stage.service().generation;
    let mut stored_count = 0;
    let mut last_bp = 0;
    for _ in 0..200 {
        let weight_bp = numbers.below(10_001) as u16;
        stage.set_weight(weight_bp);
        stored_count += u32::from(weight_bp != last_bp);
        last_bp = weight_bp;
        std::thread::sleep(Duration::from_millis(30));
    }
    let after = stage.service();
    assert_eq!(
        after.generation - before,
        stored_count,
        "one generation a change"
    );
    assert_eq!(after.weight_bp, last_bp);
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 1_000, "{report:?}");
    }
}

#[test]
fn tc() {
    two_hundred_weights(HookSpec::Tc, Options::default(), 0x7c);
}

#[test]
fn tc_without_offloads() {
    let options = Options {
        tx_checksum: false,
        gro: true,
        ..Options::default()
    };
    two_hundred_weights(HookSpec::Tc, options, 0x7c0);
}

#[test]
fn native_xdp() {
    two_hundred_weights(HookSpec::Xdp, Options::default(), 0xdb);
}
