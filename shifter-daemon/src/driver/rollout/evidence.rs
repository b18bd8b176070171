//! What the packet path counts of both versions, looked at each second.

use std::time::Duration;

use shifter_common::{abi::SlotCounters, steering::Slot, wire::AuditMetric};

use super::{super::Driver, Live};
use crate::{
    analysis::{
        Ask, CohortSample, Counted, EvidencePlan, Judgement, Limit, Metric, PlannedStep, Reading,
        Sample, Totals, Verdict, summarize,
    },
    dataplane::ServiceReading,
    rollout::{Event, Now, Phase, Rollout},
};

/// The evidence of one rollout. It begins anew with the daemon.
pub struct Evidence {
    metrics: Vec<(Counted, Metric)>,
    /// One for each weight so far; the last one is in force.
    cohorts: Vec<Cohort>,
    verdicts: Vec<Verdict>,
    told: Option<Judgement>,
    /// The step of the plan that was looked at last, from 0.
    step: Option<u16>,
}

/// What was counted under one weight.
struct Cohort {
    weight_bp: u16,
    begun_ms: u64,
    /// Canary and baseline when it began, and when it was looked at last.
    begin: [SlotCounters; 2],
    last: [SlotCounters; 2],
}

impl Evidence {
    pub fn new(plan: &EvidencePlan) -> Self {
        Self {
            metrics: plan.metrics(),
            cohorts: Vec::new(),
            verdicts: Vec::new(),
            told: None,
            step: None,
        }
    }

    /// What each metric says, worst first is not needed: in the order of the plan.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Takes a look. Gives the judgement if it is another one than was told.
    fn look(
        &mut self,
        rollout: &Rollout,
        plan: &EvidencePlan,
        counters: [SlotCounters; 2],
        now: Now,
    ) -> Option<Judgement> {
        let weight_bp = rollout.share().weight_bp;
        let time = Duration::from_millis(now.mono_ms);
        if self
            .cohorts
            .last()
            .is_none_or(|of| of.weight_bp != weight_bp)
        {
            if let Some(before) = self.cohorts.last_mut() {
                before.last = counters;
            }
            self.cohorts.push(Cohort {
                weight_bp,
                begun_ms: now.mono_ms,
                begin: counters,
                last: counters,
            });
            for (_, metric) in &mut self.metrics {
                metric.begin_step(time);
            }
        }
        // A step of the same weight as the one before is judged anew as well: the engine forgets what it was
        // told with each.
        if self.step != rollout.step() {
            self.step = rollout.step();
            self.told = None;
        }
        if let Some(cohort) = self.cohorts.last_mut() {
            cohort.last = counters;
        }
        let steps = self.expected(rollout, now);
        let cohorts = &self.cohorts;
        self.verdicts = self
            .metrics
            .iter_mut()
            .map(|(counted, metric)| {
                let reading = reading(cohorts, *counted);
                metric.observe(time, &reading);
                let ask = ask(rollout, plan, *counted, &steps, &reading);
                metric.judge(time, ask)
            })
            .collect();
        let judgement = summarize(&self.verdicts).judgement;
        if self.told == Some(judgement) {
            return None;
        }
        self.told = Some(judgement);
        Some(judgement)
    }

    /// The plan's steps with the flows that the present rate would bring.
    fn expected(&self, rollout: &Rollout, now: Now) -> Vec<PlannedStep> {
        let rate_per_ms = self.cohorts.last().map_or(0.0, |cohort| {
            let flows: u64 = (0..2)
                .map(|side| cohort.totals(side, Counted::Errors).trials)
                .sum();
            flows as f64 / (now.mono_ms.saturating_sub(cohort.begun_ms)).max(1) as f64
        });
        let steps = rollout.plan().plan().steps.iter();
        steps
            .map(|step| PlannedStep {
                weight: f64::from(step.share.weight_bp) / 10_000.0,
                flows: rate_per_ms * step.bake_ms as f64,
            })
            .collect()
    }
}

impl Cohort {
    fn totals(&self, side: usize, counted: Counted) -> Totals {
        trials(&self.last[side], counted).since(trials(&self.begin[side], counted))
    }
}

/// Flows that wanted a version, and what went wrong in them.
fn trials(counters: &SlotCounters, counted: Counted) -> Totals {
    let flows = &counters.flows;
    let errors = match counted {
        Counted::Errors => {
            flows.refused + flows.reset_by_backend + flows.unanswered + counters.failed_over
        }
        Counted::Resets => flows.reset_by_backend,
    };
    Totals {
        trials: flows.selected.saturating_sub(counters.targeted) + counters.failed_over,
        errors: errors as f64,
    }
}

