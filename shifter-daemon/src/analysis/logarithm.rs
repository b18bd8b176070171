//! Sums of numbers that are kept as logarithms.

/// ln(eᵃ + eᵇ).
#[inline]
pub(super) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// The logarithm of the mean.
#[inline]
pub(super) fn ln_mean(logs: &[f64]) -> f64 {
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high == f64::NEG_INFINITY {
        return high;
    }
    let sum: f64 = logs.iter().map(|log| (log - high).exp()).sum();
    high + (sum / logs.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_plain_arithmetic_and_outlive_it() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(ln_add(2_f64.ln(), 3_f64.ln()), 5_f64.ln());
        close(ln_add(f64::NEG_INFINITY, 1.5), 1.5);
        assert_eq!(
            ln_add(f64::NEG_INFINITY, f64::NEG_INFINITY),
            f64::NEG_INFINITY
        );
        close(ln_add(5_000.0, 5_000.0), 5_000.0 + 2_f64.ln());
        close(ln_mean(&[1_f64.ln(), 3_f64.ln()]), 2_f64.ln());
        close(ln_mean(&[-9_000.0, -9_000.0]), -9_000.0);
        assert_eq!(ln_mean(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
    }
}
