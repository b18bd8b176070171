//! The flow tables as the daemon reads them: census, listing, expiry, reset.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
};
use shifter_common::{
    abi::{FlowEntry, FlowKey, TICK_SHIFT, VIPS_PER_SERVICE, VipKey, map, traffic},
    protocol,
    steering::Slot,
    tcp::Phase,
};

use super::{
    super::{Census, DataplaneError, FlowTable, ListedFlow},
    maps::map_error,
    pace,
    reset::Resetter,
    socket::TaggedSockets,
    sys,
};
use crate::model::IdleSpec;

/// The two flow tables.
pub struct BpfFlowTable {
    flows: MapData,
    pending: MapData,
    writer: Mutex<Writer>,
    idle: IdleSpec,
    /// Connections of the socket plane, where there is one.
    sockets: OnceLock<TaggedSockets>,
    capacity_count: u64,
    pending_capacity_count: u64,
    /// The most evictions that were ever counted, by table.
    evicted: [AtomicU64; 2],
}

/// What changes entries, and what names them.
struct Writer {
    flows: HashMap<MapData, FlowKey, FlowEntry>,
    pending: HashMap<MapData, FlowKey, FlowEntry>,
    vip_addrs: Array<MapData, VipKey>,
    traffic: PerCpuArray<MapData, u64>,
    names: BTreeMap<String, u32>,
}

impl BpfFlowTable {
    /// Opens the flow tables of a loaded object, with handles of its own.
    ///
    /// # Errors
    /// If one is missing or the process has no more file descriptors.
    pub fn open(object: &Ebpf, idle: IdleSpec) -> Result<Self, DataplaneError> {
        let (flows, flows_map) = twice(object, map::FLOWS)?;
        let (pending, pending_map) = twice(object, map::PENDING)?;
        let (_, vip_addrs) = twice(object, map::VIP_ADDRS)?;
        let (_, traffic) = twice(object, map::TABLE_TRAFFIC)?;
        let capacity_count = |name: &str, table: &MapData| {
            let info = table.info();
            info.map(|info| u64::from(info.max_entries()))
                .map_err(|error| map_error(format!("reading {name}"), error))
        };
        Ok(Self {
            capacity_count: capacity_count(map::FLOWS, &flows)?,
            pending_capacity_count: capacity_count(map::PENDING, &pending)?,
            evicted: Default::default(),
            idle,
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
                traffic: traffic
                    .try_into()
                    .map_err(|error| map_error("opening TABLE_TRAFFIC", error))?,
                names: BTreeMap::new(),
            }),
        })
    }

    /// Counts the connections of the socket plane as well from now on.
    pub fn watch(&self, sockets: TaggedSockets) {
        // There is one socket plane for the table's life.
        let _ = self.sockets.set(sockets);
    }

    /// Tells the table which index a service has, or that there is no such service any more.
    pub fn set_name(&self, name: &str, index: Option<u32>) {
        let mut writer = self.writer();
        match index {
            Some(index) => writer.names.insert(name.to_owned(), index),
            None => writer.names.remove(name),
        };
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while the lock was held cannot leave the maps' handles half changed.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a flow; says whether it was there.
    fn forget(&self, key: &FlowKey) -> bool {
        let mut writer = self.writer();
        let was_pending = writer.pending.remove(key).is_ok();
        let was_established = writer.flows.remove(key).is_ok();
        was_pending || was_established
    }

    fn for_each(&self, mut visit: impl FnMut(&FlowKey, &FlowEntry)) -> Result<(), DataplaneError> {
        self.for_each_batch(|_, keys, entries| {
            keys.iter()
                .zip(entries)
                .for_each(|(key, entry)| visit(key, entry));
        })
    }

    fn for_each_batch(
        &self,
        mut visit: impl FnMut(Table, &[FlowKey], &[FlowEntry]),
    ) -> Result<(), DataplaneError> {
        // Handshakes first: a flow that is established meanwhile is then seen twice, never not at all.
        for table in [Table::Pending, Table::Flows] {
            let (name, data) = match table {
                Table::Pending => (map::PENDING, &self.pending),
                Table::Flows => (map::FLOWS, &self.flows),
            };
            let fd: BorrowedFd<'_> = data.fd().as_fd();
            sys::for_each_batch(fd, |keys: &[FlowKey], entries: &[FlowEntry]| {
                visit(table, keys, entries);
            })
            .map_err(|error| DataplaneError::kernel(format!("reading {name}"), error))?;
        }
        Ok(())
    }

    /// Counts the flows, and removes the expired ones if it sweeps.
    fn walk(&self, sweeps: bool) -> Result<Census, DataplaneError> {
        let added = Table::ALL.map(|table| self.writer().added(table));
        let mut census = Census::default();
        let mut expired = Vec::new();
        let mut begun = Instant::now();
        self.for_each_batch(|table, keys, entries| {
            for (key, entry) in keys.iter().zip(entries) {
                if sweeps && self.is_expired(entry) {
                    expired.push((*key, entry.last_seen_ticks));
                } else {
                    census.note(table, key, entry);
                }
            }
            if sweeps {
                for (key, entry) in self.writer().remove(table, &mut expired) {
                    census.note(table, &key, &entry);
                }
                std::thread::sleep(pace::rest_after(begun.elapsed()));
                begun = Instant::now();
            }
        })?;
        // What is removed while the tables are read counts as removed and may count as present, so
        // what is left over was evicted for certain.
        let mut evicted = [0; 2];
        for (place, table) in Table::ALL.into_iter().enumerate() {
            let gone = self.writer().removed(table)? + census.count(table);
            let found = added[place].as_ref().map_or(0, |a| a.saturating_sub(gone));
            let before = self.evicted[place].fetch_max(found, Ordering::Relaxed);
            evicted[place] = before.max(found);
        }
        let [flows, pending] = evicted;
        census.flows_evicted_count = flows;
        census.pending_evicted_count = pending;
        for added in added {
            added?;
        }
        Ok(census)
    }

    fn is_expired(&self, entry: &FlowEntry) -> bool {
        Phase::from_u32(entry.phase)
            .is_none_or(|phase| u128::from(idle_ms(entry)) > self.idle.limit(phase).as_millis())
    }
}

