//! Checks of the host, each with the command that mends it.
//!
//! Facts are gathered first and judged afterwards: [`facts::Facts`] are plain values, `gather` is
//! the only code that asks the host, and [`judge`] is pure. Nothing here needs the daemon.

mod bpf;
mod facts;
mod feature;
mod gather;
pub mod interface;
mod judge;
#[cfg(test)]
mod live;
mod netfilter;
mod netlink;
mod pins;
mod report;

use std::net::SocketAddr;

pub use facts::*;
pub use feature::*;
pub use gather::*;
pub use judge::judge;
pub use netfilter::{Netfilter, Rule};
pub use pins::pinned_programs;
pub use report::*;

use crate::{
    control::{HostView, choose_plane},
    model::{NodeSpec, Plane, ServiceSpec},
};

/// Checks this host. Without a node file the interfaces are left out and bpffs is looked for at its
/// usual place. Blocks for some milliseconds.
pub fn run(node: Option<&NodeSpec>) -> Report {
    run_for(node, None)
}

/// As [`run`], for a host with these services, if they are known: with them it is known whether packets
/// are forwarded, which ports matter and who must listen, and the checks that depend on it are decided
/// instead of explained.
pub fn run_for(node: Option<&NodeSpec>, services: Option<&[&ServiceSpec]>) -> Report {
    let all = || services.into_iter().flatten();
    let backends_of = |service: &ServiceSpec| -> Vec<SocketAddr> {
        let slots = service.slots.iter();
        slots
            .flat_map(|slot| slot.backends.iter().map(|backend| backend.addr))
            .collect()
    };
    let backends: Option<Vec<SocketAddr>> =
        services.map(|_| all().flat_map(|service| backends_of(service)).collect());
    let vips: Vec<SocketAddr> = all().flat_map(|service| service.vips.clone()).collect();
    let host = HostView {
        local: local_addresses(),
        socket_plane: Ok(()),
    };
    let is_ours = |service: &ServiceSpec| {
        choose_plane(service, &host).is_ok_and(|steering| steering.plane == Plane::Socket)
    };
    let socket_services = all()
        .filter(|service| is_ours(service))
        .map(|service| SocketService {
            name: service.name.clone(),
            vips: service.vips.clone(),
            backends: backends_of(service),
        });
    let facts = gather(node, backends.as_deref(), &vips, socket_services.collect());
    judge(&facts)
}
