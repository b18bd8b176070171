//! Whole rollouts of each strategy, as they go by themselves and as people press on.

use shifter_common::{
    steering::{Affinity, Slot},
    wire::EstablishedPolicy,
};

use super::world::{Chaos, Dice, EPOCH_MS, World};
use crate::rollout::{
    Command, Composed, Event, FreezeWindow, Gate, GateCheck, GatePoint, OnDrainTimeout, Phase,
    Plan, Portion, ServiceShape, Share, Step, Strategy, Verb, compose, preset,
};

const SHAPE: ServiceShape = ServiceShape {
    affinity: Affinity::Client,
    old_count: 3,
    new_count: 3,
};

fn step(weight_bp: u16, bake_s: u64) -> Step {
    Step {
        share: Share {
            weight_bp,
            ..Share::NONE
        },
        bake_ms: bake_s * 1_000,
        is_manual: false,
    }
}

fn rest() -> Plan {
    Plan {
        watch_ms: 60_000,
        keep_warm_ms: 30_000,
        ..Plan::cutover("")
    }
}

fn of(strategies: &[Strategy]) -> Plan {
    compose(strategies, &SHAPE)
        .expect("strategies that fit")
        .into_plan(rest())
}

fn gate(name: &str, at: GatePoint, check: GateCheck) -> Gate {
    Gate {
        name: name.into(),
        at,
        check,
        timeout_ms: 30_000,
        retries_count: 1,
        user: "nobody".into(),
    }
}

/// What happens at a time, seconds.
enum Then {
    Verb(Verb),
    Sick(Slot),
    Well(Slot),
    Trip,
    Supersede,
}

/// A rollout to its end, or until nothing more comes of it.
fn transcript(plan: Plan, script: &[(u64, Then)]) -> String {
    transcript_in(Chaos::default(), plan, script)
}

fn transcript_in(chaos: Chaos, plan: Plan, script: &[(u64, Then)]) -> String {
    let plan = plan.freeze().expect("a plan that can be carried out");
    let (mut world, mut rollout) = World::new(plan, Dice::new(1), chaos);
    let mut script = script.iter().peekable();
    for _ in 0..5_000 {
        let is_over = matches!(
            rollout.phase(),
            Phase::Succeeded {
                warm_until_unix_ms: None
            } | Phase::RolledBack { .. }
                | Phase::Failed { .. }
                | Phase::Superseded { .. }
        );
        if is_over && script.peek().is_none() {
            break;
        }
        let next_ms = script.peek().map(|(at_s, _)| at_s * 1_000);
        world.advance(&mut rollout, next_ms);
        while let Some((_, then)) = script.next_if(|(at_s, _)| at_s * 1_000 <= world.real_ms) {
            let event = match then {
                Then::Verb(verb) => {
                    world.note(&format!("$ {}", verb.name()));
                    Event::Command(Command {
                        by: "ada".into(),
                        verb: verb.clone(),
                    })
                }
                Sick(slot) | Well(slot) => {
                    let is_sick = matches!(then, Sick(_));
                    let what = if is_sick { "ill" } else { "well" };
                    world.note(&format!("slot {slot} is {what}"));
                    world.make_sick(*slot, is_sick);
                    world.readiness()
                }
                Trip => {
                    world.trip();
                    Event::Tripped
                }
                Supersede => Event::Superseded {
                    by: "3.3.0".parse().expect("a label"),
                },
            };
            if let Err(refused) = world.run(&mut rollout, event) {
                world.note(&format!("refused: {refused}"));
            }
        }
    }
    assert_eq!(world.violations, Vec::<String>::new());
    let mut text = world.log.join("\n");
    let waiting = rollout.waiting_on(world.now());
    let waiting = waiting.map_or("nothing".into(), |waiting| {
        format!("{} ({})", waiting.on, waiting.moves)
    });
    text.push_str(&format!(
        "\nends in {}, waits for {waiting}\n",
        rollout.phase()
    ));
    text
}

