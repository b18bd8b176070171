//! One service: where it is reached, who gets what, and what became of it.

use shifter_common::wire::{
    BackendStatus, FlowCounts, ObservedStatus, Role, ServiceStatus, SlotStatus,
};

use super::{Tone, View, number, rollout, text};
use crate::percent;

/// Columns of a row's name; an IPv4 address and port with its indent fits.
const NAME_WIDTH: usize = 26;

/// A service. With `before`, an earlier status of the same service, shares are those of the flows
/// selected since.
pub fn service(view: &View, service: &ServiceStatus, before: Option<&ServiceStatus>) -> String {
    let first = format!("{}  ", service.name);
    let vips = service.vips.join(", ");
    let block = text::wrap(&first, &format!("{} {vips}", service.protocol));
    let mut out = text::relabel(view, Tone::Strong, &first, &block);
    let ServiceStatus {
        plane,
        plane_reason,
        generation,
        ..
    } = service;
    let affinity = format!("{:?}", service.affinity).to_lowercase();
    out += &text::wrap(
        "  ",
        &format!("{plane} plane ({plane_reason}), {affinity} affinity, generation {generation}"),
    );
    out += &weight(view, service);
    if let Some(of_service) = &service.rollout {
        out += &rollout::of_service(view, of_service);
    }

    let heading = row(
        "  slot",
        ["live", "estab.", "refused", "resets c/b", "share"].map(Into::into),
    );
    out += &view.paint(Tone::Faint, &format!("{heading}  state"));
    out.push('\n');
    let whole = |status: &ServiceStatus| -> u64 {
        status.slots.iter().map(|slot| slot.counters.selected).sum()
    };
    let total = since(whole(service), before.map(whole));
    for slot in &service.slots {
        let old = before.and_then(|before| before.slots.iter().find(|old| old.slot == slot.slot));
        out += &slot_rows(view, slot, old, total);
    }
    out += &targets(service);
    if service.orphaned {
        let first = "  orphaned: ";
        let block = text::wrap(first, "its file is gone; it is steered as before");
        out += &paint_label(view, Tone::Warning, first, &block);
    }
    for note in &service.notes {
        out += &paint_label(
            view,
            Tone::Warning,
            "  note: ",
            &text::wrap("  note: ", note),
        );
    }
    out
}

/// Networks of a target rule that are shown one by one.
const PREFIXES_SHOWN_COUNT: usize = 4;

/// `  to the canary: 10.0.0.0/8, 2001:db8:7::/48`
fn targets(service: &ServiceStatus) -> String {
    let mut out = String::new();
    for (role, name) in [(Role::Canary, "canary"), (Role::Baseline, "baseline")] {
        let of_role: Vec<&str> = service
            .targets
            .iter()
            .filter(|target| target.to == role)
            .map(|target| target.from.as_str())
            .collect();
        if of_role.is_empty() {
            continue;
        }
        let mut line = of_role
            .iter()
            .take(PREFIXES_SHOWN_COUNT)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        if of_role.len() > PREFIXES_SHOWN_COUNT {
            line += &format!(", {} more", of_role.len() - PREFIXES_SHOWN_COUNT);
        }
        if role == Role::Canary && service.targets_held {
            line += " (held back)";
        }
        out += &text::wrap(&format!("  to the {name}: "), &line);
    }
    out
}

/// `  canary b: weight 25 %, effective 0 %, set by root (uid 0) 2 min ago (14:03:22)`
fn weight(view: &View, service: &ServiceStatus) -> String {
    let canary = service.baseline.other();
    let mut line = format!("weight {}", percent::of_bp(service.weight_bp));
    let differs = service.effective_bp != service.weight_bp;
    if differs {
        line += &format!(", effective {}", percent::of_bp(service.effective_bp));
    }
    line += &match service.weight_set_unix_ms {
        0 => ", never set".to_owned(),
        at => {
            let (by, age, time) = (&service.weight_by, view.age(at), view.time(at));
            format!(", set by {by} {age} ago ({time})")
        }
    };
    let first = format!("  canary {canary}: ");
    let block = text::wrap(&first, &line);
    if differs {
        paint_label(view, Tone::Warning, &first, &block)
    } else {
        block
    }
}

