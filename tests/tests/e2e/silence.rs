//! `rollback --established reset-idle` on the nat plane.

use std::time::Duration;

use shifter_common::wire::{EstablishedPolicy, Slot};
use shifter_daemon::model::HookSpec;
use shifter_tests::world::Family;

use crate::{
    kept::Kept,
    stage::{ORDERS, Stage, slot, vip},
};

/// Flows without a packet for a while are reset at once, the others when they have fallen silent; those
/// of the other version stay.
#[test]
fn only_silent_flows_are_reset() {
    let stage = Stage::new(HookSpec::Tc);
    let client = stage.world.client().inside();
    let mut of_a = Kept::open(&client, vip(Family::V4), 2);
    stage.set_weight(10_000);
    let mut silent = Kept::open(&client, vip(Family::V6), 3);
    let mut busy = Kept::open(&client, vip(Family::V4), 2);
    assert_eq!((silent.backend(), busy.backend()), ("b", "b"));
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(busy.broken(), [""; 0]);
    }
    let changed = stage
        .daemon
        .rollback(ORDERS, Some(EstablishedPolicy::ResetIdle))
        .expect("rolls back");
    assert_eq!(changed.flows_reset_count, 3, "{changed:?}");
    assert_eq!(busy.broken(), [""; 0], "they are in use");
    assert_eq!(silent.broken().len(), 3);
    stage.wait("those that were in use have fallen silent", |s| {
        slot(s, Slot::B).live_flows_count == 0
    });
    assert_eq!(busy.broken().len(), 2);
    assert_eq!(of_a.broken(), [""; 0]);
}
