//! What is measured, and how much worse a canary may be.

use std::{fmt, time::Duration};

/// What a metric measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The share of flows that failed.
    Errors,
    /// A quantile (0 to 1) of the time to the first response, in milliseconds.
    LatencyMs(f64),
    /// Apdex at this satisfied time T: the share of first responses within T, plus half of those within
    /// 4T. A flow without response is frustrated.
    Apdex(Duration),
}

impl Measure {
    /// Whether a larger value is the worse one.
    pub fn grows_worse(self) -> bool {
        !matches!(self, Self::Apdex(_))
    }

    /// A value in the unit in which a person reads it.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Errors => format!("{:.3} %", value * 100.0),
            Self::LatencyMs(_) => format!("{value:.1} ms"),
            Self::Apdex(_) => format!("{value:.3}"),
        }
    }

    /// A difference, with its sign.
    pub(super) fn show_change(self, value: f64) -> String {
        let sign = if value < 0.0 { "−" } else { "+" };
        format!("{sign}{}", self.show(value.abs()))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors => f.write_str("error share"),
            Self::LatencyMs(quantile) => write!(f, "p{}", quantile * 100.0),
            Self::Apdex(satisfied) => write!(f, "Apdex({} ms)", satisfied.as_millis()),
        }
    }
}

/// Where bad begins. Values are shares, milliseconds or Apdex scores, as the measure has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Worse than the baseline by more than this.
    Increase(f64),
    /// Larger than the baseline's value by more than this part of it.
    Ratio(f64),
    /// Above this, whatever the baseline does.
    AtMost(f64),
    /// Below this, whatever the baseline does.
    AtLeast(f64),
}

impl Limit {
    /// Whether the values are beyond the limit. `difference` is how much worse the canary is. `None`
    /// where a value that it takes is not known.
    pub fn exceeded(
        self,
        canary: Option<f64>,
        baseline: Option<f64>,
        difference: Option<f64>,
    ) -> Option<bool> {
        match self {
            Self::Increase(most) => difference.map(|difference| difference > most),
            Self::Ratio(most) => Some(canary? > baseline? * (1.0 + most)),
            Self::AtMost(most) => canary.map(|canary| canary > most),
            Self::AtLeast(least) => canary.map(|canary| canary < least),
        }
    }

    pub(super) fn show(self, measure: Measure) -> String {
        match self {
            Self::Increase(most) if measure.grows_worse() => measure.show_change(most),
            Self::Increase(most) => measure.show_change(-most),
            Self::Ratio(most) => format!("+{} % of the baseline's", most * 100.0),
            Self::AtMost(most) => format!("at most {}", measure.show(most)),
            Self::AtLeast(least) => format!("at least {}", measure.show(least)),
        }
    }
}

/// How a metric comes to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The sequential test and the limit: what `false_rollback` promises.
    Sequential,
    /// The limit alone, once an interval. Widely used, and without a promise: with few flows it is broken
    /// by chance, and `false_rollback` does not cover it.
    Strikes {
        /// How long an interval is.
        interval: Duration,
        /// Bad intervals that make it fail.
        count: u32,
        /// Whether they must follow each other.
        consecutive: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exceeded_beyond_their_number() {
        let rows = [
            (
                Limit::Increase(0.005),
                Some(0.011),
                Some(0.001),
                Some(0.01),
                Some(true),
            ),
            (
                Limit::Increase(0.005),
                Some(0.011),
                Some(0.001),
                Some(0.005),
                Some(false),
            ),
            (Limit::Increase(0.005), Some(0.011), None, None, None),
            (
                Limit::Ratio(0.2),
                Some(121.0),
                Some(100.0),
                None,
                Some(true),
            ),
            (
                Limit::Ratio(0.2),
                Some(119.0),
                Some(100.0),
                None,
                Some(false),
            ),
            (Limit::Ratio(0.2), Some(119.0), None, None, None),
            (Limit::AtMost(500.0), Some(501.0), None, None, Some(true)),
            (Limit::AtMost(500.0), Some(500.0), None, None, Some(false)),
            (Limit::AtLeast(0.85), Some(0.84), None, None, Some(true)),
            (Limit::AtLeast(0.85), Some(0.85), None, None, Some(false)),
            (Limit::AtLeast(0.85), None, None, None, None),
        ];
        for (limit, canary, baseline, difference, expected) in rows {
            let found = limit.exceeded(canary, baseline, difference);
            assert_eq!(found, expected, "{limit:?} {canary:?} {baseline:?}");
        }
    }

    #[test]
    fn limits_read_in_the_units_of_their_measure() {
        let apdex = Measure::Apdex(Duration::from_millis(500));
        let rows = [
            (
                Measure::Errors,
                Limit::Increase(0.005),
                "error share: +0.500 %",
            ),
            (
                Measure::LatencyMs(0.99),
                Limit::Ratio(0.2),
                "p99: +20 % of the baseline's",
            ),
            (
                Measure::LatencyMs(0.99),
                Limit::Increase(100.0),
                "p99: +100.0 ms",
            ),
            (
                Measure::LatencyMs(0.5),
                Limit::AtMost(200.0),
                "p50: at most 200.0 ms",
            ),
            (apdex, Limit::AtLeast(0.85), "Apdex(500 ms): at least 0.850"),
            (apdex, Limit::Increase(0.05), "Apdex(500 ms): −0.050"),
        ];
        for (measure, limit, text) in rows {
            assert_eq!(format!("{measure}: {}", limit.show(measure)), text);
        }
    }
}
