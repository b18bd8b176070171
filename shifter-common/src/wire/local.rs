//! Clients on the host itself, as `status` shows them.

use serde::{Deserialize, Serialize};

use super::Slot;

/// Whether the host's own clients are steered, and where to.
///
/// They have no flow entries: a slot's live flows, its counters and `flows` know nothing of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalClientsStatus {
    /// `on`, `off` (by the node file) or `unavailable`.
    pub state: String,
    /// Where the hooks are, or why there are none.
    pub reason: String,
    /// Connects and datagrams to VIPs by outcome since the dataplane was built; every outcome is
    /// listed.
    pub outcomes: Vec<(String, u64)>,
    /// Slots of all services, by service.
    pub slots: Vec<LocalSlotStatus>,
}

/// What one slot got of the host's own clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSlotStatus {
    /// The service.
    pub service: String,
    /// The slot.
    pub slot: Slot,
    /// Connects and datagrams for which the slot was selected.
    pub selected_count: u64,
    /// Those wanted here by the weight that went to the other slot.
    pub failed_over_count: u64,
    /// Those wanted here by the weight that found no eligible slot.
    pub unserved_count: u64,
    /// Selections by backend address.
    pub backends: Vec<(String, u64)>,
}
