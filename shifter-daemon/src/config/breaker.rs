//! `[breaker]`.

use std::{collections::BTreeSet, time::Duration};

use super::{report::Report, section::Section, target};
use crate::model::{BreakerMode, BreakerSpec, Prefix};

/// More than half of what the kernel's bitmap of sources tells apart would rarely be reached.
const MIN_SOURCES_MAX: u32 = 32;
const SETTLE_MIN: Duration = Duration::ZERO;
const SETTLE_MAX: Duration = Duration::from_mins(10);
/// Proxies are few; whole networks of clients are not to be trusted.
const TRUSTED_MAX_COUNT: usize = 64;

/// Reads the section; without one, the breaker is armed.
pub(super) fn read(breaker: &Section<'_>, report: &mut Report<'_>) -> BreakerSpec {
    let default = BreakerSpec::default();
    let modes = [
        ("armed", BreakerMode::Armed),
        ("dry-run", BreakerMode::DryRun),
        ("off", BreakerMode::Off),
    ];
    let mode = breaker.get("mode");
    let mode = mode.and_then(|field| field.choice(&modes, &[], report));
    let min_sources = breaker.get("min_sources");
    let min_sources =
        min_sources.and_then(|field| field.count(1..=MIN_SOURCES_MAX, "clients", report));
    let settle = breaker.get("settle");
    let settle = settle.and_then(|field| field.duration(SETTLE_MIN..=SETTLE_MAX, report));
    BreakerSpec {
        mode: mode.unwrap_or(default.mode),
        min_sources: min_sources.unwrap_or(default.min_sources),
        settle: settle.unwrap_or(default.settle),
        trusted: trusted(breaker, report),
    }
}

fn trusted(breaker: &Section<'_>, report: &mut Report<'_>) -> BTreeSet<Prefix> {
    let Some(field) = breaker.get("trusted") else {
        return BTreeSet::new();
    };
    let elements = target::elements(&field, report);
    if elements.len() > TRUSTED_MAX_COUNT {
        report.whole(
            Some(&field.at()),
            format!(
                "a service must have at most {TRUSTED_MAX_COUNT} trusted prefixes, found {}",
                elements.len()
            ),
            "name larger networks, or only the proxies that stand right before this host",
        );
    }
    let mut trusted = BTreeSet::new();
    for element in elements {
        if let Some(prefix) = target::prefix(&element, report) {
            trusted.insert(prefix);
        }
    }
    trusted
}
