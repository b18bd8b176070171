use super::*;

const HOLDS: Holds = Holds {
    min_samples: 50,
    min_per_minute: 100.0,
    baseline_max_error: 0.05,
};

fn spec(measure: Measure, limit: Limit) -> MetricSpec {
    MetricSpec {
        name: "m".into(),
        measure,
        limit,
        rule: Rule::Sequential,
        alpha: 0.005,
        holds: HOLDS,
        outcome_timeout: s(30),
        scrape_interval: None,
        dry_run: false,
        action: Action::RollBack,
    }
}

fn errors() -> MetricSpec {
    spec(Measure::Errors, Limit::Increase(0.005))
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample(trials: u64, errors: u64) -> Sample {
    Sample {
        totals: Totals {
            trials,
            errors: errors as f64,
        },
        latency: None,
    }
}

fn cohort(cohort: u32, weight_bp: u16, canary: Sample, baseline: Sample) -> CohortSample {
    CohortSample {
        cohort,
        weight_bp,
        targeted: false,
        canary,
        baseline,
    }
}

/// Ticks of 5 s up to `to_s`: 10 + 190 flows a second, errors as the functions say by second.
fn run(metric: &mut Metric, from_s: u64, to_s: u64, canary: impl Fn(u64) -> u64) {
    for now in (from_s..=to_s).step_by(5) {
        let reading = Reading::Cohorts(vec![cohort(
            1,
            500,
            sample(10 * now, canary(now)),
            sample(190 * now, now / 5),
        )]);
        metric.observe(s(now), &reading);
    }
}

#[test]
fn a_good_canary_passes_and_says_what_would_have_been_caught() {
    let mut metric = Metric::new(errors());
    run(&mut metric, 5, 300, |now| now / 95);
    let verdict = metric.judge(s(300), Ask::NoAlarm);
    assert_eq!(verdict.judgement, Judgement::Pass);
    assert_eq!(verdict.reason, Reason::NoAlarm);
    let caught = verdict.caught.expect("an increase");
    assert!((0.005..0.012).contains(&caught), "{caught}");
    let bound = verdict.upper_bound.expect("a bound");
    assert!((0.001..0.01).contains(&bound), "{bound}");
}

#[test]
fn a_bad_canary_fails_at_once_and_a_slightly_bad_one_stays_within_the_limit() {
    let mut metric = Metric::new(errors());
    run(&mut metric, 5, 60, |now| now / 5);
    let verdict = metric.judge(s(60), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::Worse, "{verdict}");
    assert_eq!(verdict.judgement, Judgement::Fail);
    assert!(verdict.upper_bound.is_some());

    // 0.4 % for a quarter of an hour: surely worse, by less than 0.5 %.
    let mut metric = Metric::new(errors());
    run(&mut metric, 5, 900, |now| now / 25);
    let verdict = metric.judge(s(900), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::WorseWithinLimit, "{verdict}");
    assert_eq!(verdict.judgement, Judgement::Inconclusive);
}

/// After half an hour without fault the difference since the beginning would stay below the limit for
/// long: it is taken since the evidence turned.
#[test]
fn a_late_fault_is_measured_since_it_began() {
    let mut metric = Metric::new(errors());
    run(&mut metric, 5, 1_800, |now| now / 100);
    run(&mut metric, 1_805, 1_920, |now| 18 + (now - 1_800) / 9);
    let verdict = metric.judge(s(1_920), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::Worse, "{verdict}");
    let overall = (18.0 + 13.0) / 19_200.0 - 0.001;
    assert!(overall < 0.005, "the whole rollout would hide it");
}

#[test]
fn promotions_are_held_and_rollbacks_are_not() {
    let one = |canary: (u64, u64), baseline: (u64, u64), weight_bp, at_s| {
        let mut metric = Metric::new(errors());
        let (canary, baseline) = (sample(canary.0, canary.1), sample(baseline.0, baseline.1));
        metric.observe(
            s(at_s),
            &Reading::Cohorts(vec![cohort(1, weight_bp, canary, baseline)]),
        );
        metric.judge(s(at_s), Ask::NoAlarm).reason
    };
    let rows = [
        (
            one((40, 0), (760, 0), 500, 60),
            Reason::TooFew { have: 40, need: 50 },
        ),
        (
            one((60, 0), (1_140, 0), 500, 1_200),
            Reason::TooQuiet {
                per_minute: 60.0,
                need: 100.0,
            },
        ),
        (
            one((60, 4), (1_140, 114), 500, 60),
            Reason::BaselineUnhealthy {
                share: 0.1,
                most: 0.05,
            },
        ),
        (one((60, 0), (1_140, 0), 500, 60), Reason::NoAlarm),
        (one((0, 0), (60, 0), 500, 60), Reason::NoFlows),
        (
            one((300, 0), (900, 0), 500, 60),
            Reason::ShareOff {
                cohort: 1,
                canary: 300,
                all: 1_200,
                weight: 0.05,
            },
        ),
        // Too few, too quiet, an unhealthy baseline, and still it goes back.
        (one((40, 40), (760, 76), 500, 1_200), Reason::Worse),
        (one((60, 4), (1_140, 6), 500, 60), Reason::Suspicious),
    ];
    for (row, (found, expected)) in rows.into_iter().enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
}

#[test]
fn targeted_cohorts_are_left_out_and_said() {
    let mut metric = Metric::new(errors());
    let mut targeted = cohort(1, 500, sample(1_000, 1_000), sample(10, 0));
    targeted.targeted = true;
    metric.observe(s(5), &Reading::Cohorts(vec![targeted.clone()]));
    let verdict = metric.judge(s(5), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::Targeted);
    assert_eq!(verdict.judgement, Judgement::Inconclusive);
    let drawn = cohort(2, 500, sample(600, 1), sample(11_400, 12));
    metric.observe(s(65), &Reading::Cohorts(vec![targeted, drawn]));
    assert_eq!(metric.judge(s(65), Ask::NoAlarm).reason, Reason::NoAlarm);
}

#[test]
fn no_data_and_a_failed_provider_are_not_bad() {
    let mut metric = Metric::new(errors());
    assert_eq!(metric.judge(s(0), Ask::NoAlarm).reason, Reason::NothingYet);
    metric.observe(s(5), &Reading::Missing);
    assert_eq!(metric.judge(s(5), Ask::NoAlarm).reason, Reason::Missing);
    metric.observe(s(10), &Reading::Failed("refused".into()));
    let verdict = metric.judge(s(10), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::ProviderFailed("refused".into()));
    assert_eq!(verdict.judgement, Judgement::NoData);
    assert!(metric.ln_evidence() < 0.0);
}

#[test]
fn evidence_is_asked_where_there_is_a_margin() {
    let mut metric = Metric::new(errors());
    run(&mut metric, 5, 60, |_| 0);
    let early = metric.judge(s(60), Ask::Evidence);
    assert_eq!(early.reason, Reason::NotShown { margin: 0.005 });
    run(&mut metric, 65, 900, |now| now / 100);
    let late = metric.judge(s(900), Ask::Evidence);
    assert_eq!(late.reason, Reason::Shown { margin: 0.005 }, "{late}");
    assert_eq!(late.judgement, Judgement::Pass);
}

#[test]
fn evidence_before_the_full_weight_is_asked_if_the_plan_has_the_flows() {
    let step = |weight, flows| PlannedStep { weight, flows };
    let ample = [step(0.05, 60_000.0), step(0.5, 60_000.0), step(1.0, 1e6)];
    let scarce = [step(0.05, 600.0), step(0.5, 600.0), step(1.0, 1e6)];
    let rows = [
        (PromoteOn::Auto, true, &ample, Ask::Evidence),
        (PromoteOn::Auto, false, &ample, Ask::NoAlarm),
        (PromoteOn::Auto, true, &scarce, Ask::NoAlarm),
        (PromoteOn::NoAlarm, true, &ample, Ask::NoAlarm),
        (PromoteOn::Evidence, false, &scarce, Ask::Evidence),
    ];
    for (on, to_full, steps, expected) in rows {
        assert_eq!(
            on.ask(to_full, steps, 0.005, 0.001),
            expected,
            "{on:?} {to_full}"
        );
    }
    assert_eq!(PromoteOn::Auto.ask(true, &[], 0.005, 0.001), Ask::NoAlarm);
}

/// A provider's counters begin anywhere, and after each change of the weight they mix old and new.
#[test]
fn a_provider_counts_from_its_first_reading_and_not_during_a_change() {
    let mut metric = Metric::new(MetricSpec {
        scrape_interval: Some(s(15)),
        action: Action::Pause,
        ..errors()
    });
    let totals = |trials, errors: u64| Totals {
        trials,
        errors: errors as f64,
    };
    let at = |canary: (u64, u64), baseline: (u64, u64)| Reading::Provider {
        canary: totals(1_000_000 + canary.0, 900_000 + canary.1),
        baseline: totals(5_000_000 + baseline.0, baseline.1),
    };
    metric.observe(s(5), &at((0, 0), (0, 0)));
    assert_eq!(metric.judge(s(5), Ask::NoAlarm).reason, Reason::NothingYet);
    metric.observe(s(65), &at((600, 0), (11_400, 11)));
    assert_eq!(metric.judge(s(65), Ask::Evidence).reason, Reason::NoAlarm);
    metric.begin_step(s(65));
    metric.observe(s(80), &at((900, 300), (11_900, 11)));
    let settling = metric.judge(s(80), Ask::NoAlarm);
    assert_eq!(settling.reason, Reason::Settling { left_s: 15 });
    metric.observe(s(140), &at((1_500, 300), (14_000, 12)));
    let verdict = metric.judge(s(140), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::NoAlarm, "{verdict}");
    metric.observe(s(200), &at((2_100, 360), (16_000, 14)));
    let verdict = metric.judge(s(200), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::Worse, "{verdict}");
    assert_eq!(verdict.action, Action::Pause);
}

fn timed(flows: &[(u64, u64)], failed: u64) -> Sample {
    let mut latency = Histogram::default();
    for &(ms, count) in flows {
        latency.add(ms * 1_000_000, count);
    }
    Sample {
        totals: Totals {
            trials: latency.total() + failed,
            errors: failed as f64,
        },
        latency: Some(latency),
    }
}

#[test]
fn slow_is_taken_from_the_baseline_and_a_slower_canary_fails() {
    for (limit, worse) in [
        (Limit::Ratio(0.2), true),
        (Limit::Increase(100.0), true),
        (Limit::AtMost(250.0), true),
        (Limit::Increase(1_000.0), false),
    ] {
        let mut metric = Metric::new(spec(Measure::LatencyMs(0.99), limit));
        let good = |n: u64| timed(&[(20, 98 * n), (200, 2 * n)], 0);
        metric.observe(
            s(5),
            &Reading::Cohorts(vec![cohort(1, 5_000, good(5), good(5))]),
        );
        let early = metric.judge(s(5), Ask::NoAlarm);
        if !matches!(limit, Limit::AtMost(_)) {
            let calibrating = Reason::Calibrating {
                have: 500,
                need: 2_000,
            };
            assert_eq!(early.reason, calibrating, "{limit:?}");
        }
        metric.observe(
            s(10),
            &Reading::Cohorts(vec![cohort(1, 5_000, good(30), good(30))]),
        );
        let slow = timed(&[(20, 98 * 40), (200, 60), (400, 60)], 0);
        metric.observe(
            s(65),
            &Reading::Cohorts(vec![cohort(1, 5_000, slow, good(40))]),
        );
        let verdict = metric.judge(s(65), Ask::NoAlarm);
        assert_eq!(verdict.reason == Reason::Worse, worse, "{verdict}");
    }
}

#[test]
fn what_came_before_the_slow_time_was_known_is_left_out() {
    let mut metric = Metric::new(spec(Measure::LatencyMs(0.99), Limit::Ratio(0.2)));
    let (usual, slow) = ((20, 3_000), (400, 900));
    metric.observe(
        s(5),
        &Reading::Cohorts(vec![cohort(
            1,
            5_000,
            timed(&[slow], 0),
            timed(&[usual], 0),
        )]),
    );
    let later = (20, 1_000);
    let (canary, baseline) = (timed(&[slow, later], 0), timed(&[usual, later], 0));
    let even = Reading::Cohorts(vec![cohort(1, 2_500, canary, baseline)]);
    metric.observe(s(65), &even);
    let verdict = metric.judge(s(65), Ask::NoAlarm);
    assert!(verdict.ln_evidence < Some(0.0), "{verdict}");
    assert_eq!(verdict.canary.errors, 0.0, "{verdict}");
}

/// Flows that wait for their response were admitted: nothing is wrong with the share.
#[test]
fn waiting_flows_are_no_missing_ones() {
    let mut metric = Metric::new(spec(Measure::LatencyMs(0.99), Limit::AtMost(250.0)));
    let mut waits = timed(&[(20, 10)], 0);
    waits.totals.trials = 1_000;
    let good = timed(&[(20, 1_000)], 0);
    metric.observe(
        s(60),
        &Reading::Cohorts(vec![cohort(1, 5_000, waits, good)]),
    );
    let verdict = metric.judge(s(60), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::TooFew { have: 10, need: 50 });
}

/// Flows that get no response count as the slowest, and do not look like a share that is off.
#[test]
fn a_canary_that_hangs_is_slow_and_not_absent() {
    let mut metric = Metric::new(spec(Measure::LatencyMs(0.99), Limit::AtMost(250.0)));
    let hangs = timed(&[(20, 10)], 990);
    let good = timed(&[(20, 1_000)], 1);
    metric.observe(
        s(60),
        &Reading::Cohorts(vec![cohort(1, 5_000, hangs, good)]),
    );
    let verdict = metric.judge(s(60), Ask::NoAlarm);
    assert_eq!(verdict.reason, Reason::Worse, "{verdict}");
}

#[test]
fn apdex_counts_tolerable_responses_half() {
    let limit = Limit::AtLeast(0.85);
    let mut metric = Metric::new(spec(Measure::Apdex(Duration::from_millis(500)), limit));
    let canary = timed(&[(100, 700), (1_000, 200), (5_000, 90)], 10);
    let baseline = timed(&[(100, 960), (1_000, 40)], 0);
    metric.observe(
        s(60),
        &Reading::Cohorts(vec![cohort(1, 5_000, canary, baseline)]),
    );
    let verdict = metric.judge(s(60), Ask::NoAlarm);
    assert_eq!(verdict.canary_value, Some(0.8));
    assert_eq!(verdict.baseline_value, Some(0.98));
    assert_eq!(verdict.reason, Reason::Worse, "{verdict}");
}

#[test]
fn strikes_count_bad_intervals() {
    let with = |count, consecutive| {
        Metric::new(MetricSpec {
            rule: Rule::Strikes {
                interval: s(60),
                count,
                consecutive,
            },
            ..spec(Measure::Errors, Limit::AtMost(0.05))
        })
    };
    // Errors of the canary in each minute; good are up to 5 of 100.
    let rows: [(&[u64], u32, bool, Option<usize>); 4] = [
        (&[9, 0, 9, 0, 9], 3, false, Some(5)),
        (&[9, 0, 9, 9, 0, 9, 9, 9], 3, true, Some(8)),
        (&[5, 5, 5, 5], 3, false, None),
        (&[9, 9], 3, false, None),
    ];
    for (minutes, count, consecutive, expected) in rows {
        let mut metric = with(count, consecutive);
        let mut failed = None;
        let mut sum = 0;
        for (minute, errors) in (1..).zip(minutes) {
            sum += errors;
            let canary = sample(100 * minute, sum);
            let reading = Reading::Cohorts(vec![cohort(1, 5_000, canary, sample(100 * minute, 0))]);
            metric.observe(s(60 * minute), &reading);
            let verdict = metric.judge(s(60 * minute), Ask::NoAlarm);
            if verdict.judgement == Judgement::Fail && failed.is_none() {
                failed = Some(minute as usize);
                assert_eq!(
                    verdict.reason,
                    Reason::Strikes {
                        bad: count,
                        of: count
                    }
                );
                assert_eq!(verdict.ln_evidence, None);
            }
        }
        assert_eq!(failed, expected, "{minutes:?}");
    }
}
