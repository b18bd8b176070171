//! What the packet path shall do with a service, down to the last backend. Pure values.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use shifter_common::steering::{Affinity, Slot, SteeringWord, WEIGHT_FULL_BP};

use crate::model::{
    BreakerMode, BreakerSpec, ObserveSpec, OnEmpty, OnFull, Plane, Protocol, Targets,
};

/// The wanted state of one service. It leaves its executor no choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Name.
    pub name: String,
    /// Addresses clients connect to.
    pub vips: Vec<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// What keeps a client on its version.
    pub affinity: Affinity,
    /// What happens to a new flow when no slot is eligible.
    pub on_empty: OnEmpty,
    /// The slot serving now.
    pub baseline: Slot,
    /// The other slot's share of new flows, basis points.
    pub weight_bp: u16,
    /// Whether target rules that name the canary are held back: traffic was taken back from it.
    pub held: bool,
    /// Clients that do not follow the weight.
    pub targets: Targets,
    /// What is looked at in its connections.
    pub observe: ObserveSpec,
    /// When the kernel takes the canary out by itself.
    pub breaker: BreakerSpec,
    /// Whether somebody has given a weight since the kernel last did: only that forgets its trip.
    pub rearms: bool,
    /// Whether to leave the latch of a trip, because a rollout takes its share back: nothing gives
    /// the canary a share until it is armed anew.
    pub latches: bool,
    /// Where new flows are steered.
    pub plane: PlanePlan,
    /// Slots a and b.
    pub slots: [SlotPlan; 2],
}

/// Where new flows are steered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlanePlan {
    /// To backends anywhere, by rewriting packets.
    #[default]
    Nat,
    /// To sockets that listen on this host.
    Socket(SocketPlan),
}

/// What only the socket plane needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketPlan {
    /// Whether a backend that listens again is selected at once, without waiting for a probe.
    pub readmits_on_listen: bool,
    /// What happens to a new flow whose listener's accept queue is full.
    pub on_full: OnFull,
    /// The users, besides root, who may listen for slots a and b.
    pub users: [Option<String>; 2],
    /// Backends found ready, each with the epoch of its listeners that was.
    pub admitted: BTreeMap<SocketAddr, u32>,
}

/// The wanted state of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPlan {
    /// Whether new flows may go there. Only a slot with a ready backend of each VIP's family is.
    pub eligible: bool,
    /// Every backend of the slot, ready or not.
    pub backends: Vec<PlannedBackend>,
    /// The version that has the slot; no other ever had this number.
    pub version_id: u32,
}

/// The wanted state of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBackend {
    /// Address.
    pub addr: SocketAddr,
    /// Share against the slot's others.
    pub weight: u16,
    /// Whether new flows may go there.
    pub ready: bool,
}

impl ServicePlan {
    /// One slot's part.
    pub fn slot(&self, slot: Slot) -> &SlotPlan {
        &self.slots[slot.index() as usize]
    }

    /// The choice of the version that this plan makes, in another word. What the kernel has taken out by
    /// itself stays out, whatever the plan still says, until somebody gives a weight anew.
    pub fn choose(&self, word: SteeringWord) -> SteeringWord {
        let word = word
            .with_baseline(self.baseline)
            .with_affinity(self.affinity)
            .with_armed(self.breaker.mode != BreakerMode::Off);
        if self.latches || word.tripped() && !self.rearms {
            return word.with_weight_bp(0).with_held(true).with_tripped(true);
        }
        word.with_weight_bp(self.weight_bp)
            .with_held(self.held)
            .with_tripped(false)
    }

    /// The steering word that says what this plan says, with what the plan does not know (banks,
    /// cohort, generation) from another word.
    pub fn steer(&self, word: SteeringWord) -> SteeringWord {
        let choice = self.choose(word);
        Slot::ALL.into_iter().fold(choice, |word, slot| {
            word.with_eligible(slot, self.slot(slot).eligible)
        })
    }
}

/// Whether a backend can take flows of clients of an address family. `[::]` takes both.
pub fn serves(backend: SocketAddr, is_v6: bool) -> bool {
    backend.is_ipv6() == is_v6 || backend.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// The share of new flows that the canary gets under a steering word, basis points: the weight,
/// unless a slot is not eligible.
pub fn effective_bp(word: SteeringWord) -> u16 {
    let baseline = word.baseline();
    match (word.eligible(baseline), word.eligible(baseline.other())) {
        (true, true) => word.weight_bp(),
        (false, true) => WEIGHT_FULL_BP,
        (_, false) => 0,
    }
}

/// A service as the packet path holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedService {
    /// Name.
    pub name: String,
    /// Steering word.
    pub word: SteeringWord,
    /// VIPs in use.
    pub vips: Vec<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// What happens to a new flow when no slot is eligible.
    pub on_empty: OnEmpty,
    /// What happens to a new flow whose listener's accept queue is full.
    pub on_full: OnFull,
    /// Clients that do not follow the weight.
    pub targets: Targets,
    /// What is looked at in its connections.
    pub observe: ObserveSpec,
    /// Where new flows are steered: never [`Plane::Auto`].
    pub plane: Plane,
    /// Backends of both slots that take new flows: slot, address.
    pub ready: Vec<(Slot, SocketAddr)>,
    /// The versions that have slots a and b; `None` for a slot that has no backends.
    pub version_ids: [Option<u32>; 2],
}
