//! Rollouts as the analysis sees them: counts every five seconds.

use std::time::Duration;

use shifter_daemon::analysis::{
    Action, Ask, CohortCounts, CohortSample, Holds, Judgement, Limit, Measure, Metric, MetricSpec,
    PROMOTION_ERROR, PromotionTest, Reading, RollbackTest, Rule, Sample, TickErrors, Totals,
};

use crate::{random::Random, schedule::ROLLOUT_S};

/// How often the analysis looks.
pub const TICK_S: f64 = 5.0;
/// Flows a second in all simulations.
pub const FLOWS: f64 = 200.0;
/// Error share of the baseline in all simulations.
pub const SHARE: f64 = 0.001;
/// Part of the budget of one metric that has the analysis' half for itself.
pub const ALPHA: f64 = 0.005;

/// A good release of two hours: the weight changes once, flows fail some time before they close.
#[derive(Clone, Copy, Debug)]
pub struct Null {
    /// Weights before and after half of the time.
    pub weights: [f64; 2],
    /// Error share of both versions.
    pub share: f64,
    /// How long flows last; a success is known at the end, a failure at any time.
    pub close_s: f64,
    /// Whether an error is judged by the weight in force when it is known: the mistake.
    pub current_weight: bool,
    /// Whether the test is begun anew with each tick's look at the last minute: the other mistake.
    pub restarted: bool,
}

impl Null {
    /// The greatest ln E of the rollout.
    pub fn highest(&self, random: &mut Random) -> f64 {
        let end = f64::from(ROLLOUT_S);
        let ticks = (end / TICK_S) as usize;
        let mut errors = vec![[[0.0_f64; 2]; 2]; ticks + 1];
        let phase = random.unit();
        let mut admitted = -self.close_s;
        loop {
            // Error shares swing between nearly nothing and twice the mean, and once there is an outage.
            admitted += random.wait(FLOWS * self.share * 4.0);
            if admitted > end {
                break;
            }
            let swing = 1.0 + (12.0 * (admitted / end + phase)).sin();
            let outage = (0.0..30.0).contains(&(admitted - phase * end));
            if !outage && random.unit() * 4.0 > swing {
                continue;
            }
            let cohort = usize::from(admitted >= end / 2.0);
            let known = admitted + random.unit() * self.close_s;
            let side = usize::from(random.unit() >= self.weights[cohort]);
            if admitted < 0.0 || known < 0.0 || known >= end {
                continue;
            }
            let judged = if self.current_weight {
                usize::from(known >= end / 2.0)
            } else {
                cohort
            };
            errors[(known / TICK_S) as usize][judged][side] += 1.0;
        }
        let mut test = RollbackTest::default();
        let mut highest = f64::NEG_INFINITY;
        for (tick, cohorts) in errors.iter().enumerate() {
            if self.restarted && tick % 12 == 0 {
                test = RollbackTest::default();
            }
            test.observe(&[0, 1].map(|cohort| TickErrors {
                weight: self.weights[cohort],
                canary: cohorts[cohort][0],
                baseline: cohorts[cohort][1],
            }));
            highest = highest.max(test.ln_evidence());
        }
        highest
    }
}

/// A metric of error shares with the usual numbers.
pub fn metric() -> Metric {
    Metric::new(MetricSpec {
        name: "errors".into(),
        measure: Measure::Errors,
        limit: Limit::Increase(0.005),
        rule: Rule::Sequential,
        alpha: ALPHA,
        holds: Holds {
            min_samples: 50,
            min_per_minute: 100.0,
            baseline_max_error: 0.05,
        },
        outcome_timeout: Duration::from_secs(30),
        scrape_interval: None,
        dry_run: false,
        action: Action::RollBack,
    })
}

/// A canary at a constant weight whose error share rises from the baseline's to `bad` after `good_s`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The canary's weight, 0 to 1.
    pub weight: f64,
    /// Its error share with the fault.
    pub bad: f64,
    /// How long it is good.
    pub good_s: f64,
    /// How long it is looked at from then.
    pub for_s: f64,
}

/// When, after the fault began, the analysis goes back and how many canary errors there had been since:
/// before it began if that is negative, `None` if it never does.
pub fn detect(fault: &Fault, random: &mut Random) -> Option<(f64, u64)> {
    let mut metric = metric();
    let bp = (fault.weight * 10_000.0).round() as u16;
    let mut canary = Totals::default();
    let mut baseline = Totals::default();
    let mut since = 0;
    let ticks = ((fault.good_s + fault.for_s) / TICK_S).round() as u64;
    for tick in 1..=ticks {
        let now = tick as f64 * TICK_S;
        let bad = now > fault.good_s;
        let share = if bad { fault.bad } else { SHARE };
        let n = (FLOWS * TICK_S * fault.weight).round();
        let m = FLOWS * TICK_S - n;
        let more = random.poisson(n * share);
        canary = canary.plus(Totals {
            trials: n as u64,
            errors: more as f64,
        });
        baseline = baseline.plus(Totals {
            trials: m as u64,
            errors: random.poisson(m * SHARE) as f64,
        });
        if bad {
            since += more;
        }
        let sample = |totals| Sample {
            totals,
            latency: None,
        };
        let at = Duration::from_secs_f64(now);
        metric.observe(
            at,
            &Reading::Cohorts(vec![CohortSample {
                cohort: 1,
                weight_bp: bp,
                targeted: false,
                canary: sample(canary),
                baseline: sample(baseline),
            }]),
        );
        if metric.ln_evidence() >= -ALPHA.ln()
            && metric.judge(at, Ask::NoAlarm).judgement == Judgement::Fail
        {
            return Some((now - fault.good_s, since));
        }
    }
    None
}

/// A canary that is compared with the baseline at a constant weight until so many canary flows.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The canary's weight, 0 to 1.
    pub weight: f64,
    /// Error share of the baseline.
    pub baseline: f64,
    /// Error share of the canary.
    pub canary: f64,
    /// The margin.
    pub margin: f64,
    /// Canary flows a look.
    pub look: f64,
    /// Looks.
    pub looks: u32,
}

/// Canary flows until it is shown that the canary is not worse by the margin; `None` if it is not.
pub fn shown(comparison: &Comparison, random: &mut Random) -> Option<f64> {
    let mut test = PromotionTest::new(Duration::ZERO);
    let (mut n, mut canary_errors, mut baseline_errors) = (0.0, 0, 0);
    for look in 1..=comparison.looks {
        n += comparison.look;
        let more = comparison.look * (1.0 - comparison.weight) / comparison.weight;
        canary_errors += random.poisson(comparison.look * comparison.canary);
        baseline_errors += random.poisson(more * comparison.baseline);
        let trials = |n: f64| n.round() as u64;
        let counts = CohortCounts {
            cohort: 1,
            weight: comparison.weight,
            canary: Totals {
                trials: trials(n),
                errors: canary_errors as f64,
            },
            baseline: Totals {
                trials: trials(n * (1.0 - comparison.weight) / comparison.weight),
                errors: baseline_errors as f64,
            },
        };
        test.observe(Duration::from_secs(look.into()), &[counts]);
        if test.ln_evidence(comparison.margin) >= -PROMOTION_ERROR.ln() {
            return Some(n);
        }
    }
    None
}
