//! `rollback --established reset-idle` on the socket plane.

use std::{io::Write as _, time::Duration};

use shifter_common::wire::{EstablishedPolicy, Slot};
use shifter_tests::{
    http,
    world::{Family, OTHER},
};

use crate::{
    held::Held,
    stage::{ORDERS, PORT_B, Stage, slot, vip},
};

/// Connections that nobody speaks on are reset at once, those in use when they have fallen silent.
/// One with an open request, direct ones and those of the other version stay.
#[test]
fn only_idle_connections_are_reset() {
    let stage = Stage::new();
    let client = stage.world.client();
    let mut of_a = Held::open(client, vip(Family::V4), 2);
    stage.set_weight(10_000);
    let mut silent = Held::open(client, vip(Family::V4), 3);
    let mut busy = Held::open(client, vip(Family::V6), 2);
    let mut direct = Held::open(client, OTHER.port(Family::V4, PORT_B), 2);
    let mut asking = client.run(|| http::connect(vip(Family::V4)).expect("a connection"));
    asking
        .write_all(b"GET / HTTP/1.1\r\nHost: ")
        .expect("half a request");
    assert_eq!((silent.backend(), busy.backend()), ("b", "b"));
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(busy.alive_count(), 2);
    }
    let changed = stage
        .daemon
        .rollback(ORDERS, Some(EstablishedPolicy::ResetIdle))
        .expect("rolls back");
    assert_eq!(changed.flows_reset_count, 3, "{changed:?}");
    assert_eq!(busy.alive_count(), 2, "they are in use");
    assert_eq!(silent.alive_count(), 0);
    stage.wait("those that were in use have fallen silent", |s| {
        slot(s, Slot::B).live_flows_count == 1
    });
    assert_eq!(busy.alive_count(), 0);
    assert_eq!((of_a.alive_count(), direct.alive_count()), (2, 2));
    asking.write_all(b"vip\r\n\r\n").expect("the other half");
    let answer = http::ask(&mut asking, "GET", "/", None).expect("an answer");
    assert_eq!(answer.backend, "b");
    let b = slot(&stage.service(), Slot::B).counters;
    assert_eq!(
        (b.reset_by_client, b.reset_by_backend),
        (0, 0),
        "nobody's fault"
    );
}
