//! Prints the tables of `docs/statistics.md`.

use shifter_common::breaker::Side;
use shifter_daemon::analysis::{BreakerBudget, required_canary_flows};
use shifter_simulation::{
    analysis::{self, ALPHA, Comparison, SHARE, shown},
    breaker::{BUDGET, Fault, detect, thresholds},
    cusum::Cusum,
    failing_client::{self, AtStep},
    naive,
    null::{DELAYS, Judged, Null, increments_of},
    random::Random,
    schedule::{SHAPES, Schedule},
    setting::{each, quantile, rollouts, seed},
};

fn main() {
    let seed = seed();
    good_releases(seed);
    delays(seed);
    networks(seed);
    clients(seed);
    alarms(seed);
    faults(seed);
    promotions(seed);
    common_tests(seed);
}

fn good_releases(seed: u64) {
    println!("\n### Breaker: good releases\n");
    println!("| weights | flows fail | tripped, α 1 % | tripped, α 50 % | current weight, α 1 % |");
    println!("|---|---|---|---|---|");
    let count = rollouts(1_000);
    for (name, weights) in SHAPES {
        let schedule = Schedule::new(weights);
        for delay in DELAYS {
            let share = |false_rollback, judged| {
                let thresholds = thresholds(&BreakerBudget {
                    false_rollback,
                    ..BUDGET
                });
                let trips = each(count, |stream| {
                    let null = Null {
                        schedule: &schedule,
                        delay,
                        errors: 100_000,
                        judged,
                        increments: increments_of,
                    };
                    null.trips(&thresholds, &mut Random::new(seed, stream))
                });
                percent(trips.iter().filter(|&&trip| trip).count(), count)
            };
            println!(
                "| {name} | {delay:?} | {} | {} | {} |",
                share(0.01, Judged::AtAdmission),
                share(0.5, Judged::AtAdmission),
                share(0.01, Judged::AtFailure)
            );
        }
    }
}

fn percent(part: usize, of: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / of as f64)
}

fn fault(weight_bp: u16, canary: f64) -> Fault {
    Fault {
        weight_bp,
        flows: 200.0,
        baseline: SHARE,
        canary,
        attack: None,
        prefixes: 4_000,
        shares: true,
        budget: BUDGET,
    }
}

/// Medians and 90 % quantiles of seconds and canary errors.
fn summary(found: &[Option<(f64, u64)>]) -> String {
    let of = |value: fn((f64, u64)) -> f64, q| {
        let values = found.iter().map(|one| one.map_or(f64::INFINITY, value));
        quantile(values.collect(), q)
    };
    format!(
        "{:.1} s ({:.1} s) | {} ({})",
        of(|one| one.0, 0.5),
        of(|one| one.0, 0.9),
        of(|one| one.1 as f64, 0.5),
        of(|one| one.1 as f64, 0.9)
    )
}

fn delays(seed: u64) {
    println!("\n### Breaker: time and canary errors to a trip, median (90 %)\n");
    println!("| weight | canary's errors | breaker | errors | CUSUM that knows both | errors |");
    println!("|---|---|---|---|---|---|");
    let count = rollouts(1_000);
    for weight_bp in [100, 500, 2_000, 5_000] {
        for bad in [0.004, 0.006, 0.011, 0.1, 1.0] {
            let found = each(count, |stream| {
                detect(
                    &fault(weight_bp, bad),
                    7_200.0,
                    &mut Random::new(seed, stream),
                )
            });
            let cusum = Cusum {
                flows: 200.0 * f64::from(weight_bp) / 10_000.0,
                good: SHARE,
                bad: bad.min(0.999),
            };
            let threshold = cusum.threshold(0.0025, rollouts(8_000), seed);
            let best = each(count, |stream| {
                cusum.detect(threshold, &mut Random::new(seed, stream))
            });
            println!(
                "| {} % | {:.1} % | {} | {} |",
                weight_bp / 100,
                bad * 100.0,
                summary(&found),
                summary(&best)
            );
        }
    }
}

fn networks(seed: u64) {
    println!("\n### Breaker: networks and attacks, median (90 %)\n");
    println!("| clients | attacker | weight | canary's errors | to the trip | errors |");
    println!("|---|---|---|---|---|---|");
    let count = rollouts(400);
    let baseline = Some((Side::Baseline, 1_000.0));
    for (prefixes, attack, weight_bp, bad) in [
        (5, None, 500, 1.0),
        (5, None, 500, 0.011),
        (8, None, 500, 0.011),
        (16, None, 500, 0.011),
        (64, None, 500, 0.011),
        (4_000, None, 500, 0.011),
        (4_000, baseline, 100, 1.0),
        (4_000, baseline, 500, 1.0),
        (4_000, None, 5_000, 1.0),
        (4_000, baseline, 5_000, 1.0),
        (4_000, baseline, 500, 0.011),
        (4_000, Some((Side::Canary, 1_000.0)), 500, SHARE),
    ] {
        let attacked = Fault {
            prefixes,
            attack,
            ..fault(weight_bp, bad)
        };
        let until_s = if attack.is_some() && bad <= SHARE {
            300.0
        } else {
            7_200.0
        };
        let found = each(count, |stream| {
            detect(&attacked, until_s, &mut Random::new(seed, stream))
        });
        println!(
            "| {prefixes} networks | {} | {} % | {:.1} % | {} |",
            attack.map_or("none".into(), |(side, rate)| format!(
                "{rate} errors/s, {side:?}"
            )),
            weight_bp / 100,
            bad * 100.0,
            summary(&found)
        );
    }
}

