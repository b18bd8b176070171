//! What is known from before: the record, and what the kernel holds.

use super::*;

fn published(word: SteeringWord, ready: &[(Slot, &str)]) -> PublishedService {
    PublishedService {
        name: "orders".into(),
        word,
        vips: vec![addr("10.0.0.10:80")],
        protocol: Protocol::Tcp,
        on_empty: OnEmpty::Pass,
        on_full: Default::default(),
        targets: Default::default(),
        observe: Default::default(),
        plane: Plane::Nat,
        ready: ready
            .iter()
            .map(|(slot, text)| (*slot, addr(text)))
            .collect(),
        version_ids: [Some(3), None],
    }
}

fn in_force(baseline: Slot, weight_bp: u16) -> SteeringWord {
    SteeringWord::default()
        .with_baseline(baseline)
        .with_weight_bp(weight_bp)
        .with_affinity(Affinity::Client)
        .with_eligible(Slot::A, true)
        .with_eligible(Slot::B, true)
        .with_generation(77)
}

#[test]
fn decisions_come_from_the_record_else_from_the_kernel_else_from_the_file() {
    let kernel = published(in_force(Slot::B, 700), &[(Slot::A, "10.1.0.1:80")]);
    let recorded = record(Slot::A, 300, &[Slot::B]);
    let taken_back = published(in_force(Slot::A, 0), &[(Slot::A, "10.1.0.1:80")]);
    let of_another = published(in_force(Slot::B, 0), &[(Slot::A, "10.1.0.1:80")]);
    let untold = published(
        in_force(Slot::A, 0).with_generation(0),
        &[(Slot::A, "10.1.0.1:80")],
    );
    type Row<'a> = (
        Option<&'a ServiceRecord>,
        Option<&'a PublishedService>,
        (Slot, u16, &'static str),
    );
    #[rustfmt::skip]
    let rows: &[Row<'_>] = &[
        (Some(&recorded), Some(&kernel), (Slot::A, 300, "root (uid 0)")),
        (Some(&recorded), None,          (Slot::A, 300, "root (uid 0)")),
        (None,            Some(&kernel), (Slot::B, 700, "found in the kernel")),
        // What takes traffic back is in the kernel before it is on disk.
        (Some(&recorded), Some(&taken_back), (Slot::A, 0, "found in the kernel")),
        (Some(&recorded), Some(&of_another), (Slot::A, 300, "root (uid 0)")),
        (Some(&recorded), Some(&untold),     (Slot::A, 300, "root (uid 0)")),
        (None,            None,          (Slot::B, 0, "")),
    ];
    for (record, published, expected) in rows {
        let mut spec = spec(V4, ONE_EACH[0], ONE_EACH[1]);
        spec.default_slot = Slot::B;
        let control = ServiceControl::new(spec, record.cloned(), *published);
        let found = control.record();
        let drained = record.map(|record| record.drained.clone());
        assert_eq!(found.drained, drained.unwrap_or_default(), "{expected:?}");
        assert_eq!(
            (found.baseline, found.weight_bp, found.weight_by.as_str()),
            *expected
        );
        let is_ready = |slot, text| control.health(slot, addr(text)).map(|health| health.ready);
        let was_ready = published.is_some();
        assert_eq!(
            is_ready(Slot::A, "10.1.0.1:80"),
            Some(was_ready),
            "{expected:?}"
        );
        assert_eq!(
            is_ready(Slot::B, "10.2.0.1:80"),
            Some(false),
            "{expected:?}"
        );
    }
}

#[test]
fn a_recorded_weight_that_is_no_weight_is_full() {
    let record = record(Slot::A, u16::MAX, &[]);
    let control = ServiceControl::new(spec(V4, ONE_EACH[0], ONE_EACH[1]), Some(record), None);
    assert_eq!(control.record().weight_bp, WEIGHT_FULL_BP);
    assert_eq!(control.plan().weight_bp, WEIGHT_FULL_BP);
}

/// What was in force before this daemon is a service that has served.
#[test]
fn an_adopted_service_does_not_wait_for_new_backends() {
    let kernel = published(in_force(Slot::A, 2_500), &[(Slot::A, "10.1.0.1:80")]);
    let new_canary = spec(V4, &["10.1.0.1:80"], &["10.2.0.9:80"]);
    assert_eq!(
        outcome(&ServiceControl::new(new_canary, None, Some(&kernel))),
        "a- 0"
    );
    let kernel = published(in_force(Slot::A, 2_500), &[(Slot::B, "10.2.0.1:80")]);
    let new_baseline = spec(V4, &["10.1.0.9:80"], &["10.2.0.1:80"]);
    assert_eq!(
        outcome(&ServiceControl::new(new_baseline, None, Some(&kernel))),
        "-b 10000"
    );
    // What was published but never eligible has not served.
    let kernel = published(
        SteeringWord::default().with_weight_bp(2_500),
        &[(Slot::B, "10.2.0.1:80")],
    );
    let unserved = spec(V4, &["10.1.0.1:80"], &["10.2.0.1:80"]);
    assert_eq!(
        outcome(&ServiceControl::new(unserved, None, Some(&kernel))),
        "-- 0"
    );
}

#[test]
fn a_service_without_a_file_steers_on_as_it_was() {
    let word = in_force(Slot::B, 700);
    let kernel = published(word, &[(Slot::A, "10.1.0.1:80"), (Slot::B, "10.2.0.1:80")]);
    let control = ServiceControl::orphan(&kernel, None, Deviation::Gone);
    let plan = control.plan();
    assert_eq!(plan.steer(word), word, "the plan is what the kernel does");
    assert_eq!(plan.vips, kernel.vips);
    assert_eq!(plan.on_empty, OnEmpty::Pass);
    let ready: Vec<_> = Slot::ALL
        .into_iter()
        .flat_map(|slot| {
            plan.slot(slot)
                .backends
                .iter()
                .map(move |b| (slot, b.addr, b.ready))
        })
        .collect();
    assert_eq!(
        ready,
        [
            (Slot::A, addr("10.1.0.1:80"), true),
            (Slot::B, addr("10.2.0.1:80"), true)
        ]
    );
    let recorded = record(Slot::A, 300, &[Slot::A]);
    let control = ServiceControl::orphan(&kernel, Some(recorded), Deviation::Gone);
    assert_eq!(outcome(&control), "-b 10000", "recorded decisions go first");
}

#[test]
fn why_a_service_is_not_as_its_file_says() {
    let rows = [
        (Deviation::Gone, "steered on as it was: its file is gone"),
        (Deviation::Bad, "steered on as it was: its file has errors"),
        (
            Deviation::Unknown,
            "steered on as it was: the directory of its file cannot be read",
        ),
        (
            Deviation::Refused("no room".into()),
            "steered on as it was: its file could not be put in force: no room",
        ),
    ];
    for (deviation, note) in rows {
        let kernel = published(in_force(Slot::A, 0), &[(Slot::A, "10.1.0.1:80")]);
        let control = ServiceControl::orphan(&kernel, None, deviation);
        assert_eq!(control.notes(), [note]);
    }
}
