//! Out of shifter's way: new connections of a service go to one of its versions by an nftables table, and
//! shifter sees none of them.

mod nft;
mod rules;

use std::net::SocketAddr;

pub use self::{
    nft::{is_there, put, remove},
    rules::{TABLE, script},
};
use crate::{control::ServiceControl, model::Protocol};

/// The way around shifter of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Its name.
    pub service: String,
    /// Its VIPs.
    pub vips: Vec<SocketAddr>,
    /// What its clients speak.
    pub protocol: Protocol,
    /// Backends with their shares.
    pub targets: Vec<(SocketAddr, u16)>,
}

impl Bypass {
    /// The way to the version that most new connections go to, or to the other one if that cannot
    /// serve. `None` if neither can.
    pub fn of(control: &ServiceControl) -> Option<Self> {
        let record = control.record();
        let live = if record.weight_bp > 5_000 {
            record.baseline.other()
        } else {
            record.baseline
        };
        let slot = [live, live.other()]
            .into_iter()
            .find(|slot| control.is_eligible(*slot))?;
        let spec = control.spec();
        let targets = spec.slot(slot).backends.iter().filter(|backend| {
            let health = control.health(slot, backend.addr);
            backend.weight > 0 && health.is_some_and(|health| health.ready)
        });
        Some(Self {
            service: spec.name.clone(),
            vips: spec.vips.clone(),
            protocol: spec.protocol,
            targets: targets
                .map(|backend| (backend.addr, backend.weight))
                .collect(),
        })
    }
}
