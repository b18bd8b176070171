//! A look at what listens: places whose listener is gone are freed, and listeners older than the
//! programs are captured.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::atomic::Ordering,
};

use nix::libc;
use shifter_common::{
    abi::BackendEntry,
    addr::Be16,
    socket::{
        Capture, NO_BACKEND, NO_PLACE, SEIZE_OFFSET, SOCKETS_PER_BACKEND, Seize, SocketTag, seized,
        tag_kind,
    },
    steering::Slot,
};

use super::{
    super::super::{DataplaneError, ListenerReading, ListenerView, ServicePlan},
    SocketPlane, captures, sys,
    trouble::Trouble,
};
use crate::sock_diag::{Listener, SockDiag};

/// Lookups with another client's address, each of which may find another member of a group.
pub(super) const LOOKUPS_MAX_COUNT: u32 = 4_096;

impl SocketPlane {
    /// Captures what may be captured for a plan, and says what listens for each of its backends.
    ///
    /// # Errors
    /// If the kernel does not answer, a user is not known, or a table is full.
    pub fn look(
        &mut self,
        service: u32,
        plan: &ServicePlan,
        socket: &super::super::super::SocketPlan,
        indexes: &BTreeMap<(Slot, SocketAddr), u32>,
        entry_of: impl Fn(u32) -> BackendEntry,
    ) -> Result<Vec<ListenerReading>, DataplaneError> {
        let uids = captures::uids(plan, socket)?;
        self.enter(service, captures::wanted(plan, uids, indexes))?;
        let listeners = SockDiag::open()
            .and_then(|diag| diag.listeners(Some(self.tags.as_fd())))
            .map_err(|errno| DataplaneError::kernel("asking which sockets listen", errno))?;
        for index in indexes.values() {
            self.free_stale(*index)?;
        }
        let mut troubles: BTreeMap<u32, Trouble> = BTreeMap::new();
        let has_v4 = plan.vips.iter().any(SocketAddr::is_ipv4);
        for (at, capture) in self.entered.get(&service).cloned().unwrap_or_default() {
            let members = listeners.iter().filter(|listener| listener.local == at);
            let members: Vec<&Listener> = members.collect();
            for (backend, trouble) in self.capture_all(at, capture, &members, has_v4, &entry_of)? {
                troubles.entry(backend).or_insert(trouble);
            }
        }
        let mut readings = Vec::new();
        for slot in Slot::ALL {
            for backend in &plan.slot(slot).backends {
                if let Some(&index) = indexes.get(&(slot, backend.addr)) {
                    readings.push(ListenerReading {
                        slot,
                        addr: backend.addr,
                        view: self.view(index, backend.addr, troubles.get(&index), &listeners),
                    });
                }
            }
        }
        Ok(readings)
    }

    /// Frees the places whose listener has closed without a word.
    fn free_stale(&self, backend: u32) -> Result<(), DataplaneError> {
        for place in 0..SOCKETS_PER_BACKEND {
            let at = self.sockets.cookie(backend, place);
            let known = at.load(Ordering::Acquire);
            if known == 0 || self.cookie_in(backend, place)? == Some(known) {
                continue;
            }
            // Another may have taken the place meanwhile.
            let _ = at.compare_exchange(known, 0, Ordering::AcqRel, Ordering::Acquire);
        }
        Ok(())
    }

    fn cookie_in(&self, backend: u32, place: u32) -> Result<Option<u64>, DataplaneError> {
        let key = backend * SOCKETS_PER_BACKEND + place;
        sys::socket_cookie(self.listeners.as_fd(), key)
            .map_err(|error| DataplaneError::kernel("reading LISTENERS", error))
    }

    /// Cookies of the listeners held for a backend.
    fn held(&self, backend: u32) -> BTreeSet<u64> {
        (0..SOCKETS_PER_BACKEND)
            .map(|place| self.sockets.cookie(backend, place).load(Ordering::Acquire))
            .filter(|cookie| *cookie != 0)
            .collect()
    }

