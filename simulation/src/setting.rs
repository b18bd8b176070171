//! How much is simulated, and from which seed.

use std::{env, str::FromStr, thread};

/// Seed of every simulation that is not told another one.
const SEED: u64 = 20_260_101;

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => panic!("{name} is '{text}': it must be a whole number"),
        },
        Err(_) => default,
    }
}

/// The seed, which is printed.
pub fn seed() -> u64 {
    let seed = variable("SHIFTER_SIMULATION_SEED", SEED);
    println!("SHIFTER_SIMULATION_SEED={seed}");
    seed
}

/// `count` rollouts, times the scale that was asked for.
pub fn rollouts(count: u64) -> u64 {
    count * variable("SHIFTER_SIMULATION_SCALE", 1_u64)
}

/// Runs `one` for 0..`count` on two threads and returns what came out, in order.
pub fn each<T: Send>(count: u64, one: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let half = count / 2;
    thread::scope(|scope| {
        let first = scope.spawn(|| (0..half).map(&one).collect::<Vec<T>>());
        let mut second: Vec<T> = (half..count).map(&one).collect();
        match first.join() {
            Ok(mut all) => {
                all.append(&mut second);
                all
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The value that a share `quantile` of `values` stays at or below.
pub fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (quantile * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}