fn reading(cohorts: &[Cohort], counted: Counted) -> Reading {
    let sample = |cohort: &Cohort, side| Sample {
        totals: cohort.totals(side, counted),
        latency: None,
    };
    let samples = (1..).zip(cohorts).map(|(number, cohort)| CohortSample {
        cohort: number,
        weight_bp: cohort.weight_bp,
        // Clients whom a rule sends are not drawn: what becomes of their flows says nothing.
        targeted: cohort.last[0].targeted > cohort.begin[0].targeted,
        canary: sample(cohort, 0),
        baseline: sample(cohort, 1),
    });
    Reading::Cohorts(samples.collect())
}

/// What the end of the present step takes.
fn ask(
    rollout: &Rollout,
    plan: &EvidencePlan,
    counted: Counted,
    steps: &[PlannedStep],
    reading: &Reading,
) -> Ask {
    let last = steps.len().saturating_sub(1);
    let is_last = rollout.step().is_some_and(|step| usize::from(step) >= last);
    let baseline = match reading {
        Reading::Cohorts(samples) => samples
            .iter()
            .fold(Totals::default(), |sum, of| sum.plus(of.baseline.totals)),
        Reading::Provider { .. } | Reading::Missing | Reading::Failed(_) => Totals::default(),
    };
    let margin = plan.margin(counted).unwrap_or(1.0);
    let share = baseline.share().unwrap_or(0.0);
    plan.promote_on.ask(is_last, steps, margin, share)
}

fn of_slots(reading: &ServiceReading, canary: Slot) -> [SlotCounters; 2] {
    [canary, canary.other()].map(|slot| reading.slots[slot.index() as usize])
}

/// Whether flows are drawn by the plan's own weight at this time.
fn is_drawn(live: &Live) -> bool {
    let has_share = !live.rollout.share().is_none();
    has_share
        && match live.rollout.phase() {
            Phase::Baking { .. }
            | Phase::Paused { .. }
            | Phase::Shifting { .. }
            | Phase::Promoting(_)
            | Phase::Draining
            | Phase::Watching(_) => true,
            Phase::Pending
            | Phase::Gated
            | Phase::Warming(_)
            | Phase::Succeeded { .. }
            | Phase::RollingBack { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. }
            | Phase::Superseded { .. } => false,
        }
}

impl Driver {
    /// Looks at the evidence of all rollouts, and tells them what it says.
    pub(in super::super) fn look_at_evidence(&mut self) {
        let names: Vec<String> = self.rollouts.live.keys().cloned().collect();
        for name in names {
            if let Some(judgement) = self.look_at(&name) {
                self.tell_news(&name, Event::Judged(judgement));
            }
        }
    }

    fn look_at(&mut self, service: &str) -> Option<Judgement> {
        let now = self.rollouts.now();
        let live = self.rollouts.live.get_mut(service)?;
        let plan = live.rollout.plan().plan().analysis?;
        if !is_drawn(live) {
            return None;
        }
        // A weight by hand, in a pause, is none of the plan's: nothing is learnt from it.
        let in_force_bp = self.services.get(service)?.record().weight_bp;
        if in_force_bp != live.rollout.share().weight_bp {
            return None;
        }
        let reading = match self.dataplane.read(service) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::error!(service, "reading its counters: {error}");
                return None;
            }
        };
        let counters = of_slots(&reading, live.rollout.parts().canary);
        let evidence = live
            .evidence
            .get_or_insert_with(|| Evidence::new(&plan.evidence));
        let judgement = evidence.look(&live.rollout, &plan.evidence, counters, now);
        if judgement == Some(Judgement::Fail) {
            for verdict in evidence.verdicts() {
                tracing::warn!(service, "{verdict}");
            }
        }
        judgement
    }
}

/// What a metric says, for the audit.
pub fn metric(verdict: &Verdict) -> AuditMetric {
    let millis = |value: f64| (value * 1_000.0).clamp(0.0, 1e15) as u64;
    let bound = match verdict.limit {
        Limit::Increase(bound)
        | Limit::Ratio(bound)
        | Limit::AtMost(bound)
        | Limit::AtLeast(bound) => bound,
    };
    AuditMetric {
        name: verdict.metric.clone(),
        canary_errors_count: verdict.canary.errors.max(0.0) as u64,
        canary_count: verdict.canary.trials,
        baseline_errors_count: verdict.baseline.errors.max(0.0) as u64,
        baseline_count: verdict.baseline.trials,
        threshold_ppm: (bound * 1e6).clamp(0.0, 1e15) as u64,
        evidence_milli: verdict.ln_evidence.map_or(0, |ln| millis(ln.exp())),
    }
}
