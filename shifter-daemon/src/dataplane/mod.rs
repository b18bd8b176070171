//! The boundary to the packet path: plans go in, counters and flows come out.
//!
//! `bpf` is the real one and the daemon's only user of aya besides `doctor`; `memory` stands in for
//! it where no kernel is wanted, with failures on demand.

pub mod bpf;
pub mod layout;
pub mod memory;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

pub use crate::bypass::Bypass;
pub use crate::control::{
    HostView, ListenerView, PlanePlan, PlannedBackend, PublishedService, ServicePlan, SlotPlan,
    SocketPlan,
};
use shifter_common::{
    abi::{BackendCounters, FlowEntry, FlowKey, SlotCounters},
    breaker::{ARM_COUNT, ArmWord, BreakerCounters, Trip},
    observe::Observed,
    socket::SocketCounters,
    steering::{Slot, SteeringWord},
    wire::{InterfaceStatus, LocalClientsStatus},
};

/// Why the dataplane did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A system call failed.
    #[error("{what}: {source}{}", hint(help))]
    Kernel {
        /// What was attempted, with its object.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
        /// What to do; may be empty.
        help: String,
    },
    /// The request does not fit what the dataplane holds.
    #[error("{0}")]
    Refused(String),
}

fn hint(help: &str) -> String {
    if help.is_empty() {
        String::new()
    } else {
        format!(" ({help})")
    }
}

impl DataplaneError {
    /// A failed system call.
    pub fn kernel(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Kernel {
            what: what.into(),
            source: source.into(),
            help: String::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(self, text: impl Into<String>) -> Self {
        match self {
            Self::Kernel { what, source, .. } => Self::Kernel {
                what,
                source,
                help: text.into(),
            },
            Self::Refused(_) => self,
        }
    }
}

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The steering word now in force.
    pub word: SteeringWord,
    /// When the kernel could first read it; `None` if nothing had to change.
    pub stored_at: Option<Instant>,
}

/// Counters of one backend, with where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendReading {
    /// Backend index, the key of the flow census.
    pub index: u32,
    /// Its slot.
    pub slot: Slot,
    /// Its address.
    pub addr: SocketAddr,
    /// Counters.
    pub counters: BackendCounters,
}

/// Counters of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceReading {
    /// Slots a and b.
    pub slots: [SlotCounters; 2],
    /// Slots a and b on the socket plane.
    pub sockets: [SocketCounters; 2],
    /// Backends that are in a slot or still have flows.
    pub backends: Vec<BackendReading>,
    /// What was seen in the connections of slots a and b; `None` if nobody looks.
    pub observed: Option<[ObservedReading; 2]>,
}

/// What was seen in the connections of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedReading(pub Box<Observed>);

/// What the breaker of a service says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerReading {
    /// Errors by what became of them, since the packet path was built.
    pub counters: BreakerCounters,
    /// The arms of the trial that is under way, or was last.
    pub arms: [ArmReading; ARM_COUNT],
    /// The trial's trip.
    pub trip: Trip,
    /// The kernel's time now, ns of the boot clock.
    pub now_ns: u64,
}

/// One arm of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmReading {
    /// Sum and excursions.
    pub word: ArmWord,
    /// The threshold of the excursion, Q8.24.
    pub threshold: u32,
}

/// What listens for one backend of a service on the socket plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReading {
    /// Its slot.
    pub slot: Slot,
    /// Its address.
    pub addr: SocketAddr,
    /// What was seen.
    pub view: ListenerView,
}

/// What the flow tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Entries of the table of established flows.
    pub flows_count: u64,
    /// Entries of the table of handshakes.
    pub pending_count: u64,
    /// Established flows that were evicted to make room, since the tables were built. Never too many;
    /// what happened during the count shows in the next one.
    pub flows_evicted_count: u64,
    /// Handshakes that were evicted, in the same way.
    pub pending_evicted_count: u64,
    /// Live flows by backend index: established, at least one side may still send.
    pub live: std::collections::HashMap<u32, u64>,
    /// Open connections of versions that have left their slot, by backend index.
    pub departed: std::collections::HashMap<u32, u64>,
    /// Backend indexes and VIPs that any entry refers to.
    pub referenced_backends: std::collections::HashSet<u32>,
    /// Service index and VIP ordinal of every entry.
    pub referenced_vips: std::collections::HashSet<(u32, u8)>,
}

/// A VIP whose only path leads through shifter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostPath {
    /// The VIP.
    pub vip: SocketAddr,
    /// Its service.
    pub service: String,
    /// Why nobody else serves it.
    pub why: &'static str,
}

impl std::fmt::Display for LostPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { vip, service, why } = self;
        write!(f, "VIP {vip} of {service} would lose its only path: {why}")
    }
}

/// What breaks when the programs go. Its text is empty if nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Live flows by service.
    pub live: std::collections::BTreeMap<String, u64>,
    /// VIPs without another path.
    pub lost: Vec<LostPath>,
}

impl std::fmt::Display for Departure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let live = self.live.iter().filter(|(_, count)| **count > 0);
        let mut parts: Vec<String> = live
            .map(|(service, count)| match count {
                1 => format!("1 live flow of {service} would break"),
                count => format!("{count} live flows of {service} would break"),
            })
            .collect();
        parts.extend(self.lost.iter().map(ToString::to_string));
        f.write_str(&parts.join("; "))
    }
}

/// The packet path as the driver sees it.
pub trait Dataplane: Send {
    /// Every service the packet path holds, by name.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn published(&self) -> Result<Vec<PublishedService>, DataplaneError>;

