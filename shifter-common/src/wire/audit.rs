//! The audit: who did what, and what became of it.

use serde::{Deserialize, Serialize};

use super::Slot;

/// One record of the audit. Its order of fields is the order of its text, which [`crate::audit`] hashes;
/// what is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditRecord {
    /// Counts up from 1 in a chain.
    pub seq: u64,
    /// Hash of the record before; 64 zeros in the first one.
    pub prev: String,
    /// A name that no other record has, on no host.
    pub id: String,
    /// When, milliseconds of Unix time.
    pub unix_ms: u64,
    /// Boot id of the host.
    pub boot_id: String,
    /// Name of the host.
    pub host: String,
    /// The service; empty for what concerns them all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The rollout's number in the service's history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
    /// The version on trial.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The version that was there before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub old_version: String,
    /// SHA-256 of the plan, or of the service's file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config_hash: String,
    /// Who.
    pub actor: AuditActor,
    /// What: as [`super::Event::what`], `detach`, `started`, `chain`, or `phase` for a step of a rollout.
    pub verb: String,
    /// The slot concerned, if one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Why, and with what numbers.
    pub reason: String,
    /// Phase of the rollout before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Phase of the rollout after.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Step of the plan, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u16>,
    /// The canary's share of new flows before, basis points.
    pub weight_before_bp: u16,
    /// The same after.
    pub weight_after_bp: u16,
    /// What the analysis had counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<AuditMetric>,
    /// What gates had answered. Empty: this version writes none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<AuditGate>,
    /// Flows of the version that lost traffic. Empty: this version writes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<AuditFlows>,
    /// Digest of the tags of all kernel programs; the record `started` of each start lists them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub program_tag: String,
    /// Generation of the published state.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// From the cause to the store that the kernel reads, nanoseconds; 0 if nothing was stored.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub took_ns: u64,
    /// SHA-256 of this record without this field. Empty until it is sealed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditActor {
    /// User id, as the kernel says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its name, or `shifterd`, or `the breaker`.
    pub user: String,
    /// By what: `api`, `signal`, `daemon`, `kernel`.
    pub how: String,
    /// The user that logged in, who may have become another since; if the kernel keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
}

/// What the analysis had counted of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditMetric {
    /// The metric.
    pub name: String,
    /// Errors of the version on trial.
    pub canary_errors_count: u64,
    /// Its flows.
    pub canary_count: u64,
    /// Errors of the other version.
    pub baseline_errors_count: u64,
    /// Its flows.
    pub baseline_count: u64,
    /// Difference that is allowed, millionths.
    pub threshold_ppm: u64,
    /// Evidence against the version on trial, thousandths.
    pub evidence_milli: u64,
}

/// What a gate had answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditGate {
    /// Its name.
    pub name: String,
    /// `yes`, or why not.
    pub answer: String,
}

/// What became of the flows of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditFlows {
    /// Live.
    pub active_count: u64,
    /// Ended since they drain.
    pub drained_count: u64,
    /// Reset.
    pub reset_count: u64,
}

/// `GET /v1/audit`: records in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// Number of the newest record of the chain; 0 if there is none.
    pub last_seq: u64,
    /// Records that are not on disk yet, because it refused them.
    pub unwritten_count: u64,
    /// Why it did.
    #[serde(default)]
    pub trouble: String,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}
