//! What `status` and `flows` show.

use serde::{Deserialize, Serialize};

use super::{
    Affinity, BreakerStatus, LocalClientsStatus, ObservedStatus, Phase, RolloutStatus, Slot,
};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// Interfaces with programs, by name.
    pub interfaces: Vec<InterfaceStatus>,
    /// Clients on the host itself.
    pub local_clients: LocalClientsStatus,
    /// Services, by name.
    pub services: Vec<ServiceStatus>,
    /// Newest events, oldest first, at most 100.
    pub events: Vec<Event>,
}

/// The daemon and the dataplane it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Version of shifterd.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Start, milliseconds of Unix time.
    pub started_unix_ms: u64,
    /// Whether the dataplane was found pinned and taken over at the start.
    pub adopted: bool,
    /// Directory of the pins.
    pub pins: String,
    /// Map ABI version.
    pub abi_version: u32,
    /// Entries in the table of established flows.
    pub flows_count: u64,
    /// Capacity of the flow table.
    pub flows_capacity_count: u64,
    /// Established flows evicted to make room since the dataplane was built; never too many.
    pub flows_evicted_count: u64,
    /// Entries in the table of handshakes.
    pub pending_count: u64,
    /// Capacity of the table of handshakes.
    pub pending_capacity_count: u64,
    /// Handshakes evicted to make room since the dataplane was built; never too many.
    pub pending_evicted_count: u64,
    /// Packets by verdict since the dataplane was built; every verdict is listed.
    pub verdicts: Vec<(String, u64)>,
    /// Lookups of the socket plane by verdict; every verdict is listed.
    #[serde(default)]
    pub lookups: Vec<(String, u64)>,
}

/// How an interface is hooked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// `xdp`, `xdp-generic` or `tc`.
    pub hook: String,
    /// Why this hook.
    pub reason: String,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// Addresses clients connect to.
    pub vips: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `socket`, `nat`, or `none` if it cannot be steered as its file has it.
    pub plane: String,
    /// Why this plane.
    pub plane_reason: String,
    /// What keeps a client on its version.
    pub affinity: Affinity,
    /// The slot serving now.
    pub baseline: Slot,
    /// The canary's weight as asked for, basis points.
    pub weight_bp: u16,
    /// The share of new flows the canary gets now, basis points: the weight, unless a slot is not
    /// eligible.
    pub effective_bp: u16,
    /// Who set the weight: `root (uid 0)`, `shifterd`.
    pub weight_by: String,
    /// When it was set, milliseconds of Unix time; 0 if never.
    pub weight_set_unix_ms: u64,
    /// Generation of the published state.
    pub generation: u32,
    /// Clients whose new flows do not follow the weight, by prefix.
    pub targets: Vec<TargetStatus>,
    /// Whether rules that name the canary are held back, because traffic was taken back from it.
    pub targets_held: bool,
    /// When the kernel takes the canary out of traffic by itself, and whether it has.
    #[serde(default)]
    pub breaker: BreakerStatus,
    /// Its last rollout, if it had one.
    #[serde(default)]
    pub rollout: Option<RolloutStatus>,
    /// What is looked at in its connections, as the file has it.
    #[serde(default)]
    pub observe: Vec<String>,
    /// Steered although its file is gone.
    pub orphaned: bool,
    /// The slots, a then b.
    pub slots: Vec<SlotStatus>,
    /// Why traffic is not as asked for, if so; empty otherwise.
    pub notes: Vec<String>,
}

/// A target rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The clients' network, as a prefix. Of all that hold a client the longest decides.
    pub from: String,
    /// The slot's part that their new flows go to.
    pub to: Role,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Which.
    pub slot: Slot,
    /// Serving now, or on trial.
    pub role: Role,
    /// The version that a rollout put there.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether the kernel may select it.
    pub eligible: bool,
    /// An operator has drained it.
    pub drained: bool,
    /// Why it is not eligible; empty if it is.
    pub reason: String,
    /// Live flows now.
    pub live_flows_count: u64,
    /// Counters since the slot's first use.
    pub counters: FlowCounts,
    /// Flows wanted here, by weight or target rule, that went to the other slot.
    pub failed_over_count: u64,
    /// Flows wanted here, by weight or target rule, that found no eligible slot.
    pub unserved_count: u64,
    /// Selected flows that are here by a target rule; no part of a trial.
    pub targeted_count: u64,
    /// Socket plane: open connections of versions that have left the slot.
    #[serde(default)]
    pub departed_flows_count: u64,
    /// Socket plane: connections that wait to be accepted.
    #[serde(default)]
    pub accept_queue_count: u64,
    /// Socket plane: its counters by name; empty on the nat plane.
    #[serde(default)]
    pub socket: Vec<(String, u64)>,
    /// What was seen in its connections; null where nobody looks.
    #[serde(default)]
    pub observed: Option<ObservedStatus>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// A slot's part in the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves now.
    Baseline,
    /// On trial.
    Canary,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Address.
    pub addr: String,
    /// Weight against the slot's others.
    pub weight: u16,
    /// Readiness as probed.
    pub ready: bool,
    /// Why not; the last probe's error. Empty if ready.
    pub reason: String,
    /// Live flows now.
    pub live_flows_count: u64,
    /// Counters.
    pub counters: FlowCounts,
    /// Bytes to the backend, link layer.
    pub in_bytes: u64,
    /// Bytes from the backend, link layer.
    pub out_bytes: u64,
}

/// What became of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Selected for a new flow.
    pub selected: u64,
    /// Completed handshakes.
    pub established: u64,
    /// Refused by the backend.
    pub refused: u64,
    /// Closed by both sides.
    pub closed: u64,
    /// Reset by the client.
    pub reset_by_client: u64,
    /// Reset by the backend.
    pub reset_by_backend: u64,
    /// Whose client had to send its SYN again, because no answer had come.
    #[serde(default)]
    pub unanswered: u64,
}

/// Something that happened to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 while the daemon runs.
    pub seq: u64,
    /// When, milliseconds of Unix time.
    pub unix_ms: u64,
    /// The service.
    pub service: String,
    /// Who: `shifterd`, `root (uid 0)`.
    pub by: String,
    /// What: `weight`, `rollback`, `drain`, `bypass`, `not ready`, `ready`, `ejected`, `returned`,
    /// `tripped`, `apply`, `adopted`, `rollout`.
    pub what: String,
    /// The slot concerned, if one.
    pub slot: Option<Slot>,
    /// In words, with the numbers.
    pub detail: String,
    /// Effective canary share before, basis points.
    pub effective_before_bp: u16,
    /// Effective canary share after, basis points.
    pub effective_after_bp: u16,
    /// From the cause (a failed probe's answer, a request's arrival) to the store the kernel reads,
    /// nanoseconds.
    pub took_ns: u64,
}

/// `GET /v1/services/{service}/flows`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Flows found, of all phases, before the limit.
    pub total_count: u64,
    /// The flows, newest first.
    pub flows: Vec<Flow>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Client address and port.
    pub client: String,
    /// VIP.
    pub vip: String,
    /// Backend.
    pub backend: String,
    /// Slot.
    pub slot: Slot,
    /// Cohort of its selection.
    pub cohort: u8,
    /// Phase.
    pub phase: Phase,
    /// Time since its last packet, milliseconds, to about a second.
    pub idle_ms: u64,
}
