//! What holds whatever happens.

use proptest::prelude::*;
use shifter_common::select::{Choice, choose_slot};

use super::*;

/// Something that happens to a service.
#[derive(Clone, Debug)]
enum Happening {
    Health(Slot, SocketAddr, bool),
    Weight(u16),
    Drain(Slot, bool),
    File(Box<ServiceSpec>),
}

/// Backends from a handful, so that the same ones come and go and change sides.
fn any_backends(family_is_v6: bool) -> impl Strategy<Value = Vec<BackendSpec>> {
    prop::collection::btree_map(1_u8..5, prop_oneof![Just(0_u16), Just(100), Just(7)], 0..3)
        .prop_map(move |hosts| {
            let address = |host| match family_is_v6 {
                true => addr(&format!("[2001:db8::{host}]:80")),
                false => addr(&format!("10.1.0.{host}:80")),
            };
            hosts
                .into_iter()
                .map(|(host, weight)| BackendSpec {
                    addr: address(host),
                    weight,
                })
                .collect()
        })
}

fn any_slot() -> impl Strategy<Value = SlotSpec> {
    (any_backends(false), any_backends(true)).prop_map(|(v4, v6)| SlotSpec {
        backends: [v4, v6].concat(),
        user: None,
    })
}

fn any_spec() -> impl Strategy<Value = ServiceSpec> {
    let vips = prop_oneof![Just(V4), Just(&BOTH[1..]), Just(BOTH)];
    (vips, any_slot(), any_slot(), any::<bool>()).prop_map(|(vips, a, b, is_probed)| {
        let mut spec = spec(vips, &[], &[]);
        spec.slots = [a, b];
        if !is_probed {
            spec.readiness.check = ProbeCheck::None;
        }
        spec
    })
}

fn any_side() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::A), Just(Slot::B)]
}

fn any_weight() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0),
        Just(WEIGHT_FULL_BP),
        0..=WEIGHT_FULL_BP,
        any::<u16>()
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let health = (any_side(), any::<bool>(), 1_u8..5, any::<bool>());
    prop_oneof![
        6 => health.prop_map(|(slot, is_v6, host, ready)| {
            let text = if is_v6 {
                format!("[2001:db8::{host}]:80")
            } else {
                format!("10.1.0.{host}:80")
            };
            Happening::Health(slot, addr(&text), ready)
        }),
        1 => any_weight().prop_map(Happening::Weight),
        1 => (any_side(), any::<bool>()).prop_map(|(slot, on)| Happening::Drain(slot, on)),
        1 => any_spec().prop_map(|spec| Happening::File(Box::new(spec))),
    ]
}

/// Every promise about a plan, judged from what is put in, not by the code under test.
fn check(control: &ServiceControl) -> Result<(), TestCaseError> {
    let plan = control.plan();
    for slot in Slot::ALL {
        let planned = plan.slot(slot);
        prop_assert_eq!(
            planned.eligible,
            control.ineligible_reason(slot).is_none(),
            "a slot is out exactly if there is a reason"
        );
        if planned.eligible {
            prop_assert!(control.drained(slot).is_none(), "drained: {:?}", control);
            for vip in &plan.vips {
                let serves = planned.backends.iter().any(|backend| {
                    backend.ready && backend.weight > 0 && backend.addr.is_ipv6() == vip.is_ipv6()
                });
                prop_assert!(
                    serves,
                    "nothing for {} in slot {}: {:?}",
                    vip,
                    slot,
                    control
                );
            }
        }
        for backend in &planned.backends {
            let health = control.health(slot, backend.addr);
            prop_assert!(health.is_some_and(|h| h.ready == h.reason.is_empty()));
            prop_assert_eq!(health.map(|health| health.ready), Some(backend.ready));
        }
    }
    prop_assert!(plan.weight_bp <= WEIGHT_FULL_BP);
    if effective_bp(word(control)) == plan.weight_bp && plan.slots.iter().all(|s| s.eligible) {
        prop_assert_eq!(control.notes(), Vec::<String>::new());
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_plan_ever_leads_to_nothing(
        first in any_spec(),
        happenings in prop::collection::vec(any_happening(), 0..40),
    ) {
        let mut control = ServiceControl::new(first, None, None);
        check(&control)?;
        for (unix_ms, happening) in (0..).zip(happenings) {
            let served = Slot::ALL.into_iter().any(|slot| control.is_eligible(slot));
            match happening {
                Happening::Health(slot, addr, ready) => {
                    let health = if ready {
                        BackendHealth::ready()
                    } else {
                        BackendHealth::not_ready("status 503")
                    };
                    control.set_health(slot, addr, health);
                }
                Happening::Weight(weight_bp) => control.set_weight(weight_bp, "root", unix_ms),
                Happening::Drain(slot, on) => control.set_drained(slot, on, "root", unix_ms),
                Happening::File(spec) => {
                    let spec = *spec;
                    let before = control.clone();
                    control.respec(spec.clone());
                    for (slot, addr) in control.backends() {
                        if let Some(health) = before.health(slot, addr) {
                            prop_assert_eq!(control.health(slot, addr), Some(health));
                        }
                    }
                    prop_assert_eq!(control.record(), before.record());
                    prop_assert_eq!(control.spec(), &spec);
                    let again = control.clone();
                    prop_assert_eq!(control.respec(spec), []);
                    prop_assert_eq!(&control, &again, "the same file twice is the same");
                }
            }
            check(&control)?;
            let waits = |slot: &Slot| control
                .ineligible_reason(*slot)
                .is_some_and(|reason| reason.ends_with("has not been probed yet"));
            prop_assert!(!served || !Slot::ALL.iter().any(waits), "interrupted: {:?}", control);
        }
    }

    /// The share that is told is the share that the kernel's own selection gives.
    #[test]
    fn the_effective_share_is_what_selection_does(
        weight_bp in any_weight(), baseline in any_side(), eligible: [bool; 2], seed: u64,
    ) {
        let plan = ServicePlan {
            weight_bp: weight_bp.min(WEIGHT_FULL_BP),
            baseline,
            slots: eligible.map(|eligible| SlotPlan { eligible, backends: Vec::new(), ..SlotPlan::default() }),
            ..ServiceControl::new(spec(V4, &[], &[]), None, None).plan()
        };
        let word = plan.steer(SteeringWord(seed));
        let canary = baseline.other();
        let count = 10_000_u64;
        // One hash for each bucket, so that the share is exact.
        let chosen_count = (0..count)
            .map(|bucket| ((bucket << 32) / count + 1) << 32 | (seed & 0xffff_ffff))
            .filter(|&hash| matches!(
                choose_slot(word, hash),
                Choice::Selected(slot) | Choice::FailedOver(slot) if slot == canary
            ))
            .count();
        prop_assert_eq!(chosen_count, usize::from(effective_bp(word)));
    }
}