    /// Puts a plan in force. Flows that exist keep their backends. If it fails, what was in force
    /// before still is, apart from what the plan takes out of traffic.
    ///
    /// # Errors
    /// If a table is full, an address is taken by another service, or the kernel refuses.
    fn publish(&mut self, plan: &ServicePlan) -> Result<Publication, DataplaneError>;

    /// What the choice of a plane depends on.
    fn host_view(&self) -> HostView;

    /// Looks at what listens for the backends of a plan of the socket plane, and captures what may
    /// be captured, so that the plan can be published. No new flow is steered by that. A plan of
    /// the nat plane has no listeners.
    ///
    /// # Errors
    /// If a table is full, a user is not known, or the kernel does not answer.
    fn listeners(&mut self, plan: &ServicePlan) -> Result<Vec<ListenerReading>, DataplaneError>;

    /// Counters of a service; zero if it is unknown.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn read(&self, service: &str) -> Result<ServiceReading, DataplaneError>;

    /// What the breaker of a service says; nothing if it is unknown.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn breaker(&self, service: &str) -> Result<BreakerReading, DataplaneError> {
        let _ = service;
        Ok(BreakerReading::default())
    }

    /// The steering words of the services whose canary the kernel has taken out of traffic by itself.
    fn tripped(&self) -> Vec<(String, SteeringWord)> {
        Vec::new()
    }

    /// Packets by verdict number.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn verdicts(&self) -> Result<Vec<u64>, DataplaneError>;

    /// Lookups of the socket plane by verdict number; zero where it cannot be had.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn lookups(&self) -> Result<Vec<u64>, DataplaneError>;

    /// The flow tables, to be read without holding up the driver.
    fn flow_table(&self) -> Arc<dyn FlowTable>;

    /// Frees backends and VIPs that are out of every plan and that no flow refers to.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn retire(&mut self, census: &Census) -> Result<(), DataplaneError>;

    /// How the interfaces are hooked.
    fn interfaces(&self) -> Vec<InterfaceStatus>;

    /// Whether clients on the host itself are steered, and where to.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn local_clients(&self) -> Result<LocalClientsStatus, DataplaneError> {
        Ok(LocalClientsStatus::default())
    }

    /// Hooks again what has lost its hooks: an interface that was made anew under its old name.
    /// Gives what has changed, in words. What cannot be hooked is tried again at the next call.
    fn tend(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// The programs in the kernel, by name, each with its tag: the kernel's digest of its instructions.
    fn program_tags(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Directory of the pins.
    fn pins(&self) -> String;

    /// Whether the dataplane was found pinned and taken over.
    fn was_adopted(&self) -> bool;

    /// VIPs that nobody would serve without shifter.
    fn lost_paths(&self) -> Vec<LostPath>;

    /// The addresses that shifterd has given the host.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn held_vips(&self) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        Ok(BTreeSet::new())
    }

    /// Gives the host those of the wanted addresses that it does not have, and takes those back that are
    /// ours and neither wanted nor kept. An address that somebody else has made is never touched.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn hold_vips(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        kept: &BTreeSet<IpAddr>,
    ) -> Result<(), DataplaneError> {
        let _ = (wanted, kept);
        Ok(())
    }

    /// Puts exactly these ways around the packet path in force: new connections of these services do
    /// not come to it, established ones go on. If that fails, what was in force before still is.
    ///
    /// # Errors
    /// If there is no way to do so on this host, or the kernel refuses.
    fn bypass(&mut self, ways: &[Bypass]) -> Result<(), DataplaneError>;

    /// Says, before anything is published, which services have such a way from before.
    fn expect_bypass(&mut self, services: Vec<String>);

    /// Takes all programs off the interfaces and forgets every service.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    fn detach(&mut self) -> Result<Vec<String>, DataplaneError>;
}

/// The flow tables.
pub trait FlowTable: Send + Sync {
    /// Counts flows, as fast as it goes.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn census(&self) -> Result<Census, DataplaneError>;

    /// Counts flows and drops the entries that have outlived their phase, resting in between so that
    /// a large table does not take a core.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn sweep(&self) -> Result<Census, DataplaneError>;

    /// All flows of a service.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn flows(&self, service: &str) -> Result<Vec<ListedFlow>, DataplaneError>;

    /// Resets the live flows of a slot: both ends get a RST. Gives how many.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn reset(&self, service: &str, slot: Slot) -> Result<u64, DataplaneError>;

    /// Resets those live flows of a slot that nobody has spoken on for a time. Gives how many.
    ///
    /// On the nat plane that is the time since the last packet. On the socket plane it is the time since
    /// data was sent or received, and nothing may be under way: no data unread by the application
    /// or unacknowledged by the client, and the last word was the application's, so that no request
    /// is open.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn reset_idle(
        &self,
        service: &str,
        slot: Slot,
        silence: std::time::Duration,
    ) -> Result<u64, DataplaneError>;

    /// Sends resets again, with the numbers that the ends have acknowledged meanwhile, to the flows
    /// of a slot that were reset: one that was busy may not have believed the first.
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn reset_again(&self, service: &str, slot: Slot) -> Result<(), DataplaneError>;

    /// Entries the table of established flows can hold.
    fn capacity_count(&self) -> u64;

    /// Entries the table of handshakes can hold.
    fn pending_capacity_count(&self) -> u64;
}

/// A flow with its VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFlow {
    /// Key.
    pub key: FlowKey,
    /// State.
    pub entry: FlowEntry,
    /// VIP the client connected to.
    pub vip: SocketAddr,
    /// Time since the last packet, milliseconds.
    pub idle_ms: u64,
}