    /// Captures the members of a group that are not yet. Gives the backends that have trouble.
    fn capture_all(
        &self,
        at: SocketAddr,
        mut capture: Capture,
        members: &[&Listener],
        has_v4: bool,
        entry_of: &impl Fn(u32) -> BackendEntry,
    ) -> Result<Vec<(u32, Trouble)>, DataplaneError> {
        let Some(first) = members.first() else {
            return Ok(Vec::new());
        };
        let is_one = capture.backends[0] == capture.backends[1];
        let mut troubles = Vec::new();
        if first.is_v6_only && at.is_ipv6() && capture.backends[0] != NO_BACKEND {
            if is_one && has_v4 {
                troubles.push((capture.backends[0], Trouble::V6Only(at)));
            } else if !is_one {
                self.release_all(capture.backends[0], members);
                troubles.push((capture.backends[0], Trouble::V6Only(at)));
                capture.backends[0] = NO_BACKEND;
            }
        }
        let mut backends: Vec<u32> = capture.backends.to_vec();
        backends.retain(|backend| *backend != NO_BACKEND);
        backends.dedup();
        let Some(owner) = backends.first() else {
            return Ok(troubles);
        };
        let owner = entry_of(*owner);
        let (mut wanted, mut stale) = (BTreeSet::new(), BTreeSet::new());
        for member in members {
            if member.uid != 0 && member.uid != capture.uid {
                let (uid, slot) = (member.uid, Slot::from_index(u32::from(owner.slot)));
                let stranger = Trouble::Stranger { at, uid, slot };
                troubles.extend(backends.iter().map(|backend| (*backend, stranger.clone())));
            } else if backends
                .iter()
                .any(|backend| !self.held(*backend).contains(&member.cookie))
            {
                wanted.insert(member.cookie);
            } else if member
                .tag
                .is_some_and(|tag| tag.version_id != owner.version_id)
            {
                stale.insert(member.cookie);
            }
        }
        let mut tag = SocketTag {
            service: owner.service,
            version_id: owner.version_id,
            backends: capture.backends,
            backend_ids: [0; 2],
            places: [NO_PLACE; 2],
            slot: owner.slot,
            kind: tag_kind::LISTENER,
            ..SocketTag::default()
        };
        for (backend, id) in capture.backends.into_iter().zip(&mut tag.backend_ids) {
            if backend != NO_BACKEND {
                *id = entry_of(backend).backend_id;
            }
        }
        self.hand_over(at, tag, &stale)?;
        if let Some(trouble) = self.seize(at, tag, &mut wanted)? {
            troubles.extend(backends.iter().map(|backend| (*backend, trouble.clone())));
        }
        Ok(troubles)
    }

    fn release_all(&self, backend: u32, members: &[&Listener]) {
        for place in 0..SOCKETS_PER_BACKEND {
            let cookie = self.sockets.cookie(backend, place).load(Ordering::Acquire);
            if members.iter().any(|member| member.cookie == cookie) {
                self.release(backend, place);
            }
        }
    }

    /// Looks listeners up until all that are wanted are captured.
    fn seize(
        &self,
        at: SocketAddr,
        tag: SocketTag,
        wanted: &mut BTreeSet<u64>,
    ) -> Result<Option<Trouble>, DataplaneError> {
        let is_one = tag.backends[0] == tag.backends[1];
        for turn in 0..LOOKUPS_MAX_COUNT {
            if wanted.is_empty() {
                return Ok(None);
            }
            let mut tag = tag;
            let mut keys = [NO_BACKEND; 2];
            for (family, key) in keys.iter_mut().enumerate() {
                let backend = tag.backends[family];
                if backend == NO_BACKEND {
                    continue;
                }
                if family == 1 && is_one {
                    tag.places[1] = tag.places[0];
                    continue;
                }
                let Some(place) = self.free_place(backend)? else {
                    // Those that are held lead to the whole group.
                    return Ok(None);
                };
                tag.places[family] = place as u8;
                *key = backend * SOCKETS_PER_BACKEND + place;
            }
            let code = sys::run(self.seize.as_fd(), &packet(at, turn, keys, tag))
                .map_err(|error| DataplaneError::kernel("capturing a listener", error))?;
            match code {
                seized::CAPTURED => self.settle(&tag, keys, wanted)?,
                seized::KNOWN | seized::OTHER | seized::NOTHING => {}
                code => return Ok(Some(refused(at, code))),
            }
        }
        Ok(Some(Trouble::Hidden(at)))
    }

