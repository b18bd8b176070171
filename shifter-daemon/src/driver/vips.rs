//! The addresses of VIPs that shifterd gives the host (`manage_vip`).

use std::{collections::BTreeSet, net::IpAddr};

use super::Driver;
use crate::{control::ServiceControl, model::ServiceSpec};

/// The addresses of a service's VIPs that its file asks for.
fn asked(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> + '_ {
    let vips = spec.vips.iter().filter(|_| spec.manages_vips);
    vips.map(std::net::SocketAddr::ip)
}

impl Driver {
    /// Gives the host what services ask for, and takes back what none does any more. What belongs to a
    /// service without a good file stays.
    pub(super) fn hold_vips(&mut self) {
        let (mut wanted, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for control in self.services.values() {
            wanted.extend(asked(control.spec()));
            if control.deviation.is_some() {
                kept.extend(control.spec().vips.iter().map(std::net::SocketAddr::ip));
            }
        }
        let trouble = self
            .dataplane
            .hold_vips(&wanted, &kept)
            .err()
            .map(|error| error.to_string());
        if let Some(trouble) = &trouble
            && self.vip_trouble.as_ref() != Some(trouble)
        {
            tracing::error!("the addresses of VIPs are not as asked for: {trouble}");
        }
        self.vip_trouble = trouble;
    }

    /// Why the host cannot be given the address of a VIP that a file newly asks for: it has it from
    /// somebody else, who may take it away again.
    pub(super) fn vip_obstacle(
        &self,
        old: Option<&ServiceControl>,
        new: &ServiceSpec,
    ) -> Option<String> {
        let known: BTreeSet<IpAddr> = old.into_iter().flat_map(|old| asked(old.spec())).collect();
        let fresh: Vec<IpAddr> = asked(new).filter(|ip| !known.contains(ip)).collect();
        if fresh.is_empty() {
            return None;
        }
        let held = match self.dataplane.held_vips() {
            Ok(held) => held,
            Err(error) => return Some(error.to_string()),
        };
        let local = self.dataplane.host_view().local;
        let foreign = fresh
            .into_iter()
            .find(|ip| local.contains(ip) && !held.contains(ip))?;
        Some(format!(
            "manage_vip = true, but {foreign} is an address of this host already, and not by \
             shifterd: remove it (where it is: ip addr show to {foreign}), or write \
             manage_vip = false"
        ))
    }
}
