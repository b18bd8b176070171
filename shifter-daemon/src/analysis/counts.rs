//! Flows and errors of the two versions, by cohort.

/// Trials of one version and what went wrong in them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Flows, or first responses.
    pub trials: u64,
    /// Those that count against the version; one that was merely tolerable counts half.
    pub errors: f64,
}

impl Totals {
    /// Errors by trial; `None` without trials.
    pub fn share(self) -> Option<f64> {
        (self.trials > 0).then(|| self.errors / self.trials as f64)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            trials: self.trials + other.trials,
            errors: self.errors + other.errors,
        }
    }

    /// What came on top of `before`. Counters that went back count as unchanged.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            trials: self.trials.saturating_sub(before.trials),
            errors: (self.errors - before.errors).max(0.0),
        }
    }
}

/// What came of the flows that were admitted under one weight, since the cohort began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CohortCounts {
    /// Number of the cohort in its rollout.
    pub cohort: u32,
    /// The canary's share at admission, 0 to 1.
    pub weight: f64,
    /// The version on trial.
    pub canary: Totals,
    /// The version serving now.
    pub baseline: Totals,
}

impl CohortCounts {
    /// Whether both versions were drawn, so that there is something to compare.
    pub fn compares(&self) -> bool {
        self.weight > 0.0 && self.weight < 1.0
    }
}

/// The canary's error share less the baseline's, compared within each cohort and then averaged with the
/// weights of Mantel and Haenszel: pooled over cohorts, a change of the weight during a drift would look
/// like a difference. `None` where no cohort has trials of both.
pub fn difference<'a>(cohorts: impl IntoIterator<Item = &'a CohortCounts>) -> Option<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for cohort in cohorts {
        if let (Some(canary), Some(baseline)) = (cohort.canary.share(), cohort.baseline.share()) {
            let (n, m) = (cohort.canary.trials as f64, cohort.baseline.trials as f64);
            let weight = n * m / (n + m);
            sum += weight * (canary - baseline);
            weights += weight;
        }
    }
    (weights > 0.0).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cohort: u32, canary: (u64, f64), baseline: (u64, f64)) -> CohortCounts {
        let totals = |(trials, errors)| Totals { trials, errors };
        CohortCounts {
            cohort,
            weight: 0.5,
            canary: totals(canary),
            baseline: totals(baseline),
        }
    }

    #[test]
    fn the_difference_is_taken_inside_cohorts() {
        assert_eq!(difference(&[]), None);
        assert_eq!(difference(&[counts(1, (0, 0.0), (10, 1.0))]), None);
        let one = counts(1, (100, 3.0), (100, 1.0));
        assert!((difference(&[one]).expect("a difference") - 0.02).abs() < 1e-12);
        // Errors rose tenfold for both when the canary's share was high: no difference, though the
        // pooled shares differ.
        let drift = [
            counts(1, (100, 1.0), (900, 9.0)),
            counts(2, (900, 90.0), (100, 10.0)),
        ];
        assert!(difference(&drift).expect("a difference").abs() < 1e-12);
    }

    #[test]
    fn counters_that_went_back_count_as_unchanged() {
        let low = Totals {
            trials: 1,
            errors: 1.0,
        };
        let high = Totals {
            trials: 5,
            errors: 2.0,
        };
        assert_eq!(low.since(high), Totals::default());
        assert_eq!(
            high.since(low),
            Totals {
                trials: 4,
                errors: 1.0
            }
        );
    }
}
