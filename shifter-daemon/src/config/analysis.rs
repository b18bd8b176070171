//! `[analysis]`: what the evidence must say.

use super::{
    report::{Report, shown},
    schema,
    section::Section,
};
use crate::{
    analysis::{Counted, EvidencePlan, PromoteOn},
    rollout::{AnalysisPlan, OnInconclusive},
};

const COUNT_MAX: u32 = 1_000_000;
/// Metrics of the reference that this version cannot count yet.
const LATER: &[&str] = &["latency_p50", "latency_p99", "http_5xx", "apdex"];

/// Reads the section; `None` without it: observed time and readiness alone decide then.
pub(super) fn read(top: &Section<'_>, report: &mut Report<'_>) -> Option<AnalysisPlan> {
    let analysis = top.section("analysis", &schema::service::ANALYSIS, report);
    if !analysis.is_present() {
        return None;
    }
    let mut evidence = EvidencePlan::default();
    if let Some(field) = analysis.get("false_rollback") {
        evidence.false_rollback_ppm = field
            .fraction_ppm(100..=200_000, report)
            .unwrap_or(evidence.false_rollback_ppm);
    }
    if let Some(field) = analysis.get("baseline_max_error") {
        evidence.baseline_max_error_ppm = field
            .fraction_ppm(1..=1_000_000, report)
            .unwrap_or(evidence.baseline_max_error_ppm);
    }
    for (key, value) in [
        ("min_samples", &mut evidence.min_samples),
        ("min_per_minute", &mut evidence.min_per_minute),
    ] {
        if let Some(field) = analysis.get(key) {
            *value = field.count(0..=COUNT_MAX, "", report).unwrap_or(*value);
        }
    }
    let promote_on = [
        ("auto", PromoteOn::Auto),
        ("no-alarm", PromoteOn::NoAlarm),
        ("evidence", PromoteOn::Evidence),
    ];
    if let Some(field) = analysis.get("promote_on") {
        evidence.promote_on = field
            .choice(&promote_on, &[], report)
            .unwrap_or(evidence.promote_on);
    }
    let choices = [
        ("extend", OnInconclusive::Extend),
        ("pause", OnInconclusive::Pause),
        ("rollback", OnInconclusive::Rollback),
    ];
    let on_inconclusive = analysis
        .get("on_inconclusive")
        .and_then(|field| field.choice(&choices, &[], report))
        .unwrap_or_default();
    metrics(&analysis, &mut evidence, report);
    Some(AnalysisPlan {
        from_step: 0,
        on_inconclusive,
        evidence,
    })
}

fn metrics(analysis: &Section<'_>, evidence: &mut EvidencePlan, report: &mut Report<'_>) {
    let Some(field) = analysis.get("metric") else {
        return;
    };
    if field.is_table() {
        report.value(
            &field.at(),
            "`analysis.metric` must be an array of tables, found a table",
            "write [[analysis.metric]], in two brackets, once for each metric",
        );
        return;
    }
    (evidence.errors_ppm, evidence.resets_ppm) = (None, None);
    let names = Counted::ALL.map(|counted| (counted.name(), counted));
    for element in field.elements(report).unwrap_or_default() {
        let table = analysis.open(&element, &schema::service::METRIC, report);
        let name = table.required("name", report);
        let name = name.and_then(|name| Some((name.at(), name.choice(&names, LATER, report)?)));
        let max_increase = table.required("max_increase", report);
        let ppm = max_increase.and_then(|field| field.fraction_ppm(10..=1_000_000, report));
        let (Some((at, counted)), Some(ppm)) = (name, ppm) else {
            continue;
        };
        let place = match counted {
            Counted::Errors => &mut evidence.errors_ppm,
            Counted::Resets => &mut evidence.resets_ppm,
        };
        if place.replace(ppm).is_some() {
            report.value(
                &at,
                format!("metric {} is there twice", shown(counted.name())),
                "keep the one that you mean",
            );
        }
    }
}
