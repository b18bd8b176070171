//! Whether the canary is *not* worse by a margin: evidence for a promotion.
//!
//! A wealth process for each margin δ that grows with every flow that speaks against "the canary is at
//! least δ worse throughout". Where it reaches 1/α_p that is rejected, wrongly with probability at most
//! α_p at any time. The least such δ is U, an upper bound of the canary's increase.

use std::{collections::VecDeque, time::Duration};

use super::{
    counts::{CohortCounts, Totals},
    logarithm::ln_mean,
};

/// α_p: accepted probability that a canary which is worse by the margin is called not worse.
pub const PROMOTION_ERROR: f64 = 0.05;
/// Shares of the greatest safe stake.
const STAKES: [f64; 7] = [0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 0.95];
/// Halvings of the interval in which U is sought: U is known to a millionth.
const HALVINGS: u32 = 20;

/// Evidence of one metric over a rollout. Flows are taken as they stood one outcome timeout ago, with
/// the baseline's errors of then and the canary's of now: a flow that is not resolved yet can delay a
/// promotion, never cause one.
#[derive(Clone, Debug)]
pub struct PromotionTest {
    timeout: Duration,
    /// Counts by time, oldest first; the first is the newest that is at least `timeout` old.
    history: VecDeque<(Duration, Vec<CohortCounts>)>,
}

impl PromotionTest {
    /// A test of outcomes that are known after `timeout` at the latest.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            history: VecDeque::new(),
        }
    }

    /// Counts since the rollout began, at `now` of its clock.
    pub fn observe(&mut self, now: Duration, cohorts: &[CohortCounts]) {
        self.history.push_back((now, cohorts.to_vec()));
        while self
            .history
            .get(1)
            .is_some_and(|(then, _)| now.saturating_sub(*then) >= self.timeout)
        {
            self.history.pop_front();
        }
    }

    /// Flows whose outcome is known and the errors to hold against them.
    fn resolved(&self) -> Vec<CohortCounts> {
        let (Some((then, old)), Some((now, new))) = (self.history.front(), self.history.back())
        else {
            return Vec::new();
        };
        if now.saturating_sub(*then) < self.timeout {
            return Vec::new();
        }
        let of_now = |cohort: u32| new.iter().find(|counts| counts.cohort == cohort);
        old.iter()
            .filter(|counts| counts.compares())
            .map(|counts| CohortCounts {
                canary: Totals {
                    trials: counts.canary.trials,
                    errors: of_now(counts.cohort)
                        .map_or(counts.canary.errors, |now| now.canary.errors),
                },
                ..*counts
            })
            .collect()
    }

    /// ln W(δ): the evidence against "the canary is at least `margin` worse throughout". `margin` is in
    /// (0, 1).
    pub fn ln_evidence(&self, margin: f64) -> f64 {
        ln_wealth(&self.resolved(), margin)
    }

    /// U: the canary is worse by less than this, with confidence 1 − α_p. `None` while nothing below 1
    /// can be said.
    pub fn upper_bound(&self) -> Option<f64> {
        let cohorts = self.resolved();
        let enough = (1.0 / PROMOTION_ERROR).ln();
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if ln_wealth(&cohorts, middle) >= enough {
                high = middle;
            } else {
                low = middle;
            }
        }
        (high < 1.0).then_some(high)
    }
}

