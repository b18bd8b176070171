//! What the best test does that is told both error shares: Page's CUSUM (1954) on the canary's flows.

use crate::{
    random::Random,
    schedule::ROLLOUT_S,
    setting::{each, quantile},
};

/// A CUSUM for a canary whose error share goes from `good` to `bad`.
#[derive(Clone, Copy, Debug)]
pub struct Cusum {
    /// Canary flows a second.
    pub flows: f64,
    /// Its error share as it should be.
    pub good: f64,
    /// Its error share with the fault.
    pub bad: f64,
}

impl Cusum {
    /// The threshold that a good canary exceeds in a rollout with probability `alpha`, from so many
    /// simulated ones.
    pub fn threshold(&self, alpha: f64, rollouts: u64, seed: u64) -> f64 {
        let highest = each(rollouts, |stream| {
            let mut random = Random::new(seed, stream);
            let mut highest = 0.0_f64;
            self.run(self.good, &mut random, |sum, _, _| {
                highest = highest.max(sum);
                false
            });
            highest
        });
        quantile(highest, 1.0 - alpha)
    }

    /// When and after how many errors the sum of a bad canary reaches `threshold`.
    pub fn detect(&self, threshold: f64, random: &mut Random) -> Option<(f64, u64)> {
        let mut found = None;
        self.run(self.bad, random, |sum, now, errors| {
            if sum >= threshold {
                found = Some((now, errors));
            }
            found.is_some()
        });
        found
    }

    fn run(&self, share: f64, random: &mut Random, mut stop: impl FnMut(f64, f64, u64) -> bool) {
        let gain = (self.bad / self.good).ln();
        let loss = self.flows * ((1.0 - self.good) / (1.0 - self.bad)).ln();
        let (mut now, mut sum, mut errors) = (0.0_f64, 0.0_f64, 0);
        loop {
            let wait = random.wait(self.flows * share);
            now += wait;
            if now > f64::from(ROLLOUT_S) {
                return;
            }
            sum = (sum - wait * loss).max(0.0) + gain;
            errors += 1;
            if stop(sum, now, errors) {
                return;
            }
        }
    }
}