    /// Lets a listener be selected that was just captured, if it is one that was meant.
    fn settle(
        &self,
        tag: &SocketTag,
        keys: [u32; 2],
        wanted: &mut BTreeSet<u64>,
    ) -> Result<(), DataplaneError> {
        let mut found = None;
        for (family, key) in keys.into_iter().enumerate() {
            let (backend, place) = (tag.backends[family], u32::from(tag.places[family]));
            if key == NO_BACKEND {
                continue;
            }
            let Some(cookie) = self.cookie_in(backend, place)? else {
                continue;
            };
            if !wanted.contains(&cookie) {
                self.release(backend, place);
                continue;
            }
            found = Some(cookie);
            if self.held(backend).is_empty() {
                self.sockets
                    .captured(backend)
                    .fetch_add(1, Ordering::AcqRel);
            }
            self.sockets
                .cookie(backend, place)
                .store(cookie, Ordering::Release);
        }
        if let Some(cookie) = found {
            wanted.remove(&cookie);
        }
        Ok(())
    }

    fn free_place(&self, backend: u32) -> Result<Option<u32>, DataplaneError> {
        for place in 0..SOCKETS_PER_BACKEND {
            let is_free = self.sockets.cookie(backend, place).load(Ordering::Acquire) == 0;
            if is_free && self.cookie_in(backend, place)?.is_none() {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn view(
        &self,
        backend: u32,
        addr: SocketAddr,
        trouble: Option<&Trouble>,
        listeners: &[Listener],
    ) -> ListenerView {
        let held = self.held(backend);
        let is_captured = !held.is_empty() && !matches!(trouble, Some(Trouble::V6Only(_)));
        let reason = match trouble {
            _ if is_captured => String::new(),
            Some(trouble) => trouble.to_string(),
            None => {
                let candidates = captures::listener_addresses(addr);
                let at = candidates
                    .into_iter()
                    .find(|at| listeners.iter().any(|listener| listener.local == *at));
                at.map_or(Trouble::Nobody, Trouble::Elsewhere).to_string()
            }
        };
        ListenerView {
            is_captured,
            reason,
            epoch: self.sockets.captured(backend).load(Ordering::Acquire),
            queue_count: listeners
                .iter()
                .filter(|listener| held.contains(&listener.cookie))
                .map(|listener| listener.queue_count)
                .sum(),
        }
    }
}

fn refused(at: SocketAddr, code: u32) -> Trouble {
    match code.cast_signed().saturating_neg() {
        libc::EOPNOTSUPP => Trouble::Mptcp(at),
        libc::EBUSY => Trouble::OwnMap(at),
        code => Trouble::Refused(at, code),
    }
}

/// A packet that asks for a listener, from another client at each turn.
pub(super) fn packet(at: SocketAddr, turn: u32, keys: [u32; 2], tag: SocketTag) -> Vec<u8> {
    let to = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let from: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let request = Seize {
        from: from.into(),
        to: to.into(),
        listener: at.ip().into(),
        from_port: Be16::from_host(1_024 + turn as u16),
        to_port: Be16::from_host(at.port()),
        keys,
        tag,
    };
    let mut packet = vec![0; SEIZE_OFFSET];
    // The kernel takes the packet's protocol from the link-layer header.
    packet[12] = 0x08;
    // SAFETY: the type is repr(C) without padding, as its size assertion shows, and all bytes are
    // initialised.
    packet.extend_from_slice(unsafe {
        std::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<Seize>())
    });
    packet
}
