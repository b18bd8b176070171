//! Strategies by the names they have elsewhere.

use super::{
    plan::{PlanError, Step},
    rolling::Portion,
    share::Share,
    strategy::Strategy,
};

const MINUTE_MS: u64 = 60_000;

/// A named strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The strategy.
    pub strategy: Strategy,
    /// The first step whose judgements count, from 0.
    pub analysis_from_step: u16,
}

/// What a preset's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Everything at once.
    AtOnce,
    /// One tenth, for so many minutes.
    Tenth { minutes: u64 },
    /// A tenth more every so many minutes.
    Tenths { minutes: u64 },
    /// Backends, so many hundredths at a time.
    Half,
    /// Backends, one at a time.
    One,
    /// Percentages, each held as long as the service's file says.
    Percents {
        percents: &'static [u16],
        analysis_from_step: u16,
    },
}

const fn percents(percents: &'static [u16]) -> Shape {
    Shape::Percents {
        percents,
        analysis_from_step: 0,
    }
}

/// The names. Those of AWS CodeDeploy are also taken with its prefixes `CodeDeployDefault.`, `Lambda`
/// and `ECS`; `HalfAtATime` and `OneAtATime` go over backends, as they do there over hosts.
pub const PRESETS: &[&str] = &[
    "AllAtOnce",
    "HalfAtATime",
    "OneAtATime",
    "Canary10Percent5Minutes",
    "Canary10Percent10Minutes",
    "Canary10Percent15Minutes",
    "Canary10Percent30Minutes",
    "Linear10PercentEvery1Minutes",
    "Linear10PercentEvery2Minutes",
    "Linear10PercentEvery3Minutes",
    "Linear10PercentEvery10Minutes",
    "5-20-50",
    "5-10-25-50-75-100",
    "10-25-50",
    "5-20-50-80",
    "1-5-25",
];

/// The strategy of this name. `bake_ms` is how long steps are held whose name does not say.
///
/// # Errors
/// If there is none, with the nearest name there is.
pub fn preset(name: &str, bake_ms: u64) -> Result<Preset, PlanError> {
    let bare = name.strip_prefix("CodeDeployDefault.").unwrap_or(name);
    let bare = ["Lambda", "ECS"]
        .iter()
        .find_map(|prefix| bare.strip_prefix(prefix))
        .unwrap_or(bare);
    let shape = shape(bare).ok_or_else(|| unknown(name, bare))?;
    let step = |percent: u16, bake_ms| Step {
        share: Share {
            weight_bp: percent * 100,
            ..Share::NONE
        },
        bake_ms,
        is_manual: false,
    };
    let rolling = |max_unavailable| Strategy::Rolling {
        max_surge: Portion::Count(0),
        max_unavailable,
        bake_ms,
    };
    let (strategy, analysis_from_step) = match shape {
        Shape::AtOnce => (Strategy::BlueGreen, 0),
        Shape::Tenth { minutes } => (Strategy::Canary(vec![step(10, minutes * MINUTE_MS)]), 0),
        Shape::Tenths { minutes } => (
            Strategy::Linear {
                add_bp: 1_000,
                every_ms: minutes * MINUTE_MS,
            },
            0,
        ),
        Shape::Half => (rolling(Portion::Percent(50)), 0),
        Shape::One => (rolling(Portion::Count(1)), 0),
        Shape::Percents {
            percents,
            analysis_from_step,
        } => {
            let below = percents.iter().filter(|percent| **percent < 100);
            let steps = below.map(|percent| step(*percent, bake_ms)).collect();
            (Strategy::Canary(steps), analysis_from_step)
        }
    };
    Ok(Preset {
        strategy,
        analysis_from_step,
    })
}

fn shape(name: &str) -> Option<Shape> {
    Some(match name {
        "AllAtOnce" => Shape::AtOnce,
        "HalfAtATime" => Shape::Half,
        "OneAtATime" => Shape::One,
        "Canary10Percent5Minutes" => Shape::Tenth { minutes: 5 },
        "Canary10Percent10Minutes" => Shape::Tenth { minutes: 10 },
        "Canary10Percent15Minutes" => Shape::Tenth { minutes: 15 },
        "Canary10Percent30Minutes" => Shape::Tenth { minutes: 30 },
        "Linear10PercentEvery1Minutes" => Shape::Tenths { minutes: 1 },
        "Linear10PercentEvery2Minutes" => Shape::Tenths { minutes: 2 },
        "Linear10PercentEvery3Minutes" => Shape::Tenths { minutes: 3 },
        "Linear10PercentEvery10Minutes" => Shape::Tenths { minutes: 10 },
        "5-20-50" => percents(&[5, 20, 50]),
        "5-10-25-50-75-100" => percents(&[5, 10, 25, 50, 75, 100]),
        "10-25-50" => percents(&[10, 25, 50]),
        "5-20-50-80" => percents(&[5, 20, 50, 80]),
        // One hundredth has too little traffic to judge by.
        "1-5-25" => Shape::Percents {
            percents: &[1, 5, 25],
            analysis_from_step: 1,
        },
        _ => return None,
    })
}

fn unknown(name: &str, bare: &str) -> PlanError {
    let near = PRESETS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(bare, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let help = match near {
        Some((_, known)) => format!("did you mean \"{known}\"?"),
        None => format!("there are {}", PRESETS.join(", ")),
    };
    PlanError::Preset {
        name: name.to_owned(),
        help,
    }
}
