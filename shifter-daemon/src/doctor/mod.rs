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

use crate::model::NodeSpec;

/// Checks this host. Without a node file the interfaces are left out and bpffs is looked for at its
/// usual place. Blocks for some milliseconds.
pub fn run(node: Option<&NodeSpec>) -> Report {
    run_for(node, None, &[])
}

/// As [`run`], for a host whose services have these backends and VIPs: with them it is known whether
/// packets are forwarded and which ports matter, and the checks that depend on it are decided instead of
/// explained.
pub fn run_for(
    node: Option<&NodeSpec>,
    backends: Option<&[SocketAddr]>,
    vips: &[SocketAddr],
) -> Report {
    judge(&gather(node, backends, vips))
}
