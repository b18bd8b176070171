//! The metrics of what was seen in connections. Pure.

use shifter_common::wire::{ObservedStatus, Status, WaitStatus};

use super::family::{Durations, Labels, Value, slot_labels};

/// How long handshakes and first bytes took.
pub(super) fn waits(status: &Status) -> Vec<(Labels, Value)> {
    of_slots(status, |labels, seen| {
        [("connect", &seen.connect), ("first_byte", &seen.first_byte)]
            .map(|(kind, waits)| (with(labels, "kind", kind), durations(waits)))
            .into()
    })
}

/// Responses by class.
pub(super) fn responses(status: &Status) -> Vec<(Labels, Value)> {
    of_slots(status, |labels, seen| {
        let rows = seen.responses.iter();
        rows.map(|(class, count)| (with(labels, "class", class), Value::Integer(*count)))
            .collect()
    })
}

fn of_slots(
    status: &Status,
    samples: impl Fn(&Labels, &ObservedStatus) -> Vec<(Labels, Value)>,
) -> Vec<(Labels, Value)> {
    let mut all = Vec::new();
    for service in &status.services {
        for slot in &service.slots {
            if let Some(seen) = &slot.observed {
                all.extend(samples(&slot_labels(service, slot), seen));
            }
        }
    }
    all
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}

fn durations(waits: &WaitStatus) -> Value {
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = waits
        .shorter
        .iter()
        .map(|(bound_ns, count)| {
            let own = count.saturating_sub(below);
            below = *count;
            (seconds(*bound_ns), own)
        })
        .collect();
    buckets.push((f64::INFINITY, waits.count.saturating_sub(below)));
    Value::Histogram(Durations {
        sum_s: seconds(waits.sum_ns),
        count: waits.count,
        buckets,
    })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1_000_000_000.0
}
