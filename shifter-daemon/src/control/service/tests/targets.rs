//! Clients that do not follow the weight.

use super::*;
use crate::model::{Prefix, Target};

fn targeted(to: Target) -> ServiceControl {
    let mut spec = spec(&["10.0.0.10:80"], &["10.1.0.1:80"], &["10.2.0.1:80"]);
    let prefix = Prefix::of("10.0.0.0".parse().expect("an address"), 8).expect("a length");
    spec.targets.insert(prefix, to);
    let mut control = ServiceControl::new(spec, Some(record(Slot::A, 2_500, &[])), None);
    set_health(&mut control, "++");
    control
}

const HELD: &str = "held back since a rollback or a rollout: clients that target rules send to the canary go to the baseline until a weight is set, if only: shifterctl set-weight orders 0%";

#[test]
fn a_rollback_holds_the_canarys_rules_back_until_a_weight_is_set() {
    let mut control = targeted(Target::Canary);
    let plan = control.plan();
    assert_eq!(plan.targets, control.spec().targets);
    assert!(!plan.held && !plan.steer(SteeringWord::default()).held());
    control.take_back("mia (uid 7)", 9);
    let plan = control.plan();
    assert_eq!((plan.weight_bp, plan.held), (0, true));
    assert!(plan.steer(SteeringWord::default()).held());
    assert_eq!(control.notes(), [HELD]);
    control.set_weight(0, "mia (uid 7)", 10);
    assert!(!control.plan().held);
    assert_eq!(control.notes(), [] as [&str; 0]);
}

#[test]
fn rules_that_name_the_baseline_are_never_held() {
    let mut control = targeted(Target::Baseline);
    control.take_back("mia (uid 7)", 9);
    assert_eq!(control.notes(), [] as [&str; 0]);
}

#[test]
fn a_slot_that_only_targeted_clients_want_is_missed_when_it_fails() {
    let mut control = targeted(Target::Canary);
    control.set_weight(0, "mia (uid 7)", 9);
    set_health(&mut control, "+-");
    assert_eq!(
        control.notes(),
        ["slot b takes no new flows (not ready: 10.2.0.1:80 status 503): slot a takes them all"]
    );
}

/// The kernel was told first and the disk was not: what it holds counts.
#[test]
fn a_rollback_that_is_not_on_disk_is_in_force_all_the_same() {
    let control = targeted(Target::Canary);
    let word = SteeringWord::default().with_generation(3);
    for (weight_bp, held, expected) in [(0, true, true), (0, false, false), (2_500, true, false)] {
        let published = PublishedService {
            plane: Plane::Nat,
            protocol: Protocol::Tcp,
            name: "orders".into(),
            word: word.with_weight_bp(weight_bp).with_held(held),
            vips: control.spec().vips.clone(),
            on_empty: OnEmpty::Drop,
            on_full: Default::default(),
            targets: control.spec().targets.clone(),
            observe: Default::default(),
            ready: Vec::new(),
            version_ids: [None; 2],
        };
        let mut known = record(Slot::A, weight_bp, &[]);
        known.held = false;
        let again = ServiceControl::new(control.spec().clone(), Some(known), Some(&published));
        assert_eq!(again.record().held, expected, "{weight_bp} {held}");
        let orphan = ServiceControl::orphan(&published, None, Deviation::Gone);
        assert_eq!(orphan.plan().targets, control.spec().targets);
        assert_eq!(
            orphan.record().held,
            held,
            "without a record the kernel is believed"
        );
    }
}