fn check(found: &str, golden: &str, name: &str) {
    assert!(
        found == golden,
        "tests/transcripts/{name}.txt is not what happened, which is:\n{found}"
    );
}

macro_rules! rows {
    ($($name:ident: $plan:expr, $script:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let found = transcript($plan, $script);
                check(&found, include_str!(concat!("transcripts/", stringify!($name), ".txt")), stringify!($name));
            }
        )*
    };
}

fn manual(mut step: Step) -> Step {
    step.is_manual = true;
    step
}

fn cohort() -> Strategy {
    Strategy::Cohort {
        targets: vec!["10.9.0.0/16".parse().expect("a range")],
        bake_ms: 20_000,
        is_manual: false,
    }
}

fn canary() -> Strategy {
    Strategy::Canary(vec![step(500, 30), manual(step(5_000, 30))])
}

fn gates() -> Vec<Gate> {
    let exec = || GateCheck::Exec(vec!["/usr/local/bin/smoke".into(), "{{version}}".into()]);
    vec![
        gate("ticket", GatePoint::ConfirmStart, GateCheck::Manual),
        gate("smoke", GatePoint::PreTraffic, exec()),
        gate("synthetic", GatePoint::EachStep, exec()),
        gate(
            "lock",
            GatePoint::ConfirmIncrease,
            GateCheck::File("/run/deploy-ok".into()),
        ),
        gate("chief", GatePoint::ConfirmPromote, GateCheck::Manual),
        gate(
            "report",
            GatePoint::PostRollout,
            GateCheck::Http("http://127.0.0.1/done".into()),
        ),
        gate(
            "pager",
            GatePoint::Rollback,
            GateCheck::Http("http://127.0.0.1/alert".into()),
        ),
    ]
}

use Then::{Sick, Supersede, Trip, Well};
fn at(at_s: u64, verb: Verb) -> (u64, Then) {
    (at_s, Then::Verb(verb))
}

rows! {
    canary_with_a_manual_pause: of(&[canary()]), &[at(200, Verb::Promote { step: Some(1) }), at(200, Verb::Promote { step: Some(1) })];
    blue_green: of(&[Strategy::BlueGreen]), &[];
    linear: of(&[Strategy::Linear { add_bp: 2_500, every_ms: 20_000 }]), &[];
    rolling: of(&[Strategy::Rolling { max_surge: Portion::Count(1), max_unavailable: Portion::Count(0), bake_ms: 10_000 }]), &[];
    recreate: of(&[Strategy::Recreate { is_downtime_accepted: true }]), &[];
    recreate_taken_back: of(&[Strategy::Recreate { is_downtime_accepted: true }]), &[at(30, Verb::Abort)];
    ab_until_a_person_decides: of(&[Strategy::Ab { weight_bp: 3_000 }]), &[at(600, Verb::PromoteFull)];
    cohort_then_blue_green: of(&[cohort(), Strategy::BlueGreen]), &[];
    cohort_then_canary_tripped: of(&[cohort(), canary()]), &[(40, Trip)];
    holdback: compose(&[Strategy::Canary(vec![step(1_000, 10)])], &SHAPE)
        .and_then(|composed| composed.hold_back(500, 20_000))
        .expect("a holdback").into_plan(rest()), &[];
    every_gate: Plan { gates: gates(), ..of(&[Strategy::Canary(vec![step(500, 10), step(5_000, 10)])]) }, &[
        at(20, Verb::Approve { gate: "ticket".into() }),
        at(20, Verb::Approve { gate: "ticket".into() }),
        at(100, Verb::Approve { gate: "chief".into() }),
    ];
    a_rejected_gate: Plan { gates: gates(), ..of(&[canary()]) }, &[at(9, Verb::Reject { gate: "ticket".into() })];
    pause_and_resume: of(&[Strategy::Canary(vec![step(500, 30)])]), &[at(20, Verb::Pause), at(500, Verb::Resume)];
    abort_then_retry: of(&[Strategy::Canary(vec![step(500, 30)])]), &[at(20, Verb::Abort), at(30, Verb::Retry), at(100, Verb::SkipStep { step: None })];
    trip_resets_and_cools_down: Plan { established: EstablishedPolicy::Reset, ..of(&[canary()]) }, &[(20, Trip), at(60, Verb::Retry)];
    superseded_in_a_step: of(&[canary()]), &[(20, Supersede)];
    superseded_in_the_watch: of(&[Strategy::BlueGreen]), &[(30, Supersede)];
    drain_timeout_resets: Plan { on_drain_timeout: OnDrainTimeout::Reset, limits: crate::rollout::Limits { drain_ms: 3_000, ..rest().limits }, ..of(&[Strategy::BlueGreen]) }, &[];
    undo: of(&[canary()]).undo(), &[];
    rehearsal: of(&[canary()]).rehearsal(), &[];
    preset_canary_10_percent_5_minutes: {
        let strategy = preset("CodeDeployDefault.LambdaCanary10Percent5Minutes", 0).expect("a preset").strategy;
        of(&[strategy])
    }, &[];
}

