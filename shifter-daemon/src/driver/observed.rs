//! What was seen in connections, as `status` shows it.

use shifter_common::{
    histogram::lower_bound_ns,
    observe::{Response, Waits},
    wire::{ObservedStatus, WaitStatus},
};

use crate::{analysis::Histogram, dataplane::ObservedReading};

/// Places of the buckets below which counts are shown: each power of two from 131 µs to 69 s.
const SHOWN: [usize; 20] = {
    let mut places = [0; 20];
    let mut nth = 0;
    while nth < places.len() {
        places[nth] = 40 + 8 * nth;
        nth += 1;
    }
    places
};

/// One slot's.
pub(super) fn status(reading: &ObservedReading) -> ObservedStatus {
    let classes = Response::ALL.iter().zip(reading.0.responses);
    ObservedStatus {
        connect: waits(&reading.0.connect),
        first_byte: waits(&reading.0.first_byte),
        responses: classes
            .map(|(class, count)| (class.label().to_owned(), count))
            .collect(),
    }
}

fn waits(waits: &Waits) -> WaitStatus {
    let histogram = Histogram::from_counts(&waits.counts);
    let quantile_ns = |share| histogram.quantile_ns(share).unwrap_or(0.0) as u64;
    let shorter = SHOWN.iter().map(|place| {
        let count = waits.counts.iter().take(*place).sum();
        (lower_bound_ns(*place), count)
    });
    WaitStatus {
        count: histogram.total(),
        sum_ns: waits.sum_ns,
        p50_ns: quantile_ns(0.5),
        p99_ns: quantile_ns(0.99),
        shorter: shorter.collect(),
    }
}

#[cfg(test)]
mod tests {
    use shifter_common::{
        histogram::{BUCKET_COUNT, bucket},
        observe::Observed,
    };

    use super::*;

    #[test]
    fn bounds_are_powers_of_two_and_counts_add_up() {
        let mut seen = Observed::default();
        for (duration_ns, count) in [(100_000, 98), (3_000_000, 1), (100_000_000_000, 1)] {
            seen.first_byte.counts[bucket(duration_ns)] += count;
            seen.first_byte.sum_ns += duration_ns * count;
        }
        seen.responses[Response::ServerError as usize] = 3;
        let status = status(&ObservedReading(Box::new(seen)));
        let first = &status.first_byte;
        assert_eq!((first.count, first.sum_ns), (100, 100_012_800_000));
        assert_eq!(first.shorter.len(), 20);
        assert_eq!(first.shorter[0], (131_072, 98));
        assert_eq!(first.shorter[4], (2_097_152, 98));
        assert_eq!(first.shorter[5], (4_194_304, 99));
        assert_eq!(first.shorter[19], (lower_bound_ns(BUCKET_COUNT), 100));
        assert!(first.p50_ns.abs_diff(100_000) <= 6_250, "{}", first.p50_ns);
        assert!(
            first.p99_ns.abs_diff(3_000_000) <= 187_500,
            "{}",
            first.p99_ns
        );
        assert_eq!(status.connect.count, 0);
        assert_eq!(status.connect.p99_ns, 0);
        assert_eq!(status.responses[4], ("5xx".to_owned(), 3));
    }
}
