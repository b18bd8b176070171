//! Events, one block each.

use shifter_common::wire::Event;

use super::{Tone, View, number, text};
use crate::percent;

/// `14:03:22 orders by: shifterd, reason: not ready, canary 25 % -> 0 % in 342 ms`, and the detail.
pub fn event(view: &View, event: &Event) -> String {
    let Event {
        unix_ms,
        service,
        by,
        what,
        detail,
        took_ns,
        ..
    } = event;
    let (before, after) = (event.effective_before_bp, event.effective_after_bp);
    let mut line = format!("{service} by: {by}, reason: {what}");
    if before != after {
        let (before, after) = (percent::of_bp(before), percent::of_bp(after));
        line += &format!(", canary {before} -> {after} in {}", number::took(*took_ns));
    }
    let time = format!("{} ", view.time(*unix_ms));
    let mut out = text::relabel(view, Tone::Faint, &time, &text::wrap(&time, &line));
    if !detail.is_empty() {
        out += &text::wrap(&" ".repeat(9), detail);
    }
    out
}