/// One of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Flows,
    Pending,
}

impl Table {
    const ALL: [Self; 2] = [Self::Flows, Self::Pending];
}

impl Census {
    fn count(&self, table: Table) -> u64 {
        match table {
            Table::Flows => self.flows_count,
            Table::Pending => self.pending_count,
        }
    }

    fn add(&mut self, table: Table, count: u64) {
        match table {
            Table::Flows => self.flows_count += count,
            Table::Pending => self.pending_count += count,
        }
    }

    fn note(&mut self, table: Table, key: &FlowKey, entry: &FlowEntry) {
        self.add(table, 1);
        self.referenced_backends.insert(entry.backend_index);
        self.referenced_vips.insert((key.service, key.vip_ordinal));
        if Phase::from_u32(entry.phase).is_some_and(Phase::is_busy) {
            *self.live.entry(entry.backend_index).or_default() += 1;
        }
    }
}

impl Writer {
    fn counted(&self, index: u32) -> Result<u64, DataplaneError> {
        self.traffic
            .get(&index, 0)
            .map(|values| values.iter().sum())
            .map_err(|error| map_error("reading TABLE_TRAFFIC", error))
    }

    fn added(&self, table: Table) -> Result<u64, DataplaneError> {
        self.counted(match table {
            Table::Flows => traffic::FLOWS_ADDED,
            Table::Pending => traffic::PENDING_ADDED,
        })
    }

    fn removed(&self, table: Table) -> Result<u64, DataplaneError> {
        let (removed, swept) = match table {
            Table::Flows => (traffic::FLOWS_REMOVED, traffic::FLOWS_SWEPT),
            Table::Pending => (traffic::PENDING_REMOVED, traffic::PENDING_SWEPT),
        };
        Ok(self.counted(removed)? + self.counted(swept)?)
    }

