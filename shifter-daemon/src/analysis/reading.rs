//! What the analysis is given to look at.

use std::time::Duration;

use super::{counts::Totals, latency::Histogram};

/// What is known of one version's flows in one cohort, since the cohort began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Flows, and those among them that failed.
    pub totals: Totals,
    /// Times to the first response, where they are observed.
    pub latency: Option<Histogram>,
}

/// The flows admitted under one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortSample {
    /// Number of the cohort in its rollout, rising.
    pub cohort: u32,
    /// The canary's share at admission in basis points.
    pub weight_bp: u16,
    /// Whether rules rather than the draw chose the version.
    pub targeted: bool,
    /// The version on trial.
    pub canary: Sample,
    /// The version serving now.
    pub baseline: Sample,
}

/// One look at a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// From the dataplane: every cohort of the rollout so far.
    Cohorts(Vec<CohortSample>),
    /// From a provider that knows versions but not cohorts: its counters, which only grow.
    Provider {
        /// The version on trial.
        canary: Totals,
        /// The version serving now.
        baseline: Totals,
    },
    /// The provider answered and has nothing.
    Missing,
    /// The provider could not be asked; with the reason.
    Failed(String),
}

/// The time after each change of the weight in which a provider's data mix what was before with what is
/// after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    length: Duration,
    until: Duration,
}

impl Quarantine {
    /// For a provider that is scraped every `scrape_interval` and requests that end within
    /// `request_timeout`: the longest of 30 s, two scrapes and the timeout.
    pub fn new(scrape_interval: Duration, request_timeout: Duration) -> Self {
        let length = Duration::from_secs(30)
            .max(scrape_interval * 2)
            .max(request_timeout);
        Self {
            length,
            until: Duration::ZERO,
        }
    }

    /// The weight has changed at `now`.
    pub fn changed(&mut self, now: Duration) {
        self.until = now + self.length;
    }

    /// Until when data of `now` are ignored, if they are.
    pub fn holds(&self, now: Duration) -> Option<Duration> {
        (now < self.until).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_ignored_for_the_longest_of_three_times() {
        let s = Duration::from_secs;
        for (scrape, timeout, expected) in [(5, 10, 30), (20, 10, 40), (15, 90, 90)] {
            let mut quarantine = Quarantine::new(s(scrape), s(timeout));
            assert_eq!(quarantine.holds(s(1)), None);
            quarantine.changed(s(100));
            let end = 100 + expected;
            assert_eq!(
                quarantine.holds(s(end - 1)),
                Some(s(end)),
                "{scrape} {timeout}"
            );
            assert_eq!(quarantine.holds(s(end)), None, "{scrape} {timeout}");
        }
    }
}
