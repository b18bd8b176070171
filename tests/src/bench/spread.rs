//! What many measurements say together. Pure.

use serde::{Deserialize, Serialize};

/// Order statistics of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Measurements.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// A quarter lies below.
    pub q1: f64,
    /// The middle.
    pub median: f64,
    /// A quarter lies above.
    pub q3: f64,
    /// One in a hundred lies above.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of a sample; `None` if it is empty. Numbers that are none count as missing.
    pub fn of(sample: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = sample.into_iter().filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |q| rounded(quantile(&sorted, q));
        Some(Self {
            count: sorted.len(),
            min: rounded(min),
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            p99: at(0.99),
            max: rounded(max),
        })
    }
}

/// To thousandths: nothing here is measured as well as that, and files stay readable.
pub fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A quantile of a sorted sample that is not empty, between neighbours in proportion (type 7 of
/// Hyndman and Fan, 1996).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// What each measurement of a round is to its partner in the same round: the machine's drift from
/// round to round falls out of the ratio.
pub fn paired_ratios(numerators: &[f64], denominators: &[f64]) -> Vec<f64> {
    let pairs = numerators.iter().zip(denominators);
    pairs.map(|(above, below)| above / below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_where_they_are_defined() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]).expect("a sample");
        let expected = Spread {
            count: 5,
            min: 1.0,
            q1: 2.0,
            median: 3.0,
            q3: 4.0,
            p99: 4.96,
            max: 5.0,
        };
        assert_eq!(spread, expected);
        let pair = Spread::of([1.0, 2.0]).expect("a sample");
        assert_eq!((pair.q1, pair.median, pair.q3), (1.25, 1.5, 1.75));
        let one = Spread::of([7.0]).expect("a sample");
        assert_eq!(
            (one.min, one.median, one.p99, one.max),
            (7.0, 7.0, 7.0, 7.0)
        );
    }

    #[test]
    fn no_number_is_no_measurement() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
        assert_eq!(Spread::of([f64::NAN, 2.0]).map(|s| s.count), Some(1));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(paired_ratios(&[2.0, 9.0], &[4.0, 3.0]), [0.5, 3.0]);
        assert_eq!(paired_ratios(&[2.0], &[4.0, 3.0]), [0.5]);
    }
}
