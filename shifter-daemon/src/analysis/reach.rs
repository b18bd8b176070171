//! What the evidence of a plan, or of a step, can show at all.

use super::{
    counts::{CohortCounts, Totals},
    logarithm::ln_mean,
    rollback::{RATIOS, TickErrors, score},
};

/// A regression counts as caught if it would have been seen with this probability.
const CAUGHT: f64 = 0.9;
/// Halvings when a number is sought.
const HALVINGS: u32 = 60;

/// A step as it is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedStep {
    /// The canary's share, 0 to 1.
    pub weight: f64,
    /// Flows of both versions together that are expected in it.
    pub flows: f64,
}

/// Canary flows after which evidence for a margin is usually there, if the canary is as good as the
/// baseline: 5/δ + 9p/((1−w)δ²), p the baseline's error share.
pub fn required_canary_flows(margin: f64, baseline_share: f64, weight: f64) -> f64 {
    5.0 / margin + 9.0 * baseline_share / ((1.0 - weight) * margin * margin)
}

/// The least margin for which a plan brings evidence, with half as many flows again as are usually
/// needed. `None` if none below 1 does. Steps at 0 and at the full weight bring none.
pub fn reachable_margin(steps: &[PlannedStep], baseline_share: f64) -> Option<f64> {
    let (mut flows, mut weight) = (0.0, 0.0);
    for step in steps {
        if step.weight > 0.0 && step.weight < 1.0 {
            let canary = step.weight * step.flows;
            flows += canary;
            weight += canary * step.weight;
        }
    }
    if flows <= 0.0 {
        return None;
    }
    // n = 5/δ + q/δ² solved for 1/δ.
    let (n, q) = (flows / 1.5, 9.0 * baseline_share / (1.0 - weight / flows));
    let margin = (5.0 + (25.0 + 4.0 * n * q).sqrt()) / (2.0 * n);
    (margin < 1.0).then_some(margin)
}

/// The increase of the error share that would have raised the alarm with 90 % probability, had it been
/// there in all flows of these cohorts: what the absence of an alarm is worth. `alpha` is the metric's
/// share of the accepted false rollbacks, `margin` the increase that is allowed anyway. `None` if even
/// failing altogether would not have.
pub fn caught_increase(cohorts: &[CohortCounts], alpha: f64, margin: f64) -> Option<f64> {
    let sum = |side: fn(&CohortCounts) -> Totals| {
        let compared = cohorts.iter().filter(|counts| counts.compares());
        compared.fold(Totals::default(), |sum, counts| sum.plus(side(counts)))
    };
    let (canary, baseline) = (sum(|c| c.canary), sum(|c| c.baseline));
    let n = canary.trials;
    let share = baseline.share()?;
    let needed = least_alarm(cohorts, n, alpha)?;
    // The limit has to be exceeded as well.
    let needed = needed.max(((share + margin) * n as f64).floor() as u64 + 1);
    let mean = mean_for(needed);
    let increase = mean / n as f64 - share;
    (increase < 1.0 - share).then(|| increase.max(0.0))
}

