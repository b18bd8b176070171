//! Where a rollout stands.

use shifter_common::wire::{RolloutOutcome, RolloutReply, RolloutStatus};

use super::{Tone, View, text};

/// What became of what was asked of a rollout.
pub fn replied(view: &View, reply: &RolloutReply) -> String {
    let mut out = rollout(view, &reply.service, &reply.rollout);
    if let Some(why) = &reply.already {
        let block = text::wrap("note: ", &format!("nothing had to be done: {why}"));
        out += &text::relabel(view, Tone::Warning, "note: ", &block);
    }
    out
}

/// `orders: 3.2.0 to slot b by 5-20-50, Baking(2, observing)`, and what it waits for.
pub fn rollout(view: &View, service: &str, rollout: &RolloutStatus) -> String {
    block(view, &format!("{service}: "), rollout)
}

/// As part of a service's block.
pub fn of_service(view: &View, rollout: &RolloutStatus) -> String {
    block(view, "  rollout: ", rollout)
}

fn block(view: &View, first: &str, rollout: &RolloutStatus) -> String {
    let RolloutStatus {
        version,
        old_version,
        slot,
        strategy,
        attempt,
        detail,
        outcome,
        step,
        steps_count,
        waiting_on,
        next_command,
        next_version,
        not_kept,
        ..
    } = rollout;
    let from = match old_version {
        Some(old) => format!("{old} -> "),
        None => String::new(),
    };
    let mut line = format!("{from}{version} to slot {slot} by {strategy}, {detail}");
    if let Some(step) = step {
        line += &format!(", step {step} of {steps_count}");
    }
    if *attempt > 1 {
        line += &format!(", attempt {attempt}");
    }
    let tone = match outcome {
        RolloutOutcome::UnderWay => Tone::Strong,
        RolloutOutcome::Succeeded => Tone::Good,
        RolloutOutcome::WaitsForPerson => Tone::Warning,
        RolloutOutcome::Back => Tone::Bad,
    };
    let label = first.trim_start();
    let indent = &first[..first.len() - label.len()];
    let wrapped = text::wrap(first, &line);
    let rest = wrapped.get(indent.len()..).unwrap_or(&wrapped);
    let mut out = format!("{indent}{}", text::relabel(view, tone, label, rest));
    if let Some(on) = waiting_on {
        out += &text::wrap("    waits for: ", on);
    }
    if let Some(command) = next_command {
        out += &text::wrap("    next: ", command);
    }
    if let Some(next) = next_version {
        out += &text::wrap("    then: ", &format!("version {next}"));
    }
    if let Some(why) = not_kept {
        out += &text::wrap("    not on disk: ", why);
    }
    out
}
