//! What the packet path shall do with a service, down to the last backend. Pure values.

use std::net::SocketAddr;

use shifter_common::steering::{Affinity, Slot, SteeringWord, WEIGHT_FULL_BP};

use crate::model::{OnEmpty, Protocol, Targets};

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
    /// Slots a and b.
    pub slots: [SlotPlan; 2],
}

/// The wanted state of one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPlan {
    /// Whether new flows may go there. Only a slot with a ready backend of each VIP's family is.
    pub eligible: bool,
    /// Every backend of the slot, ready or not.
    pub backends: Vec<PlannedBackend>,
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

    /// The steering word that says what this plan says, with what the plan does not know (banks,
    /// cohort, generation) from another word.
    pub fn steer(&self, word: SteeringWord) -> SteeringWord {
        let choice = word
            .with_weight_bp(self.weight_bp)
            .with_baseline(self.baseline)
            .with_affinity(self.affinity)
            .with_held(self.held);
        Slot::ALL.into_iter().fold(choice, |word, slot| {
            word.with_eligible(slot, self.slot(slot).eligible)
        })
    }
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
    /// Clients that do not follow the weight.
    pub targets: Targets,
    /// Backends of both slots that take new flows: slot, address.
    pub ready: Vec<(Slot, SocketAddr)>,
}
