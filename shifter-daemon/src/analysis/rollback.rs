//! Whether the canary is worse: a sequential test that may be looked at after every tick.
//!
//! For each of several ratios ρ the test bets that an error is ρ times as frequent on the canary, and
//! mixes bets that begin at every tick, so that a fault that begins late is still seen. If the canary is
//! no worse, the mean of the bets exceeds 1/α at any time of the rollout with probability at most α
//! (Ville 1939; Lindon & Malek 2022).

use super::logarithm::{ln_add, ln_mean};

/// ρ: how many times as frequent errors may be on a bad canary.
pub const RATIOS: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];
/// Where the canary's share is not known by design but read off a provider's totals, being this many
/// times worse still counts as no worse.
pub const BASE_RATIO: f64 = 1.25;

/// Errors of one tick whose flows were admitted under one weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TickErrors {
    /// The canary's share at admission, between 0 and 1, both excluded.
    pub weight: f64,
    /// Errors of the canary.
    pub canary: f64,
    /// Errors of the baseline.
    pub baseline: f64,
}

/// The test of one metric over a rollout. It is never restarted within one, except that under client
/// affinity each step has its own and a share of α.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackTest {
    base_ratio: f64,
    tick: u64,
    /// ln R for each of [`RATIOS`].
    logs: [f64; RATIOS.len()],
}

impl Default for RollbackTest {
    fn default() -> Self {
        Self::against(1.0)
    }
}

/// ln π of a tick, counted from 1: half goes to the first, the other half is spread over all, a little
/// less for each doubling. All together they are 1.
fn ln_prior(tick: u64) -> f64 {
    let m = f64::from(tick.max(1).ilog2());
    let spread = 0.5 * (-m).exp2() / ((m + 1.0) * (m + 2.0));
    let first = if tick == 1 { 0.5 } else { 0.0 };
    (first + spread).ln()
}

impl RollbackTest {
    /// A test in which a canary whose errors are up to `base_ratio` (at least 1) times as frequent is no
    /// worse.
    pub fn against(base_ratio: f64) -> Self {
        Self {
            base_ratio,
            tick: 0,
            logs: [f64::NEG_INFINITY; RATIOS.len()],
        }
    }

    /// One tick: the errors that became known in it, by the weight at which their flows were admitted.
    /// A tick without errors is a tick.
    #[inline]
    pub fn observe(&mut self, errors: &[TickErrors]) {
        self.tick += 1;
        let prior = ln_prior(self.tick);
        for (ratio, log) in RATIOS.iter().zip(&mut self.logs) {
            let mut gain = 0.0;
            // A ratio below the base bets on a canary that is no worse: it keeps its stake.
            if *ratio > self.base_ratio {
                for error in errors {
                    gain += score(*ratio, error) - score(self.base_ratio, error);
                }
            }
            *log = ln_add(*log, prior) + gain;
        }
    }

    /// ln E, the logarithm of the evidence that the canary is worse. −∞ before the first tick.
    #[inline]
    pub fn ln_evidence(&self) -> f64 {
        ln_mean(&self.logs)
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.tick
    }
}

/// x_c·ln ρ − (x_c + x_b)·ln(1 + w(ρ−1)).
#[inline]
pub(super) fn score(ratio: f64, errors: &TickErrors) -> f64 {
    if errors.canary == 0.0 && errors.baseline == 0.0 {
        return 0.0;
    }
    errors.canary * ratio.ln()
        - (errors.canary + errors.baseline) * (errors.weight * (ratio - 1.0)).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(weight: f64, canary: f64, baseline: f64) -> TickErrors {
        TickErrors {
            weight,
            canary,
            baseline,
        }
    }

    #[test]
    fn the_stakes_of_all_ticks_sum_to_one() {
        let sum: f64 = (1..1 << 20).map(|tick| ln_prior(tick).exp()).sum();
        // What is left after 2²⁰ ticks is half of Σ 1/((m+1)(m+2)) from m = 20, 1/21.
        assert!((sum + 0.5 / 21.0 - 1.0).abs() < 1e-9, "{sum}");
    }

    /// The formula once more, in plain numbers.
    #[test]
    fn the_evidence_is_the_mean_of_the_bets() {
        let ticks = [
            (0.05, 1.0, 0.0),
            (0.05, 2.0, 3.0),
            (0.2, 0.0, 5.0),
            (0.2, 3.0, 1.0),
        ];
        let mut test = RollbackTest::default();
        let mut bets = [0.0_f64; 8];
        for (t, &(w, c, b)) in (1_u64..).zip(&ticks) {
            test.observe(&[at(w, c, b)]);
            let m = f64::from(t.ilog2());
            let prior =
                f64::from(u8::from(t == 1)) / 2.0 + 0.5 * 0.5_f64.powf(m) / ((m + 1.0) * (m + 2.0));
            for (bet, ratio) in bets.iter_mut().zip(RATIOS) {
                *bet = (*bet + prior) * ratio.powf(c) / (1.0 + w * (ratio - 1.0)).powf(c + b);
            }
        }
        let mean = bets.iter().sum::<f64>() / 8.0;
        assert!((test.ln_evidence() - mean.ln()).abs() < 1e-9);
        assert_eq!(test.ticks(), 4);
    }

    #[test]
    fn a_tick_without_errors_adds_its_stake_alone() {
        let mut test = RollbackTest::default();
        assert_eq!(test.ln_evidence(), f64::NEG_INFINITY);
        for _ in 0..1_000 {
            test.observe(&[]);
        }
        assert!(test.ln_evidence() < 0.0, "{}", test.ln_evidence());
    }

    #[test]
    fn against_a_base_a_little_worse_is_no_evidence_and_much_worse_is() {
        let run = |canary_share: f64| {
            let mut test = RollbackTest::against(BASE_RATIO);
            for _ in 0..400 {
                test.observe(&[at(0.5, 10.0 * canary_share, 10.0 * (1.0 - canary_share))]);
            }
            test.ln_evidence()
        };
        // At w = ½ errors 1.25 times as frequent are 5 of 9.
        assert!(run(5.0 / 9.0) < 0.0, "{}", run(5.0 / 9.0));
        assert!(run(0.75) > 100.0);
    }

    /// A bet on less than the base is a bet on a good canary: it must not win when the canary is good.
    #[test]
    fn a_good_canary_is_no_evidence_against_any_base() {
        for base_ratio in [1.0, BASE_RATIO, 2.0, 200.0] {
            let mut test = RollbackTest::against(base_ratio);
            for _ in 0..1_000 {
                test.observe(&[at(0.5, 0.0, 1.0)]);
            }
            assert!(test.ln_evidence() <= 0.0, "{base_ratio}");
        }
    }

    #[test]
    fn thousands_of_errors_overflow_nothing() {
        let mut test = RollbackTest::default();
        for _ in 0..100 {
            test.observe(&[at(0.01, 1e6, 0.0)]);
        }
        assert!(test.ln_evidence().is_finite());
        for _ in 0..200 {
            test.observe(&[at(0.01, 0.0, 1e9)]);
        }
        let log = test.ln_evidence();
        assert!(log < 0.0 && log.is_finite(), "{log}");
    }
}
