//! The record of a rollout, from the audit. Pure.

use shifter_common::wire::{AuditRecord, DeploymentRecord, DeploymentStep};

/// Puts the records of one rollout, in their order, together. `None` if there are none.
pub fn deployment(records: Vec<AuditRecord>) -> Option<DeploymentRecord> {
    let (first, last) = (records.first()?, records.last()?);
    let ended = records.iter().rev().find(|record| !record.to.is_empty());
    let text = |of: fn(&AuditRecord) -> &String| {
        let known = records.iter().rev().map(of);
        known
            .into_iter()
            .find(|text| !text.is_empty())
            .cloned()
            .unwrap_or_default()
    };
    Some(DeploymentRecord {
        service: first.service.clone(),
        rollout: first.rollout.unwrap_or_default(),
        host: first.host.clone(),
        version: text(|record| &record.version),
        old_version: text(|record| &record.old_version),
        slot: records.iter().find_map(|record| record.slot),
        plan_hash: text(|record| &record.config_hash),
        outcome: ended.map_or_else(String::new, |record| record.to.clone()),
        reason: ended.map_or_else(String::new, |record| record.reason.clone()),
        actor: first.actor.clone(),
        began_unix_ms: first.unix_ms,
        ended_unix_ms: last.unix_ms,
        weight_max_bp: records
            .iter()
            .map(|record| record.weight_before_bp.max(record.weight_after_bp))
            .max()
            .unwrap_or(0),
        weight_bp: last.weight_after_bp,
        steps: records.into_iter().map(step).collect(),
    })
}

fn step(record: AuditRecord) -> DeploymentStep {
    let AuditRecord {
        seq,
        hash,
        unix_ms,
        actor,
        verb,
        from,
        to,
        reason,
        weight_before_bp,
        weight_after_bp,
        metrics,
        gates,
        flows,
        ..
    } = record;
    DeploymentStep {
        seq,
        hash,
        unix_ms,
        actor,
        verb,
        from,
        to,
        reason,
        weight_before_bp,
        weight_after_bp,
        metrics,
        gates,
        flows,
    }
}

#[cfg(test)]
mod tests {
    use shifter_common::{steering::Slot, wire::AuditActor};

    use super::*;

    fn record(seq: u64, verb: &str, to: &str, weights_bp: [u16; 2]) -> AuditRecord {
        AuditRecord {
            seq,
            unix_ms: 1_000 * seq,
            host: "web-1".into(),
            service: "orders".into(),
            rollout: Some(4),
            verb: verb.into(),
            to: to.into(),
            reason: format!("why {seq}"),
            weight_before_bp: weights_bp[0],
            weight_after_bp: weights_bp[1],
            ..AuditRecord::default()
        }
    }

    #[test]
    fn a_rollout_is_told_from_its_records() {
        let mut first = record(3, "phase", "Gated", [0, 0]);
        first.version = "3.2.0".into();
        first.old_version = "3.1.9".into();
        first.config_hash = "c0ffee".into();
        first.slot = Some(Slot::B);
        first.actor = AuditActor {
            uid: Some(0),
            user: "root".into(),
            ..AuditActor::default()
        };
        let records = vec![
            first.clone(),
            record(5, "phase", "Baking(0)", [0, 2_500]),
            record(9, "phase", "RolledBack", [2_500, 0]),
            record(10, "reset", "", [0, 0]),
        ];
        let told = deployment(records).expect("records");
        let steps: Vec<u64> = told.steps.iter().map(|step| step.seq).collect();
        assert_eq!(steps, [3, 5, 9, 10]);
        let expected = DeploymentRecord {
            service: "orders".into(),
            rollout: 4,
            host: "web-1".into(),
            version: "3.2.0".into(),
            old_version: "3.1.9".into(),
            slot: Some(Slot::B),
            plan_hash: "c0ffee".into(),
            outcome: "RolledBack".into(),
            reason: "why 9".into(),
            actor: first.actor,
            began_unix_ms: 3_000,
            ended_unix_ms: 10_000,
            weight_max_bp: 2_500,
            weight_bp: 0,
            steps: told.steps.clone(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn without_records_there_is_nothing_to_tell() {
        assert_eq!(deployment(Vec::new()), None);
    }
}
