//! `explain`: why the kernel took a version out of traffic, or did not.

use shifter_common::wire::{ArmStatus, BreakerStatus, ServiceStatus, TripStatus};

use super::{Tone, View, number, text};
use crate::percent;

/// What the breaker of a service has seen and done.
pub fn explain(view: &View, service: &ServiceStatus) -> String {
    let breaker = &service.breaker;
    let canary = service.baseline.other();
    let first = format!("{}  ", service.name);
    let head = format!(
        "breaker {}, canary slot {canary} at {}",
        breaker.mode,
        percent::of_bp(service.effective_bp)
    );
    let mut out = text::relabel(view, Tone::Strong, &first, &text::wrap(&first, &head));
    if breaker.mode == "off" {
        let off = "the kernel judges nothing; arm it with [breaker] mode = \"armed\" in its file";
        return out + &text::wrap("  ", off);
    }
    out += &counted(breaker);
    out += &evidence(view, breaker);
    out += &match &breaker.trip {
        Some(trip) => tripped(view, service, trip),
        None => text::wrap("  ", &quiet(service)),
    };
    out
}

/// Which errors counted, and why others did not.
fn counted(breaker: &BreakerStatus) -> String {
    let of = |wanted: &str| {
        let found = breaker.errors.iter().find(|(name, _)| name == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    let mut out = text::wrap(
        "  errors that counted: ",
        &format!(
            "{} of the canary, {} of the baseline",
            number::count(of("canary")),
            number::count(of("baseline"))
        ),
    );
    let reasons = [
        (
            "no_cohort",
            "of connections outside a trial (sent by a rule, or soon after a change)",
        ),
        ("unheard", "of networks that had supplied their share"),
        ("repeated", "of clients that had counted in this step"),
        ("dropped", "of the canary, lost between processors"),
    ];
    let others: Vec<String> = reasons
        .iter()
        .filter(|(name, _)| of(name) > 0)
        .map(|(name, reason)| format!("{} {reason}", number::count(of(name))))
        .collect();
    if !others.is_empty() {
        out += &text::wrap("  errors that did not: ", &others.join("; "));
    }
    let heard = of("canary") + of("baseline");
    if of("unheard") > heard {
        out += &text::wrap(
            "  note: ",
            "most errors come from a few networks and are not heard: if these are proxies, or all \
             your clients, name them in [breaker] trusted",
        );
    }
    out
}

/// How far each arm is.
fn evidence(view: &View, breaker: &BreakerStatus) -> String {
    let mut out = String::new();
    for ArmStatus {
        ratio,
        evidence_milli,
        threshold_milli,
        ..
    } in &breaker.arms
    {
        let label = format!("  errors {ratio} times as frequent: ");
        let line = format!(
            "evidence {} of {}",
            milli(*evidence_milli),
            milli(*threshold_milli)
        );
        let block = text::wrap(&label, &line);
        out += &if evidence_milli * 2 >= *threshold_milli {
            text::relabel(view, Tone::Warning, &label, &block)
        } else {
            block
        };
    }
    out
}

fn tripped(view: &View, service: &ServiceStatus, trip: &TripStatus) -> String {
    let canary = service.baseline.other();
    let age = view.age(view.now_unix_ms.saturating_sub(trip.age_ms));
    let (label, what) = match trip.result.as_str() {
        "executed" => (
            "  TRIPPED: ",
            format!("{age} ago the kernel took slot {canary} out of traffic"),
        ),
        "dry-run" => (
            "  would have tripped: ",
            format!("{age} ago; mode is \"dry-run\", nothing was done"),
        ),
        _ => (
            "  would have tripped: ",
            format!("{age} ago; the baseline could take no connections, nothing was done"),
        ),
    };
    let why = format!(
        "{what}. At {} of new connections its errors were what one expects if they are {} times as \
         frequent as the baseline's: evidence {} where {} is needed, from {}. The deciding error was of \
         a connection admitted at {}; from it to a weight of 0 took {}.",
        percent::of_bp(trip.weight_bp),
        trip.ratio,
        milli(trip.evidence_milli),
        milli(trip.threshold_milli),
        number::counted(u64::from(trip.sources_count), "client"),
        percent::of_bp(trip.cohort_weight_bp),
        number::took(trip.took_ns),
    );
    let tone = if trip.result == "executed" {
        Tone::Bad
    } else {
        Tone::Warning
    };
    let mut out = text::relabel(view, tone, label, &text::wrap(label, &why));
    if service.breaker.tripped {
        let name = &service.name;
        out += &text::wrap(
            "  next: ",
            &format!(
                "mend the version, then give it a weight again: shifterctl set-weight {name} 5%"
            ),
        );
    }
    out
}

/// Why nothing has happened.
fn quiet(service: &ServiceStatus) -> String {
    match service.effective_bp {
        0 => "no trial: the canary gets no new connections".into(),
        10_000 => {
            "no trial: everything goes to the canary, there is nothing to compare it with".into()
        }
        _ => format!(
            "not tripped: that takes the evidence of one arm, and {} of the canary whose connections \
             failed",
            number::counted(u64::from(service.breaker.min_sources), "client")
        ),
    }
}

/// Thousandths with one place.
fn milli(value: u64) -> String {
    format!("{}.{}", value / 1_000, value % 1_000 / 100)
}
