//! Target rules from file to kernel, under a release.

use shifter_common::wire::{EstablishedPolicy, Slot};
use shifter_daemon::model::{HookSpec, Prefix, Target};
use shifter_tests::world::{CLIENT, CLIENT_POOL, Dual, Family, Options};

use crate::{
    kept::Kept,
    stage::{ORDERS, Stage, orders, slot, vip},
};

fn prefix(addr: Dual, family: Family, v4_len: u8, v6_len: u8) -> Prefix {
    Prefix::of(addr.ip(family), family.pick(v4_len, v6_len)).expect("a length")
}

/// Internal users see the canary at weight 0, others do not; a rollback takes them back at once, the
/// next weight sends them there again; a change of rules leaves open connections alone.
fn internal_users_first(hook: HookSpec) {
    let mut spec = orders();
    for family in Family::ALL {
        spec.targets
            .insert(prefix(CLIENT_POOL, family, 24, 120), Target::Canary);
    }
    let stage = Stage::with(hook, Options::default(), spec.clone());
    let client = stage.world.client();
    let backend = |from: Dual, family: Family| {
        Kept::from(client, from.ip(family), vip(family))
            .backend()
            .to_owned()
    };
    for family in Family::ALL {
        assert_eq!(backend(CLIENT_POOL, family), "b", "{family:?}");
        assert_eq!(backend(CLIENT, family), "a", "{family:?}");
    }
    let mut open = Kept::from(client, CLIENT_POOL.ip(Family::V4), vip(Family::V4));
    let service = stage.service();
    assert_eq!(service.weight_bp, 0);
    assert_eq!(slot(&service, Slot::B).targeted_count, 3);
    assert_eq!(slot(&service, Slot::B).counters.selected, 3);
    assert_eq!(slot(&service, Slot::A).targeted_count, 0);
    let shown: Vec<_> = service.targets.iter().map(|target| &*target.from).collect();
    assert_eq!(shown, ["10.9.0.0/24", "2001:db8:9::/120"]);

    let rollback = stage
        .daemon
        .rollback(ORDERS, Some(EstablishedPolicy::Drain));
    rollback.expect("a rollback is accepted");
    assert_eq!(backend(CLIENT_POOL, Family::V4), "a", "held back");
    assert!(stage.service().targets_held);
    stage.set_weight(0);
    assert_eq!(backend(CLIENT_POOL, Family::V4), "b", "in force again");

    spec.targets.clear();
    spec.targets
        .insert(prefix(CLIENT, Family::V4, 32, 128), Target::Canary);
    stage.daemon.write_service(&spec);
    let report = stage.daemon.apply().expect("applies");
    assert_eq!(report.diagnostics, []);
    assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
    assert_eq!(report.changes[0].key, "target");
    assert_eq!(backend(CLIENT_POOL, Family::V4), "a");
    assert_eq!(backend(CLIENT, Family::V4), "b");
    assert_eq!(open.backend(), "b");
    assert_eq!(
        open.broken(),
        [] as [&str; 0],
        "an open connection stays where it is"
    );
}

#[test]
fn tc() {
    internal_users_first(HookSpec::Tc);
}

#[test]
fn xdp() {
    internal_users_first(HookSpec::Xdp);
}
