//! The flow tables as the daemon reads them: census, listing, expiry, reset.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
};
use shifter_common::{
    abi::{FlowEntry, FlowKey, TICK_SHIFT, VIPS_PER_SERVICE, VipKey, map},
    steering::Slot,
    tcp::Phase,
};

use super::{
    super::{Census, DataplaneError, FlowTable, ListedFlow},
    maps::map_error,
    reset::Resetter,
    socket::TaggedSockets,
    sys,
};

/// The two flow tables.
pub struct BpfFlowTable {
    flows: MapData,
    pending: MapData,
    writer: Mutex<Writer>,
    /// Connections of the socket plane, where there is one.
    sockets: OnceLock<TaggedSockets>,
    capacity_count: u64,
}

/// What changes entries, and what names them.
struct Writer {
    flows: HashMap<MapData, FlowKey, FlowEntry>,
    pending: HashMap<MapData, FlowKey, FlowEntry>,
    vip_addrs: Array<MapData, VipKey>,
    names: BTreeMap<String, u32>,
}

/// Idle time after which an entry goes, in seconds, by phase. An established flow may be silent for
/// days (an SSH session); `LRU` makes room if it must.
const fn idle_limit_s(phase: Phase) -> u64 {
    match phase {
        // Longer than a client retransmits its SYN (tcp_syn_retries 6: 127 s).
        Phase::SynSent | Phase::SynReceived => 130,
        Phase::Established => 5 * 24 * 3_600,
        Phase::ClientFin | Phase::BackendFin => 3_600,
        // TIME_WAIT lasts 60 s.
        Phase::Closed | Phase::Reset | Phase::Aborted => 65,
    }
}

impl BpfFlowTable {
    /// Opens the flow tables of a loaded object, with handles of its own.
    ///
    /// # Errors
    /// If one is missing or the process has no more file descriptors.
    pub fn open(object: &Ebpf) -> Result<Self, DataplaneError> {
        let (flows, flows_map) = twice(object, map::FLOWS)?;
        let (pending, pending_map) = twice(object, map::PENDING)?;
        let (_, vip_addrs) = twice(object, map::VIP_ADDRS)?;
        let info = flows
            .info()
            .map_err(|error| map_error("reading FLOWS", error))?;
        Ok(Self {
            capacity_count: u64::from(info.max_entries()),
            flows,
            pending,
            sockets: OnceLock::new(),
            writer: Mutex::new(Writer {
                flows: flows_map
                    .try_into()
                    .map_err(|error| map_error("opening FLOWS", error))?,
                pending: pending_map
                    .try_into()
                    .map_err(|error| map_error("opening PENDING", error))?,
                vip_addrs: vip_addrs
                    .try_into()
                    .map_err(|error| map_error("opening VIP_ADDRS", error))?,
                names: BTreeMap::new(),
            }),
        })
    }

    /// Counts the connections of the socket plane as well from now on.
    pub fn watch(&self, sockets: TaggedSockets) {
        // There is one socket plane for the table's life.
        let _ = self.sockets.set(sockets);
    }

    /// Tells the table which service index has which name.
    pub fn set_names(&self, names: &BTreeMap<String, u32>) {
        self.writer().names.clone_from(names);
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while the lock was held cannot leave the maps' handles half changed.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn for_each(&self, mut visit: impl FnMut(&FlowKey, &FlowEntry)) -> Result<(), DataplaneError> {
        // Handshakes first: a flow that is established meanwhile is then seen twice, never not at all.
        for (name, data) in [(map::PENDING, &self.pending), (map::FLOWS, &self.flows)] {
            let fd: BorrowedFd<'_> = data.fd().as_fd();
            sys::for_each_batch(fd, |keys: &[FlowKey], entries: &[FlowEntry]| {
                keys.iter()
                    .zip(entries)
                    .for_each(|(key, entry)| visit(key, entry));
            })
            .map_err(|error| DataplaneError::kernel(format!("reading {name}"), error))?;
        }
        Ok(())
    }
}

impl BpfFlowTable {
    /// Flows of the nat plane.
    fn nat_flows(&self, service: &str) -> Result<Vec<ListedFlow>, DataplaneError> {
        let Some(index) = self.writer().names.get(service).copied() else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        self.for_each(|key, entry| {
            if key.service == index {
                found.push((*key, *entry));
            }
        })?;
        let writer = self.writer();
        let mut vips = BTreeMap::new();
        for ordinal in 0..VIPS_PER_SERVICE {
            let vip = writer
                .vip_addrs
                .get(&(index * VIPS_PER_SERVICE + ordinal), 0)
                .map_err(|error| map_error("reading VIP_ADDRS", error))?;
            vips.insert(ordinal as u8, vip.addr.to_socket_addr(vip.port));
        }
        Ok(found
            .into_iter()
            .filter_map(|(key, entry)| {
                let vip = *vips.get(&key.vip_ordinal)?;
                Some(ListedFlow {
                    key,
                    entry,
                    vip,
                    idle_ms: idle_ms(&entry),
                })
            })
            .collect())
    }
}

