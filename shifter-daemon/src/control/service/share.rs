//! What a rollout does with a service.

use shifter_common::steering::{Slot, WEIGHT_FULL_BP};

use super::{
    super::plan::{PlannedBackend, serves},
    ServiceControl,
};
use crate::rollout::{Label, Share};

impl ServiceControl {
    /// Keeps every new flow from the canary, those of target rules too, so that a version can come
    /// into its slot. A canary that has everything by hand becomes the baseline first: it is what
    /// clients get now.
    pub fn hold(&mut self, by: &str, unix_ms: u64) {
        if self.record.weight_bp == WEIGHT_FULL_BP {
            self.record.baseline = self.canary();
        }
        let rearms = self.rearms;
        self.set_weight(0, by, unix_ms);
        self.record.held = true;
        self.rearms = rearms;
    }

    /// Forgets what another trial left in the packet path. It gives nothing yet.
    pub fn arm(&mut self, by: &str, unix_ms: u64) {
        self.hold(by, unix_ms);
        self.rearms = true;
    }

    /// Gives the canary a share. A trip meanwhile counts more: only arming forgets it.
    pub fn give(&mut self, share: &Share, by: &str, unix_ms: u64) {
        let rearms = self.rearms;
        self.set_weight(share.weight_bp, by, unix_ms);
        self.record.batch = share.batch;
        self.rearms = rearms;
    }

    /// Takes the share back and leaves the latch that says so.
    pub fn take_back_latched(&mut self, by: &str, unix_ms: u64) {
        self.set_weight(0, by, unix_ms);
        self.record.held = true;
        self.rearms = false;
        self.latches = true;
    }

    /// Makes a slot the baseline. Nobody is steered elsewhere by that if it had everything.
    pub fn commit(&mut self, slot: Slot, by: &str, unix_ms: u64) {
        let rearms = self.rearms;
        self.set_weight(0, by, unix_ms);
        self.record.baseline = slot;
        self.record.held = true;
        self.rearms = rearms;
    }

    /// Notes which version a slot holds from now on.
    pub fn set_version(&mut self, slot: Slot, version: Label) {
        self.record.versions.insert(slot, version);
    }

    /// The version in a slot, if it is known.
    pub fn version(&self, slot: Slot) -> Option<&Label> {
        self.record.versions.get(&slot)
    }

    pub(super) fn planned_backends(&self, slot: Slot) -> Vec<PlannedBackend> {
        let part = self.part(slot);
        let backends = self.spec.slot(slot).backends.iter().enumerate();
        backends
            .map(|(at, backend)| PlannedBackend {
                addr: backend.addr,
                weight: backend.weight,
                ready: part.contains(&at) && self.takes_flows(slot, backend.addr),
            })
            .collect()
    }

    /// Which of a slot's backends take part, by their places in the file: the first of the new
    /// version and the last of the old one, so that a machine that has both gets one of them. If
    /// none of those can serve, all do.
    fn part(&self, slot: Slot) -> std::ops::Range<usize> {
        let backends = &self.spec.slot(slot).backends;
        let all = 0..backends.len();
        let Some(batch) = self.record.batch else {
            return all;
        };
        let part = if slot == self.canary() {
            0..(batch.new_count as usize).min(backends.len())
        } else {
            backends.len().saturating_sub(batch.old_count as usize)..backends.len()
        };
        let has_family = |is_v6: bool| {
            let mut of_part = backends[part.clone()].iter();
            of_part.any(|backend| {
                serves(backend.addr, is_v6)
                    && backend.weight > 0
                    && self.takes_flows(slot, backend.addr)
            })
        };
        let is_enough = self.spec.vips.iter().all(|vip| has_family(vip.is_ipv6()));
        if is_enough { part } else { all }
    }
}
