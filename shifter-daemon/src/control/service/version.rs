//! Which version has a slot. Versions are told apart by numbers that are given once: a connection
//! carries that of its version, so that it never counts for who takes the slot later.

use shifter_common::steering::Slot;

use super::ServiceControl;
use crate::model::{BackendSpec, ServiceSpec, SlotSpec};

impl ServiceControl {
    /// The slots whose version has no number yet. A slot without servers has no version.
    pub fn slots_without_version(&self) -> Vec<Slot> {
        let is_nameless = |slot: &Slot| {
            self.version_ids[slot.index() as usize].is_none()
                && !self.spec.slot(*slot).backends.is_empty()
        };
        Slot::ALL.into_iter().filter(is_nameless).collect()
    }

    /// Gives a slot to a version, whose number no other ever had. From the next publication on what
    /// the version before it has left open counts for nobody.
    pub fn give_slot(&mut self, slot: Slot, version_id: u32) {
        self.version_ids[slot.index() as usize] = Some(version_id);
    }

    /// Takes a slot from its version if a file names other servers for it.
    pub(super) fn note_versions(&mut self, spec: &ServiceSpec) {
        for slot in Slot::ALL {
            if is_another_version(self.spec.slot(slot), spec.slot(slot)) {
                self.version_ids[slot.index() as usize] = None;
            }
        }
    }
}

/// Whether a slot's new servers are another version than the old ones: none of these is left. A slot
/// that only grows or shrinks keeps its version.
fn is_another_version(old: &SlotSpec, new: &SlotSpec) -> bool {
    let stays = |backend: &BackendSpec| old.backends.iter().any(|known| known.addr == backend.addr);
    !new.backends.is_empty() && !new.backends.iter().any(stays)
}