/// ln of the mean over the stakes of exp Σ [ x_c ln(1+λ(δ−1/w)) + x_b ln(1+λ(δ+1/(1−w)))
/// + (n−x_c−x_b) ln(1+λδ) ], λ = f·w/(1−wδ).
fn ln_wealth(cohorts: &[CohortCounts], margin: f64) -> f64 {
    let wealth = STAKES.map(|stake| {
        cohorts
            .iter()
            .map(|counts| {
                let w = counts.weight;
                let lambda = stake * w / (1.0 - w * margin);
                let (canary, baseline) = (counts.canary.errors, counts.baseline.errors);
                let n = (counts.canary.trials + counts.baseline.trials) as f64;
                canary * (lambda * (margin - 1.0 / w)).ln_1p()
                    + baseline * (lambda * (margin + 1.0 / (1.0 - w))).ln_1p()
                    + (n - canary - baseline) * (lambda * margin).ln_1p()
            })
            .sum::<f64>()
    });
    ln_mean(&wealth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(weight: f64, canary: (u64, f64), baseline: (u64, f64)) -> CohortCounts {
        let totals = |(trials, errors)| Totals { trials, errors };
        CohortCounts {
            cohort: 1,
            weight,
            canary: totals(canary),
            baseline: totals(baseline),
        }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    proptest! {
        /// The mean wealth of one flow is 1 on the border of the hypothesis and below 1 inside it.
        #[test]
        fn a_flow_of_a_canary_worse_by_the_margin_gains_nothing(
            w in 0.001_f64..0.999, margin in 0.001_f64..0.5, p in 0.0_f64..0.5, more in 0.0_f64..0.0_1,
        ) {
            let canary = (p + margin + more).min(1.0);
            for stake in STAKES {
                let lambda = stake * w / (1.0 - w * margin);
                let mean = w * canary * (1.0 + lambda * (margin - 1.0 / w))
                    + (1.0 - w) * p * (1.0 + lambda * (margin + 1.0 / (1.0 - w)))
                    + (1.0 - w * canary - (1.0 - w) * p) * (1.0 + lambda * margin);
                prop_assert!(mean <= 1.0 + 1e-9, "{}", mean);
            }
        }

        #[test]
        fn a_wider_margin_is_easier(
            w in 0.01_f64..0.99, n in 1_000_u64..100_000, x in 0.0_f64..0.02, y in 0.0_f64..0.02,
        ) {
            let (c, b) = ((n as f64 * w) as u64, (n as f64 * (1.0 - w)) as u64);
            let cohorts = [counts(w, (c, (c as f64 * x).floor()), (b, (b as f64 * y).floor()))];
            let enough = 20_f64.ln();
            let mut reached = false;
            for step in 1..100 {
                let now = ln_wealth(&cohorts, f64::from(step) / 100.0) >= enough;
                prop_assert!(now || !reached, "lost again at {} %", step);
                reached = now;
            }
        }
    }

    /// The formula once more, flow by flow.
    #[test]
    fn the_wealth_is_the_product_over_all_flows() {
        let cohorts = [
            counts(0.2, (100, 2.0), (400, 3.0)),
            counts(0.5, (50, 1.0), (60, 0.0)),
        ];
        for margin in [0.01, 0.05, 0.3] {
            let mean = STAKES
                .map(|stake| {
                    let mut wealth = 1.0;
                    for cohort in &cohorts {
                        let w = cohort.weight;
                        let lambda = stake * w / (1.0 - w * margin);
                        let (c, b) = (cohort.canary, cohort.baseline);
                        for flow in 0..c.trials {
                            let error = f64::from(u8::from((flow as f64) < c.errors));
                            wealth *= 1.0 + lambda * (margin - error / w);
                        }
                        for flow in 0..b.trials {
                            let error = f64::from(u8::from((flow as f64) < b.errors));
                            wealth *= 1.0 + lambda * (margin + error / (1.0 - w));
                        }
                    }
                    wealth
                })
                .iter()
                .sum::<f64>()
                / STAKES.len() as f64;
            assert!(
                (ln_wealth(&cohorts, margin) - mean.ln()).abs() < 1e-9,
                "{margin}"
            );
        }
    }

    #[test]
    fn flows_count_when_their_outcome_is_known() {
        let mut test = PromotionTest::new(at(30));
        let clean = counts(0.5, (2_000, 0.0), (2_000, 0.0));
        test.observe(at(0), &[clean]);
        test.observe(at(29), &[clean]);
        assert_eq!(test.upper_bound(), None);
        test.observe(at(30), &[clean]);
        let bound = test.upper_bound().expect("a bound");
        assert!((0.001..0.004).contains(&bound), "{bound}");
        // Errors of the canary count at once, those of the baseline and new flows only later.
        test.observe(at(31), &[counts(0.5, (9_000, 40.0), (9_000, 40.0))]);
        let worse = test.upper_bound().expect("a bound");
        assert!(worse > 2.0 * bound, "{worse}");
    }

    #[test]
    fn a_canary_without_comparison_proves_nothing() {
        let mut test = PromotionTest::new(at(0));
        for weight in [0.0, 1.0] {
            test.observe(at(1), &[counts(weight, (100_000, 0.0), (0, 0.0))]);
            assert_eq!(test.upper_bound(), None);
            assert_eq!(test.ln_evidence(0.01), 0.0);
        }
        assert_eq!(PromotionTest::new(at(0)).upper_bound(), None);
    }
}
