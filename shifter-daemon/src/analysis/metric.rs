//! One metric over a rollout: readings in, verdicts out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    counts::{CohortCounts, Totals, difference},
    judgement::Judgement,
    latency::{Histogram, border_ns},
    limit::{Limit, Measure, Rule},
    promotion::PromotionTest,
    reach::{PlannedStep, caught_increase, required_canary_flows},
    reading::{CohortSample, Quarantine, Reading, Sample},
    rollback::{BASE_RATIO, RollbackTest, TickErrors},
    share::share_is_off,
    verdict::{Reason, Verdict},
};

/// Responses of the baseline from which its slow times are taken.
const CALIBRATION: u64 = 2_000;
/// E from which a canary is not promoted without a second look.
const SUSPICIOUS: f64 = 10.0;
/// How many times as many canary flows as are usually needed a plan must have before evidence is asked
/// of it.
const AMPLE: f64 = 1.5;

/// What a failed metric leads to. The stronger one comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A person decides.
    Pause,
    /// The canary leaves traffic.
    RollBack,
}

/// What a promotion takes at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// That nothing speaks against it.
    NoAlarm,
    /// That the canary was shown to be not worse by the margin, where the metric has one.
    Evidence,
}

/// What promotions take, as the plan says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromoteOn {
    /// No alarm at steps; evidence before the full weight, if the plan has the flows for it.
    Auto,
    /// No alarm.
    NoAlarm,
    /// Evidence.
    Evidence,
}

impl PromoteOn {
    /// What the promotion out of a step takes. `to_full` is whether the next weight is the full one;
    /// `steps` are all steps of the plan, `margin` the metric's and `baseline_share` its usual errors.
    pub fn ask(
        self,
        to_full: bool,
        steps: &[PlannedStep],
        margin: f64,
        baseline_share: f64,
    ) -> Ask {
        match self {
            Self::NoAlarm => Ask::NoAlarm,
            Self::Evidence => Ask::Evidence,
            Self::Auto => {
                let compared = || {
                    steps
                        .iter()
                        .filter(|step| step.weight > 0.0 && step.weight < 1.0)
                };
                let flows: f64 = compared().map(|step| step.weight * step.flows).sum();
                let weighted: f64 = compared()
                    .map(|step| step.weight * step.weight * step.flows)
                    .sum();
                let ample = flows > 0.0
                    && flows
                        >= AMPLE * required_canary_flows(margin, baseline_share, weighted / flows);
                if to_full && ample {
                    Ask::Evidence
                } else {
                    Ask::NoAlarm
                }
            }
        }
    }
}

/// What holds a promotion, never a rollback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holds {
    /// Canary flows a step must have had.
    pub min_samples: u64,
    /// Flows a minute of both versions a step must have had.
    pub min_per_minute: f64,
    /// The most the baseline may fail, 0 to 1.
    pub baseline_max_error: f64,
}

/// A metric as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    /// What it is called.
    pub name: String,
    /// What it measures.
    pub measure: Measure,
    /// Where bad begins.
    pub limit: Limit,
    /// How it comes to its answer.
    pub rule: Rule,
    /// Its part of the accepted probability of a false rollback.
    pub alpha: f64,
    /// What holds a promotion.
    pub holds: Holds,
    /// When the outcome of a flow is known at the latest.
    pub outcome_timeout: Duration,
    /// For a provider without cohorts: how often it is scraped.
    pub scrape_interval: Option<Duration>,
    /// Whether it only says so.
    pub dry_run: bool,
    /// What follows if it fails.
    pub action: Action,
}

/// What the last reading was.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Nothing,
    Counts,
    Settling(Duration),
    Missing,
    Failed(String),
}

/// Both versions' durations, all cohorts together.
#[derive(Clone, Debug, Default)]
struct Pair {
    canary: Histogram,
    baseline: Histogram,
}

impl Pair {
    fn since(&self, before: &Self) -> Self {
        Self {
            canary: self.canary.since(&before.canary),
            baseline: self.baseline.since(&before.baseline),
        }
    }
}

/// Counts at one time of the rollout.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    cohorts: Vec<CohortCounts>,
    latency: Pair,
}

