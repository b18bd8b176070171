//! Flows of a service.

use shifter_common::wire::{Flow, Flows, Phase};

use super::{Tone, View, number, text};

/// Columns of an address; IPv4 with a port fits.
const ADDR_WIDTH: usize = 21;

/// The flows, newest first, and how many there are.
pub fn flows(view: &View, service: &str, flows: &Flows) -> String {
    let shown = flows.flows.len() as u64;
    let mut title = format!(
        "{} of {service}",
        number::counted(flows.total_count, "flow")
    );
    if shown < flows.total_count {
        title += &format!(", the newest {shown}; more: --limit N");
    }
    let mut out = text::wrap("", &title);
    if flows.flows.is_empty() {
        return out;
    }
    let heading = row("client", "slot", "backend", "phase", "cohort", "idle");
    out += &format!("{}\n", view.paint(Tone::Faint, &heading));
    for flow in &flows.flows {
        out += &flow_row(flow);
    }
    out
}

fn flow_row(flow: &Flow) -> String {
    let Flow {
        client,
        backend,
        slot,
        cohort,
        phase,
        idle_ms,
        ..
    } = flow;
    let (phase, idle) = (phase_name(*phase), number::span(*idle_ms));
    if client.len() <= ADDR_WIDTH && backend.len() <= ADDR_WIDTH {
        let (slot, cohort) = (slot.to_string(), cohort.to_string());
        return row(client, &slot, backend, phase, &cohort, &idle) + "\n";
    }
    let rest = format!("{slot} {backend}, {phase}, cohort {cohort}, idle {idle}");
    format!("{client}\n{}", text::wrap("    -> ", &rest))
}

fn row(client: &str, slot: &str, backend: &str, phase: &str, cohort: &str, idle: &str) -> String {
    format!(
        "{client:<ADDR_WIDTH$} {slot:<4} {backend:<ADDR_WIDTH$} {phase:<12} {cohort:>6} {idle:>11}"
    )
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::SynSent => "SYN sent",
        Phase::SynReceived => "SYN received",
        Phase::Established => "established",
        Phase::ClientFin => "client FIN",
        Phase::BackendFin => "backend FIN",
        Phase::Closed => "closed",
        Phase::Reset => "reset",
        Phase::Aborted => "aborted",
        Phase::Unanswered => "unanswered",
        Phase::Answered => "answered",
    }
}
