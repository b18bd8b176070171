//! Leaving: what would break without the programs, and taking them off, whatever is pinned and whoever
//! pinned it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use nix::libc;
use shifter_common::{
    abi::{FlowEntry, FlowKey, ServiceEntry, VipEntry, VipKey, map},
    tcp::Phase,
};

use super::{
    super::{DataplaneError, Departure, LostPath},
    directory::{PinDirectory, Pinned},
    links, socket_addr,
    succession::{Source, Why, from_bytes, refuse},
    sys,
};
use crate::paths::Own;

/// What goes when everything pinned goes.
///
/// # Errors
/// If a dataplane is pinned that does not say what its maps hold.
///
/// With `keep_bypass` the table of ways around stays, and VIPs that are out of the way lose nothing.
pub fn survey(pinned: &Pinned, own: &Own, keep_bypass: bool) -> Result<Departure, DataplaneError> {
    let mut departure = Departure::default();
    let is_bypassed = crate::bypass::is_there();
    for path in pinned.in_force.iter().chain(&pinned.former) {
        let source = Source::open(path)?;
        let failed = |name: &str, Why(why): Why| refuse(path, &format!("{name}: {why}"));
        let names = names(&source).map_err(|why| failed(map::SERVICES, why))?;
        let name_of = |service: u32| {
            let name = names.get(&service).cloned();
            name.unwrap_or_else(|| format!("service {service}"))
        };
        each(&source, map::FLOWS, |key: FlowKey, entry: FlowEntry| {
            if Phase::from_u32(entry.phase).is_some_and(Phase::is_live) {
                *departure.live.entry(name_of(key.service)).or_default() += 1;
            }
        })
        .map_err(|why| failed(map::FLOWS, why))?;
        if Some(path) != pinned.in_force.as_ref() {
            continue;
        }
        let mut vips = Vec::new();
        each(&source, map::VIPS, |key: VipKey, entry: VipEntry| {
            if entry.is_retired == 0 || (is_bypassed && !keep_bypass) {
                vips.push((socket_addr(&key), name_of(entry.service)));
            }
        })
        .map_err(|why| failed(map::VIPS, why))?;
        departure.lost = lost(vips, own);
    }
    Ok(departure)
}

/// Those VIPs that nobody serves without shifter, in order.
pub fn lost(vips: impl IntoIterator<Item = (SocketAddr, String)>, own: &Own) -> Vec<LostPath> {
    let mut lost: Vec<LostPath> = vips
        .into_iter()
        .filter_map(|(vip, service)| {
            Some(LostPath {
                vip,
                service,
                why: own.obstacle(vip)?,
            })
        })
        .collect();
    lost.sort_unstable();
    lost
}

/// Calls `visit` with the elements of a map, in our form.
pub fn each<K: aya::Pod, V: aya::Pod>(
    source: &Source,
    name: &str,
    mut visit: impl FnMut(K, V),
) -> Result<(), Why> {
    let Some(carrier) = source.carrier(name) else {
        return Ok(());
    };
    let map = source.map(name).map_err(|error| Why(error.to_string()))?;
    map.for_each(|key, value| -> Result<(), Why> {
        if let Some(key) = carrier.key(key)? {
            visit(from_bytes(&key)?, from_bytes(&carrier.value(value)?)?);
        }
        Ok(())
    })
}

pub fn names(source: &Source) -> Result<BTreeMap<u32, String>, Why> {
    let mut names = BTreeMap::new();
    each(
        source,
        map::SERVICES,
        |index: [u8; 4], entry: ServiceEntry| {
            let len = entry.name_len_bytes as usize;
            if let Some(name) = entry.name.get(..len).filter(|name| !name.is_empty()) {
                let name = String::from_utf8_lossy(name).into_owned();
                names.insert(u32::from_ne_bytes(index), name);
            }
        },
    )?;
    Ok(names)
}

/// Takes every pinned link off what it is attached to, whatever its kind, and removes all pins. Gives
/// how many links there were.
///
/// # Errors
/// If the kernel refuses.
pub fn tear_down(directory: &PinDirectory, pinned: &Pinned) -> Result<usize, DataplaneError> {
    let mut links_count = 0;
    for path in pinned.in_force.iter().chain(&pinned.former) {
        links_count += detach_links(&path.join("links"))?;
    }
    for path in pinned.in_force.iter().chain(&pinned.former) {
        directory.forget(path)?;
    }
    directory.vanish();
    Ok(links_count)
}

fn detach_links(directory: &Path) -> Result<usize, DataplaneError> {
    if !directory.is_dir() {
        return Ok(0);
    }
    let pins = links::pins(directory)?;
    for pin in &pins {
        match sys::detach_link(pin) {
            // This kind ends with its pin.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            outcome => outcome,
        }
        .map_err(|error| {
            DataplaneError::kernel(format!("detaching the link {}", links::name(pin)), error)
        })?;
    }
    Ok(pins.len())
}
