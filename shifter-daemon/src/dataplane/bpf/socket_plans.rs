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
