//! The kernel's packet path: loading, pinning, adopting, publishing.
//!
//! What the kernel holds is the truth. This module keeps no second copy of it: indexes and names are
//! read back from the maps at the start, tables are compared with what is mapped.

mod claims;
mod directory;
mod flows;
mod hooks;
mod log;
mod mapped;
mod maps;
mod publish;
mod read;
mod regions;
mod reset;
mod retire;
mod socket;
mod socket_plans;
mod sys;
mod tables;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aya::{Ebpf, EbpfLoader, maps::MapData};
use shifter_common::{
    abi::{self, BackendCounters, BackendEntry, SlotCounters, VipEntry, VipKey},
    addr::Be16,
    wire::InterfaceStatus,
};
use std::net::SocketAddr;

use self::{directory::PinDirectory, flows::BpfFlowTable, hooks::Hooks, maps::Maps};
pub use self::{
    log::KernelLog,
    socket::{CaptureNews, Lease},
};
use super::{
    Census, Dataplane, DataplaneError, FlowTable, HostView, ListenerReading, Publication,
    PublishedService, ServicePlan, ServiceReading,
};
use crate::model::NodeSpec;

/// IP protocol number of the only protocol steered so far.
const TCP: u8 = 6;

/// The kernel object, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/shifter.o"));

/// The kernel object, for tests that run its programs on single packets.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// The kernel's packet path.
pub struct BpfDataplane {
    maps: Maps,
    flow_table: Arc<BpfFlowTable>,
    hooks: Hooks,
    directory: PinDirectory,
    was_adopted: bool,
    /// The socket plane, or why it cannot be had.
    socket: Result<socket::SocketPlane, String>,
    /// Service index by name.
    services: BTreeMap<String, u32>,
    /// Every VIP the kernel knows, retired ones included.
    vips: BTreeMap<SocketAddr, VipEntry>,
    /// What was last dealt into tables: to tell a weight change from a table change, and to deal
    /// the next on top of it.
    deals: tables::Deals,
    /// Services whose bank was flipped since programs were last waited for.
    flipped: std::collections::BTreeSet<u32>,
    /// Backend indexes that stand in a plan; the others may be freed once no flow refers to them.
    planned_backends: std::collections::BTreeSet<u32>,
    /// Where the search for a free backend index begins.
    next_backend: usize,
}

impl BpfDataplane {
    /// Builds the packet path, or takes over the one that is pinned, and hooks the interfaces.
    ///
    /// # Errors
    /// If bpffs is not mounted, another daemon holds the pins, the kernel refuses a program, or an
    /// interface cannot be hooked as asked; each says what to do.
    pub fn open(node: &NodeSpec) -> Result<Self, DataplaneError> {
        let mut directory = PinDirectory::lock(&node.bpffs)?;
        let was_adopted = directory.find()?;
        if !was_adopted {
            directory.begin()?;
        }
        let mut object = load(&directory, node)?;
        let flow_table = Arc::new(BpfFlowTable::open(&object)?);
        if !was_adopted {
            directory.commit()?;
        }
        // Programs are loaded while the object still holds its maps.
        let hooks = Hooks::attach(&mut object, &node.interfaces, &directory)?;
        let socket = Self::open_socket_plane(&mut object, &directory);
        if socket.is_ok() {
            flow_table.watch(socket::TaggedSockets::open(&directory)?);
        }
        let maps = Maps::take(&mut object)?;
        let mut this = Self {
            maps,
            flow_table,
            hooks,
            directory,
            was_adopted,
            socket,
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            deals: tables::Deals::default(),
            flipped: std::collections::BTreeSet::new(),
            planned_backends: std::collections::BTreeSet::new(),
            next_backend: 0,
        };
        this.recall()?;
        Ok(this)
    }

