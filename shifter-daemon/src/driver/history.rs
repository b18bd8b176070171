//! What was: the audit, and the history of a service.

use shifter_common::wire::{
    AuditRecord, DeploymentRecord, History, Refusal, RevisionStatus, RolloutSummary,
};

use super::{Driver, refusal::refusal};
use crate::{
    deployment::deployment,
    store::{AuditLines, AuditQuery, KeptRollout, Revision, StoreError},
};

/// Records of one rollout that are read at most.
const DEPLOYMENT_MAX_COUNT: u32 = 10_000;

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        refusal(
            "state",
            error.to_string(),
            "mend the state directory, then try again".into(),
        )
    }
}

impl Driver {
    pub(super) fn audit(&mut self, query: &AuditQuery) -> Result<AuditLines, Refusal> {
        Ok(self.state.audit(query)?)
    }

    /// Services that are gone have a history, too.
    pub(super) fn history(&mut self, name: &str) -> Result<History, Refusal> {
        let revisions = self.state.revisions(name)?;
        let rollouts = self.state.rollouts_of(name)?;
        if revisions.is_empty() && rollouts.is_empty() {
            self.known(name)?;
        }
        Ok(History {
            service: name.to_owned(),
            revisions: revisions.into_iter().map(revision).collect(),
            rollouts: rollouts.iter().map(summary).collect(),
        })
    }

    pub(super) fn deployment(
        &mut self,
        name: &str,
        rollout: u64,
    ) -> Result<DeploymentRecord, Refusal> {
        let query = AuditQuery {
            after: Some(0),
            limit: DEPLOYMENT_MAX_COUNT,
            service: Some(name.to_owned()),
            rollout: Some(rollout),
        };
        let lines = self.state.audit(&query)?.lines;
        // What somebody broke is for `audit verify` to name.
        let records: Vec<AuditRecord> = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        match deployment(records) {
            Some(record) => Ok(record),
            None => {
                let history = self.history(name)?;
                let known: Vec<String> = history
                    .rollouts
                    .iter()
                    .map(|rollout| rollout.id.to_string())
                    .collect();
                let help = if known.is_empty() {
                    format!("{name} has had no rollout")
                } else {
                    format!("rollouts are: {}", known.join(", "))
                };
                Err(refusal(
                    "unknown_rollout",
                    format!("the audit knows no rollout {rollout} of {name}"),
                    help,
                ))
            }
        }
    }
}

fn revision(revision: Revision) -> RevisionStatus {
    let Revision {
        service: _,
        number,
        slot,
        version,
        config_hash,
        rollout,
        unix_ms,
        actor,
        outcome,
    } = revision;
    RevisionStatus {
        number,
        slot,
        version,
        config_hash,
        rollout,
        unix_ms,
        by: actor,
        outcome,
    }
}

fn summary(kept: &KeptRollout) -> RolloutSummary {
    let KeptRollout {
        rollout,
        next: _,
        is_rebooted: _,
        began_unix_ms,
        kept_unix_ms,
    } = kept;
    let parts = rollout.parts();
    RolloutSummary {
        id: parts.id,
        version: parts.version.to_string(),
        old_version: parts.old_version.as_ref().map(ToString::to_string),
        slot: parts.canary,
        strategy: rollout.plan().plan().strategy.clone(),
        plan_hash: rollout.plan().hash().to_owned(),
        phase: rollout.phase().to_string(),
        is_final: rollout.phase().is_final(),
        attempt: rollout.attempt(),
        began_unix_ms: *began_unix_ms,
        changed_unix_ms: *kept_unix_ms,
    }
}
