//! What putting the files in force did.

use shifter_common::wire::{ApplyReport, ConfigChange, Effect};

use super::{Tone, View, text};

/// Differences found and services without a file. Problems are in [`apply_problems`].
pub fn apply(view: &View, report: &ApplyReport) -> String {
    let mut out = String::new();
    for change in &report.changes {
        let (first, tone) = match change.effect {
            Effect::Now => ("now      ", Tone::Good),
            Effect::NextRollout => ("next     ", Tone::Warning),
            Effect::Refused => ("refused  ", Tone::Bad),
        };
        let ConfigChange {
            key, before, after, ..
        } = change;
        let (before, after) = (or_none(before), or_none(after));
        let line = format!("{} {key}: {before} -> {after}", owner(change));
        out += &text::relabel(view, tone, first, &text::wrap(first, &line));
    }
    for name in &report.orphaned {
        let line = format!("{name}: its file is gone; it is steered as before");
        let block = text::wrap("orphaned ", &line);
        out += &text::relabel(view, Tone::Warning, "orphaned ", &block);
    }
    if out.is_empty() && report.diagnostics.is_empty() {
        out = "nothing to change: the files are in force as they are\n".into();
    }
    out
}

/// Each refused change and each problem in a file, as an error with its remedy.
pub fn apply_problems(view: &View, report: &ApplyReport) -> String {
    let mut out = String::new();
    for change in report
        .changes
        .iter()
        .filter(|change| change.effect == Effect::Refused)
    {
        let message = format!("{} {} was not changed", owner(change), change.key);
        out += &text::problem(view, &message, &change.reason);
    }
    for diagnostic in &report.diagnostics {
        let place = match diagnostic.line {
            0 => diagnostic.file.clone(),
            line => format!("{}:{line}:{}", diagnostic.file, diagnostic.column),
        };
        let message = format!("{place}: {}", diagnostic.message);
        out += &text::problem(view, &message, &diagnostic.help);
    }
    out
}

fn owner(change: &ConfigChange) -> &str {
    if change.service.is_empty() {
        "node"
    } else {
        &change.service
    }
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "(none)" } else { value }
}
