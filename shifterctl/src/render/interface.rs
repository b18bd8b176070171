//! Interfaces and the hooks on them.

use shifter_common::wire::InterfaceStatus;

use super::{Tone, View, text};

/// `eth0  xdp: why`, one block for each.
pub fn interfaces(view: &View, interfaces: &[InterfaceStatus]) -> String {
    let width = interfaces
        .iter()
        .map(|interface| interface.name.chars().count())
        .max();
    let mut out = String::new();
    for InterfaceStatus {
        name, hook, reason, ..
    } in interfaces
    {
        let first = format!("{name:<width$}  ", width = width.unwrap_or(0).min(20));
        let block = text::wrap(&first, &format!("{hook}: {reason}"));
        out += &text::relabel(view, Tone::Strong, &first, &block);
    }
    out
}
