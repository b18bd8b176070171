//! What a service has been through.

use serde::{Deserialize, Serialize};

use super::{AuditActor, AuditFlows, AuditGate, AuditMetric, Slot};

/// `GET /v1/services/{service}/history`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The service.
    pub service: String,
    /// Versions that were put on a slot, oldest first.
    pub revisions: Vec<RevisionStatus>,
    /// Its rollouts, oldest first.
    pub rollouts: Vec<RolloutSummary>,
}

/// A version that was put on a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// Counts up from 1 in a service.
    pub number: u64,
    /// The slot.
    pub slot: Slot,
    /// The label.
    pub version: String,
    /// SHA-256 of the plan, or of the service's file.
    pub config_hash: String,
    /// The rollout that brought it, if one did.
    pub rollout: Option<u64>,
    /// When, milliseconds of Unix time.
    pub unix_ms: u64,
    /// By whom.
    pub by: String,
    /// What became of it.
    pub outcome: String,
}

/// A rollout in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// Its number in the service's history.
    pub id: u64,
    /// The version on trial.
    pub version: String,
    /// The version that was there before, if it is known.
    pub old_version: Option<String>,
    /// The slot of the version on trial.
    pub slot: Slot,
    /// The strategy.
    pub strategy: String,
    /// SHA-256 of the plan.
    pub plan_hash: String,
    /// Where it stands.
    pub phase: String,
    /// Whether it has ended.
    pub is_final: bool,
    /// How often it was tried.
    pub attempt: u32,
    /// When it began, milliseconds of Unix time.
    pub began_unix_ms: u64,
    /// Its last change, milliseconds of Unix time.
    pub changed_unix_ms: u64,
}

/// `GET /v1/services/{service}/history/{rollout}`: a rollout as the audit tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The service.
    pub service: String,
    /// The rollout's number in its history.
    pub rollout: u64,
    /// Name of the host.
    pub host: String,
    /// The version on trial.
    pub version: String,
    /// The version that was there before; empty if it is not known.
    pub old_version: String,
    /// The slot of the version on trial.
    pub slot: Option<Slot>,
    /// SHA-256 of the plan.
    pub plan_hash: String,
    /// Where it stands, or how it ended.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// Who began it.
    pub actor: AuditActor,
    /// First record, milliseconds of Unix time.
    pub began_unix_ms: u64,
    /// Last record, milliseconds of Unix time.
    pub ended_unix_ms: u64,
    /// The largest share of new flows that the version had, basis points.
    pub weight_max_bp: u16,
    /// The last share that it had, basis points.
    pub weight_bp: u16,
    /// What happened, in order.
    pub steps: Vec<DeploymentStep>,
}

/// One record of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStep {
    /// Number of the record in the audit.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// When, milliseconds of Unix time.
    pub unix_ms: u64,
    /// Who.
    pub actor: AuditActor,
    /// What: as in the audit.
    pub verb: String,
    /// Phase before.
    pub from: String,
    /// Phase after.
    pub to: String,
    /// Why, and with what numbers.
    pub reason: String,
    /// Share of new flows before, basis points.
    pub weight_before_bp: u16,
    /// The same after.
    pub weight_after_bp: u16,
    /// What the analysis had counted.
    pub metrics: Vec<AuditMetric>,
    /// What gates had answered.
    pub gates: Vec<AuditGate>,
    /// Flows of the version that lost traffic.
    pub flows: Option<AuditFlows>,
}