fn slot_rows(view: &View, slot: &SlotStatus, before: Option<&SlotStatus>, total: u64) -> String {
    let role = match slot.role {
        Role::Baseline => "baseline",
        Role::Canary => "canary",
    };
    let state = match (slot.eligible, slot.drained) {
        (true, _) => ("eligible", Tone::Good),
        (false, true) => ("drained", Tone::Warning),
        (false, false) => ("ineligible", Tone::Bad),
    };
    let selected = since(
        slot.counters.selected,
        before.map(|old| old.counters.selected),
    );
    let share = number::share(selected, total);
    let name = match &slot.version {
        Some(version) => format!("  {} {role} {version}", slot.slot),
        None => format!("  {} {role}", slot.slot),
    };
    let mut out = full_row(
        view,
        &name,
        slot.live_flows_count,
        &slot.counters,
        share,
        state,
    );
    if !slot.reason.is_empty() {
        out += &text::wrap("      why: ", &slot.reason);
    }
    let lost: Vec<_> = [
        (
            slot.failed_over_count,
            format!("went to slot {}", slot.slot.other()),
        ),
        (slot.unserved_count, "found no slot".into()),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} wanted here {what}", number::counted(n, "flow")))
    .collect();
    if slot.targeted_count > 0 {
        let count = number::counted(slot.targeted_count, "flow");
        out += &text::wrap("      ", &format!("{count} here by a target rule"));
    }
    if !lost.is_empty() {
        out += &text::wrap("      ", &lost.join(", "));
    }
    if let Some(seen) = &slot.observed {
        out += &observed(seen);
    }
    for backend in &slot.backends {
        let same = |old: &&BackendStatus| old.addr == backend.addr;
        let old = before.and_then(|before| before.backends.iter().find(same));
        let selected = since(
            backend.counters.selected,
            old.map(|old| old.counters.selected),
        );
        let share = number::share(selected, total);
        out += &backend_rows(view, backend, share);
    }
    out
}

/// `      first byte: half within 2.4 ms, 99 % within 38 ms` and the classes of responses
fn observed(seen: &ObservedStatus) -> String {
    let mut out = String::new();
    for (name, waits) in [("connect", &seen.connect), ("first byte", &seen.first_byte)] {
        if waits.count == 0 {
            continue;
        }
        let (half, most) = (number::took(waits.p50_ns), number::took(waits.p99_ns));
        out += &text::wrap(
            &format!("      {name}: "),
            &format!("half within {half}, 99 % within {most}"),
        );
    }
    let classes: Vec<String> = seen
        .responses
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| format!("{} {class}", number::count(*count)))
        .collect();
    if !classes.is_empty() {
        out += &text::wrap("      responses: ", &classes.join(", "));
    }
    out
}

fn backend_rows(view: &View, backend: &BackendStatus, share: String) -> String {
    let weight = match backend.weight {
        100 => String::new(),
        weight => format!(" w{weight}"),
    };
    let name = format!("    {}{weight}", backend.addr);
    let state = if backend.ready {
        ("ready", Tone::Good)
    } else {
        ("not ready", Tone::Bad)
    };
    let mut out = full_row(
        view,
        &name,
        backend.live_flows_count,
        &backend.counters,
        share,
        state,
    );
    if !backend.reason.is_empty() {
        out += &text::wrap("        why: ", &backend.reason);
    }
    out
}

/// Name, numbers and state. A name that is too long gets a line of its own.
fn full_row(
    view: &View,
    name: &str,
    live: u64,
    counters: &FlowCounts,
    share: String,
    (state, tone): (&str, Tone),
) -> String {
    let resets = format!(
        "{}/{}",
        number::count(counters.reset_by_client),
        number::count(counters.reset_by_backend)
    );
    let numbers = [
        number::count(live),
        number::count(counters.established),
        number::count(counters.refused),
        resets,
        share,
    ];
    let state = view.paint(tone, state);
    if name.chars().count() < NAME_WIDTH {
        return format!("{}  {state}\n", row(name, numbers));
    }
    format!("{name}\n{}  {state}\n", row("", numbers))
}

fn row(name: &str, [live, established, refused, resets, share]: [String; 5]) -> String {
    format!("{name:<NAME_WIDTH$}{live:>6}{established:>7}{refused:>8}{resets:>13}{share:>8}")
}

/// What was added to a counter; all of it if the counter began anew.
fn since(now: u64, before: Option<u64>) -> u64 {
    now.checked_sub(before.unwrap_or(0)).unwrap_or(now)
}

fn paint_label(view: &View, tone: Tone, label: &str, block: &str) -> String {
    let indent = label.len() - label.trim_start().len();
    let rest = block.get(indent..).unwrap_or(block);
    format!(
        "{}{}",
        &label[..indent],
        text::relabel(view, tone, label.trim_start(), rest)
    )
}
