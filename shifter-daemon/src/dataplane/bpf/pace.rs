//! How fast a sweep goes through a large flow table.

use std::time::Duration;

/// A sweep rests this many times as long as it worked: it takes a tenth of a core, whatever the size
/// of the table.
const REST_FACTOR: u32 = 9;
/// No rest is longer: a batch that took long because the machine was busy does not stop the sweep.
const REST_MAX: Duration = Duration::from_millis(100);

/// How long to rest after a batch that took so long.
pub fn rest_after(spent: Duration) -> Duration {
    (spent * REST_FACTOR).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_a_tenth_of_a_core() {
        let ms = Duration::from_millis;
        for (spent, rest) in [(0, 0), (1, 9), (5, 45), (11, 99), (12, 100), (5_000, 100)] {
            assert_eq!(rest_after(ms(spent)), ms(rest), "{spent} ms");
        }
    }
}