impl Snapshot {
    fn since(&self, before: &Self) -> Self {
        let cohorts = self.cohorts.iter().map(|now| {
            let then = before.cohorts.iter().find(|then| then.cohort == now.cohort);
            let (canary, baseline) =
                then.map_or_else(Default::default, |then| (then.canary, then.baseline));
            CohortCounts {
                canary: now.canary.since(canary),
                baseline: now.baseline.since(baseline),
                ..*now
            }
        });
        Self {
            cohorts: cohorts.collect(),
            latency: self.latency.since(&before.latency),
        }
    }

    fn sum(&self, side: impl Fn(&CohortCounts) -> Totals) -> Totals {
        let sides = self.cohorts.iter().map(side);
        sides.fold(Totals::default(), Totals::plus)
    }
}

/// Values of both versions and how much worse the canary is.
#[derive(Clone, Copy, Debug, Default)]
struct Values {
    canary: Option<f64>,
    baseline: Option<f64>,
    difference: Option<f64>,
}

/// Intervals of a rule of strikes.
#[derive(Clone, Debug, Default)]
struct Strikes {
    bad: u32,
    begun: Duration,
    start: Snapshot,
}

/// The state of one metric in one rollout. Times are of a clock that begins with the rollout.
#[derive(Clone, Debug)]
pub struct Metric {
    spec: MetricSpec,
    test: RollbackTest,
    promotion: PromotionTest,
    quarantine: Option<Quarantine>,
    seen: Seen,
    /// From here up a response is slow, for measures that take that from the baseline.
    slow_ns: Option<u64>,
    calibration: Histogram,
    /// Counts that came before the slow time was known, or in a quarantine.
    ignored: Snapshot,
    now: Snapshot,
    /// Where the evidence was last in the canary's favour.
    window: Snapshot,
    step: Snapshot,
    step_begun: Duration,
    strikes: Strikes,
    targeted: bool,
    /// Flows admitted, whatever became of them.
    admitted: Vec<CohortCounts>,
    /// Whether a provider's counters were read once: what they held before is not the rollout's.
    based: bool,
}

impl Metric {
    /// A metric at the beginning of a rollout.
    pub fn new(spec: MetricSpec) -> Self {
        let provider = spec.scrape_interval.is_some();
        let slow_ns = match (spec.measure, spec.limit) {
            (Measure::LatencyMs(_), Limit::AtMost(ms)) => Some(border_ns(nanoseconds(ms))),
            _ => None,
        };
        Self {
            test: RollbackTest::against(if provider { BASE_RATIO } else { 1.0 }),
            promotion: PromotionTest::new(spec.outcome_timeout),
            quarantine: spec
                .scrape_interval
                .map(|scrape| Quarantine::new(scrape, spec.outcome_timeout)),
            seen: Seen::Nothing,
            slow_ns,
            calibration: Histogram::default(),
            ignored: Snapshot::default(),
            now: Snapshot::default(),
            window: Snapshot::default(),
            step: Snapshot::default(),
            step_begun: Duration::ZERO,
            strikes: Strikes::default(),
            targeted: false,
            admitted: Vec::new(),
            based: false,
            spec,
        }
    }

