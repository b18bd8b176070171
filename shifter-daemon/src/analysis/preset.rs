//! Named sets of metrics, as data.

use std::time::Duration;

use super::{
    limit::{Limit, Measure, Rule},
    metric::Action,
};

/// A metric of a preset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PresetMetric {
    /// What it is called.
    pub name: &'static str,
    /// What it measures.
    pub measure: Measure,
    /// Where bad begins.
    pub limit: Limit,
    /// How it comes to its answer.
    pub rule: Rule,
    /// What happens when it fails.
    pub action: Action,
}

/// A set of metrics that are in use somewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// What `preset = "…"` calls it.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Where its numbers come from.
    pub source: &'static str,
    /// Its metrics; the worst decides.
    pub metrics: &'static [PresetMetric],
    /// Flows a minute below which it does not promote, if it says so.
    pub min_per_minute: Option<f64>,
    /// Error share of the baseline above which it does not promote, if it says so.
    pub baseline_max_error: Option<f64>,
}

/// Response times up to this are good enough, where a preset does not say.
const SATISFIED: Duration = Duration::from_millis(500);
const MINUTE: Duration = Duration::from_secs(60);

const fn metric(name: &'static str, measure: Measure, limit: Limit) -> PresetMetric {
    PresetMetric {
        name,
        measure,
        limit,
        rule: Rule::Sequential,
        action: Action::RollBack,
    }
}

const fn strikes(metric: PresetMetric, count: u32, consecutive: bool) -> PresetMetric {
    PresetMetric {
        rule: Rule::Strikes {
            interval: MINUTE,
            count,
            consecutive,
        },
        ..metric
    }
}

const fn pausing(metric: PresetMetric) -> PresetMetric {
    PresetMetric {
        action: Action::Pause,
        ..metric
    }
}

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "standard",
        about: "errors +0.5 %, p99 +20 %",
        source: "common practice; the numbers are written down in many release guides, none of them first",
        metrics: &[
            metric("errors", Measure::Errors, Limit::Increase(0.005)),
            metric("latency_p99", Measure::LatencyMs(0.99), Limit::Ratio(0.2)),
        ],
        min_per_minute: None,
        baseline_max_error: None,
    },
    Preset {
        name: "tolerant",
        about: "errors +1 %, p99 +50 %, Apdex −0.05; p50 above 200 ms pauses",
        source: "common practice; Apdex: Apdex Alliance, technical specification 1.1 (2007); the 200 ms are this project's, set your own",
        metrics: &[
            metric("errors", Measure::Errors, Limit::Increase(0.01)),
            metric("latency_p99", Measure::LatencyMs(0.99), Limit::Ratio(0.5)),
            metric("apdex", Measure::Apdex(SATISFIED), Limit::Increase(0.05)),
            pausing(metric(
                "latency_p50",
                Measure::LatencyMs(0.5),
                Limit::AtMost(200.0),
            )),
        ],
        min_per_minute: None,
        baseline_max_error: None,
    },
    Preset {
        name: "any-of",
        about: "any of errors +1 %, p99 +100 ms, Apdex below 0.85; no promotion under 100 flows a minute or with a baseline above 5 % errors",
        source: "common practice, with its two usual exceptions",
        metrics: &[
            metric("errors", Measure::Errors, Limit::Increase(0.01)),
            metric(
                "latency_p99",
                Measure::LatencyMs(0.99),
                Limit::Increase(100.0),
            ),
            metric("apdex", Measure::Apdex(SATISFIED), Limit::AtLeast(0.85)),
        ],
        min_per_minute: Some(100.0),
        baseline_max_error: Some(0.05),
    },
    Preset {
        name: "success-99",
        about: "minutes with more than 1 % errors or a p99 above 500 ms; the fifth fails",
        source: "Flagger, metrics analysis: request-success-rate at least 99, request-duration at most 500 (docs.flagger.app/usage/metrics); its example threshold of 5 failed checks",
        metrics: &[
            strikes(
                metric("errors", Measure::Errors, Limit::AtMost(0.01)),
                5,
                false,
            ),
            strikes(
                metric(
                    "latency_p99",
                    Measure::LatencyMs(0.99),
                    Limit::AtMost(500.0),
                ),
                5,
                false,
            ),
        ],
        min_per_minute: None,
        baseline_max_error: None,
    },
    Preset {
        name: "success-95",
        about: "minutes with more than 5 % errors; the fourth fails",
        source: "Argo Rollouts, analysis: successCondition result[0] >= 0.95 with failureLimit 3, which allows three (argo-rollouts.readthedocs.io/en/stable/features/analysis); there every five minutes",
        metrics: &[strikes(
            metric("errors", Measure::Errors, Limit::AtMost(0.05)),
            4,
            false,
        )],
        min_per_minute: None,
        baseline_max_error: None,
    },
    Preset {
        name: "absolute",
        about: "errors above 1 % or p99 above 500 ms, and worse than the baseline",
        source: "Flagger's numbers under this project's test",
        metrics: &[
            metric("errors", Measure::Errors, Limit::AtMost(0.01)),
            metric(
                "latency_p99",
                Measure::LatencyMs(0.99),
                Limit::AtMost(500.0),
            ),
        ],
        min_per_minute: None,
        baseline_max_error: None,
    },
    Preset {
        name: "three-bad-minutes",
        about: "errors +0.5 % in three minutes in a row",
        source: "common practice; slow, and deaf to a fault that comes and goes",
        metrics: &[strikes(
            metric("errors", Measure::Errors, Limit::Increase(0.005)),
            3,
            true,
        )],
        min_per_minute: None,
        baseline_max_error: None,
    },
];

/// The preset of this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_their_names_and_say_where_they_come_from() {
        for one in PRESETS {
            assert_eq!(preset(one.name), Some(one), "{} is there twice", one.name);
            assert!(
                !one.source.is_empty() && !one.metrics.is_empty(),
                "{}",
                one.name
            );
            let mut names: Vec<_> = one.metrics.iter().map(|metric| metric.name).collect();
            names.dedup();
            assert_eq!(names.len(), one.metrics.len(), "{}", one.name);
        }
        assert_eq!(preset("no such"), None);
    }

    /// An error of a preset counts once: no metric can fail for a canary that does as well as the limit.
    #[test]
    fn limits_point_in_the_direction_of_their_measure() {
        for metric in PRESETS.iter().flat_map(|preset| preset.metrics) {
            let fits = match metric.limit {
                Limit::Increase(most) | Limit::Ratio(most) => most > 0.0,
                Limit::AtMost(_) => metric.measure.grows_worse(),
                Limit::AtLeast(_) => !metric.measure.grows_worse(),
            };
            assert!(fits, "{}", metric.name);
        }
    }
}
