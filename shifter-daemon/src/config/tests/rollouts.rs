//! What good files say about rollouts, key by key.

use super::SERVICE;
use crate::{
    analysis::{EvidencePlan, PromoteOn},
    config::parse_service,
    model::{ServiceSpec, Slot},
    rollout::{AnalysisPlan, Gate, GateCheck, GatePoint, OnInconclusive, RolloutSpec, forecast},
};

const OTHER_SLOT: &str = "[slot.b]\nbackends = [\"10.0.0.12:1\", \"10.0.0.12:2\"]\n";

fn spec(sections: &str) -> ServiceSpec {
    let text = format!("{SERVICE}{OTHER_SLOT}{sections}");
    parse_service("f", &text).unwrap_or_else(|problems| panic!("{problems:?} of\n{text}"))
}

/// The shares of the plan to slot b: weight, observed milliseconds, and `p` for a pause.
fn steps(spec: &ServiceSpec) -> String {
    let plan = spec.rollout_plan(Slot::B).expect("is a plan");
    let step = |step: &crate::rollout::Step| {
        let pause = if step.is_manual { "p" } else { "" };
        format!("{}/{}{pause}", step.share.weight_bp, step.bake_ms)
    };
    let steps: Vec<_> = plan.plan().steps.iter().map(step).collect();
    format!("{}: {}", plan.plan().strategy, steps.join(" "))
}

#[test]
fn each_strategy_makes_its_steps() {
    const DEFAULT: &str = "5-20-50: 500/300000 2000/300000 5000/300000";
    let rows = [
        ("", DEFAULT),
        ("[rollout]\n", DEFAULT),
        ("[rollout]\nstrategy = \"5-20-50\"", DEFAULT),
        (
            "[rollout]\nstrategy = \"canary\"",
            "canary: 500/300000 2000/300000 5000/300000",
        ),
        (
            "[rollout]\nstrategy = \"1-5-25\"\nbake = \"1m\"",
            "1-5-25: 100/60000 500/60000 2500/60000",
        ),
        (
            "[rollout]\nbake = \"2m\"\nsteps = [{ weight = 0.5, bake = \"0s\" }, { weight = 12.34 }, \
             { pause = true }, { weight = 50.0, pause = true }, { weight = 100 }]",
            "canary: 50/0 1234/120000p 5000/120000p",
        ),
        ("[rollout]\nsteps = []", "canary: "),
        ("[rollout]\nsteps = [{ weight = 100 }]", "canary: "),
        (
            "[rollout]\nstrategy = \"linear\"\nadd = 40\nbake = \"1s\"",
            "linear: 4000/1000 8000/1000",
        ),
        ("[rollout]\nstrategy = \"blue-green\"", "blue-green: "),
        (
            "[rollout]\nstrategy = \"recreate\"\ndowntime = \"accepted\"",
            "recreate: ",
        ),
        (
            "[rollout]\nstrategy = \"rolling\"\nbake = \"1s\"",
            "rolling: 6667/1000",
        ),
        (
            "[rollout]\nstrategy = \"CodeDeployDefault.LambdaCanary10Percent15Minutes\"",
            "CodeDeployDefault.LambdaCanary10Percent15Minutes: 1000/900000",
        ),
    ];
    for (sections, expected) in rows {
        assert_eq!(steps(&spec(sections)), expected, "{sections}");
    }
    let text = format!(
        "{}{OTHER_SLOT}[rollout]\nstrategy = \"ab\"\nweight = 30\n",
        SERVICE.replace("[slot.a]", "affinity = \"client\"\n[slot.a]")
    );
    let ab = parse_service("f", &text).expect("is good");
    assert_eq!(steps(&ab), "ab: 3000/0p");
}

#[test]
fn a_file_that_says_nothing_has_the_default() {
    let spec = parse_service("f", SERVICE).expect("is good");
    assert_eq!(spec.rollout, RolloutSpec::default());
}

#[test]
fn each_time_gets_into_the_plan() {
    let spec = spec(
        "[rollout]\nwatch = \"1s\"\nprogress_deadline = \"2s\"\nwarm = \"3s\"\nunready = \"4s\"\n\
         [drain]\ntimeout = \"5s\"\n[rollback]\ncooldown = \"6s\"\nkeep_warm = \"7s\"\n\
         established = \"reset\"\n",
    );
    let frozen = spec.rollout_plan(Slot::B).expect("is a plan");
    let plan = frozen.plan();
    let limits = &plan.limits;
    assert_eq!(
        [
            plan.watch_ms,
            limits.progress_ms,
            limits.warm_ms,
            limits.unready_ms,
            limits.drain_ms,
            plan.cooldown_ms,
            plan.keep_warm_ms,
        ],
        [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000]
    );
    assert_eq!(plan.established, crate::model::EstablishedPolicy::Reset);
}

