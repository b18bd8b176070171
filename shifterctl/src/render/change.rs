//! What a change did.

use shifter_common::wire::{Changed, Detached, Slot};

use super::{Tone, View, number, text};
use crate::percent;

/// `orders: canary 0 % -> 5 % in 41 µs (generation 13)`, resets and remarks.
pub fn changed(view: &View, changed: &Changed) -> String {
    let Changed {
        weight_before_bp,
        weight_bp,
        ..
    } = changed;
    let after = percent::of_bp(*weight_bp);
    let what = if weight_before_bp == weight_bp {
        format!("canary {after} as before, published")
    } else {
        format!("canary {} -> {after}", percent::of_bp(*weight_before_bp))
    };
    block(view, changed, &what)
}

/// `orders: slot b closed to new flows in 41 µs (generation 13)`.
pub fn drained(view: &View, changed: &Changed, slot: Slot, undo: bool) -> String {
    let what = if undo {
        format!("slot {slot} reopened to new flows")
    } else {
        format!("slot {slot} closed to new flows")
    };
    block(view, changed, &what)
}

/// Whether new connections go around shifter.
pub fn bypassed(view: &View, changed: &Changed, undo: bool) -> String {
    let what = if undo {
        "steers new flows again"
    } else {
        "lets new flows go around"
    };
    block(view, changed, what)
}

fn block(view: &View, changed: &Changed, what: &str) -> String {
    let Changed {
        service,
        generation,
        took_ns,
        flows_reset_count,
        notes,
        ..
    } = changed;
    let took = number::took(*took_ns);
    let mut out = text::wrap(
        "",
        &format!("{service}: {what} in {took} (generation {generation})"),
    );
    if *flows_reset_count > 0 {
        out += &text::wrap(
            "",
            &format!("{} reset", number::counted(*flows_reset_count, "live flow")),
        );
    }
    for note in notes {
        let block = text::wrap("note: ", note);
        out += &text::relabel(view, Tone::Warning, "note: ", &block);
    }
    out
}

/// Which interfaces are free again.
pub fn detached(detached: &Detached) -> String {
    let Detached {
        interfaces,
        flows_broken_count,
    } = detached;
    let from = if interfaces.is_empty() {
        "no interface had programs".to_owned()
    } else {
        format!("programs taken off {}", interfaces.join(", "))
    };
    let cut = match flows_broken_count {
        0 => String::new(),
        n => format!("; {} cut off", number::counted(*n, "live flow")),
    };
    text::wrap("", &(from + &cut))
}
