//! One version after another on the same slot: each counts its own connections.

use shifter_common::wire::Slot;
use shifter_tests::{
    backend::{Backend, Spec},
    load::Plan,
    world::{Family, OTHER},
};

use crate::{
    held::Held,
    stage::{PORT_A, PORT_B, Stage, counter, orders, slot, vip},
};

/// Port of the version between.
const PORT_C: u16 = 8_083;

/// Live connections of the version that has slot b, and those of versions that had it.
#[track_caller]
fn wait_for(stage: &Stage, what: &str, live_count: u64, departed_count: u64) {
    stage.wait(what, |service| {
        let b = slot(service, Slot::B);
        (b.live_flows_count, b.departed_flows_count) == (live_count, departed_count)
    });
}

/// The first version's connections drain on slot b while a second and a third one serve there, the
/// third on the first one's addresses and listeners: what is live counts for the one that has the
/// slot, the rest apart, over a restart of the daemon too, and nothing of the first one's end counts
/// for the third.
#[test]
fn draining_connections_never_count_for_who_took_the_slot() {
    let (a, b, c) = (
        OTHER.ports(PORT_A),
        OTHER.ports(PORT_B),
        OTHER.ports(PORT_C),
    );
    let mut stage = Stage::with(&a, &b, orders(&a, &b));
    let _c = Backend::start(stage.world.host(), Spec::new("c", &c));
    stage.set_weight(10_000);
    let mut of_first = Held::open(stage.world.client(), vip(Family::V4), 5);
    assert_eq!(of_first.backend(), "b");
    wait_for(&stage, "the first version has its connections", 5, 0);
    for (backends, name) in [(&c, "c"), (&b, "b")] {
        stage.daemon.write_service(&orders(&a, backends));
        let report = stage.daemon.apply().expect("applies");
        assert!(report.diagnostics.is_empty(), "{report:?}");
        let wanted: Vec<String> = backends.iter().map(ToString::to_string).collect();
        stage.wait("the new version is ready", |s| {
            let b = slot(s, Slot::B);
            let addrs = b.backends.iter().map(|b| &b.addr);
            b.eligible && addrs.eq(&wanted)
        });
        wait_for(&stage, "the first version's count apart", 0, 5);
        let report = stage.load(&Plan::connections(vip(Family::V6), 4, 50));
        report.assert_clean();
        assert_eq!(report.backend(name).connections, 50, "{report:?}");
    }
    let mut of_third = Held::open(stage.world.client(), vip(Family::V4), 3);
    assert_eq!(of_third.backend(), "b");
    wait_for(&stage, "the third version has its own", 3, 5);
    stage.daemon.kill9();
    stage.daemon.start_again();
    wait_for(&stage, "the next daemon counts them apart too", 3, 5);
    assert_eq!((of_first.alive_count(), of_third.alive_count()), (5, 3));
    let before = stage.service();
    drop(of_first);
    wait_for(&stage, "the first version's have ended", 3, 0);
    let after = stage.service();
    let counters = |service| slot(service, Slot::B).counters;
    assert_eq!(counters(&after), counters(&before), "not the third one's");
    assert_eq!(counter(&after, Slot::B, "departed"), 5);
    drop(of_third);
    wait_for(&stage, "all have ended", 0, 0);
    let after = counters(&stage.service());
    assert_eq!((after.established, after.closed), (5 + 100 + 3, 100 + 3));
}
