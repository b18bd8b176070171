//! `[outlier]`.

use std::time::Duration;

use super::{report::Report, section::Section};
use crate::model::OutlierSpec;

const CONSECUTIVE_ERRORS_DEFAULT: u32 = 5;
const MIN_FLOWS_DEFAULT: u32 = 50;
const COUNT_MAX: u32 = 1_000;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const EJECTION_DEFAULT: Duration = Duration::from_secs(30);
/// An ejection is at most this many times the first one unless the file says otherwise.
const GROWTH_DEFAULT: u32 = 10;
const MAX_EJECTED_PERCENT_DEFAULT: u32 = 50;
const TIME_MIN: Duration = Duration::from_secs(1);
const TIME_MAX: Duration = Duration::from_hours(24);

/// Reads the section; without one, no backend is ever ejected.
pub(super) fn read(outlier: &Section<'_>, report: &mut Report<'_>) -> Option<OutlierSpec> {
    if !outlier.is_present() {
        return None;
    }
    let mut count = |name, range, unit| {
        let field = outlier.get(name);
        field.and_then(|field| field.count(range, unit, report))
    };
    let consecutive_errors = count("consecutive_errors", 1..=COUNT_MAX, "");
    let min_flows = count("min_flows", 1..=COUNT_MAX, "flows");
    let max_ejected_percent = count("max_ejected_percent", 1..=100, "percent");
    let mut time = |name| {
        let field = outlier.get(name);
        field.and_then(|field| field.duration(TIME_MIN..=TIME_MAX, report))
    };
    let interval = time("interval").unwrap_or(INTERVAL_DEFAULT);
    let ejection = time("ejection").unwrap_or(EJECTION_DEFAULT);
    let max_ejection = time("max_ejection");
    if let (Some(most), Some(field)) = (max_ejection, outlier.get("max_ejection"))
        && most < ejection
    {
        report.value(
            &field.at(),
            "`outlier.max_ejection` is shorter than `ejection`",
            "make it longer, or the ejection shorter",
        );
    }
    Some(OutlierSpec {
        consecutive_errors: consecutive_errors.unwrap_or(CONSECUTIVE_ERRORS_DEFAULT),
        compare_peers: outlier
            .get("compare_peers")
            .and_then(|field| field.boolean(report))
            .unwrap_or(true),
        min_flows: min_flows.unwrap_or(MIN_FLOWS_DEFAULT),
        interval,
        ejection,
        max_ejection: max_ejection.unwrap_or(ejection.saturating_mul(GROWTH_DEFAULT)),
        max_ejected_percent: max_ejected_percent.unwrap_or(MAX_EJECTED_PERCENT_DEFAULT),
    })
}
