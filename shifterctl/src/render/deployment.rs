//! The record of a rollout: as a table, and as Markdown for tickets and change records.

use shifter_common::wire::{AuditFlows, AuditGate, AuditMetric, DeploymentRecord, DeploymentStep};

use super::{Tone, View, audit::who, text};
use crate::percent;

/// For people, 80 columns.
pub fn deployment(view: &View, record: &DeploymentRecord) -> String {
    let title = format!(
        "{}: rollout {} of {} on {}",
        record.service, record.rollout, record.version, record.host
    );
    let mut out = text::wrap("", &title);
    for (name, value) in facts(view, record) {
        let first = format!("{name:<10} ");
        out += &text::relabel(view, Tone::Faint, &first, &text::wrap(&first, &value));
    }
    for step in &record.steps {
        let first = format!("{:>6} {} ", step.seq, view.time(step.unix_ms));
        let line = format!("{} by {}{}", what(step), who(&step.actor), weights(step));
        out += &text::relabel(view, Tone::Faint, &first, &text::wrap(&first, &line));
        for line in evidence(step) {
            out += &text::wrap(&" ".repeat(7), &line);
        }
    }
    out
}

/// A document by itself.
pub fn deployment_markdown(view: &View, record: &DeploymentRecord) -> String {
    // Who reads it may sit in another time zone than who made it.
    let view = &View {
        zone: |_| 0,
        ..*view
    };
    let mut out = format!(
        "# {}: rollout {} of {}\n\n| | |\n|---|---|\n| host | {} |\n",
        escape(&record.service),
        record.rollout,
        escape(&record.version),
        escape(&record.host)
    );
    for (name, value) in facts(view, record) {
        let zone = if ["began", "ended"].contains(&name) {
            " UTC"
        } else {
            ""
        };
        out += &format!("| {name} | {}{zone} |\n", escape(&value));
    }
    out += "\n## What happened\n\n\
            | Record | When (UTC) | Who | What | Canary | Why |\n|---|---|---|---|---|---|\n";
    for step in &record.steps {
        let (before, after) = (
            percent::of_bp(step.weight_before_bp),
            percent::of_bp(step.weight_after_bp),
        );
        let share = if before == after {
            after
        } else {
            format!("{before} → {after}")
        };
        let why: Vec<String> = evidence(step).iter().map(|line| escape(line)).collect();
        out += &format!(
            "| {} | {} | {} | {} | {share} | {} |\n",
            step.seq,
            view.date_time(step.unix_ms),
            escape(&who(&step.actor)),
            escape(&what(step)),
            why.join("<br>")
        );
    }
    if let Some(last) = record.steps.last() {
        out += &format!(
            "\nThe last of these records of the audit has the hash `{}`.\n",
            escape(&last.hash)
        );
    }
    out
}

fn facts(view: &View, record: &DeploymentRecord) -> Vec<(&'static str, String)> {
    let slot = record.slot.map_or(String::new(), |slot| slot.to_string());
    let facts = [
        ("version", record.version.clone()),
        ("before", record.old_version.clone()),
        ("slot", slot),
        ("plan", record.plan_hash.clone()),
        ("outcome", record.outcome.clone()),
        ("why", record.reason.clone()),
        ("begun by", who(&record.actor)),
        ("began", view.date_time(record.began_unix_ms)),
        ("ended", view.date_time(record.ended_unix_ms)),
        (
            "canary",
            format!(
                "at most {}, in the end {}",
                percent::of_bp(record.weight_max_bp),
                percent::of_bp(record.weight_bp)
            ),
        ),
    ];
    let mut facts = Vec::from(facts);
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn what(step: &DeploymentStep) -> String {
    match (step.from.as_str(), step.to.as_str()) {
        (_, "") => step.verb.clone(),
        ("", to) => to.to_owned(),
        (from, to) => format!("{from} -> {to}"),
    }
}

fn weights(step: &DeploymentStep) -> String {
    let (before, after) = (step.weight_before_bp, step.weight_after_bp);
    if before == after {
        return String::new();
    }
    let (before, after) = (percent::of_bp(before), percent::of_bp(after));
    format!(", canary {before} -> {after}")
}

/// The reason, and the numbers it rests on.
fn evidence(step: &DeploymentStep) -> Vec<String> {
    let mut lines = Vec::new();
    if !step.reason.is_empty() {
        lines.push(step.reason.clone());
    }
    lines.extend(step.metrics.iter().map(|metric| {
        let AuditMetric {
            name,
            canary_errors_count,
            canary_count,
            baseline_errors_count,
            baseline_count,
            threshold_ppm,
            evidence_milli,
        } = metric;
        format!(
            "{name}: canary {canary_errors_count} of {canary_count}, baseline \
             {baseline_errors_count} of {baseline_count}, evidence {}, threshold {} %",
            thousandths(*evidence_milli),
            f64::from(u32::try_from(*threshold_ppm).unwrap_or(u32::MAX)) / 10_000.0
        )
    }));
    lines.extend(step.gates.iter().map(|gate| {
        let AuditGate { name, answer } = gate;
        format!("gate {name}: {answer}")
    }));
    lines.extend(step.flows.iter().map(|flows| {
        let AuditFlows {
            active_count,
            drained_count,
            reset_count,
        } = flows;
        format!("flows: {active_count} active, {drained_count} drained, {reset_count} reset")
    }));
    lines
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1_000, value % 1_000)
}

/// What has a meaning in a table of Markdown is text here: reasons hold what gates and backends said.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '~' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_said_is_no_markup() {
        assert_eq!(
            escape("a|b <script> `x` [l](u) *s* c:\\d\nnext"),
            "a\\|b &lt;script&gt; \\`x\\` \\[l\\](u) \\*s\\* c:\\\\d next"
        );
    }
}