    /// Reads names and VIPs back from the maps.
    fn recall(&mut self) -> Result<(), DataplaneError> {
        self.services = self.names()?;
        // An adopted table may have been retired a moment before its daemon died.
        self.flipped = self.services.values().copied().collect();
        for entry in self.maps.vips.iter() {
            let (key, entry) = entry.map_err(|error| maps::map_error("reading VIPS", error))?;
            self.vips.insert(socket_addr(&key), entry);
        }
        // Until a plan says otherwise every backend found here stays.
        self.planned_backends = (0..self.maps.backends.len() as u32)
            .filter(|&i| self.maps.backends.read(i as usize).state != abi::backend_state::FREE)
            .collect();
        self.flow_table.set_names(&self.services);
        let backends = &self.maps.backends;
        if let Ok(socket) = &mut self.socket {
            socket.recall(|index| {
                ((index as usize) < backends.len()).then(|| backends.read(index as usize).service)
            })?;
        }
        Ok(())
    }

    fn names(&self) -> Result<BTreeMap<String, u32>, DataplaneError> {
        let mut names = BTreeMap::new();
        for index in 0..self.maps.services.len() {
            let entry = self
                .maps
                .services
                .get(&index, 0)
                .map_err(|error| maps::map_error("reading SERVICES", error))?;
            let len = entry.name_len_bytes as usize;
            if let Some(name) = entry.name.get(..len).filter(|name| !name.is_empty()) {
                names.insert(String::from_utf8_lossy(name).into_owned(), index);
            }
        }
        Ok(names)
    }

    /// Indexes and entries of a service's backends.
    fn backends_of(&self, service: u32) -> impl Iterator<Item = (u32, BackendEntry)> + '_ {
        (0..self.maps.backends.len()).filter_map(move |index| {
            let entry = self.maps.backends.read(index);
            (entry.service == service && entry.state != abi::backend_state::FREE)
                .then_some((index as u32, entry))
        })
    }
}

impl Dataplane for BpfDataplane {
    fn published(&self) -> Result<Vec<PublishedService>, DataplaneError> {
        Ok(self
            .services
            .iter()
            .map(|(name, &index)| self.published_service(name, index))
            .collect())
    }

    fn publish(&mut self, plan: &ServicePlan) -> Result<Publication, DataplaneError> {
        self.publish_plan(plan)
    }

    fn host_view(&self) -> HostView {
        HostView {
            local: crate::doctor::local_addresses(),
            socket_plane: self.socket.as_ref().map(drop).map_err(Clone::clone),
        }
    }

    fn listeners(&mut self, plan: &ServicePlan) -> Result<Vec<ListenerReading>, DataplaneError> {
        self.look_at_listeners(plan)
    }

    fn lookups(&self) -> Result<Vec<u64>, DataplaneError> {
        match &self.socket {
            Ok(socket) => socket.read_lookups(),
            Err(_) => Ok(vec![
                0;
                shifter_common::socket::LookupVerdict::COUNT as usize
            ]),
        }
    }

    fn read(&self, service: &str) -> Result<ServiceReading, DataplaneError> {
        self.read_service(service)
    }

    fn verdicts(&self) -> Result<Vec<u64>, DataplaneError> {
        self.read_verdicts()
    }

    fn flow_table(&self) -> Arc<dyn FlowTable> {
        Arc::<BpfFlowTable>::clone(&self.flow_table)
    }

    fn retire(&mut self, census: &Census) -> Result<(), DataplaneError> {
        self.retire_unreferenced(census)
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.hooks.status()
    }

    fn pins(&self) -> String {
        self.directory.path().display().to_string()
    }

    fn was_adopted(&self) -> bool {
        self.was_adopted
    }

    fn detach(&mut self) -> Result<Vec<String>, DataplaneError> {
        let names = self
            .hooks
            .status()
            .into_iter()
            .map(|interface| interface.name)
            .collect();
        socket::SocketPlane::detach(&self.directory)?;
        self.hooks.detach(&self.directory)?;
        self.directory.remove()?;
        Ok(names)
    }
}

