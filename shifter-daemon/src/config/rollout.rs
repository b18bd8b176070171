//! `[rollout]`: how a version gets its traffic.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    field::Field,
    report::{Report, shown},
    schema::{self, nearest},
    section::Section,
};
use crate::rollout::{
    BAKE_DEFAULT_MS, PRESETS, Plan, Portion, RolloutSpec, Share, Step, Strategy, preset,
};

const STRATEGIES: [&str; 6] = [
    "canary",
    "linear",
    "blue-green",
    "rolling",
    "recreate",
    "ab",
];
const TIME_MAX: Duration = Duration::from_hours(720);
/// A wait of nothing is none; a limit of nothing could not be kept.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=TIME_MAX;
const LIMIT: RangeInclusive<Duration> = Duration::from_secs(1)..=TIME_MAX;
const LINEAR_ADD_DEFAULT_BP: u16 = 1_000;
const AB_WEIGHT_DEFAULT_BP: u16 = 5_000;
const SURGE_DEFAULT: Portion = Portion::Percent(25);
const BACKENDS_MAX_COUNT: u32 = 2_621;
const FULL_BP: u16 = 10_000;

/// Keys that mean something under one strategy only, and that strategy.
const OF_ONE_STRATEGY: [(&str, &str); 6] = [
    ("steps", "canary"),
    ("add", "linear"),
    ("max_surge", "rolling"),
    ("max_unavailable", "rolling"),
    ("downtime", "recreate"),
    ("weight", "ab"),
];

/// Reads the section. What it does not say is as in [`RolloutSpec::default`].
pub(super) fn read(rollout: &Section<'_>, report: &mut Report<'_>) -> RolloutSpec {
    let mut spec = RolloutSpec::default();
    let bake_ms = time(rollout, "bake", &WAIT, report).unwrap_or(BAKE_DEFAULT_MS);
    let rest = &mut spec.rest;
    let limits = &mut rest.limits;
    for (key, range, value) in [
        ("watch", &WAIT, &mut rest.watch_ms),
        ("progress_deadline", &LIMIT, &mut limits.progress_ms),
        ("warm", &LIMIT, &mut limits.warm_ms),
        ("unready", &LIMIT, &mut limits.unready_ms),
    ] {
        if let Some(ms) = time(rollout, key, range, report) {
            *value = ms;
        }
    }
    let asked = rollout.get("strategy");
    let name = match &asked {
        // Steps alone are a canary's.
        None if rollout.get("steps").is_some() => "canary",
        None => spec.name.as_str(),
        Some(field) => match field.string(report) {
            Some(name) => name,
            None => return spec,
        },
    }
    .to_owned();
    refuse_other_strategies_keys(rollout, &name, report);
    let strategy = match name.as_str() {
        "canary" => match rollout.get("steps") {
            Some(field) => Some(Strategy::Canary(steps(&field, rollout, bake_ms, report))),
            None => preset("5-20-50", bake_ms).ok().map(|found| found.strategy),
        },
        "linear" => Some(Strategy::Linear {
            add_bp: weight(rollout, "add", report).unwrap_or(LINEAR_ADD_DEFAULT_BP),
            every_ms: bake_ms,
        }),
        "blue-green" => Some(Strategy::BlueGreen),
        "rolling" => Some(Strategy::Rolling {
            max_surge: portion(rollout, "max_surge", report).unwrap_or(SURGE_DEFAULT),
            max_unavailable: portion(rollout, "max_unavailable", report)
                .unwrap_or(Portion::Count(0)),
            bake_ms,
        }),
        "recreate" => {
            let accepted = rollout.get("downtime");
            let accepted =
                accepted.and_then(|field| field.choice(&[("accepted", ())], &[], report));
            Some(Strategy::Recreate {
                is_downtime_accepted: accepted.is_some(),
            })
        }
        "ab" => Some(Strategy::Ab {
            weight_bp: weight(rollout, "weight", report).unwrap_or(AB_WEIGHT_DEFAULT_BP),
        }),
        name => named(name, bake_ms, asked.as_ref(), report),
    };
    spec.rest = Plan {
        strategy: name.clone(),
        ..spec.rest
    };
    spec.name = name;
    spec.strategy = strategy.unwrap_or(Strategy::BlueGreen);
    spec
}

