//! How the VIPs and backends of one service must fit together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use toml::Spanned;

use super::{BACKENDS_PER_SLOT_MAX_COUNT, address, report::Report, slot::SlotRead};
use crate::{
    control::serves,
    model::{BackendSpec, Plane, Slot},
};

/// The two IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(addr: SocketAddr) -> Self {
        match addr.ip() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The addresses of a service as far as they could be read.
pub(super) struct Addresses<'r> {
    /// VIPs and where they stand.
    pub vips: &'r [Spanned<SocketAddr>],
    /// Whether every VIP of the file is in `vips`.
    pub vips_complete: bool,
    /// Slots a and b.
    pub slots: &'r [SlotRead; 2],
    /// Where new flows shall be steered.
    pub plane: Plane,
}

/// Reports what does not fit. Conclusions from something that could not be read are left out.
pub(super) fn check(addresses: &Addresses<'_>, report: &mut Report<'_>) {
    vips_differ(addresses.vips, report);
    backends_differ(addresses, report);
    if addresses.plane == Plane::Nat {
        backends_are_reachable(addresses.slots, report);
    }
    for (slot, read) in Slot::ALL.into_iter().zip(addresses.slots) {
        if read.backends.len() > BACKENDS_PER_SLOT_MAX_COUNT {
            report.whole(
                read.at.as_ref(),
                format!(
                    "slot {slot} must have at most {BACKENDS_PER_SLOT_MAX_COUNT} backends, found {}",
                    read.backends.len()
                ),
                "a lookup table cannot share flows evenly among more; split the service",
            );
        }
        if addresses.vips_complete && !addresses.vips.is_empty() {
            families_fit(slot, read, addresses, report);
        }
    }
}

fn vips_differ(vips: &[Spanned<SocketAddr>], report: &mut Report<'_>) {
    let mut seen = BTreeMap::<SocketAddr, Range<usize>>::new();
    for vip in vips {
        let (addr, at) = (*vip.get_ref(), vip.span());
        if let Some(first) = seen.get(&addr) {
            let line = report.line(first);
            report.value(
                &at,
                format!("VIP \"{addr}\" is given twice"),
                format!("remove one; the first is in line {line}"),
            );
        } else {
            seen.insert(addr, at);
        }
    }
}

fn backends_differ(addresses: &Addresses<'_>, report: &mut Report<'_>) {
    let vips: BTreeSet<_> = addresses.vips.iter().map(|vip| *vip.get_ref()).collect();
    let mut seen = BTreeMap::<SocketAddr, (Slot, Range<usize>)>::new();
    for (slot, read) in Slot::ALL.into_iter().zip(addresses.slots) {
        for backend in &read.backends {
            let (addr, at) = (backend.get_ref().addr, backend.span());
            if vips.contains(&addr) {
                report.value(
                    &at,
                    format!("backend \"{addr}\" is a VIP of this service"),
                    "let the server listen on another port or address and write that one",
                );
            }
            match seen.get(&addr) {
                None => {
                    seen.insert(addr, (slot, at));
                }
                Some((first_slot, first)) => {
                    let line = report.line(first);
                    let (message, help) = if *first_slot == slot {
                        (
                            format!("backend \"{addr}\" is given twice"),
                            "remove one, or raise the `weight` of the other for a greater share; it is in",
                        )
                    } else {
                        (
                            format!("backend \"{addr}\" is in both slots"),
                            "a server runs one version; remove one; the other is in",
                        )
                    };
                    report.value(&at, message, format!("{help} line {line}"));
                }
            }
        }
    }
}

/// The nat plane sends packets, so there must be somewhere to send them.
fn backends_are_reachable(slots: &[SlotRead; 2], report: &mut Report<'_>) {
    for backend in slots.iter().flat_map(|read| &read.backends) {
        let addr = backend.get_ref().addr;
        if let Some((what, help)) = address::unreachable_by_nat(addr) {
            report.value(&backend.span(), format!("backend \"{addr}\" {what}"), help);
        }
    }
}

/// Clients of each VIP must find backends of its family in each slot that is in use, and backends
/// of a family without VIP would never get a flow.
fn families_fit(slot: Slot, read: &SlotRead, addresses: &Addresses<'_>, report: &mut Report<'_>) {
    let Addresses { vips, plane, .. } = *addresses;
    // What would be needed on the plane that is asked for.
    let (why, needed) = match plane {
        Plane::Nat | Plane::Auto => ("the nat plane does not translate", "backend"),
        Plane::Socket => ("a listener takes clients of its own family", "listener"),
    };
    let first_of = |family| {
        vips.iter()
            .map(|vip| *vip.get_ref())
            .find(|&vip| Family::of(vip) == family)
    };
    let firsts = Family::ALL.map(first_of);
    let vip_of = |family: Family| firsts[family as usize];
    let mut stranger = false;
    for backend in &read.backends {
        let addr = backend.get_ref().addr;
        let family = Family::of(addr);
        let is_of_use = Family::ALL
            .into_iter()
            .any(|of| vip_of(of).is_some() && serves(addr, of == Family::V6));
        if !is_of_use {
            stranger = true;
            report.value(
                &backend.span(),
                format!("backend \"{addr}\" is {family}, but no VIP is"),
                format!("{why}; add an {family} VIP or remove it"),
            );
        }
    }
    if stranger || !read.complete || read.backends.is_empty() {
        return;
    }
    for family in Family::ALL {
        let Some(vip) = vip_of(family) else { continue };
        let is_of =
            |backend: &&Spanned<BackendSpec>| serves(backend.get_ref().addr, family == Family::V6);
        let mut backends = read.backends.iter().filter(is_of).peekable();
        if backends.peek().is_none() {
            report.whole(
                read.at.as_ref(),
                format!("slot {slot} has no {family} backend for VIP \"{vip}\""),
                match plane {
                    Plane::Nat | Plane::Auto => format!("{why}; add an {family} {needed}"),
                    Plane::Socket => {
                        format!("{why}; add an {family} {needed}, or write \"[::]:PORT\"")
                    }
                },
            );
        } else if backends.all(|backend| backend.get_ref().weight == 0) {
            report.whole(
                read.at.as_ref(),
                format!("all {family} backends of slot {slot} have weight 0"),
                "give one of them a weight of 1 to 1000; `shifterctl drain` empties a slot",
            );
        }
    }
}
