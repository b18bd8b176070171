//! Plans: what they become, and why some cannot be.

use shifter_common::steering::Affinity;

use crate::rollout::{
    AnalysisPlan, FreezeWindow, Gate, GateCheck, GatePoint, OnInconclusive, PRESETS, Plan, Portion,
    ServiceShape, Share, Step, Strategy, compose, preset,
};

const SHAPE: ServiceShape = ServiceShape {
    affinity: Affinity::Connection,
    old_count: 4,
    new_count: 4,
};

fn step(weight_bp: u16) -> Step {
    Step {
        share: Share {
            weight_bp,
            ..Share::NONE
        },
        bake_ms: 1_000,
        is_manual: false,
    }
}

fn steps(weights_bp: &[u16]) -> Plan {
    Plan {
        steps: weights_bp.iter().map(|bp| step(*bp)).collect(),
        ..Plan::cutover("canary")
    }
}

fn gates(gates: &[(&str, GatePoint, GateCheck, u64)]) -> Plan {
    Plan {
        gates: gates
            .iter()
            .map(|(name, at, check, timeout_ms)| Gate {
                name: (*name).into(),
                at: *at,
                check: check.clone(),
                timeout_ms: *timeout_ms,
                retries_count: 0,
                user: "nobody".into(),
            })
            .collect(),
        ..Plan::cutover("canary")
    }
}

#[test]
fn plans_that_cannot_be_carried_out() {
    let file = || GateCheck::File("/x".into());
    let mut no_warm = Plan::cutover("canary");
    no_warm.limits.warm_ms = 0;
    let rows = [
        (
            steps(&[1; 1_001]),
            "the plan has 1001 steps, but at most 1000: make them larger",
        ),
        (
            steps(&[500, 10_000]),
            "step 2 has a weight of 10000 bp: a step takes 1 to 9999; everything comes after the last \
             step by itself, to be held there with `watch`",
        ),
        (
            steps(&[0]),
            "step 1 has a weight of 0 bp: a step takes 1 to 9999; everything comes after the last step \
             by itself, to be held there with `watch`",
        ),
        (
            steps(&[500, 400]),
            "step 2 goes down from 5 % to 4 %: a rollout only adds; to take traffic back: shifterctl \
             rollback",
        ),
        (
            gates(&[
                ("a", GatePoint::EachStep, file(), 1),
                ("a", GatePoint::PreTraffic, file(), 1),
            ]),
            "two gates are named \"a\": give each a name of its own, so that answers find them",
        ),
        (
            gates(&[("a", GatePoint::Rollback, GateCheck::Manual, 1)]),
            "gate \"a\" asks a person whether to roll back: leave it out, shifterctl rollback is there \
             at any time",
        ),
        (
            gates(&[("a", GatePoint::EachStep, file(), 0)]),
            "gate \"a\" has no time to answer: give it a timeout, such as \"30s\"",
        ),
        (no_warm, "`warm` is 0: give it time, such as \"60s\""),
        (
            Plan {
                analysis: Some(AnalysisPlan {
                    evidence: Default::default(),
                    from_step: 2,
                    on_inconclusive: OnInconclusive::Extend,
                }),
                ..steps(&[500, 600])
            },
            "the analysis begins with step 3, but the plan has 2: begin with an earlier one",
        ),
        (
            Plan {
                is_old_first: true,
                ..steps(&[500])
            },
            "the plan stops the old version first and then has steps, but there is nobody to share \
             with: leave the steps out",
        ),
    ];
    for (plan, error) in rows {
        assert_eq!(plan.freeze().expect_err(error).to_string(), error);
    }
}

#[test]
fn strategies_that_do_not_fit() {
    let rolling = |max_surge, max_unavailable| Strategy::Rolling {
        max_surge,
        max_unavailable,
        bake_ms: 0,
    };
    let rows: [(&[Strategy], &str); 7] = [
        (
            &[],
            "the plan has no strategy: name one, such as \"canary\"",
        ),
        (
            &[Strategy::BlueGreen, Strategy::Canary(vec![])],
            "blue-green takes a plan to 100 %, so nothing can come after it: make it the last one",
        ),
        (
            &[Strategy::Recreate {
                is_downtime_accepted: false,
            }],
            "recreate stops the old version before the new one starts, so that nobody serves \
             meanwhile: write downtime = \"accepted\", or take blue-green",
        ),
        (
            &[Strategy::Ab { weight_bp: 5_000 }],
            "ab splits clients, but this service selects each connection on its own: write affinity = \
             \"client\" in its file",
        ),
        (
            &[rolling(Portion::Count(0), Portion::Percent(20))],
            "rolling with max_surge 0 and max_unavailable 20 % over 4 old and 4 new backends moves \
             nothing: allow at least one backend of either",
        ),
        (
            &[Strategy::Linear {
                add_bp: 0,
                every_ms: 1,
            }],
            "linear adds 0 bp at a time: add 1 to 9999",
        ),
        (
            &[Strategy::Cohort {
                targets: vec![],
                bake_ms: 0,
                is_manual: false,
            }],
            "the cohort has no addresses: name the clients, such as \"10.1.0.0/16\"",
        ),
    ];
    for (strategies, error) in rows {
        assert_eq!(
            compose(strategies, &SHAPE).expect_err(error).to_string(),
            error
        );
    }
    let held = compose(&[Strategy::BlueGreen], &SHAPE).and_then(|it| it.hold_back(10_000, 1));
    assert_eq!(
        held.expect_err("nothing is left").to_string(),
        "a holdback of 10000 bp: hold back 1 to 9999, 500 is usual"
    );
}

