//! Numbers of versions: each is given once, whatever happens to the slot, the daemon or the machine.

use super::Driver;
use crate::control::ServiceControl;

impl Driver {
    /// Gives a number to each slot whose version has none.
    pub(super) fn number_versions(&mut self, control: &mut ServiceControl) {
        for slot in control.slots_without_version() {
            let version_id = self.next_version_id();
            control.give_slot(slot, version_id);
        }
    }

    /// A number that no version ever had. It is on disk before anybody carries it; where the disk
    /// refuses, what the kernel holds tells the next daemon.
    pub(super) fn next_version_id(&mut self) -> u32 {
        self.last_version_id = self.last_version_id.max(self.state.last_version_id()) + 1;
        if let Err(error) = self.state.note_version_id(self.last_version_id) {
            tracing::error!("the number of a version is not on disk: {error}");
        }
        self.last_version_id
    }
}
