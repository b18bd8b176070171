//! The VIPs that the kernel knows, retired ones included: as the `VIPS` map has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use shifter_common::abi::VipEntry;

/// A VIP's address and IP protocol number: services of two protocols may share an address.
pub type Vip = (SocketAddr, u8);

/// VIPs by address and protocol, and by service.
#[derive(Debug, Default)]
pub struct Vips {
    by_addr: BTreeMap<Vip, VipEntry>,
    by_service: BTreeMap<u32, BTreeSet<Vip>>,
}

impl Vips {
    /// A VIP's entry.
    pub fn get(&self, vip: &Vip) -> Option<&VipEntry> {
        self.by_addr.get(vip)
    }

    /// A service's VIPs.
    pub fn of(&self, service: u32) -> impl Iterator<Item = (Vip, VipEntry)> + '_ {
        let vips = self.by_service.get(&service).into_iter().flatten();
        vips.filter_map(|vip| Some((*vip, *self.by_addr.get(vip)?)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Vip, VipEntry)> + '_ {
        self.by_addr.iter().map(|(vip, entry)| (*vip, *entry))
    }

    /// Notes an entry. A VIP belongs to one service at a time.
    pub fn insert(&mut self, vip: Vip, entry: VipEntry) {
        self.remove(&vip);
        self.by_addr.insert(vip, entry);
        self.by_service
            .entry(entry.service)
            .or_default()
            .insert(vip);
    }

    /// Forgets a VIP.
    pub fn remove(&mut self, vip: &Vip) {
        let Some(entry) = self.by_addr.remove(vip) else {
            return;
        };
        if let Some(vips) = self.by_service.get_mut(&entry.service) {
            vips.remove(vip);
            if vips.is_empty() {
                self.by_service.remove(&entry.service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_found_by_its_service_until_it_goes() {
        let vip = |text: &str| (text.parse().expect("an address"), 6);
        let entry = |service, ordinal| VipEntry {
            service,
            ordinal,
            ..VipEntry::default()
        };
        let mut vips = Vips::default();
        vips.insert(vip("10.0.0.1:80"), entry(1, 0));
        vips.insert(vip("10.0.0.2:80"), entry(1, 1));
        vips.insert(vip("10.0.0.2:80"), entry(2, 0));
        let of = |vips: &Vips, service| vips.of(service).map(|(v, _)| v).collect::<Vec<_>>();
        assert_eq!(of(&vips, 1), [vip("10.0.0.1:80")]);
        assert_eq!(of(&vips, 2), [vip("10.0.0.2:80")]);
        vips.remove(&vip("10.0.0.1:80"));
        assert_eq!(of(&vips, 1), []);
        assert_eq!(vips.iter().count(), 1);
        assert_eq!(vips.get(&vip("10.0.0.1:80")), None);
    }
}
