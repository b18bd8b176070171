//! What happens to a service that is there: probes, files, drains.

use shifter_common::wire::Effect;

use super::*;

/// A service that has served goes on while backends that were added to it are not probed yet.
#[test]
fn a_changed_file_does_not_interrupt_a_service() {
    type Slots = [&'static [&'static str]; 2];
    type Row = (&'static str, u16, &'static str, Slots, &'static str);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("the canary's backend is replaced",
            2_500, "++", [&["10.1.0.1:80"], &["10.2.0.9:80"]], "a- 0"),
        ("the baseline's backend is replaced",
            2_500, "++", [&["10.1.0.9:80"], &["10.2.0.1:80"]], "-b 10000"),
        ("a backend is added to a slot that has failed",
            0, "-+", [&["10.1.0.1:80", "10.1.0.2:80"], &["10.2.0.1:80"]], "-b 10000"),
        ("both are replaced: there is nothing to go on with",
            0, "++", [&["10.1.0.9:80"], &["10.2.0.9:80"]], "-- 0"),
        ("a backend moves to the other slot, where it is somebody else",
            0, "++", [&["10.1.0.1:80"], &["10.1.0.2:80"]], "a- 0"),
        ("a backend is added",
            2_500, "++", [&["10.1.0.1:80", "10.1.0.2:80"], &["10.2.0.1:80"]], "ab 2500"),
    ];
    for (what, weight_bp, health, [a, b], expected) in rows {
        let old = spec(V4, ONE_EACH[0], ONE_EACH[1]);
        let record = record(Slot::A, *weight_bp, &[]);
        let mut control = ServiceControl::new(old, Some(record.clone()), None);
        set_health(&mut control, health);
        control.deviation = Some(Deviation::Gone);
        let changes = control.respec(spec(V4, a, b));
        assert!(
            changes.iter().all(|change| change.effect == Effect::Now),
            "{what}: {changes:?}"
        );
        assert!(!changes.is_empty(), "{what}");
        assert_eq!(outcome(&control), *expected, "{what}");
        assert_eq!(control.record(), &record, "{what}: a file moves no weight");
        assert_eq!(control.deviation, None, "{what}");
    }
}

#[test]
fn health_stays_with_its_backend() {
    let mut control = ServiceControl::new(
        spec(
            V4,
            &["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"],
            &["10.2.0.1:80"],
        ),
        None,
        None,
    );
    set_health(&mut control, "+-?+");
    control.respec(spec(
        V4,
        &["10.1.0.4:80", "10.1.0.2:80", "10.1.0.1:80*5"],
        &["10.1.0.3:80"],
    ));
    let health = |slot, text| control.health(slot, addr(text)).cloned();
    assert_eq!(health(Slot::A, "10.1.0.1:80"), Some(BackendHealth::ready()));
    assert_eq!(
        health(Slot::A, "10.1.0.2:80"),
        Some(BackendHealth::not_ready("status 503"))
    );
    assert_eq!(
        health(Slot::A, "10.1.0.4:80"),
        Some(BackendHealth::unknown())
    );
    assert_eq!(
        health(Slot::B, "10.1.0.3:80"),
        Some(BackendHealth::unknown())
    );
    assert_eq!(health(Slot::A, "10.1.0.3:80"), None);
    assert_eq!(health(Slot::B, "10.2.0.1:80"), None);
}

#[test]
fn what_is_news() {
    let (ready, unknown) = (BackendHealth::ready, BackendHealth::unknown);
    let down = BackendHealth::not_ready;
    let rows = [
        (unknown(), ready(), true),
        (unknown(), down("status 503"), true),
        (ready(), ready(), false),
        (ready(), down("status 503"), true),
        (down("status 503"), down("connection refused"), false),
        (down("status 503"), ready(), true),
    ];
    for (before, after, is_news) in rows {
        let mut control = ServiceControl::new(spec(V4, ONE_EACH[0], ONE_EACH[1]), None, None);
        let (slot, backend) = (Slot::B, addr("10.2.0.1:80"));
        control.set_health(slot, backend, before.clone());
        let told = control.set_health(slot, backend, after.clone());
        assert_eq!(told, is_news, "{before:?} -> {after:?}");
        assert_eq!(
            control.health(slot, backend),
            Some(&after),
            "the newest reason is kept"
        );
    }
}

#[test]
fn a_backend_that_is_not_of_the_service_changes_nothing() {
    let mut control = ServiceControl::new(spec(V4, ONE_EACH[0], ONE_EACH[1]), None, None);
    let before = control.clone();
    // Of the other slot.
    assert!(!control.set_health(Slot::B, addr("10.1.0.1:80"), BackendHealth::ready()));
    assert!(!control.set_health(Slot::A, addr("10.9.9.9:80"), BackendHealth::ready()));
    assert_eq!(control, before);
}

#[test]
fn a_drain_is_of_who_asked_first_until_it_is_undone() {
    let mut control = ServiceControl::new(spec(V4, ONE_EACH[0], ONE_EACH[1]), None, None);
    control.set_drained(Slot::B, true, "mia (uid 7)", 10);
    control.set_drained(Slot::B, true, "tom (uid 8)", 20);
    let mia = Drained {
        by: "mia (uid 7)".into(),
        since_unix_ms: 10,
    };
    assert_eq!(control.drained(Slot::B), Some(&mia));
    assert_eq!(control.drained(Slot::A), None);
    control.set_drained(Slot::B, false, "tom (uid 8)", 30);
    assert_eq!(control.drained(Slot::B), None);
    control.set_drained(Slot::B, true, "tom (uid 8)", 40);
    assert_eq!(
        control
            .drained(Slot::B)
            .map(|drained| drained.since_unix_ms),
        Some(40)
    );
}
