//! What is commonly done instead: a test for one look, looked at again and again. For comparison only.

use crate::{
    analysis::{FLOWS, SHARE, TICK_S},
    random::Random,
};

/// Whether a good release at 5 % would have been rolled back within an hour.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarms {
    /// By a one-sided z-test of two shares at 1 % error.
    pub z_test: bool,
    /// By "the canary's share is 0.5 % above the baseline's", once.
    pub threshold: bool,
    /// By the same in three minutes in a row.
    pub three_minutes: bool,
}

/// One hour of a good release.
pub fn hour(random: &mut Random) -> Alarms {
    let mut alarms = Alarms::default();
    let (n, m) = (FLOWS * TICK_S * 0.05, FLOWS * TICK_S * 0.95);
    let (mut canary, mut baseline) = (0.0, 0.0);
    let (mut minute, mut bad_minutes) = ([0.0; 2], 0);
    for tick in 1..=720_u32 {
        let (more, fewer) = (
            random.poisson(n * SHARE) as f64,
            random.poisson(m * SHARE) as f64,
        );
        canary += more;
        baseline += fewer;
        minute[0] += more;
        minute[1] += fewer;
        let t = f64::from(tick);
        let (p, q) = (canary / (n * t), baseline / (m * t));
        let pooled = (canary + baseline) / ((n + m) * t);
        let error = (pooled * (1.0 - pooled) * (1.0 / (n * t) + 1.0 / (m * t))).sqrt();
        // Fifty flows are the usual minimum.
        if n * t >= 50.0 {
            alarms.z_test |= p - q > 2.326 * error && error > 0.0;
            alarms.threshold |= p - q > 0.005;
        }
        if tick % 12 == 0 {
            let worse = minute[0] / (12.0 * n) - minute[1] / (12.0 * m) > 0.005;
            bad_minutes = if worse { bad_minutes + 1 } else { 0 };
            alarms.three_minutes |= bad_minutes >= 3;
            minute = [0.0; 2];
        }
    }
    alarms
}
