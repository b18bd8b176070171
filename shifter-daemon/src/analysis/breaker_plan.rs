//! The breaker's numbers: from the accepted rate of false rollbacks to the integers the kernel adds and
//! compares. Gains are rounded down, losses and thresholds up.

use shifter_common::{
    breaker::{ARM_COUNT, CohortRow, Increments, ONE, THRESHOLD_COUNT, Thresholds},
    steering::WEIGHT_FULL_BP,
};
use thiserror::Error;

/// ρ of the breaker's arms: errors this many times as frequent on the canary.
pub const ARM_RATIOS: [f64; ARM_COUNT] = [3.0, 30.0];
/// Tests of a service: errors and slowness.
const TESTS: f64 = 2.0;

/// What may go wrong by chance, and how often it gets the chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerBudget {
    /// Accepted probability that a good release is rolled back, over the whole rollout. Half of it is the
    /// breaker's.
    pub false_rollback: f64,
    /// Hosts that run the rollout, if the trip of one rolls all of them back; 1 otherwise.
    pub hosts: u32,
    /// Under client affinity the steps of the plan, because the test begins anew with each; 1 otherwise.
    pub restarts: u32,
}

/// A budget that makes no test.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum BudgetError {
    /// The probability is none, or no promise.
    #[error("false_rollback is {0}: it must be at least 0.000001 and at most 0.5")]
    FalseRollback(f64),
    /// A count that must be positive is zero.
    #[error("{0} is 0: it must be at least 1")]
    Zero(&'static str),
}

impl BreakerBudget {
    /// The probability left for each arm of each test.
    ///
    /// # Errors
    /// The budget makes no test.
    pub fn per_arm(&self) -> Result<f64, BudgetError> {
        if !(1e-6..=0.5).contains(&self.false_rollback) {
            return Err(BudgetError::FalseRollback(self.false_rollback));
        }
        for (name, count) in [("hosts", self.hosts), ("restarts", self.restarts)] {
            if count == 0 {
                return Err(BudgetError::Zero(name));
            }
        }
        let tests = TESTS * ARM_COUNT as f64;
        Ok(self.false_rollback / 2.0 / tests / f64::from(self.hosts) / f64::from(self.restarts))
    }
}

/// The integers of one rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPlan {
    /// Thresholds, by arm. Both tests have the same.
    pub thresholds: [Thresholds; ARM_COUNT],
}

impl BreakerPlan {
    /// The thresholds for a budget.
    ///
    /// # Errors
    /// The budget makes no test.
    pub fn new(budget: &BreakerBudget) -> Result<Self, BudgetError> {
        let alpha = budget.per_arm()?;
        Ok(Self {
            thresholds: ARM_RATIOS.map(|ratio| thresholds(ratio, alpha)),
        })
    }

    /// The row of a cohort that is admitted at this weight. At 0 and at the full weight there is nothing
    /// to compare with: such errors count for nothing.
    pub fn row(weight_bp: u16) -> CohortRow {
        let weight_bp = weight_bp.min(WEIGHT_FULL_BP);
        let compares = weight_bp > 0 && weight_bp < WEIGHT_FULL_BP;
        CohortRow {
            increments: ARM_RATIOS.map(|ratio| match compares {
                true => increments(ratio, weight_bp),
                false => Increments::NONE,
            }),
            weight_bp,
            pad: [0; 6],
        }
    }
}

/// What an error adds at weight w: ln ρ − ln(1 + w(ρ−1)) for the canary's, −ln(1 + w(ρ−1)) for the
/// baseline's.
fn increments(ratio: f64, weight_bp: u16) -> Increments {
    let weight = f64::from(weight_bp) / f64::from(WEIGHT_FULL_BP);
    let loss = (weight * (ratio - 1.0)).ln_1p();
    Increments {
        gain: down(ratio.ln() - loss),
        loss: up(loss),
    }
}

/// H[m] = ln(ρ/α) + m·ln 2 + ln((m+1)(m+2)): excursion j spends α·2^−m/((m+1)(m+2)) with m = ⌊log₂ j⌋,
/// which over all j is α.
fn thresholds(ratio: f64, alpha: f64) -> Thresholds {
    let mut thresholds = [0; THRESHOLD_COUNT];
    for (m, threshold) in (0_u32..).zip(&mut thresholds) {
        let m = f64::from(m);
        let exact =
            (ratio / alpha).ln() + m * core::f64::consts::LN_2 + ((m + 1.0) * (m + 2.0)).ln();
        *threshold = up(exact);
    }
    thresholds
}

/// More than the logarithms of this file can be wrong by, in units of the last fixed-point place.
const SLACK: f64 = 1e-6;