    /// The weight has changed: a step begins.
    pub fn begin_step(&mut self, now: Duration) {
        self.step = self.now.clone();
        self.step_begun = now;
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.changed(now);
        }
    }

    /// One tick. A provider that failed or had nothing is a tick without errors.
    pub fn observe(&mut self, now: Duration, reading: &Reading) {
        let settling = self
            .quarantine
            .as_ref()
            .and_then(|quarantine| quarantine.holds(now));
        let (seen, samples) = match (reading, settling) {
            (Reading::Missing, _) => (Seen::Missing, None),
            (Reading::Failed(why), _) => (Seen::Failed(why.clone()), None),
            (Reading::Cohorts(samples), _) => {
                self.targeted = samples.last().is_some_and(|sample| sample.targeted);
                self.admitted = cohorts(samples, |sample| sample.totals);
                (Seen::Counts, Some(self.snapshot(samples)))
            }
            (Reading::Provider { canary, baseline }, None) if self.based => {
                (Seen::Counts, Some(self.provided(*canary, *baseline)))
            }
            (Reading::Provider { canary, baseline }, settling) => {
                // What comes now is skipped: the next difference is taken from here.
                let here = self.provided(*canary, *baseline);
                self.skip(&here);
                self.based = true;
                (settling.map_or(Seen::Nothing, Seen::Settling), None)
            }
        };
        self.seen = seen;
        let Some(taken) = samples else {
            self.test.observe(&[]);
            return;
        };
        if self.calibrates(&taken) {
            if let Reading::Cohorts(samples) = reading {
                // Taken once more, because what is slow may be known only now.
                self.ignored = self.snapshot(samples);
            }
            self.test.observe(&[]);
            return;
        }
        let counts = taken.since(&self.ignored);
        let tick = counts.since(&self.now);
        let provider = self.quarantine.is_some();
        let errors: Vec<TickErrors> = tick
            .cohorts
            .iter()
            .filter_map(|cohort| {
                let weight = if provider {
                    let n = cohort.canary.trials + cohort.baseline.trials;
                    cohort.canary.trials as f64 / n.max(1) as f64
                } else {
                    cohort.weight
                };
                (weight > 0.0 && weight < 1.0).then_some(TickErrors {
                    weight,
                    canary: cohort.canary.errors,
                    baseline: cohort.baseline.errors,
                })
            })
            .collect();
        self.test.observe(&errors);
        self.now = counts;
        if self.test.ln_evidence() <= 0.0 {
            self.window = self.now.clone();
        }
        if !provider {
            self.promotion.observe(now, &self.now.cohorts);
        }
        self.strike(now);
    }

    /// The answer at `now`, for a promotion that takes `ask`.
    pub fn judge(&self, now: Duration, ask: Ask) -> Verdict {
        let window = self.evidence_window();
        let values = self.values(&window);
        let exceeded = self
            .spec
            .limit
            .exceeded(values.canary, values.baseline, values.difference);
        let reason = self.reason(now, ask, exceeded == Some(true));
        let sequential = self.spec.rule == Rule::Sequential;
        let caught = caught_increase(
            &self.now.cohorts,
            self.spec.alpha,
            self.margin().unwrap_or(0.0),
        );
        Verdict {
            metric: self.spec.name.clone(),
            measure: self.spec.measure,
            limit: self.spec.limit,
            judgement: judgement_of(&reason),
            reason,
            canary: window.sum(|cohort| cohort.canary),
            baseline: window.sum(|cohort| cohort.baseline),
            canary_value: values.canary,
            baseline_value: values.baseline,
            difference: values.difference,
            ln_evidence: sequential.then(|| self.test.ln_evidence()),
            ln_bar: -self.spec.alpha.ln(),
            upper_bound: self.promotion.upper_bound(),
            caught: caught.filter(|_| sequential),
            dry_run: self.spec.dry_run,
            action: self.spec.action,
        }
    }

    /// ln E as it stands.
    pub fn ln_evidence(&self) -> f64 {
        self.test.ln_evidence()
    }

    /// Since the evidence was last in the canary's favour; before there is any against it, the whole
    /// step, so that a verdict has something to show.
    fn evidence_window(&self) -> Snapshot {
        let window = self.now.since(&self.window);
        if window.sum(|cohort| cohort.canary).trials > 0 {
            window
        } else {
            self.now.since(&self.step)
        }
    }

    fn reason(&self, now: Duration, ask: Ask, exceeded: bool) -> Reason {
        match &self.seen {
            Seen::Nothing => return Reason::NothingYet,
            Seen::Missing => return Reason::Missing,
            Seen::Failed(why) => return Reason::ProviderFailed(why.clone()),
            Seen::Settling(until) => {
                let left_s = until.saturating_sub(now).as_secs();
                return Reason::Settling { left_s };
            }
            Seen::Counts => {}
        }
        if self.needs_calibration() {
            let have = self.calibration.total();
            return Reason::Calibrating {
                have,
                need: CALIBRATION,
            };
        }
        if let Rule::Strikes { count, .. } = self.spec.rule
            && self.strikes.bad >= count
        {
            return Reason::Strikes {
                bad: self.strikes.bad,
                of: count,
            };
        }
        if self.targeted {
            return Reason::Targeted;
        }
        if let Some(off) = self.share_off() {
            return off;
        }
        if self.now.sum(|cohort| cohort.canary).trials == 0 {
            return Reason::NoFlows;
        }
        if self.spec.rule == Rule::Sequential {
            let sure = self.test.ln_evidence() >= -self.spec.alpha.ln();
            match (sure, exceeded) {
                (true, true) => return Reason::Worse,
                (true, false) => return Reason::WorseWithinLimit,
                (false, _) if self.test.ln_evidence() >= SUSPICIOUS.ln() => {
                    return Reason::Suspicious;
                }
                (false, _) => {}
            }
        }
        if let Some(held) = self.held(now) {
            return held;
        }
        match (ask, self.margin()) {
            (Ask::Evidence, Some(margin)) if self.quarantine.is_none() => {
                match self.promotion.upper_bound() {
                    Some(bound) if bound <= margin => Reason::Shown { margin },
                    _ => Reason::NotShown { margin },
                }
            }
            _ => Reason::NoAlarm,
        }
    }

    /// What holds a promotion.
    fn held(&self, now: Duration) -> Option<Reason> {
        let step = self.now.since(&self.step);
        let (canary, baseline) = (step.sum(|c| c.canary), step.sum(|c| c.baseline));
        let Holds {
            min_samples,
            min_per_minute,
            baseline_max_error,
        } = self.spec.holds;
        if canary.trials < min_samples {
            return Some(Reason::TooFew {
                have: canary.trials,
                need: min_samples,
            });
        }
        let minutes = now.saturating_sub(self.step_begun).as_secs_f64() / 60.0;
        let per_minute = (canary.trials + baseline.trials) as f64 / minutes.max(1.0 / 60.0);
        if per_minute < min_per_minute {
            return Some(Reason::TooQuiet {
                per_minute,
                need: min_per_minute,
            });
        }
        let share = baseline.share()?;
        (self.spec.measure == Measure::Errors && share > baseline_max_error).then_some(
            Reason::BaselineUnhealthy {
                share,
                most: baseline_max_error,
            },
        )
    }

    fn share_off(&self) -> Option<Reason> {
        if self.quarantine.is_some() {
            return None;
        }
        self.admitted.iter().find_map(|cohort| {
            let (canary, baseline) = (cohort.canary.trials, cohort.baseline.trials);
            let off = cohort.compares() && share_is_off(canary, baseline, cohort.weight);
            off.then_some(Reason::ShareOff {
                cohort: cohort.cohort,
                canary,
                all: canary + baseline,
                weight: cohort.weight,
            })
        })
    }

    /// The margin that evidence can be had for: an increase of a share.
    fn margin(&self) -> Option<f64> {
        match (self.spec.measure, self.spec.limit) {
            (Measure::Errors | Measure::Apdex(_), Limit::Increase(margin)) => Some(margin),
            _ => None,
        }
    }

    fn values(&self, counts: &Snapshot) -> Values {
        match self.spec.measure {
            Measure::Errors => Values {
                canary: counts.sum(|cohort| cohort.canary).share(),
                baseline: counts.sum(|cohort| cohort.baseline).share(),
                difference: difference(&counts.cohorts),
            },
            Measure::Apdex(_) => {
                let score = |totals: Totals| totals.share().map(|share| 1.0 - share);
                Values {
                    canary: score(counts.sum(|cohort| cohort.canary)),
                    baseline: score(counts.sum(|cohort| cohort.baseline)),
                    difference: difference(&counts.cohorts),
                }
            }
            Measure::LatencyMs(quantile) => {
                let ms = |histogram: &Histogram| histogram.quantile_ns(quantile).map(|ns| ns / 1e6);
                let (canary, baseline) = (ms(&counts.latency.canary), ms(&counts.latency.baseline));
                Values {
                    canary,
                    baseline,
                    difference: canary
                        .zip(baseline)
                        .map(|(canary, baseline)| canary - baseline),
                }
            }
        }
    }

    /// Whether the slow time is still to be taken from the baseline.
    fn needs_calibration(&self) -> bool {
        matches!(self.spec.measure, Measure::LatencyMs(_)) && self.slow_ns.is_none()
    }

    /// Whether this reading went into the calibration.
    fn calibrates(&mut self, taken: &Snapshot) -> bool {
        let Measure::LatencyMs(quantile) = self.spec.measure else {
            return false;
        };
        if self.slow_ns.is_some() {
            return false;
        }
        self.calibration = taken.latency.baseline.clone();
        if self.calibration.total() < CALIBRATION {
            return true;
        }
        if let Some(usual_ns) = self.calibration.quantile_ns(quantile) {
            let slow_ns = match self.spec.limit {
                Limit::Increase(ms) => usual_ns + ms * 1e6,
                Limit::Ratio(more) => usual_ns * (1.0 + more),
                Limit::AtMost(_) | Limit::AtLeast(_) => usual_ns,
            };
            // A cast from f64 ends at the range of u64.
            self.slow_ns = Some(border_ns(slow_ns as u64));
        }
        true
    }

    /// One version's trials and errors, as the measure counts them.
    fn totals(&self, sample: &Sample) -> Totals {
        let Some(latency) = &sample.latency else {
            return sample.totals;
        };
        // A flow that failed had no good response: it counts as the slowest.
        let trials = latency.total() + sample.totals.errors as u64;
        let errors = match self.spec.measure {
            Measure::Errors => return sample.totals,
            Measure::LatencyMs(_) => self.slow_ns.map_or(0, |slow| latency.at_least(slow)) as f64,
            Measure::Apdex(satisfied) => {
                let satisfied_ns = satisfied.as_nanos() as u64;
                let slow = latency.at_least(border_ns(satisfied_ns));
                let frustrated = latency.at_least(border_ns(satisfied_ns.saturating_mul(4)));
                (slow + frustrated) as f64 / 2.0
            }
        };
        Totals {
            trials,
            errors: errors + sample.totals.errors,
        }
    }

    /// Targeted cohorts are left out: their flows were not drawn.
    fn snapshot(&self, samples: &[CohortSample]) -> Snapshot {
        let mut latency = Pair::default();
        for sample in samples.iter().filter(|sample| !sample.targeted) {
            for (to, from) in [
                (&mut latency.canary, &sample.canary),
                (&mut latency.baseline, &sample.baseline),
            ] {
                if let Some(known) = &from.latency {
                    to.merge(known);
                    // What failed never answered: no response was slower.
                    to.add(u64::MAX, from.totals.errors as u64);
                }
            }
        }
        Snapshot {
            cohorts: cohorts(samples, |sample| self.totals(sample)),
            latency,
        }
    }

    /// A provider's counters as the only cohort. Its weight is read off each tick.
    fn provided(&self, canary: Totals, baseline: Totals) -> Snapshot {
        let cohort = CohortCounts {
            cohort: 0,
            weight: 0.5,
            canary,
            baseline,
        };
        Snapshot {
            cohorts: vec![cohort],
            latency: Pair::default(),
        }
    }

    /// Leaves out what was counted between the last reading that counted and this one.
    fn skip(&mut self, here: &Snapshot) {
        self.ignored = here.since(&self.now);
    }

    fn strike(&mut self, now: Duration) {
        let Rule::Strikes {
            interval,
            count,
            consecutive,
        } = self.spec.rule
        else {
            return;
        };
        if now.saturating_sub(self.strikes.begun) < interval || self.strikes.bad >= count {
            return;
        }
        let values = self.values(&self.now.since(&self.strikes.start));
        match self
            .spec
            .limit
            .exceeded(values.canary, values.baseline, values.difference)
        {
            Some(true) => self.strikes.bad += 1,
            Some(false) if consecutive => self.strikes.bad = 0,
            Some(false) | None => {}
        }
        self.strikes.begun = now;
        self.strikes.start = self.now.clone();
    }
}