/// Loads the programs over the pinned maps; maps that are not pinned yet are created and pinned.
fn load(directory: &PinDirectory, node: &NodeSpec) -> Result<Ebpf, DataplaneError> {
    use abi::map;
    use shifter_common::socket::{SOCKETS_PER_BACKEND, map as sockets};
    let sizes = &node.sizes;
    let mut loader = EbpfLoader::new();
    for name in map::ALL.into_iter().chain(sockets::ALL) {
        loader.map_pin_path(name, directory.map(name));
    }
    for (name, count) in [
        (map::STEERING, sizes.services_count),
        (map::SERVICES, sizes.services_count),
        (map::VIPS, sizes.services_count * abi::VIPS_PER_SERVICE),
        (map::VIP_ADDRS, sizes.services_count * abi::VIPS_PER_SERVICE),
        (
            map::REGIONS,
            sizes.services_count * abi::REGIONS_PER_SERVICE,
        ),
        (map::TABLES, sizes.table_entries_count / 2),
        (map::BACKENDS, sizes.backends_count),
        (map::BACKEND_SERVICES, sizes.backends_count),
        (map::FLOWS, sizes.flows_count),
        (map::PENDING, sizes.pending_count),
        (map::SLOT_COUNTERS, sizes.services_count * 2),
        (map::BACKEND_COUNTERS, sizes.backends_count),
        (
            sockets::LISTENERS,
            sizes.backends_count * SOCKETS_PER_BACKEND,
        ),
        (sockets::BACKEND_SOCKETS, sizes.backends_count),
        (sockets::CAPTURES, sizes.backends_count * 3),
        (sockets::SOCKET_COUNTERS, sizes.services_count * 2),
    ] {
        loader.map_max_entries(name, pinned_count(&directory.map(name), name, count)?);
    }
    loader.load(OBJECT).map_err(|error| load_error(&error))
}

/// Entries of a map: those it was built with if it is pinned, else those the node file asks for.
fn pinned_count(pin: &Path, name: &str, asked_count: u32) -> Result<u32, DataplaneError> {
    if !pin.exists() {
        return Ok(asked_count);
    }
    let built_count = MapData::from_pin(pin)
        .and_then(|map| map.info().map(|info| info.max_entries()))
        .map_err(|error| maps::map_error(format!("opening the pin of {name}"), error))?;
    if built_count != asked_count {
        tracing::warn!(
            "{name} has {built_count} entries, the node file asks for {asked_count}: that takes \
             effect after: shifterctl detach && systemctl restart shifterd"
        );
    }
    Ok(built_count)
}

fn load_error(error: &aya::EbpfError) -> DataplaneError {
    DataplaneError::Refused(format!(
        "loading the kernel object: {}; see what the kernel lacks with: shifterctl doctor",
        chain(error)
    ))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn socket_addr(key: &VipKey) -> SocketAddr {
    key.addr.to_socket_addr(key.port)
}

fn vip_key(addr: SocketAddr, protocol: u8) -> VipKey {
    VipKey {
        addr: addr.ip().into(),
        port: Be16::from_host(addr.port()),
        protocol,
        pad: 0,
    }
}

fn add_flows(total: &mut abi::FlowCounters, part: &abi::FlowCounters) {
    total.selected += part.selected;
    total.established += part.established;
    total.refused += part.refused;
    total.closed += part.closed;
    total.reset_by_client += part.reset_by_client;
    total.reset_by_backend += part.reset_by_backend;
}

fn sum_slot(values: impl Iterator<Item = SlotCounters>) -> SlotCounters {
    values.fold(SlotCounters::default(), |mut total, part| {
        add_flows(&mut total.flows, &part.flows);
        total.failed_over += part.failed_over;
        total.unserved += part.unserved;
        total
    })
}

fn sum_backend(values: impl Iterator<Item = BackendCounters>) -> BackendCounters {
    values.fold(BackendCounters::default(), |mut total, part| {
        add_flows(&mut total.flows, &part.flows);
        total.packets_in += part.packets_in;
        total.bytes_in += part.bytes_in;
        total.packets_out += part.packets_out;
        total.bytes_out += part.bytes_out;
        total
    })
}
