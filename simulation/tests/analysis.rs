//! What the analysis promises.

use shifter_daemon::analysis::{CohortCounts, Totals, caught_increase, required_canary_flows};
use shifter_simulation::{
    analysis::{ALPHA, Comparison, Fault, Null, SHARE, detect, shown},
    random::Random,
    setting::{each, quantile, rollouts, seed},
};

/// Good releases of two hours, 50 → 5 %, whose E ever reaches 1/α, for each α.
fn false_alarms(null: &Null, count: u64, alphas: &[f64]) -> Vec<f64> {
    let seed = seed();
    let highest = each(count, |stream| null.highest(&mut Random::new(seed, stream)));
    alphas
        .iter()
        .map(|alpha| {
            let above = highest.iter().filter(|&&highest| highest >= -alpha.ln());
            above.count() as f64 / count as f64
        })
        .collect()
}

fn ramp_down(close_s: f64) -> Null {
    Null {
        weights: [0.5, 0.05],
        share: SHARE,
        close_s,
        current_weight: false,
        restarted: false,
    }
}

#[test]
fn good_releases_raise_no_alarm_however_often_one_looks() {
    let alphas = [ALPHA, 0.05, 0.2];
    for close_s in [60.0, 300.0] {
        let count = rollouts(2_000);
        let shares = false_alarms(&ramp_down(close_s), count, &alphas);
        println!("flows of {close_s} s: {shares:?} for {alphas:?}");
        for (share, alpha) in shares.iter().zip(alphas) {
            assert!(*share <= alpha, "{share} for {alpha}");
        }
        assert!(shares[2] > 0.01, "{shares:?}: the simulation has no power");
    }
}

#[test]
fn a_test_that_uses_the_current_weight_falsely_rolls_back() {
    let wrong = Null {
        current_weight: true,
        share: 10.0 * SHARE,
        ..ramp_down(300.0)
    };
    let shares = false_alarms(&wrong, 200, &[ALPHA]);
    println!("{shares:?}");
    assert!(shares[0] > 0.8, "{shares:?}");
}

#[test]
fn a_test_that_begins_anew_every_minute_spends_alpha_again_and_again() {
    let wrong = Null {
        restarted: true,
        ..ramp_down(60.0)
    };
    let shares = false_alarms(&wrong, rollouts(1_000), &[ALPHA, 0.05]);
    println!("{shares:?}");
    assert!(shares[1] > 2.0 * 0.05, "{shares:?}");
}

/// What the absence of an alarm after 300 canary flows is worth, and that the bound is not too good.
#[test]
fn what_would_have_been_caught_is_caught() {
    let seed = seed();
    for canary_flows in [300.0, 3_000.0] {
        let (weight, for_s) = (0.05, canary_flows / 10.0);
        let side = |trials: f64, errors: f64| Totals {
            trials: trials as u64,
            errors,
        };
        let cohort = CohortCounts {
            cohort: 1,
            weight,
            canary: side(canary_flows, 0.0),
            baseline: side(19.0 * canary_flows, 19.0 * canary_flows * SHARE),
        };
        let caught = caught_increase(&[cohort], ALPHA, 0.005).expect("an increase");
        let fault = Fault {
            weight,
            bad: SHARE + caught,
            good_s: 0.0,
            for_s,
        };
        let seen = each(rollouts(1_000), |stream| {
            detect(&fault, &mut Random::new(seed, stream)).is_some()
        });
        let share = seen.iter().filter(|&&seen| seen).count() as f64 / seen.len() as f64;
        println!("{canary_flows} canary flows: +{caught:.4} is seen with {share}");
        assert!((0.8..=1.0).contains(&share), "{share}");
    }
}

/// Medians of seconds from the fault and of canary errors since; a fault that is never seen took for ever.
fn medians(fault: &Fault, count: u64) -> (f64, f64) {
    let seed = seed();
    let found = each(count, |stream| {
        let mut random = Random::new(seed, stream);
        detect(fault, &mut random).unwrap_or((f64::INFINITY, u64::MAX))
    });
    let seconds = quantile(found.iter().map(|found| found.0).collect(), 0.5);
    let errors = quantile(found.iter().map(|found| found.1 as f64).collect(), 0.5);
    println!("{fault:?}: {seconds} s, {errors} canary errors");
    (seconds, errors)
}

#[test]
fn faults_are_seen_in_time() {
    let fault = |bad, good_s| Fault {
        weight: 0.05,
        bad,
        good_s,
        for_s: 1_800.0,
    };
    let rows = [
        (fault(0.011, 0.0), 60.0, 8.0),
        (fault(0.006, 0.0), 160.0, 11.0),
        (fault(0.011, 1_800.0), 120.0, 14.0),
    ];
    for (fault, seconds, errors) in rows {
        let found = medians(&fault, rollouts(300));
        assert!(
            found.0 <= seconds && found.1 <= errors,
            "{fault:?}: {found:?}"
        );
    }
}

fn comparison(margin: f64, baseline: f64, weight: f64) -> Comparison {
    let look = required_canary_flows(margin, baseline, weight) / 100.0;
    Comparison {
        weight,
        baseline,
        canary: baseline,
        margin,
        look,
        looks: 1_000,
    }
}

const SIZES: [(f64, f64, f64); 5] = [
    (0.005, SHARE, 0.5),
    (0.005, SHARE, 0.05),
    (0.01, SHARE, 0.2),
    (0.005, 0.01, 0.5),
    (0.002, SHARE, 0.5),
];

/// The stated number is 5 to 20 % above the mean (8,000 rollouts): an estimate on the safe side.
#[test]
fn a_promotion_takes_the_flows_that_are_stated() {
    let seed = seed();
    for (margin, baseline, weight) in SIZES {
        let stated = required_canary_flows(margin, baseline, weight);
        let flows = each(rollouts(400), |stream| {
            let mut random = Random::new(seed, stream);
            shown(&comparison(margin, baseline, weight), &mut random).unwrap_or(f64::INFINITY)
        });
        let mean = flows.iter().sum::<f64>() / flows.len() as f64;
        let median = quantile(flows, 0.5);
        println!(
            "δ {margin}, p {baseline}, w {weight}: {median:.0} mean {mean:.0}, stated {stated:.0}"
        );
        assert!(
            (0.75..1.05).contains(&(mean / stated)),
            "{mean} of {stated}"
        );
    }
}

#[test]
fn a_canary_that_is_worse_by_the_margin_is_rarely_promoted() {
    let seed = seed();
    let count = rollouts(1_000);
    for (margin, baseline, weight) in SIZES {
        let worse = Comparison {
            canary: baseline + margin,
            ..comparison(margin, baseline, weight)
        };
        let promoted = each(count, |stream| {
            shown(&worse, &mut Random::new(seed, stream))
        });
        let share = promoted.iter().flatten().count() as f64 / count as f64;
        println!("δ {margin}, p {baseline}, w {weight}: {share} promoted");
        // Three standard deviations of the count above α_p.
        let chance = 3.0 * (0.05 * 0.95 / count as f64).sqrt();
        assert!(share <= 0.05 + chance, "{share}");
    }
}