/// The cohorts whose flows were drawn.
fn cohorts(samples: &[CohortSample], totals: impl Fn(&Sample) -> Totals) -> Vec<CohortCounts> {
    let drawn = samples.iter().filter(|sample| !sample.targeted);
    drawn
        .map(|sample| CohortCounts {
            cohort: sample.cohort,
            weight: f64::from(sample.weight_bp) / 10_000.0,
            canary: totals(&sample.canary),
            baseline: totals(&sample.baseline),
        })
        .collect()
}

fn nanoseconds(ms: f64) -> u64 {
    // A cast from f64 ends at the range of u64.
    (ms * 1e6) as u64
}

fn judgement_of(reason: &Reason) -> Judgement {
    match reason {
        Reason::Worse | Reason::Strikes { .. } => Judgement::Fail,
        Reason::NoAlarm | Reason::Shown { .. } => Judgement::Pass,
        Reason::NothingYet
        | Reason::NoFlows
        | Reason::Missing
        | Reason::ProviderFailed(_)
        | Reason::Calibrating { .. } => Judgement::NoData,
        Reason::WorseWithinLimit
        | Reason::Suspicious
        | Reason::NotShown { .. }
        | Reason::TooFew { .. }
        | Reason::TooQuiet { .. }
        | Reason::BaselineUnhealthy { .. }
        | Reason::ShareOff { .. }
        | Reason::Targeted
        | Reason::Settling { .. } => Judgement::Inconclusive,
    }
}

#[cfg(test)]
mod tests;
