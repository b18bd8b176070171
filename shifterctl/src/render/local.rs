//! Clients on the host itself.

use shifter_common::wire::{LocalClientsStatus, LocalSlotStatus};

use super::{Tone, View, number, text};

/// Whether they are steered, and the shares of those services that have any; of one service only if
/// `only` names it. Nothing of a daemon that does not know.
pub fn clients(view: &View, status: &LocalClientsStatus, only: Option<&str>) -> String {
    if status.state.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", view.paint(Tone::Faint, "clients on this host"));
    let first = format!("{}  ", status.state);
    let block = text::wrap(&first, &status.reason);
    let tone = if status.state == "unavailable" {
        Tone::Warning
    } else {
        Tone::Strong
    };
    out += &text::relabel(view, tone, &first, &block);
    let mut slots = &status.slots[..];
    while let Some(LocalSlotStatus { service, .. }) = slots.first() {
        let count = slots
            .iter()
            .take_while(|slot| slot.service == *service)
            .count();
        let (of_service, others) = slots.split_at(count);
        slots = others;
        let total: u64 = of_service.iter().map(|slot| slot.selected_count).sum();
        let unserved: u64 = of_service.iter().map(|slot| slot.unserved_count).sum();
        if total + unserved == 0 || only.is_some_and(|only| only != service) {
            continue;
        }
        let mut parts: Vec<String> = of_service
            .iter()
            .map(|slot| {
                format!(
                    "slot {} {} ({})",
                    slot.slot,
                    number::count(slot.selected_count),
                    number::share(slot.selected_count, total)
                )
            })
            .collect();
        if unserved > 0 {
            parts.push(format!("unserved {}", number::count(unserved)));
        }
        out += &text::wrap(&format!("{service}  "), &parts.join(", "));
    }
    out
}