fn clients(seed: u64) {
    println!("\n### Client affinity: clients that always fail\n");
    println!("| plan | clients | goes on | begins anew |");
    println!("|---|---|---|---|");
    let fine: Vec<u16> = (0..20).map(|step| 500 + 50 * step).collect();
    let count = rollouts(4_000);
    for (name, weights) in [
        ("5-20-50", vec![500, 2_000, 5_000]),
        ("5 to 14.5 in 20 steps", fine),
    ] {
        for clients in [40, 300] {
            let share = |at| {
                let trips = each(count, |stream| {
                    failing_client::trips(clients, &weights, at, &mut Random::new(seed, stream))
                });
                percent(trips.iter().filter(|&&trip| trip).count(), count)
            };
            println!(
                "| {name} | {clients} | {} | {} |",
                share(AtStep::GoesOn),
                share(AtStep::BeginsAnew)
            );
        }
    }
}

fn alarms(seed: u64) {
    println!("\n### Analysis: good releases of two hours, 50 → 5 %\n");
    println!("| flows close after | α 0.5 % | α 5 % | α 20 % | current weight, α 0.5 % |");
    println!("|---|---|---|---|---|");
    let count = rollouts(2_000);
    for close_s in [60.0, 300.0] {
        let null = analysis::Null {
            weights: [0.5, 0.05],
            share: SHARE,
            close_s,
            current_weight: false,
            restarted: false,
        };
        let highest = |null: analysis::Null| {
            each(count, |stream| null.highest(&mut Random::new(seed, stream)))
        };
        let above = |values: &[f64], alpha: f64| {
            percent(
                values.iter().filter(|&&log| log >= -alpha.ln()).count(),
                count,
            )
        };
        let right = highest(null);
        let wrong = highest(analysis::Null {
            current_weight: true,
            share: 10.0 * SHARE,
            ..null
        });
        println!(
            "| {close_s} s | {} | {} | {} | {} |",
            above(&right, ALPHA),
            above(&right, 0.05),
            above(&right, 0.2),
            above(&wrong, ALPHA)
        );
    }
}

fn faults(seed: u64) {
    println!("\n### Analysis: time and canary errors to a rollback, median (90 %)\n");
    println!("| weight | fault | after | to the rollback | errors |");
    println!("|---|---|---|---|---|");
    for (weight, bad, good_s) in [
        (0.05, 0.011, 0.0),
        (0.05, 0.006, 0.0),
        (0.05, 0.011, 1_800.0),
        (0.01, 0.011, 0.0),
        (0.5, 0.011, 0.0),
        (0.05, 0.1, 0.0),
    ] {
        let fault = analysis::Fault {
            weight,
            bad,
            good_s,
            for_s: 1_800.0,
        };
        let found = each(rollouts(400), |stream| {
            analysis::detect(&fault, &mut Random::new(seed, stream))
        });
        println!(
            "| {} % | 0.1 → {:.1} % | {} min | {} |",
            weight * 100.0,
            bad * 100.0,
            good_s / 60.0,
            summary(&found)
        );
    }
}

fn promotions(seed: u64) {
    println!("\n### Analysis: canary flows to evidence\n");
    println!(
        "| margin | baseline's errors | weight | stated | mean | median | within 1.5 × | worse by the margin, promoted |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let count = rollouts(1_000);
    for (margin, baseline, weight) in [
        (0.005, SHARE, 0.5),
        (0.005, SHARE, 0.05),
        (0.01, SHARE, 0.2),
        (0.005, 0.01, 0.5),
        (0.002, SHARE, 0.5),
    ] {
        let stated = required_canary_flows(margin, baseline, weight);
        let good = Comparison {
            weight,
            baseline,
            canary: baseline,
            margin,
            look: stated / 100.0,
            looks: 1_000,
        };
        let bad = Comparison {
            canary: baseline + margin,
            ..good
        };
        let run = |comparison: &Comparison| {
            each(count, |stream| {
                shown(comparison, &mut Random::new(seed, stream))
            })
        };
        let flows: Vec<f64> = run(&good)
            .into_iter()
            .map(|n| n.unwrap_or(f64::INFINITY))
            .collect();
        let mean = flows.iter().sum::<f64>() / flows.len() as f64;
        let within = flows.iter().filter(|&&n| n <= 1.5 * stated).count();
        println!(
            "| {:.1} % | {:.1} % | {} % | {stated:.0} | {mean:.0} | {:.0} | {} | {} |",
            margin * 100.0,
            baseline * 100.0,
            weight * 100.0,
            quantile(flows.clone(), 0.5),
            percent(within, count),
            percent(run(&bad).iter().flatten().count(), count)
        );
    }
}

fn common_tests(seed: u64) {
    println!(
        "\n### For comparison: common tests on a good release, an hour at 5 %, a look every 5 s\n"
    );
    let count = rollouts(1_000);
    let hours = each(count, |stream| naive::hour(&mut Random::new(seed, stream)));
    println!("| test | rolled back |");
    println!("|---|---|");
    for (name, alarm) in [
        (
            "z-test at 1 %",
            (|h| h.z_test) as fn(&naive::Alarms) -> bool,
        ),
        ("+0.5 % once", |h| h.threshold),
        ("+0.5 % in three minutes in a row", |h| h.three_minutes),
    ] {
        println!(
            "| {name} | {} |",
            percent(hours.iter().filter(|&h| alarm(h)).count(), count)
        );
    }
}
