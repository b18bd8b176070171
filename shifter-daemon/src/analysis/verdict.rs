//! An answer with its numbers.

use std::fmt;

use super::{
    counts::Totals,
    judgement::Judgement,
    limit::{Limit, Measure},
    metric::Action,
};

/// Why a judgement is what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The test is sure and the limit is exceeded.
    Worse,
    /// So many intervals were beyond the limit.
    Strikes {
        /// Bad intervals.
        bad: u32,
        /// Where it fails.
        of: u32,
    },
    /// The test is sure, but the limit is not exceeded.
    WorseWithinLimit,
    /// The test is not sure, but further off than a good canary usually is.
    Suspicious,
    /// The canary may still be worse by more than the margin.
    NotShown {
        /// The margin.
        margin: f64,
    },
    /// The canary had too few flows in this step.
    TooFew {
        /// Flows it had.
        have: u64,
        /// Flows that are asked for.
        need: u64,
    },
    /// There is too little traffic in this step.
    TooQuiet {
        /// Flows a minute of both versions.
        per_minute: f64,
        /// Flows a minute that are asked for.
        need: f64,
    },
    /// The baseline fails too often to be a measure.
    BaselineUnhealthy {
        /// Its error share in this step.
        share: f64,
        /// The most that is accepted.
        most: f64,
    },
    /// The canary's share of flows is not its weight.
    ShareOff {
        /// The cohort.
        cohort: u32,
        /// Flows of the canary.
        canary: u64,
        /// Flows of both.
        all: u64,
        /// The weight, 0 to 1.
        weight: f64,
    },
    /// Rules, not the draw, choose the version.
    Targeted,
    /// The weight changed too recently for this provider.
    Settling {
        /// Seconds that are left.
        left_s: u64,
    },
    /// The slow times of the baseline are not known yet.
    Calibrating {
        /// Responses of the baseline so far.
        have: u64,
        /// Responses that are asked for.
        need: u64,
    },
    /// Nothing was observed yet.
    NothingYet,
    /// The canary has had no flow.
    NoFlows,
    /// The provider has no data.
    Missing,
    /// The provider could not be asked.
    ProviderFailed(String),
    /// No alarm.
    NoAlarm,
    /// It was shown that the canary is not worse by the margin.
    Shown {
        /// The margin.
        margin: f64,
    },
}

/// What the analysis says of one metric at one time, with everything it was concluded from.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The metric.
    pub metric: String,
    /// What it measures.
    pub measure: Measure,
    /// Where bad begins.
    pub limit: Limit,
    /// The answer.
    pub judgement: Judgement,
    /// Why.
    pub reason: Reason,
    /// The canary's flows since the evidence was last in its favour.
    pub canary: Totals,
    /// The baseline's in the same time.
    pub baseline: Totals,
    /// The canary's measure in that time.
    pub canary_value: Option<f64>,
    /// The baseline's.
    pub baseline_value: Option<f64>,
    /// How much worse the canary is, compared within cohorts.
    pub difference: Option<f64>,
    /// ln E, the evidence that the canary is worse; `None` for a rule without one.
    pub ln_evidence: Option<f64>,
    /// ln 1/α of the metric.
    pub ln_bar: f64,
    /// The canary's error share is higher by less than this (95 %).
    pub upper_bound: Option<f64>,
    /// The increase of the error share that would have raised the alarm (90 %).
    pub caught: Option<f64>,
    /// Whether it only says so.
    pub dry_run: bool,
    /// What follows if it fails.
    pub action: Action,
}

