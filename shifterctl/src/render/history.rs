//! What a service has been through.

use shifter_common::wire::{History, RevisionStatus, RolloutSummary, Slot};

use super::{Tone, View, number, text};

/// Columns of a label; longer ones move to the right.
const VERSION_WIDTH: usize = 20;
/// Columns of a date with its time.
const TIME_WIDTH: usize = 19;

/// Its revisions, then its rollouts, oldest first.
pub fn history(view: &View, history: &History) -> String {
    let History {
        service,
        revisions,
        rollouts,
    } = history;
    let title = format!(
        "{service}: {}, {}",
        number::counted(revisions.len() as u64, "revision"),
        number::counted(rollouts.len() as u64, "rollout")
    );
    let mut out = text::wrap("", &title);
    if !revisions.is_empty() {
        out += &heading(view, "rev", "outcome");
    }
    for revision in revisions {
        let RevisionStatus {
            number,
            slot,
            version,
            unix_ms,
            by,
            outcome,
            rollout,
            ..
        } = revision;
        let by_rollout = rollout.map_or(String::new(), |id| format!(", rollout {id}"));
        let rest = format!("{outcome}, by {by}{by_rollout}");
        out += &row(view, *number, *unix_ms, *slot, version, &rest);
    }
    if !rollouts.is_empty() {
        out += &heading(view, "roll", "phase");
    }
    for rollout in rollouts {
        let RolloutSummary {
            id,
            version,
            slot,
            strategy,
            phase,
            began_unix_ms,
            attempt,
            ..
        } = rollout;
        let mut rest = format!("{phase}, {strategy}");
        if *attempt > 1 {
            rest += &format!(", attempt {attempt}");
        }
        out += &row(view, *id, *began_unix_ms, *slot, version, &rest);
    }
    if !rollouts.is_empty() {
        out += &text::wrap(
            "",
            &format!("one of them: shifterctl history {service} --record ID [-o markdown]"),
        );
    }
    out
}

fn heading(view: &View, what: &str, rest: &str) -> String {
    let line = format!(
        "{what:>4} {:<TIME_WIDTH$} slot {:<VERSION_WIDTH$} {rest}",
        "when", "version"
    );
    format!("{}\n", view.paint(Tone::Faint, &line))
}

fn row(view: &View, number: u64, unix_ms: u64, slot: Slot, version: &str, rest: &str) -> String {
    let start = format!("{number:>4} {:<TIME_WIDTH$} {slot:<4} ", view.time(unix_ms));
    if version.len() > VERSION_WIDTH {
        return text::wrap(&start, &format!("{version} {rest}"));
    }
    text::wrap(&format!("{start}{version:<VERSION_WIDTH$} "), rest)
}
