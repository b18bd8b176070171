//! Whether the interfaces need programs. Services of the socket plane do not: while there are no others,
//! and no flow of such a one, packets pass the interfaces as if shifter were not there.

use shifter_common::socket::plane;

use super::{
    super::{Census, DataplaneError, PlanePlan, ServicePlan},
    BpfDataplane,
};

impl BpfDataplane {
    /// Puts the programs on the interfaces before a plan needs them.
    pub(super) fn wake_for(&mut self, plan: &ServicePlan) -> Result<(), DataplaneError> {
        if plan.plane == PlanePlan::Nat && self.hooks.is_resting() {
            self.hooks.wake(&mut self.object, &self.directory)?;
            tracing::info!(service = plan.name, "the interfaces are hooked");
        }
        Ok(())
    }

    /// Takes the programs off the interfaces when nothing needs them any more, and puts them back
    /// where that was too early.
    pub(super) fn rest_or_wake(&mut self, census: &Census) -> Result<(), DataplaneError> {
        let is_needed = self.needs_hooks(census);
        if is_needed && self.hooks.is_resting() {
            self.hooks.wake(&mut self.object, &self.directory)?;
            tracing::info!("the interfaces are hooked");
        }
        if !is_needed && !self.hooks.is_resting() {
            self.hooks.rest(&self.directory)?;
            tracing::info!("the programs are off the interfaces: no service needs them");
        }
        Ok(())
    }

    /// A VIP that has left its service counts until its flows have ended.
    fn needs_hooks(&self, census: &Census) -> bool {
        let of_plane = |wanted| self.vips.iter().any(|(_, entry)| entry.plane == wanted);
        let is_planned = |plan: &ServicePlan| plan.plane == PlanePlan::Nat;
        !of_plane(plane::SOCKET)
            || of_plane(plane::NAT)
            || self.in_force.values().any(is_planned)
            || census.flows_count + census.pending_count > 0
    }
}