/// A preset, or what comes nearest to a name that is none.
fn named(
    name: &str,
    bake_ms: u64,
    asked: Option<&Field<'_>>,
    report: &mut Report<'_>,
) -> Option<Strategy> {
    match preset(name, bake_ms) {
        Ok(found) => Some(found.strategy),
        Err(_) => {
            let at = asked.map(Field::at).unwrap_or_default();
            let message = format!("there is no strategy {}", shown(name));
            let known = || STRATEGIES.into_iter().chain(PRESETS.iter().copied());
            let lower = name.to_ascii_lowercase();
            let near = nearest(name, known()).or_else(|| {
                let mut known = known();
                known.find(|known| known.eq_ignore_ascii_case(&lower))
            });
            let help = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!(
                    "write one of {}, or the name of a preset such as \"{}\"",
                    STRATEGIES.map(|name| format!("\"{name}\"")).join(", "),
                    PRESETS[3]
                ),
            };
            report.value(&at, message, help);
            None
        }
    }
}

fn refuse_other_strategies_keys(rollout: &Section<'_>, name: &str, report: &mut Report<'_>) {
    for (key, strategy) in OF_ONE_STRATEGY {
        if strategy != name
            && let Some(field) = rollout.get(key)
        {
            report.value(
                &field.at(),
                format!("`rollout.{key}` means nothing to strategy {}", shown(name)),
                format!("remove it, or write strategy = \"{strategy}\""),
            );
        }
    }
}

/// Steps below 100 %; each pause belongs to the step before it.
fn steps(
    field: &Field<'_>,
    rollout: &Section<'_>,
    bake_ms: u64,
    report: &mut Report<'_>,
) -> Vec<Step> {
    let elements = field.elements(report).unwrap_or_default();
    let mut steps = Vec::<Step>::new();
    let mut is_full = false;
    for element in elements {
        let step = rollout.open(&element, &schema::service::STEP, report);
        if !step.is_present() {
            continue;
        }
        let pause = step.get("pause").and_then(|field| field.boolean(report));
        let (given, bake) = (step.get("weight"), step.get("bake"));
        if is_full {
            report.whole(
                Some(&element.at()),
                "`rollout.steps` goes on after 100 %",
                "make the step of 100 the last one",
            );
            return steps;
        }
        let Some(given) = given else {
            match (pause, steps.last_mut()) {
                (Some(true), Some(before)) if bake.is_none() => before.is_manual = true,
                (Some(true), None) if bake.is_none() => report.whole(
                    Some(&element.at()),
                    "`rollout.steps` begins with a pause, but there is no step before it",
                    "to be asked before the start, write a [[gate]] with at = \"confirm-start\" and manual = true",
                ),
                _ => report.whole(
                    Some(&element.at()),
                    "a step of `rollout.steps` has no weight",
                    "write { weight = 5, bake = \"5m\" }, or { pause = true }",
                ),
            }
            continue;
        };
        let own_ms = bake
            .as_ref()
            .and_then(|bake| bake.duration(WAIT, report))
            .map(millis);
        let Some(weight_bp) = given.percent_bp(1..=FULL_BP, report) else {
            continue;
        };
        if weight_bp == FULL_BP {
            is_full = true;
            if bake.is_some() || pause == Some(true) {
                report.whole(
                    Some(&element.at()),
                    "the step of 100 % cannot be held",
                    "remove its `bake` and `pause`: how long the old version is kept ready is `watch`",
                );
            }
            continue;
        }
        if let Some(before) = steps.last()
            && weight_bp < before.share.weight_bp
        {
            report.value(
                &given.at(),
                format!("`rollout.steps` goes down from {}", before.share),
                "a rollout only adds: put the steps in order",
            );
        }
        steps.push(Step {
            share: Share {
                weight_bp,
                ..Share::NONE
            },
            bake_ms: own_ms.unwrap_or(bake_ms),
            is_manual: pause == Some(true),
        });
    }
    steps
}

fn time(
    section: &Section<'_>,
    key: &str,
    range: &RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let field = section.get(key)?;
    field.duration(range.clone(), report).map(millis)
}

/// What fits a range of durations fits 64 bits.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn weight(section: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<u16> {
    section.get(key)?.percent_bp(1..=FULL_BP - 1, report)
}

/// A number of backends, or hundredths of them in quotes.
fn portion(section: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<Portion> {
    let field = section.get(key)?;
    let Some(text) = field.as_string() else {
        return field
            .count(0..=BACKENDS_MAX_COUNT, "backends", report)
            .map(Portion::Count);
    };
    let digits = text.strip_suffix('%').unwrap_or_default();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let percent = digits.parse().ok().filter(|percent| *percent <= 100);
    if let (true, Some(percent)) = (is_plain, percent) {
        return Some(Portion::Percent(percent));
    }
    report.value(
        &field.at(),
        format!("`rollout.{key}` cannot be {}", shown(text)),
        "write a number of backends, or a part of them: \"25%\"",
    );
    None
}