    /// Removes entries whose flows have not spoken since they were read. Gives those that have.
    fn remove(
        &mut self,
        table: Table,
        expired: &mut Vec<(FlowKey, u32)>,
    ) -> Vec<(FlowKey, FlowEntry)> {
        let (map, swept) = match table {
            Table::Flows => (&mut self.flows, traffic::FLOWS_SWEPT),
            Table::Pending => (&mut self.pending, traffic::PENDING_SWEPT),
        };
        let (mut removed_count, mut kept) = (0_u64, Vec::new());
        for (key, last_seen_ticks) in expired.drain(..) {
            match map.get(&key, 0) {
                Ok(now) if now.last_seen_ticks == last_seen_ticks => {
                    removed_count += u64::from(map.remove(&key).is_ok());
                }
                Ok(now) => kept.push((key, now)),
                Err(_) => {}
            }
        }
        if removed_count > 0 {
            self.note_swept(swept, removed_count);
        }
        kept
    }

    /// Adds to a counter that only the daemon writes. If that fails, evictions are counted too many:
    /// said in the log.
    fn note_swept(&mut self, index: u32, count: u64) {
        let noted = self
            .traffic
            .get(&index, 0)
            .map_err(|error| map_error("reading TABLE_TRAFFIC", error))
            .and_then(|values| {
                let mut values = values.to_vec();
                if let Some(first) = values.first_mut() {
                    *first += count;
                }
                let values = PerCpuValues::try_from(values)
                    .map_err(|error| DataplaneError::kernel("counting swept flows", error))?;
                self.traffic
                    .set(index, values, 0)
                    .map_err(|error| map_error("writing TABLE_TRAFFIC", error))
            });
        if let Err(error) = noted {
            tracing::warn!("{count} swept flows will count as evicted: {error}");
        }
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

    /// Resets the live flows of a slot that have been silent for a time.
    fn reset_meant(
        &self,
        service: &str,
        slot: Slot,
        silence: Duration,
    ) -> Result<u64, DataplaneError> {
        let silence_ms = silence.as_millis().min(u128::from(u32::MAX)) as u32;
        let flows = self.nat_flows(service)?;
        let mut resetter = Resetter::open()?;
        let mut reset_count = 0;
        for flow in flows {
            let is_busy = Phase::from_u32(flow.entry.phase).is_some_and(Phase::is_busy);
            if !is_busy || flow.entry.slot() != slot || flow.idle_ms < u64::from(silence_ms) {
                continue;
            }
            if flow.key.protocol == protocol::UDP {
                // UDP has no reset: the next datagram of a flow that nobody knows selects again.
                reset_count += u64::from(self.forget(&flow.key));
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
            if silence_ms > 0 && entry.last_seen_ticks != flow.entry.last_seen_ticks {
                // Somebody has spoken meanwhile.
                continue;
            }
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
            reset_count += sockets.reset(index, slot, |connection| {
                silence_ms == 0 || connection.is_idle(silence_ms)
            })?;
        }
        Ok(reset_count)
    }

    /// The flows of both planes: the flow table's, swept if asked, and the
    /// tagged sockets.
    fn walk_all(&self, is_sweep: bool) -> Result<Census, DataplaneError> {
        let mut census = self.walk(is_sweep)?;
        if let Some(sockets) = self.sockets.get() {
            sockets.count(&mut census)?;
        }
        Ok(census)
    }
}

/// A map twice: as data to read in batches and as a typed handle.
fn twice(object: &Ebpf, name: &str) -> Result<(MapData, Map), DataplaneError> {
    let id = object
        .map(name)
        .and_then(|map| match map {
            Map::LruHashMap(data) | Map::Array(data) | Map::PerCpuArray(data) => data.info().ok(),
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
    fn census(&self) -> Result<Census, DataplaneError> {
        self.walk_all(false)
    }

    fn sweep(&self) -> Result<Census, DataplaneError> {
        self.walk_all(true)
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
        self.reset_meant(service, slot, Duration::ZERO)
    }

    fn reset_idle(
        &self,
        service: &str,
        slot: Slot,
        silence: Duration,
    ) -> Result<u64, DataplaneError> {
        self.reset_meant(service, slot, silence)
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

    fn pending_capacity_count(&self) -> u64 {
        self.pending_capacity_count
    }
}