/// Fixed point, rounded down.
fn down(value: f64) -> u32 {
    // A cast from f64 ends at the range of u32.
    (value * f64::from(ONE) - SLACK).floor() as u32
}

/// Fixed point, rounded up.
fn up(value: f64) -> u32 {
    (value * f64::from(ONE) + SLACK).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(fixed: u32) -> f64 {
        f64::from(fixed) / f64::from(ONE)
    }

    /// The mean of the likelihood ratio of one error of a canary that is no worse, as the kernel has it.
    fn mean_ratio(increments: Increments, weight_bp: u16) -> f64 {
        let weight = f64::from(weight_bp) / 10_000.0;
        weight * real(increments.gain).exp() + (1.0 - weight) * (-real(increments.loss)).exp()
    }

    #[test]
    fn the_bound_survives_rounding_at_every_weight() {
        for weight_bp in 1..WEIGHT_FULL_BP {
            for increments in BreakerPlan::row(weight_bp).increments {
                let mean = mean_ratio(increments, weight_bp);
                assert!(mean <= 1.0, "{weight_bp}: 1 + {:e}", mean - 1.0);
                assert!(mean > 1.0 - 3e-7, "{weight_bp}: 1 − {:e}", 1.0 - mean);
            }
        }
    }

    /// The other direction, or the nearest number, breaks the bound somewhere.
    #[test]
    fn rounding_to_the_nearest_breaks_the_bound() {
        let nearest = |value: f64| (value * f64::from(ONE)).round() as u32;
        let worst = (1..WEIGHT_FULL_BP)
            .map(|weight_bp| {
                let loss = (f64::from(weight_bp) / 10_000.0 * 2.0).ln_1p();
                let increments = Increments {
                    gain: nearest(3_f64.ln() - loss),
                    loss: nearest(loss),
                };
                mean_ratio(increments, weight_bp)
            })
            .fold(0.0, f64::max);
        assert!(worst > 1.0 + 1e-8, "{worst}");
    }

    #[test]
    fn the_thresholds_spend_what_an_arm_has_and_no_more() {
        let budget = BreakerBudget {
            false_rollback: 0.01,
            hosts: 1,
            restarts: 1,
        };
        let alpha = budget.per_arm().expect("a budget");
        assert_eq!(alpha, 0.00125);
        let plan = BreakerPlan::new(&budget).expect("a plan");
        for (ratio, thresholds) in ARM_RATIOS.into_iter().zip(plan.thresholds) {
            let spent: f64 = thresholds
                .iter()
                .enumerate()
                .map(|(m, &threshold)| 2_f64.powi(m as i32) * ratio * (-real(threshold)).exp())
                .sum();
            assert!(spent <= alpha, "{spent} of {alpha}");
            assert!(spent > 0.95 * alpha, "{spent} of {alpha}");
            assert!(thresholds.is_sorted());
            // The example of the documentation.
            assert!((real(thresholds[0]) - (ratio / alpha).ln() - 2_f64.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn weights_without_a_comparison_count_nothing() {
        for weight_bp in [0, WEIGHT_FULL_BP, u16::MAX] {
            assert_eq!(
                BreakerPlan::row(weight_bp).increments,
                [Increments::NONE; 2],
                "{weight_bp}"
            );
        }
    }

    #[test]
    fn a_budget_that_makes_no_test_says_why() {
        let good = BreakerBudget {
            false_rollback: 0.01,
            hosts: 1,
            restarts: 1,
        };
        let rows = [
            (
                BreakerBudget {
                    false_rollback: 0.0,
                    ..good
                },
                "false_rollback is 0: it must be at least 0.000001 and at most 0.5",
            ),
            (
                BreakerBudget {
                    false_rollback: f64::NAN,
                    ..good
                },
                "false_rollback is NaN: it must be at least 0.000001 and at most 0.5",
            ),
            (
                BreakerBudget { hosts: 0, ..good },
                "hosts is 0: it must be at least 1",
            ),
            (
                BreakerBudget {
                    restarts: 0,
                    ..good
                },
                "restarts is 0: it must be at least 1",
            ),
        ];
        for (budget, text) in rows {
            let error = BreakerPlan::new(&budget).expect_err(text);
            assert_eq!(error.to_string(), text);
        }
        // The smallest budget of the largest fleet still fits the fixed point.
        let smallest = BreakerBudget {
            false_rollback: 1e-6,
            hosts: u32::MAX,
            restarts: u32::MAX,
        };
        let plan = BreakerPlan::new(&smallest).expect("a plan");
        assert!(plan.thresholds.iter().flatten().all(|&h| h < u32::MAX));
    }
}