/// The least number of canary errors, spread over the cohorts as the flows are, that raises the alarm.
fn least_alarm(cohorts: &[CohortCounts], canary_flows: u64, alpha: f64) -> Option<u64> {
    let bar = -alpha.ln();
    let evidence = |errors: u64| {
        let bets = RATIOS.map(|ratio| {
            let compared = cohorts.iter().filter(|counts| counts.compares());
            // The first tick has half of the stakes.
            compared.fold(0.5_f64.ln(), |sum, counts| {
                let part = counts.canary.trials as f64 / canary_flows as f64;
                sum + score(
                    ratio,
                    &TickErrors {
                        weight: counts.weight,
                        canary: errors as f64 * part,
                        baseline: counts.baseline.errors,
                    },
                )
            })
        });
        ln_mean(&bets)
    };
    if canary_flows == 0 || evidence(canary_flows) < bar {
        return None;
    }
    let (mut low, mut high) = (0, canary_flows);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if evidence(middle) >= bar {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// The mean at which a Poisson number is at least `count` with probability [`CAUGHT`].
fn mean_for(count: u64) -> f64 {
    let (mut low, mut high) = (0.0, 4.0 * count as f64 + 10.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if 1.0 - poisson_below(count, middle) >= CAUGHT {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The probability that a Poisson number is below `count`.
fn poisson_below(count: u64, mean: f64) -> f64 {
    if count > 1_000 {
        // Wilson and Hilferty's cube root, off by less than 10⁻⁴ here.
        let k = count as f64;
        let z = 3.0 * k.sqrt() * (1.0 - 1.0 / (9.0 * k) - (mean / k).cbrt());
        return normal_below(z);
    }
    let mut ln_term = -mean;
    let mut sum = 0.0;
    for k in 0..count {
        sum += ln_term.exp();
        ln_term += mean.ln() - ((k + 1) as f64).ln();
    }
    sum.min(1.0)
}

/// The probability that a standard normal number is below `z` (Abramowitz and Stegun 26.2.17, off by
/// less than 7.5·10⁻⁸).
fn normal_below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let polynomial = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial;
    if z > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weight: f64, canary: u64, baseline: (u64, f64)) -> CohortCounts {
        CohortCounts {
            cohort: 1,
            weight,
            canary: Totals {
                trials: canary,
                errors: 0.0,
            },
            baseline: Totals {
                trials: baseline.0,
                errors: baseline.1,
            },
        }
    }

    #[test]
    fn poisson_agrees_with_tables() {
        let rows = [
            (1, 2.0, 0.135_34),
            (5, 9.0, 0.054_96),
            (5, 3.0, 0.815_26),
            (1_001, 1_000.0, 0.508_4),
        ];
        for (count, mean, expected) in rows {
            let found = poisson_below(count, mean);
            assert!((found - expected).abs() < 1e-3, "{count} {mean}: {found}");
        }
        // Both sides of the change of method.
        let (below, above) = (poisson_below(1_000, 1_030.0), poisson_below(1_001, 1_031.0));
        assert!((below - above).abs() < 1e-3, "{below} {above}");
    }

    #[test]
    fn few_flows_catch_little() {
        let caught = |canary: u64| {
            let baseline = canary * 19;
            let cohort = counts(0.05, canary, (baseline, (baseline as f64 * 0.001).round()));
            caught_increase(&[cohort], 0.005, 0.005)
        };
        assert_eq!(caught(0), None);
        let found: Vec<f64> = [300, 3_000, 30_000]
            .map(|canary| caught(canary).expect("an increase"))
            .into();
        assert!((0.02..0.04).contains(&found[0]), "{found:?}");
        assert!((0.005..0.012).contains(&found[1]), "{found:?}");
        assert!((0.005..0.007).contains(&found[2]), "{found:?}");
        // One flow that fails is no alarm at all.
        assert_eq!(caught(1), None);
    }

    #[test]
    fn a_plan_reaches_the_margin_its_flows_suffice_for() {
        let step = |weight, flows| PlannedStep { weight, flows };
        assert_eq!(reachable_margin(&[], 0.001), None);
        assert_eq!(reachable_margin(&[step(1.0, 1e9)], 0.001), None);
        assert_eq!(reachable_margin(&[step(0.5, 2.0)], 0.001), None);
        let plan = [step(0.05, 60_000.0), step(0.2, 120_000.0)];
        let margin = reachable_margin(&plan, 0.001).expect("a margin");
        let weight = (3_000.0 * 0.05 + 24_000.0 * 0.2) / 27_000.0;
        let flows = 1.5 * required_canary_flows(margin, 0.001, weight);
        assert!((flows / 27_000.0 - 1.0).abs() < 1e-9, "{flows}");
        // The sizes of the documentation.
        assert!((required_canary_flows(0.005, 0.001, 0.5) - 1_720.0).abs() < 1e-6);
    }
}
