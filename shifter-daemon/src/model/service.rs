//! A service as its file describes it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use shifter_common::protocol;

use super::Prefix;

pub use shifter_common::{
    select::Target,
    steering::{Affinity, Slot},
    wire::EstablishedPolicy,
};

use super::{BreakerSpec, ObserveSpec, OutlierSpec};
use crate::rollout::{FrozenPlan, PlanError, PlanKind, RolloutSpec, ServiceShape, Wanted};

/// All services by name.
pub type Services = BTreeMap<String, ServiceSpec>;

/// Which clients' new flows follow a target rule instead of the weight: the longest prefix that holds
/// the client decides.
pub type Targets = BTreeMap<Prefix, Target>;

/// A named set of addresses clients connect to, and the two slots behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Name, `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
    pub name: String,
    /// Addresses clients connect to; 1..=8, no two the same.
    pub vips: Vec<SocketAddr>,
    /// Whether shifterd gives the host the VIPs' addresses.
    pub manages_vips: bool,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How flows are steered.
    pub plane: Plane,
    /// What keeps a client on its version.
    pub affinity: Affinity,
    /// Baseline slot if no state is known.
    pub default_slot: Slot,
    /// What happens to a new flow when no slot is eligible.
    pub on_empty: OnEmpty,
    /// When a backend that listens again gets new flows (socket plane).
    pub readmit: Readmit,
    /// What happens to a new flow whose listener's accept queue is full (socket plane).
    pub on_full: OnFull,
    /// What is looked at in its connections.
    pub observe: ObserveSpec,
    /// Slots a and b.
    pub slots: [SlotSpec; 2],
    /// Clients that do not follow the weight; at most 1,024 prefixes.
    pub targets: Targets,
    /// Readiness probe.
    pub readiness: ProbeSpec,
    /// When a backend is left out because it fails; never if `None`.
    pub outlier: Option<OutlierSpec>,
    /// When the kernel takes the canary out of traffic by itself.
    pub breaker: BreakerSpec,
    /// How long a drain may take before it is reported as overdue.
    pub drain_timeout: Duration,
    /// What a rollback does with established flows.
    pub rollback_established: EstablishedPolicy,
    /// How a version gets its traffic.
    pub rollout: RolloutSpec,
}

impl ServiceSpec {
    /// The slot's part of the file.
    pub fn slot(&self, slot: Slot) -> &SlotSpec {
        &self.slots[slot.index() as usize]
    }

    /// The plan of a rollout to a slot.
    ///
    /// # Errors
    /// Why the strategy does not fit the service, or the plan cannot be carried out.
    pub fn rollout_plan(&self, new: Slot) -> Result<FrozenPlan, PlanError> {
        self.plan_of(self.rollout.clone(), new)
    }

    /// The plan of a rollout that somebody wants.
    ///
    /// # Errors
    /// As [`Self::rollout_plan`].
    pub fn wanted_plan(&self, wanted: &Wanted, new: Slot) -> Result<FrozenPlan, PlanError> {
        let mut spec = self.rollout.clone();
        if let Some((name, strategy)) = &wanted.strategy {
            spec.name.clone_from(name);
            spec.strategy = strategy.clone();
        }
        let frozen = self.plan_of(spec, new)?;
        match wanted.kind {
            PlanKind::Release => Ok(frozen),
            PlanKind::Undo => frozen.plan().undo().freeze(),
            PlanKind::Rehearsal => frozen.plan().rehearsal().freeze(),
        }
    }

    fn plan_of(&self, mut spec: RolloutSpec, new: Slot) -> Result<FrozenPlan, PlanError> {
        let count = |slot| u32::try_from(self.slot(slot).backends.len()).unwrap_or(u32::MAX);
        let shape = ServiceShape {
            affinity: self.affinity,
            old_count: count(new.other()),
            new_count: count(new),
        };
        let drain_ms = u64::try_from(self.drain_timeout.as_millis());
        spec.rest.limits.drain_ms = drain_ms.unwrap_or(u64::MAX);
        spec.rest.established = self.rollback_established;
        spec.plan(&shape)
    }
}

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// As service files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How flows are steered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plane {
    /// shifter chooses and says why.
    #[default]
    Auto,
    /// To sockets that listen on this host; no packet is touched.
    Socket,
    /// Destination rewriting.
    Nat,
}

/// When a backend that listens again gets new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readmit {
    /// When its readiness probe succeeds.
    #[default]
    Probe,
    /// At once.
    Listen,
}

/// What happens to a new flow whose listener's accept queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It waits: the kernel drops its SYN, and the client tries again.
    #[default]
    Stay,
    /// Another backend of the slot takes it, or the other slot.
    Failover,
}

/// What happens to a new flow when no slot is eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// The packet is dropped; the client's kernel tries again after a second.
    #[default]
    Drop,
    /// The packet goes to the host's own stack.
    Pass,
}

/// One of the two places a version can occupy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSpec {
    /// Server addresses; no two the same, none in the other slot or another service.
    pub backends: Vec<BackendSpec>,
    /// The user, besides root, who may listen there (socket plane).
    pub user: Option<String>,
}

/// One server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Address and port.
    pub addr: SocketAddr,
    /// Share against the slot's other backends, 0..=1000; 100 unless given.
    pub weight: u16,
}

/// How readiness is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// What is asked.
    pub check: ProbeCheck,
    /// The port that is asked; the backend's own unless given.
    pub port: Option<u16>,
    /// Time between the starts of two probes.
    pub interval: Duration,
    /// Time after which a probe has failed.
    pub timeout: Duration,
    /// Successes in a row that make a backend ready.
    pub success_threshold: u32,
    /// Failures in a row that make it not ready.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeCheck {
    /// Nothing: a configured backend is ready.
    None,
    /// A TCP connection is accepted.
    Tcp,
    /// A GET of this path answers with a status of 200..=399.
    Http {
        /// Path with leading slash.
        path: String,
        /// Host header; the backend's address unless given.
        host: Option<String>,
    },
}