rows! {
    never_ready: of(&[canary()]), &[(5, Sick(Slot::B))];
    not_ready_in_a_step: of(&[canary()]), &[(20, Sick(Slot::B))];
    not_ready_for_a_moment: of(&[Strategy::Canary(vec![step(500, 30)])]), &[(20, Sick(Slot::B)), (60, Well(Slot::B))];
    not_ready_while_paused: of(&[canary()]), &[at(20, Verb::Pause), (21, Sick(Slot::B)), at(600, Verb::Resume)];
    nobody_to_go_back_to: of(&[canary()]), &[(15, Sick(Slot::A)), (20, Sick(Slot::B)), (300, Well(Slot::A))];
    frozen: Plan {
        freezes: vec![FreezeWindow {
            from_unix_ms: 0,
            until_unix_ms: EPOCH_MS + 90_000,
            reason: "holidays".into(),
        }],
        ..of(&[Strategy::BlueGreen])
    }, &[at(60, Verb::Abort)];
}

/// A gate that always says no.
#[test]
fn limits_and_gates_that_say_no() {
    let says_no = Chaos {
        gate: 1,
        ..Chaos::default()
    };
    let with = |at| Plan {
        gates: vec![gate("lock", at, GateCheck::File("/run/ok".into()))],
        limits: crate::rollout::Limits {
            progress_ms: 60_000,
            ..rest().limits
        },
        ..of(&[Strategy::Canary(vec![step(500, 10), step(5_000, 10)])])
    };
    let ends = [
        (
            GatePoint::ConfirmStart,
            "Failed(nothing came about in Gated for too long)",
        ),
        (
            GatePoint::PreTraffic,
            "Failed(gate lock at pre-traffic: exit code 1)",
        ),
        (
            GatePoint::EachStep,
            "RolledBack(gate lock at each-step: exit code 1)",
        ),
        (
            GatePoint::ConfirmIncrease,
            "RolledBack(nothing came about in Shifting for too long)",
        ),
        (
            GatePoint::ConfirmPromote,
            "RolledBack(nothing came about in Promoting for too long)",
        ),
    ];
    for (at, end) in ends {
        let found = transcript_in(says_no, with(at), &[]);
        assert!(
            found.contains(&format!("\nends in {end}, ")),
            "{at}:\n{found}"
        );
        let asked_count = found.matches("ask gate lock").count();
        let is_enough = if at.is_confirmation() {
            asked_count > 3
        } else {
            asked_count == 2
        };
        assert!(is_enough, "{at} was asked {asked_count} times");
    }
}

#[test]
fn a_composition_is_named_after_its_parts() {
    let Composed { name, steps, .. } = compose(&[cohort(), canary()], &SHAPE).expect("they fit");
    assert_eq!(name, "cohort + canary");
    assert_eq!(steps.len(), 3);
}
