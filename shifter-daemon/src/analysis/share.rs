//! Whether the canary gets the flows its weight promises.

/// Standard deviations by which the share may be off.
const SIGMAS: f64 = 5.0;

/// Whether the canary's flows are so far off `weight` (0 to 1) that something else than chance deals
/// them: Bernstein's bound at five standard deviations, |n_c − nw| > 5·√(nw(1−w)) + 25/6, which a fair
/// draw exceeds with probability below 8·10⁻⁶. The root alone is exceeded by a single canary flow where
/// few are expected.
pub fn share_is_off(canary: u64, baseline: u64, weight: f64) -> bool {
    let n = (canary + baseline) as f64;
    let deviation = (canary as f64 - n * weight).abs();
    deviation > SIGMAS * (n * weight * (1.0 - weight)).sqrt() + SIGMAS * SIGMAS / 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_far_off_its_weight_is_seen() {
        let rows = [
            (0, 0, 0.05, false),
            (1, 9, 0.0001, false),
            (50, 950, 0.05, false),
            (85, 915, 0.05, false),
            (95, 905, 0.05, true),
            (10, 990, 0.05, true),
            (500, 500, 0.5, false),
            (600, 400, 0.5, true),
            (100, 0, 1.0, false),
            (100, 5, 1.0, true),
        ];
        for (canary, baseline, weight, expected) in rows {
            assert_eq!(
                share_is_off(canary, baseline, weight),
                expected,
                "{canary} of {canary} + {baseline} at {weight}"
            );
        }
    }

    /// Exact binomial probability that a fair draw is called off, at its worst among small samples.
    fn false_alarm(weight: f64, off: impl Fn(u64, u64) -> bool) -> f64 {
        (1..300_u64)
            .map(|n| {
                let mut term = (1.0 - weight).powi(n as i32);
                let mut alarm = 0.0;
                for k in 0..=n {
                    if off(k, n - k) {
                        alarm += term;
                    }
                    term *= (n - k) as f64 / (k + 1) as f64 * weight / (1.0 - weight);
                }
                alarm
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn a_fair_draw_is_rarely_called_off_and_five_sigmas_alone_do_it_often() {
        for weight in [0.0001, 0.001, 0.01, 0.05, 0.5] {
            let ours = false_alarm(weight, |c, b| share_is_off(c, b, weight));
            assert!(ours < 8e-6, "{weight}: {ours}");
        }
        let root_alone = false_alarm(0.0001, |c, b| {
            let n = (c + b) as f64;
            (c as f64 / n - 0.0001).abs() > 5.0 * (0.0001 * 0.9999 / n).sqrt()
        });
        assert!(root_alone > 0.02, "{root_alone}");
    }
}
