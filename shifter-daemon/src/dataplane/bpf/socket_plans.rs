//! Where plans meet the socket plane.

use std::{collections::BTreeMap, net::SocketAddr};

use aya::Ebpf;
use shifter_common::{
    socket::{map, plane},
    steering::Slot,
};

use super::{
    super::{DataplaneError, ListenerReading, PlanePlan, ServicePlan},
    BpfDataplane,
    directory::PinDirectory,
    news::KernelNews,
    socket::{Lease, SocketPlane},
};
use crate::model::Plane;

impl BpfDataplane {
    /// The socket plane, or why it cannot be had: a kernel without it still has the other plane.
    pub(super) fn open_socket_plane(
        object: &mut Ebpf,
        directory: &PinDirectory,
    ) -> Result<SocketPlane, String> {
        SocketPlane::open(object, directory).map_err(|error| {
            let why = error.to_string();
            tracing::warn!("the socket plane cannot be had: {why}");
            why
        })
    }

    /// What tells the kernel that the daemon is alive, and what tells the daemon of listeners;
    /// `None` without a socket plane.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_listeners(
        &self,
    ) -> Result<Option<(std::sync::Arc<Lease>, KernelNews)>, DataplaneError> {
        match &self.socket {
            Ok(socket) => {
                let news = KernelNews::open(&self.directory, map::CAPTURE_EVENTS)?;
                Ok(Some((socket.lease(), news)))
            }
            Err(_) => Ok(None),
        }
    }

    /// Has looked at what a plan asks for. Traffic does not wait for that: what cannot be looked at is told in
    /// the log, and tried again with the next plan.
    pub(super) fn look(&mut self, service: u32, plan: &ServicePlan) {
        let set = self.observe.set(service, plan.observe);
        if let Err(error) = set.and_then(|()| self.watch_sockets(service, plan)) {
            tracing::error!(
                service = plan.name,
                "it is not observed as asked for: {error}"
            );
        }
    }

    /// Attaches the programs that see the packets of all sockets while a service needs them. Whoever was
    /// adopted with them needs them until its own plan says otherwise.
    fn watch_sockets(&mut self, service: u32, plan: &ServicePlan) -> Result<(), DataplaneError> {
        if self.socket.is_err() {
            return Ok(());
        }
        let was_watching = self
            .observed_sockets
            .as_ref()
            .map(|known| !known.is_empty());
        let mut services = match self.observed_sockets.take() {
            Some(services) => services,
            None => {
                let known = self.services.values().copied();
                known
                    .filter(|known| self.observe.spec(*known).is_on())
                    .filter(|known| self.plane(*known) == Plane::Socket)
                    .collect()
            }
        };
        if plan.plane != PlanePlan::Nat && plan.observe.is_on() {
            services.insert(service);
        } else {
            services.remove(&service);
        }
        let is_wanted = !services.is_empty();
        if was_watching != Some(is_wanted) {
            // If it fails it is tried again: nothing is known then.
            SocketPlane::watch(&mut self.object, &self.directory, is_wanted)?;
        }
        self.observed_sockets = Some(services);
        Ok(())
    }

    pub(super) fn look_at_listeners(
        &mut self,
        plan: &ServicePlan,
    ) -> Result<Vec<ListenerReading>, DataplaneError> {
        let PlanePlan::Socket(wanted) = &plan.plane else {
            return Ok(Vec::new());
        };
        self.check(plan)?;
        let is_new = !self.services.contains_key(&plan.name);
        let service = self.claim_service(plan)?;
        let looked = self.claim_backends(service, plan).and_then(|indexes| {
            let backends = &self.maps.backends;
            match &mut self.socket {
                Ok(socket) => socket.look(service, plan, wanted, &indexes, |index| {
                    backends.read(index as usize)
                }),
                Err(why) => Err(DataplaneError::Refused(why.clone())),
            }
        });
        if looked.is_err() && is_new {
            self.give_up(service, plan);
        }
        looked
    }

    /// Whether every user that the plan names exists.
    pub(super) fn check_users(&self, plan: &ServicePlan) -> Result<(), DataplaneError> {
        match &plan.plane {
            PlanePlan::Nat => Ok(()),
            PlanePlan::Socket(socket) => super::socket::uids(plan, socket).map(drop),
        }
    }

    /// Lets the listeners be selected that the plan has found ready. Before its tables are turned to.
    pub(super) fn admit(
        &mut self,
        service: u32,
        plan: &ServicePlan,
        indexes: &BTreeMap<(Slot, SocketAddr), u32>,
    ) -> Result<(), DataplaneError> {
        let Ok(socket) = &mut self.socket else {
            return Ok(());
        };
        match &plan.plane {
            // Listeners that were captured stay so until they close: flows that were steered to
            // them keep their tags.
            PlanePlan::Nat => socket.enter(service, BTreeMap::new()),
            PlanePlan::Socket(wanted) => {
                for ((_, addr), index) in indexes {
                    if let Some(epoch) = wanted.admitted.get(addr) {
                        socket.admit(*index, *epoch);
                    }
                }
                Ok(())
            }
        }
    }

    /// What a VIP entry says of the plane.
    pub(super) const fn plane_of(plan: &ServicePlan) -> u8 {
        match plan.plane {
            PlanePlan::Nat => plane::NAT,
            PlanePlan::Socket(_) => plane::SOCKET,
        }
    }
}
