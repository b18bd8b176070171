//! Everything, or one service of it.

use shifter_common::wire::{DaemonStatus, Status};

use super::{Tone, View, event, interface, local, number, service, text};

/// Events shown at the end.
const EVENTS_SHOWN: usize = 10;

/// A status; of one service only if `only` names it. With `before`, an earlier status, shares are
/// those of the flows selected since.
pub fn status(view: &View, status: &Status, only: Option<&str>, before: Option<&Status>) -> String {
    let shown = |name: &str| only.is_none_or(|only| only == name);
    let mut out = daemon(view, &status.daemon);
    for current in status
        .services
        .iter()
        .filter(|service| shown(&service.name))
    {
        let old =
            before.and_then(|before| before.services.iter().find(|old| old.name == current.name));
        out.push('\n');
        out += &service::service(view, current, old);
    }
    if status.services.is_empty() {
        out += "\nno services: write a file to services.d, then: shifterctl apply\n";
    }
    if !status.interfaces.is_empty() {
        out += &format!("\n{}\n", view.paint(Tone::Faint, "interfaces"));
        out += &interface::interfaces(view, &status.interfaces);
    }
    out += &local::clients(view, &status.local_clients, only);
    let events: Vec<_> = status
        .events
        .iter()
        .filter(|event| shown(&event.service))
        .collect();
    if !events.is_empty() {
        out += &format!("\n{}\n", view.paint(Tone::Faint, "last events"));
        for shown in &events[events.len().saturating_sub(EVENTS_SHOWN)..] {
            out += &event::event(view, shown);
        }
    }
    out
}

fn daemon(view: &View, daemon: &DaemonStatus) -> String {
    let DaemonStatus {
        version,
        pid,
        abi_version,
        ..
    } = daemon;
    let adopted = if daemon.adopted { "adopted" } else { "built" };
    let age = view.age(daemon.started_unix_ms);
    let mut out = text::wrap(
        "",
        &format!(
            "shifterd {version} (map ABI {abi_version}), pid {pid}, up {age}, \
             dataplane {adopted} at the start"
        ),
    );
    let (used, size) = (daemon.flows_count, daemon.flows_capacity_count);
    out += &text::wrap(
        "",
        &format!(
            "flow table: {used} of {size} entries ({})",
            number::share(used, size)
        ),
    );
    let evicted: Vec<_> = [
        (daemon.flows_evicted_count, "flow"),
        (daemon.pending_evicted_count, "handshake"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| number::counted(n, what))
    .collect();
    if !evicted.is_empty() {
        let first = "evicted to make room: ";
        let block = text::wrap(first, &evicted.join(", "));
        out += &text::relabel(view, Tone::Warning, first, &block);
    }
    let drops: Vec<_> = daemon
        .verdicts
        .iter()
        .filter(|(verdict, packets_count)| verdict.starts_with("drop_") && *packets_count > 0)
        .map(|(verdict, packets_count)| {
            let reason = verdict.trim_start_matches("drop_").replace('_', " ");
            format!("{} {reason}", number::count(*packets_count))
        })
        .collect();
    if !drops.is_empty() {
        let first = "packets dropped: ";
        let block = text::wrap(first, &drops.join(", "));
        out += &text::relabel(view, Tone::Warning, first, &block);
    }
    out
}