/// A likelihood ratio that a person can read.
fn show_evidence(ln_evidence: f64) -> String {
    let evidence = ln_evidence.exp();
    if evidence >= 1e6 {
        let tens = (ln_evidence / std::f64::consts::LN_10).floor();
        format!("10^{tens}")
    } else if evidence >= 100.0 {
        format!("{evidence:.0}")
    } else {
        format!("{evidence:.2}")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        match self {
            Self::Worse => f.write_str("the canary is worse, and by more than the limit"),
            Self::Strikes { bad, of } => write!(f, "{bad} of {of} bad intervals"),
            Self::WorseWithinLimit => f.write_str("the canary is worse, but within the limit"),
            Self::Suspicious => f.write_str("the canary may be worse: E is 10 or more"),
            Self::NotShown { margin } => {
                write!(
                    f,
                    "not shown yet that the canary is less than {} worse",
                    percent(*margin)
                )
            }
            Self::TooFew { have, need } => {
                write!(f, "the canary has had {have} of {need} flows in this step")
            }
            Self::TooQuiet { per_minute, need } => {
                write!(
                    f,
                    "{per_minute:.1} flows a minute in this step, {need} are needed"
                )
            }
            Self::BaselineUnhealthy { share, most } => write!(
                f,
                "the baseline is unhealthy: {} errors in this step, at most {} is accepted",
                percent(*share),
                percent(*most)
            ),
            Self::ShareOff {
                cohort,
                canary,
                all,
                weight,
            } => write!(
                f,
                "cohort {cohort}: the canary got {canary} of {all} flows at a weight of {} %: \
                 something else than the weight deals them",
                weight * 100.0
            ),
            Self::Targeted => f.write_str(
                "rules choose the version of these flows, so versions cannot be compared",
            ),
            Self::Settling { left_s } => {
                write!(
                    f,
                    "data are ignored for another {left_s} s after the change of the weight"
                )
            }
            Self::Calibrating { have, need } => {
                write!(
                    f,
                    "{have} of {need} responses of the baseline from which its slow times are taken"
                )
            }
            Self::NothingYet => f.write_str("nothing was observed yet"),
            Self::NoFlows => f.write_str("the canary has had no flow"),
            Self::Missing => f.write_str("the provider has no data"),
            Self::ProviderFailed(why) => write!(f, "the provider failed: {why}"),
            Self::NoAlarm => f.write_str("no alarm"),
            Self::Shown { margin } => {
                write!(
                    f,
                    "shown that the canary is less than {} worse",
                    percent(*margin)
                )
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        let judgement = match self.judgement {
            Judgement::Pass => "pass",
            Judgement::Fail => "fail",
            Judgement::Inconclusive => "inconclusive",
            Judgement::NoData => "no data",
        };
        write!(f, "{}{dry}: {judgement}: {}", self.metric, self.reason)?;
        for (who, totals, value) in [
            ("canary", self.canary, self.canary_value),
            ("baseline", self.baseline, self.baseline_value),
        ] {
            if let Some(value) = value {
                let value = self.measure.show(value);
                write!(
                    f,
                    "; {who} {} of {} ({value})",
                    totals.errors, totals.trials
                )?;
            }
        }
        if let Some(difference) = self.difference {
            let worse = if self.measure.grows_worse() {
                difference
            } else {
                -difference
            };
            write!(f, "; difference {}", self.measure.show_change(worse))?;
        }
        write!(f, "; limit {}", self.limit.show(self.measure))?;
        if let Some(ln_evidence) = self.ln_evidence {
            let (evidence, bar) = (show_evidence(ln_evidence), show_evidence(self.ln_bar));
            write!(f, "; E {evidence}, alarm at {bar}")?;
        }
        if let Some(bound) = self.upper_bound {
            write!(f, "; U {:.3} %", bound * 100.0)?;
        }
        if let Some(caught) = self.caught {
            write!(
                f,
                "; +{:.3} % would have been caught (90 %)",
                caught * 100.0
            )?;
        }
        Ok(())
    }
}

/// What all metrics together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The worst judgement; metrics in a dry run have no say.
    pub judgement: Judgement,
    /// What a failure leads to: the strongest action of those that fail.
    pub action: Option<Action>,
}

/// The worst of all verdicts: fail, no data, inconclusive, pass. Without any there is no data.
pub fn summarize(verdicts: &[Verdict]) -> Summary {
    let severity = |judgement: Judgement| match judgement {
        Judgement::Pass => 0,
        Judgement::Inconclusive => 1,
        Judgement::NoData => 2,
        Judgement::Fail => 3,
    };
    let binding = || verdicts.iter().filter(|verdict| !verdict.dry_run);
    let judgement = binding()
        .map(|verdict| verdict.judgement)
        .max_by_key(|judgement| severity(*judgement))
        .unwrap_or(Judgement::NoData);
    let action = binding()
        .filter(|verdict| verdict.judgement == Judgement::Fail)
        .map(|verdict| verdict.action)
        .max();
    Summary { judgement, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(judgement: Judgement, reason: Reason) -> Verdict {
        Verdict {
            metric: "errors".into(),
            measure: Measure::Errors,
            limit: Limit::Increase(0.005),
            judgement,
            reason,
            canary: Totals {
                trials: 812,
                errors: 9.0,
            },
            baseline: Totals {
                trials: 15_310,
                errors: 14.0,
            },
            canary_value: Some(9.0 / 812.0),
            baseline_value: Some(14.0 / 15_310.0),
            difference: Some(0.01017),
            ln_evidence: Some(412_f64.ln()),
            ln_bar: 200_f64.ln(),
            upper_bound: Some(0.0213),
            caught: Some(0.0131),
            dry_run: false,
            action: Action::RollBack,
        }
    }

    #[test]
    fn a_verdict_says_what_it_was_concluded_from() {
        assert_eq!(
            verdict(Judgement::Fail, Reason::Worse).to_string(),
            "errors: fail: the canary is worse, and by more than the limit; canary 9 of 812 (1.108 %); \
             baseline 14 of 15310 (0.091 %); difference +1.017 %; limit +0.500 %; E 412, alarm at 200; \
             U 2.130 %; +1.310 % would have been caught (90 %)"
        );
        let slow = Verdict {
            metric: "latency_p99".into(),
            measure: Measure::LatencyMs(0.99),
            limit: Limit::Ratio(0.2),
            canary_value: Some(310.4),
            baseline_value: Some(250.0),
            difference: Some(60.4),
            ln_evidence: Some(40.0),
            upper_bound: None,
            caught: None,
            dry_run: true,
            ..verdict(Judgement::Fail, Reason::Worse)
        };
        assert_eq!(
            slow.to_string(),
            "latency_p99 (dry run): fail: the canary is worse, and by more than the limit; \
             canary 9 of 812 (310.4 ms); baseline 14 of 15310 (250.0 ms); difference +60.4 ms; \
             limit +20 % of the baseline's; E 10^17, alarm at 200"
        );
        let none = Verdict {
            canary_value: None,
            baseline_value: None,
            difference: None,
            ln_evidence: None,
            upper_bound: None,
            caught: None,
            ..verdict(
                Judgement::NoData,
                Reason::ProviderFailed("timed out after 10 s".into()),
            )
        };
        assert_eq!(
            none.to_string(),
            "errors: no data: the provider failed: timed out after 10 s; limit +0.500 %"
        );
    }

    #[test]
    fn every_reason_has_its_text() {
        let rows = [
            (
                Reason::Worse,
                "the canary is worse, and by more than the limit",
            ),
            (Reason::Strikes { bad: 2, of: 3 }, "2 of 3 bad intervals"),
            (
                Reason::WorseWithinLimit,
                "the canary is worse, but within the limit",
            ),
            (
                Reason::Suspicious,
                "the canary may be worse: E is 10 or more",
            ),
            (
                Reason::NotShown { margin: 0.005 },
                "not shown yet that the canary is less than 0.500 % worse",
            ),
            (
                Reason::TooFew { have: 7, need: 50 },
                "the canary has had 7 of 50 flows in this step",
            ),
            (
                Reason::TooQuiet {
                    per_minute: 12.34,
                    need: 100.0,
                },
                "12.3 flows a minute in this step, 100 are needed",
            ),
            (
                Reason::BaselineUnhealthy {
                    share: 0.07,
                    most: 0.05,
                },
                "the baseline is unhealthy: 7.000 % errors in this step, at most 5.000 % is accepted",
            ),
            (
                Reason::ShareOff {
                    cohort: 3,
                    canary: 400,
                    all: 1_000,
                    weight: 0.2,
                },
                "cohort 3: the canary got 400 of 1000 flows at a weight of 20 %: something else than \
                 the weight deals them",
            ),
            (
                Reason::Targeted,
                "rules choose the version of these flows, so versions cannot be compared",
            ),
            (
                Reason::Settling { left_s: 12 },
                "data are ignored for another 12 s after the change of the weight",
            ),
            (
                Reason::Calibrating {
                    have: 10,
                    need: 2_000,
                },
                "10 of 2000 responses of the baseline from which its slow times are taken",
            ),
            (Reason::NothingYet, "nothing was observed yet"),
            (Reason::NoFlows, "the canary has had no flow"),
            (Reason::Missing, "the provider has no data"),
            (
                Reason::ProviderFailed("refused".into()),
                "the provider failed: refused",
            ),
            (Reason::NoAlarm, "no alarm"),
            (
                Reason::Shown { margin: 0.005 },
                "shown that the canary is less than 0.500 % worse",
            ),
        ];
        for (reason, text) in rows {
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn the_worst_metric_decides_and_a_dry_run_does_not() {
        use Judgement::{Fail, Inconclusive, NoData, Pass};
        let with = |judgement, dry_run, action| Verdict {
            dry_run,
            action,
            ..verdict(judgement, Reason::NoAlarm)
        };
        let (back, pause) = (Action::RollBack, Action::Pause);
        let rows = [
            (vec![], NoData, None),
            (vec![(Pass, false, back)], Pass, None),
            (vec![(Pass, false, back), (Fail, true, back)], Pass, None),
            (vec![(Fail, true, back)], NoData, None),
            (
                vec![(Pass, false, back), (Inconclusive, false, back)],
                Inconclusive,
                None,
            ),
            (
                vec![(NoData, false, back), (Inconclusive, false, back)],
                NoData,
                None,
            ),
            (
                vec![(NoData, false, back), (Fail, false, pause)],
                Fail,
                Some(pause),
            ),
            (
                vec![(Fail, false, back), (Fail, false, pause)],
                Fail,
                Some(back),
            ),
        ];
        for (given, judgement, action) in rows {
            let verdicts: Vec<Verdict> = given.iter().map(|&(j, d, a)| with(j, d, a)).collect();
            assert_eq!(
                summarize(&verdicts),
                Summary { judgement, action },
                "{given:?}"
            );
        }
    }
}