#[test]
fn gates_are_read_in_the_order_of_the_file() {
    let spec = spec(
        "[[gate]]\nname = \"smoke\"\nat = \"pre-traffic\"\nexec = [\"/smoke\", \"{{version}}\"]\n\
         timeout = \"5s\"\nretries = 2\n[[gate]]\nat = \"confirm-start\"\nmanual = true\n\
         [[gate]]\nat = \"each-step\"\nhttp = \"http://h/x\"\n\
         [[gate]]\nat = \"rollback\"\nfile = \"/stop\"\n",
    );
    let gate = |name: &str, at, check, timeout_ms, retries_count| Gate {
        name: name.into(),
        at,
        check,
        timeout_ms,
        retries_count,
        user: "nobody".into(),
    };
    assert_eq!(
        spec.rollout.rest.gates,
        [
            gate(
                "smoke",
                GatePoint::PreTraffic,
                GateCheck::Exec(vec!["/smoke".into(), "{{version}}".into()]),
                5_000,
                2
            ),
            gate(
                "confirm-start",
                GatePoint::ConfirmStart,
                GateCheck::Manual,
                30_000,
                0
            ),
            gate(
                "each-step",
                GatePoint::EachStep,
                GateCheck::Http("http://h/x".into()),
                30_000,
                0
            ),
            gate(
                "rollback",
                GatePoint::Rollback,
                GateCheck::File("/stop".into()),
                30_000,
                0
            ),
        ]
    );
}

/// A rolling update may count backends that come with its start.
#[test]
fn a_rolling_update_needs_no_backends_in_the_file() {
    let text = format!("{SERVICE}[rollout]\nstrategy = \"rolling\"\nmax_surge = 0\n");
    assert!(parse_service("f", &text).is_ok());
}

#[test]
fn the_forecast_says_what_happens_and_when() {
    let spec = spec(
        "[rollout]\nsteps = [{ weight = 5, bake = \"1m\" }, { pause = true }, { weight = 50, bake = \"2m\" }]\n\
         watch = \"10m\"\n\
         [[gate]]\nname = \"go\"\nat = \"confirm-start\"\nmanual = true\n\
         [[gate]]\nname = \"smoke\"\nat = \"pre-traffic\"\nexec = [\"/smoke\"]\n\
         [[gate]]\nname = \"look\"\nat = \"each-step\"\nhttp = \"http://h/x\"\n\
         [[gate]]\nname = \"more\"\nat = \"confirm-increase\"\nfile = \"/more\"\n\
         [[gate]]\nname = \"all\"\nat = \"confirm-promote\"\nfile = \"/all\"\n\
         [[gate]]\nname = \"end\"\nat = \"post-rollout\"\nfile = \"/end\"\n\
         [[gate]]\nname = \"bad\"\nat = \"rollback\"\nfile = \"/bad\"\n",
    );
    let plan = spec.rollout_plan(Slot::B).expect("is a plan");
    let lines: Vec<_> = forecast(plan.plan(), "3.2.0")
        .into_iter()
        .map(|it| format!("{}+{} {}", it.at_ms, it.lasts_ms, it.what))
        .collect();
    assert_eq!(
        lines,
        [
            "0+0 wait for a person: approve or reject go",
            "0+0 start 3.2.0 and wait until it is ready",
            "0+0 ask gate smoke",
            "0+60000 5 % of new flows to 3.2.0",
            "60000+0 ask gate look",
            "60000+0 wait for a person: promote or rollback",
            "60000+0 ask gate more",
            "60000+120000 50 % of new flows to 3.2.0",
            "180000+0 ask gate look",
            "180000+0 ask gate all",
            "180000+600000 100 % of new flows to 3.2.0, the old version kept ready",
            "780000+0 drain the old version's flows; those that do not end continue",
            "780000+0 ask gate end",
            "780000+0 done",
        ]
    );
}

#[test]
fn a_plan_that_stops_the_old_version_first_says_so() {
    let spec = spec("[rollout]\nstrategy = \"recreate\"\ndowntime = \"accepted\"\n");
    let plan = spec.rollout_plan(Slot::B).expect("is a plan");
    let first = forecast(plan.plan(), "2").remove(0);
    assert_eq!(
        first.what,
        "stop the old version: nobody serves until the new one is ready"
    );
}

#[test]
fn the_analysis_is_asked_for_and_has_its_numbers() {
    let plan = |section: &str| {
        let spec = spec(section);
        spec.rollout_plan(Slot::B)
            .expect("is a plan")
            .plan()
            .analysis
    };
    assert_eq!(plan(""), None);
    let default = EvidencePlan::default();
    let rows = [
        ("", OnInconclusive::Extend, default),
        (
            "false_rollback = 0.02\nmin_samples = 7\nmin_per_minute = 0\nbaseline_max_error = 1\n\
             promote_on = \"evidence\"\non_inconclusive = \"pause\"",
            OnInconclusive::Pause,
            EvidencePlan {
                false_rollback_ppm: 20_000,
                promote_on: PromoteOn::Evidence,
                min_samples: 7,
                min_per_minute: 0,
                baseline_max_error_ppm: 1_000_000,
                ..default
            },
        ),
        (
            "[[analysis.metric]]\nname = \"resets\"\nmax_increase = 0.25",
            OnInconclusive::Extend,
            EvidencePlan {
                errors_ppm: None,
                resets_ppm: Some(250_000),
                ..default
            },
        ),
    ];
    for (text, on_inconclusive, evidence) in rows {
        let expected = AnalysisPlan {
            from_step: 0,
            on_inconclusive,
            evidence,
        };
        assert_eq!(
            plan(&format!("[analysis]\n{text}\n")),
            Some(expected),
            "{text}"
        );
    }
}
