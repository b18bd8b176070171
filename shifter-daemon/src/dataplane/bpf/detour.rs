//! The ways around shifter, and its VIPs out of their way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use shifter_common::{
    abi::{BackendEntry, VipEntry, VipKey, backend_state, map},
    steering::{Slot, SteeringWord},
};

use super::{
    super::{Bypass, DataplaneError},
    BpfDataplane, addr_sets,
    departure::{each, names},
    directory::Pinned,
    socket_addr,
    succession::{Source, Why, refuse},
    vip_key,
};
use crate::{bypass, model::Protocol};

impl BpfDataplane {
    pub(super) fn put_bypass(&mut self, ways: &[Bypass]) -> Result<(), DataplaneError> {
        let Some(before) = &self.ways else {
            // A daemon before this one, or none at all, may have left a table.
            if ways.is_empty() {
                bypass::remove()?;
            } else {
                bypass::put(ways)?;
            }
            return self.retire_bypassed(ways, ways);
        };
        if before == ways {
            return Ok(());
        }
        // Who comes back to shifter keeps its way around until shifter steers again.
        let is_going = |way: &&Bypass| ways.iter().all(|other| other.service != way.service);
        let going: Vec<Bypass> = before.iter().filter(is_going).cloned().collect();
        let all: Vec<Bypass> = ways.iter().chain(&going).cloned().collect();
        bypass::put(&all)?;
        self.retire_bypassed(ways, &all)?;
        if !going.is_empty() {
            bypass::put(ways)?;
        }
        Ok(())
    }

    /// Takes the VIPs of `ways` out of the way, and those of `all` that are not among them back.
    fn retire_bypassed(&mut self, ways: &[Bypass], all: &[Bypass]) -> Result<(), DataplaneError> {
        self.bypassed = ways.iter().map(|way| way.service.clone()).collect();
        self.ways = Some(ways.to_vec());
        for way in all {
            let is_retired = u8::from(self.bypassed.contains(&way.service));
            let protocol = way.protocol.number();
            for vip in &way.vips {
                if let Some(entry) = self.vips.get(&(*vip, protocol)).copied()
                    && entry.is_retired != is_retired
                {
                    let key = vip_key(*vip, protocol);
                    self.enter_vip(
                        key,
                        *vip,
                        VipEntry {
                            is_retired,
                            ..entry
                        },
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Sends the new connections of everything pinned around shifter. Gives the services' names.
///
/// # Errors
/// If what is pinned does not say what it holds, or the kernel refuses.
pub fn of_pinned(pinned: &Pinned) -> Result<Vec<String>, DataplaneError> {
    let Some(path) = &pinned.in_force else {
        return Ok(Vec::new());
    };
    let source = Source::open(path)?;
    let failed = |Why(why): Why| refuse(path, &why);
    let ways = ways(&source).map_err(failed)?;
    if ways.is_empty() {
        return Ok(Vec::new());
    }
    bypass::put(&ways)?;
    let vips: BTreeSet<SocketAddr> = ways.iter().flat_map(|way| way.vips.clone()).collect();
    source
        .change(map::VIPS, "is_retired", |key: VipKey| {
            vips.contains(&socket_addr(&key)).then_some(1)
        })
        .map_err(failed)?;
    let sets = path.join("maps").join(map::VIP_SETS);
    addr_sets::empty(&sets).map_err(|error| failed(Why(format!("{}: {error}", map::VIP_SETS))))?;
    Ok(ways.into_iter().map(|way| way.service).collect())
}

/// The ways to what each service's steering word prefers now.
fn ways(source: &Source) -> Result<Vec<Bypass>, Why> {
    let mut words: BTreeMap<u32, SteeringWord> = BTreeMap::new();
    each(source, map::STEERING, |index: [u8; 4], word: u64| {
        words.insert(u32::from_ne_bytes(index), SteeringWord(word));
    })?;
    let mut vips: BTreeMap<u32, Vec<SocketAddr>> = BTreeMap::new();
    each(source, map::VIPS, |key: VipKey, entry: VipEntry| {
        vips.entry(entry.service)
            .or_default()
            .push(socket_addr(&key));
    })?;
    let mut targets: BTreeMap<(u32, Slot), Vec<(SocketAddr, u16)>> = BTreeMap::new();
    each(source, map::BACKENDS, |_: [u8; 4], entry: BackendEntry| {
        if entry.state == backend_state::READY {
            let slot = Slot::from_index(u32::from(entry.slot));
            let addr = entry.addr.to_socket_addr(entry.port);
            // What share a backend has stands in no map but the lookup tables.
            targets
                .entry((entry.service, slot))
                .or_default()
                .push((addr, 1));
        }
    })?;
    let ways = names(source)?.into_iter().filter_map(|(index, service)| {
        let word = words.get(&index).copied().unwrap_or_default();
        let live = if word.weight_bp() > 5_000 {
            word.baseline().other()
        } else {
            word.baseline()
        };
        let slot = [live, live.other()]
            .into_iter()
            .find(|slot| word.eligible(*slot))?;
        Some(Bypass {
            service,
            vips: vips.get(&index)?.clone(),
            protocol: Protocol::Tcp,
            targets: targets.get(&(index, slot))?.clone(),
        })
    });
    Ok(ways.collect())
}
