//! What a rollout would do.

use shifter_common::wire::{PlannedRollout, PlannedStep};

use super::{Tone, View, number, text};

/// Columns of a time.
const SPAN_WIDTH: usize = 11;

/// When each thing would happen at the earliest, how long it is held, and what it is.
pub fn plan(view: &View, plan: &PlannedRollout) -> String {
    let PlannedRollout {
        service,
        version,
        slot,
        strategy,
        hash,
        lasts_ms,
        steps,
        notes,
    } = plan;
    let short: String = hash.chars().take(12).collect();
    let title = format!(
        "{service}: {version} to slot {slot} by {strategy}, at least {}; plan {short}",
        number::span(*lasts_ms)
    );
    let mut out = text::wrap("", &title);
    let heading = format!("{:>SPAN_WIDTH$} {:>SPAN_WIDTH$}  what", "after", "for");
    out += &format!("{}\n", view.paint(Tone::Faint, &heading));
    for PlannedStep {
        at_ms,
        lasts_ms,
        what,
    } in steps
    {
        let after = number::span(*at_ms);
        let held = match lasts_ms {
            0 => String::new(),
            ms => number::span(*ms),
        };
        let first = format!("{after:>SPAN_WIDTH$} {held:>SPAN_WIDTH$}  ");
        out += &text::wrap(&first, what);
    }
    for note in notes {
        out += &text::wrap("note: ", note);
    }
    out
}
