//! Records of the audit, and what came of verifying them.

use shifter_common::wire::{AuditActor, AuditRecord};

use super::{Tone, View, number, text};
use crate::{audit::Verified, percent};

/// Records, oldest first, and what is not among them.
pub fn audit(
    view: &View,
    records: &[AuditRecord],
    last_seq: u64,
    unwritten_count: u64,
    trouble: &str,
) -> String {
    let shown = number::counted(records.len() as u64, "record");
    let mut out = text::wrap("", &format!("{shown}, the newest of all is {last_seq}"));
    for record in records {
        out += &block(view, record);
    }
    if unwritten_count > 0 {
        let waiting = number::counted(unwritten_count, "record");
        let note = format!("{waiting} could not be written yet: {trouble}");
        out += &text::relabel(view, Tone::Warning, "note: ", &text::wrap("note: ", &note));
    }
    out
}

/// `    17 14:03:22 orders: weight by root (uid 0), canary 0 % -> 5 %`, and the reason.
fn block(view: &View, record: &AuditRecord) -> String {
    let AuditRecord {
        seq,
        unix_ms,
        service,
        actor,
        verb,
        reason,
        from,
        to,
        ..
    } = record;
    let (before, after) = (record.weight_before_bp, record.weight_after_bp);
    let mut line = match service.as_str() {
        "" => verb.clone(),
        service => format!("{service}: {verb}"),
    };
    if let Some(rollout) = record.rollout {
        line += &format!(" of rollout {rollout}");
    }
    if !to.is_empty() {
        line += &format!(", {from} -> {to}");
    }
    line += &format!(" by {}", who(actor));
    if before != after {
        let (before, after) = (percent::of_bp(before), percent::of_bp(after));
        line += &format!(", canary {before} -> {after}");
    }
    let first = format!("{seq:>6} {} ", view.time(*unix_ms));
    let mut out = text::relabel(view, Tone::Faint, &first, &text::wrap(&first, &line));
    if !reason.is_empty() {
        out += &text::wrap(&" ".repeat(7), reason);
    }
    out
}

/// `root (uid 0, login uid 1000)`, or who it was without a user.
pub(super) fn who(actor: &AuditActor) -> String {
    let AuditActor {
        uid,
        user,
        how: _,
        loginuid,
    } = actor;
    match (uid, loginuid) {
        (Some(uid), Some(login)) if login != uid => {
            format!("{user} (uid {uid}, login uid {login})")
        }
        (Some(uid), _) => format!("{user} (uid {uid})"),
        (None, _) => user.clone(),
    }
}

/// How far the chain holds.
pub fn verified(view: &View, verified: &Verified) -> String {
    let Verified {
        records_count,
        last_hash,
        journal_count,
        unwritten_count,
        broken,
    } = verified;
    let holds = number::counted(*records_count, "record");
    let (tone, label) = match broken {
        None => (Tone::Good, "ok: "),
        Some(_) => (Tone::Bad, "broken: "),
    };
    let mut line = match broken {
        None => format!("the chain of {holds} holds"),
        Some(_) => format!("the chain holds for {holds}, and not beyond"),
    };
    if let Some(count) = journal_count {
        line += &format!(", the journal has {} of them", number::count(*count as u64));
    }
    let mut out = text::relabel(view, tone, label, &text::wrap(label, &line));
    if *records_count > 0 {
        out += &format!("last hash: {last_hash}\n");
    }
    if *unwritten_count > 0 {
        let waiting = number::counted(*unwritten_count, "record");
        out += &text::wrap("note: ", &format!("{waiting} could not be written yet"));
    }
    out
}