/// A map twice: as data to read in batches and as a typed handle.
fn twice(object: &Ebpf, name: &str) -> Result<(MapData, Map), DataplaneError> {
    let id = object
        .map(name)
        .and_then(|map| match map {
            Map::LruHashMap(data) | Map::Array(data) => data.info().ok(),
            _ => None,
        })
        .map(|info| info.id())
        .ok_or_else(|| DataplaneError::Refused(format!("the kernel object has no map {name}")))?;
    let open = || MapData::from_id(id).map_err(|error| map_error(format!("opening {name}"), error));
    let typed_map =
        Map::from_map_data(open()?).map_err(|error| map_error(format!("opening {name}"), error))?;
    Ok((open()?, typed_map))
}

fn idle_ticks(entry: &FlowEntry) -> u32 {
    let now = (sys::monotonic_ns() >> TICK_SHIFT) as u32;
    // A packet may have come between reading the entry and the clock.
    now.saturating_sub(entry.last_seen_ticks)
}

fn idle_ms(entry: &FlowEntry) -> u64 {
    (u64::from(idle_ticks(entry)) << TICK_SHIFT) / 1_000_000
}

impl FlowTable for BpfFlowTable {
    fn sweep(&self) -> Result<Census, DataplaneError> {
        let mut census = Census::default();
        let mut expired = Vec::new();
        self.for_each(|key, entry| {
            let phase = Phase::from_u32(entry.phase);
            if phase.is_none_or(|phase| idle_ms(entry) > idle_limit_s(phase) * 1_000) {
                expired.push((*key, entry.last_seen_ticks));
                return;
            }
            census.entries_count += 1;
            census.referenced_backends.insert(entry.backend_index);
            census
                .referenced_vips
                .insert((key.service, key.vip_ordinal));
            if phase.is_some_and(Phase::is_live) {
                *census.live.entry(entry.backend_index).or_default() += 1;
            }
        })?;
        if let Some(sockets) = self.sockets.get() {
            sockets.count(&mut census)?;
        }
        let mut writer = self.writer();
        let writer = &mut *writer;
        for (key, last_seen_ticks) in expired {
            for map in [&mut writer.flows, &mut writer.pending] {
                // A flow that spoke meanwhile stays; one that is gone already needs nothing.
                if map
                    .get(&key, 0)
                    .is_ok_and(|now| now.last_seen_ticks == last_seen_ticks)
                {
                    let _ = map.remove(&key);
                }
            }
        }
        Ok(census)
    }

    fn flows(&self, service: &str) -> Result<Vec<ListedFlow>, DataplaneError> {
        let mut listed = self.nat_flows(service)?;
        let index = self.writer().names.get(service).copied();
        if let (Some(sockets), Some(index)) = (self.sockets.get(), index) {
            listed.extend(sockets.list(index)?);
        }
        Ok(listed)
    }

    fn reset(&self, service: &str, slot: Slot) -> Result<u64, DataplaneError> {
        let flows = self.nat_flows(service)?;
        let mut resetter = Resetter::open()?;
        let mut reset_count = 0;
        for flow in flows {
            let is_live = Phase::from_u32(flow.entry.phase).is_some_and(Phase::is_live);
            if !is_live || flow.entry.slot() != slot {
                continue;
            }
            // From here on every packet of the flow becomes a RST; an idle flow has none, so both
            // ends are told. The entry is read once more, because the packets that came since the
            // table was read have moved its numbers.
            const BPF_EXIST: u64 = 2;
            let mut writer = self.writer();
            let Ok(entry) = writer.flows.get(&flow.key, 0) else {
                continue;
            };
            let aborted = FlowEntry {
                phase: Phase::Aborted as u32,
                ..entry
            };
            if writer.flows.insert(flow.key, aborted, BPF_EXIST).is_err() {
                // It ended meanwhile.
                continue;
            }
            drop(writer);
            reset_count += 1;
            resetter.reset(&ListedFlow { entry, ..flow });
        }
        if let (Some(sockets), Some(index)) = (
            self.sockets.get(),
            self.writer().names.get(service).copied(),
        ) {
            reset_count += sockets.reset(index, slot, |_| true)?;
        }
        Ok(reset_count)
    }

    fn reset_again(&self, service: &str, slot: Slot) -> Result<(), DataplaneError> {
        let mut resetter = Resetter::open()?;
        for flow in self.nat_flows(service)? {
            if flow.entry.phase == Phase::Aborted as u32 && flow.entry.slot() == slot {
                resetter.reset(&flow);
            }
        }
        Ok(())
    }

    fn capacity_count(&self) -> u64 {
        self.capacity_count
    }
}