#[test]
fn presets_by_name() {
    let weights = |name: &str| {
        let strategy = preset(name, 600_000).expect(name).strategy;
        let composed = compose(&[strategy], &SHAPE).expect(name);
        let steps = composed.steps.iter();
        let text: Vec<_> = steps
            .map(|step| format!("{} for {} s", step.share, step.bake_ms / 1_000))
            .collect();
        text.join(", ")
    };
    let tenths = |s: u64| {
        let all: Vec<_> = (1..10).map(|n| format!("{} % for {s} s", n * 10)).collect();
        all.join(", ")
    };
    let rows = [
        ("AllAtOnce", String::new()),
        (
            "HalfAtATime",
            "50 % (backends: 2 new, 2 old) for 600 s".into(),
        ),
        (
            "OneAtATime",
            "25 % (backends: 1 new, 3 old) for 600 s, 50 % (backends: 2 new, 2 old) for 600 s, \
             75 % (backends: 3 new, 1 old) for 600 s"
                .into(),
        ),
        ("Canary10Percent5Minutes", "10 % for 300 s".into()),
        ("Canary10Percent10Minutes", "10 % for 600 s".into()),
        ("ECSCanary10Percent15Minutes", "10 % for 900 s".into()),
        ("LambdaCanary10Percent30Minutes", "10 % for 1800 s".into()),
        (
            "CodeDeployDefault.LambdaLinear10PercentEvery1Minutes",
            tenths(60),
        ),
        ("Linear10PercentEvery2Minutes", tenths(120)),
        (
            "CodeDeployDefault.ECSLinear10PercentEvery3Minutes",
            tenths(180),
        ),
        ("Linear10PercentEvery10Minutes", tenths(600)),
        (
            "5-20-50",
            "5 % for 600 s, 20 % for 600 s, 50 % for 600 s".into(),
        ),
        (
            "5-10-25-50-75-100",
            "5 % for 600 s, 10 % for 600 s, 25 % for 600 s, 50 % for 600 s, 75 % for 600 s".into(),
        ),
        (
            "10-25-50",
            "10 % for 600 s, 25 % for 600 s, 50 % for 600 s".into(),
        ),
        (
            "5-20-50-80",
            "5 % for 600 s, 20 % for 600 s, 50 % for 600 s, 80 % for 600 s".into(),
        ),
        (
            "1-5-25",
            "1 % for 600 s, 5 % for 600 s, 25 % for 600 s".into(),
        ),
    ];
    for (name, text) in &rows {
        assert_eq!(&weights(name), text, "{name}");
    }
    assert_eq!(PRESETS.len(), rows.len(), "each has a row");
    for name in PRESETS {
        let from = preset(name, 1).expect(name).analysis_from_step;
        assert_eq!(from, u16::from(*name == "1-5-25"), "{name}");
    }
    let near = preset("5-20-5", 1).expect_err("none").to_string();
    assert_eq!(
        near,
        "there is no preset \"5-20-5\": did you mean \"5-20-50\"?"
    );
    let far = preset("surprise me", 1).expect_err("none").to_string();
    assert!(
        far.starts_with("there is no preset \"surprise me\": there are AllAtOnce, "),
        "{far}"
    );
}

#[test]
fn a_frozen_plan_knows_itself() {
    let plan = steps(&[500, 2_000]).freeze().expect("a plan");
    assert!(plan.is_intact());
    assert_eq!(plan.hash().len(), 64);
    let other = steps(&[500, 2_001]).freeze().expect("a plan");
    assert_ne!(plan.hash(), other.hash());
    let text = serde_json::to_string(&plan).expect("text");
    let again: crate::rollout::FrozenPlan = serde_json::from_str(&text).expect("the same");
    assert_eq!(again, plan);
    assert!(again.is_intact());
    let tampered = text.replace("2000", "9000");
    let tampered: crate::rollout::FrozenPlan = serde_json::from_str(&tampered).expect("a plan");
    assert!(!tampered.is_intact());
}

#[test]
fn a_holdback_is_the_last_step_of_plans_that_share() {
    let shares = |strategies: &[Strategy]| {
        let held = compose(strategies, &SHAPE).and_then(|it| it.hold_back(500, 7));
        let steps = held.expect("it fits").steps;
        steps
            .iter()
            .map(|step| step.share.weight_bp)
            .collect::<Vec<_>>()
    };
    assert_eq!(shares(&[Strategy::Canary(vec![step(500)])]), [500, 9_500]);
    assert_eq!(
        shares(&[Strategy::Canary(vec![step(9_600)])]),
        [9_600],
        "it shares less already"
    );
    assert_eq!(shares(&[Strategy::BlueGreen]), [9_500]);
    assert_eq!(
        shares(&[Strategy::Recreate {
            is_downtime_accepted: true
        }]),
        [0; 0]
    );
}

#[test]
fn an_undo_goes_at_once_and_a_rehearsal_keeps_its_gates() {
    let mut plan = gates(&[("a", GatePoint::PreTraffic, GateCheck::Manual, 0)]);
    plan.steps = steps(&[500]).steps;
    plan.freezes.push(FreezeWindow {
        from_unix_ms: 1,
        until_unix_ms: 2,
        reason: "x".into(),
    });
    let undo = plan.undo();
    assert!(undo.steps.is_empty() && undo.gates.is_empty() && undo.freezes.is_empty());
    assert_eq!(undo.watch_ms, 0);
    assert_eq!(undo.keep_warm_ms, plan.keep_warm_ms);
    assert_eq!(plan.rehearsal().gates, plan.gates);
}
