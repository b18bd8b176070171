//! The VIPs' addresses on the host, where a service asks for it.

use std::{collections::BTreeSet, net::IpAddr};

use nix::errno::Errno;

use super::super::DataplaneError;
use crate::vip_addresses;

/// The addresses that are ours.
///
/// # Errors
/// If the kernel does not answer.
pub fn held() -> Result<BTreeSet<IpAddr>, DataplaneError> {
    vip_addresses::held()
        .map_err(|errno| DataplaneError::kernel("asking for the host's addresses", errno))
}

/// Adds what is wanted and takes back what is neither wanted nor kept.
///
/// # Errors
/// If the kernel refuses.
pub fn hold(wanted: &BTreeSet<IpAddr>, kept: &BTreeSet<IpAddr>) -> Result<(), DataplaneError> {
    let held = held()?;
    for ip in held.difference(wanted).filter(|ip| !kept.contains(ip)) {
        vip_addresses::remove(*ip)
            .map_err(|errno| DataplaneError::kernel(format!("removing address {ip}"), errno))?;
        tracing::info!("address {ip} is taken from the host");
    }
    let local = crate::doctor::local_addresses();
    for ip in wanted.difference(&held).filter(|ip| !local.contains(ip)) {
        match vip_addresses::add(*ip) {
            Ok(()) => tracing::info!("address {ip} is given to the host"),
            // Somebody was faster; it is theirs.
            Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(DataplaneError::kernel(
                    format!("adding address {ip}"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}
