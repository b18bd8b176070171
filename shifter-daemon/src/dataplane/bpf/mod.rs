//! The kernel's packet path: loading, pinning, adopting, publishing.
//!
//! What the kernel holds is the truth. This module keeps no second copy of it: indexes and names are
//! read back from the maps at the start, tables are compared with what is mapped.

mod addr_sets;
mod breaker;
mod btf;
mod carry;
mod claims;
mod departure;
mod detour;
mod directory;
mod flows;
mod hooks;
mod host_vips;
mod links;
mod local;
mod log;
mod mapped;
mod maps;
mod news;
mod observe;
mod pace;
mod publish;
mod raw;
mod read;
mod regions;
mod rehearsal;
mod reset;
mod rest;
mod retire;
mod roster;
mod sizing;
mod socket;
mod socket_plans;
mod succession;
mod sys;
mod tables;
mod targets;
mod vips;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use aya::{Ebpf, EbpfLoader, maps::MapData};
use shifter_common::{
    abi::{self, BackendCounters, BackendEntry, BackendService, SlotCounters, VipKey, setting},
    addr::Be16,
    steering::{Slot, SteeringWord},
    wire::{InterfaceStatus, LocalClientsStatus},
};
use std::net::{IpAddr, SocketAddr};

use self::{
    directory::{PinDirectory, Pinned},
    flows::BpfFlowTable,
    hooks::Hooks,
    local::LocalMaps,
    maps::Maps,
    roster::Roster,
    vips::Vips,
};
pub use self::{log::KernelLog, news::KernelNews, socket::Lease};
use super::{
    Bypass, Census, Dataplane, DataplaneError, FlowTable, HostView, ListenerReading, LostPath,
    Publication, PublishedService, ServicePlan, ServiceReading,
};
use crate::model::NodeSpec;

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
    local: LocalMaps,
    /// The programs, to hook what appears later.
    object: Ebpf,
    directory: PinDirectory,
    was_adopted: bool,
    breaker: breaker::BreakerMaps,
    observe: observe::ObserveMaps,
    /// Services of the socket plane in whose connections something is looked at; not known before the
    /// first is published.
    observed_sockets: Option<BTreeSet<u32>>,
    /// The socket plane, or why it cannot be had.
    socket: Result<socket::SocketPlane, String>,
    /// Service index by name.
    services: BTreeMap<String, u32>,
    /// Every VIP the kernel knows, retired ones included.
    vips: Vips,
    /// Service and VIP count by backend address, as the kernel knows them.
    owners: HashMap<VipKey, BackendService>,
    /// Target rules in the kernel.
    targets: targets::Entered,
    /// Backend indexes in use and free.
    roster: Roster,
    /// The last plan of each service that is wholly in force.
    in_force: BTreeMap<u32, ServicePlan>,
    /// What was last dealt into tables: to tell a weight change from a table change, and to deal
    /// the next on top of it.
    deals: tables::Deals,
    /// Slots whose bank was flipped since programs were last waited for.
    flipped: BTreeSet<(u32, Slot)>,
    /// Backend indexes that stand in a plan; the others may be freed once no flow refers to them.
    planned_backends: BTreeSet<u32>,
    /// Services whose new connections go around shifter.
    bypassed: BTreeSet<String>,
    /// Their ways, as they were last put in force; not known at the start.
    ways: Option<Vec<Bypass>>,
    /// What publications have cost so far.
    effort: Effort,
}

/// What publications have cost, in calls and steps: time would say more about the machine.
#[derive(Debug, Default)]
pub struct Effort {
    /// System calls that read or change a map.
    pub map_calls: Cell<u64>,
    /// Backend entries that were looked at.
    pub backends_seen: Cell<u64>,
}

impl Effort {
    fn call(&self) {
        self.map_calls.set(self.map_calls.get() + 1);
    }
}

impl BpfDataplane {
    /// Builds the packet path, or takes over the one that is pinned, and hooks the interfaces.
    ///
    /// # Errors
    /// If bpffs is not mounted, another daemon holds the pins, the kernel refuses a program, or an
    /// interface cannot be hooked as asked; each says what to do.
    pub fn open(node: &NodeSpec) -> Result<Self, DataplaneError> {
        let mut directory = PinDirectory::lock(&node.bpffs)?;
        sizing::check(&node.sizes)?;
        let pinned = find(&directory)?;
        let was_adopted = pinned.in_force.is_some();
        let mut object = match &pinned.in_force {
            None => {
                directory.begin()?;
                let object = load(&directory, node)?;
                succession::describe(&directory)?;
                directory.commit()?;
                object
            }
            Some(path) if is_ours(&directory, path)? => {
                socket::let_misfits_go(&directory, &node.sizes)?;
                let mut object = load(&directory, node)?;
                if !pinned.former.is_empty() {
                    succession::resume(&directory, &mut object, &pinned.former)?;
                }
                object
            }
            Some(_) => succession::succeed(&mut directory, node, &pinned)?,
        };
        let flow_table = Arc::new(BpfFlowTable::open(&object, node.idle)?);
        // Programs are loaded while the object still holds its maps.
        let is_resting = was_adopted && Hooks::are_resting(&directory)?;
        let hooks = Hooks::attach(&mut object, node, &directory, is_resting)?;
        let socket = Self::open_socket_plane(&mut object, &directory);
        if socket.is_ok() {
            flow_table.watch(socket::TaggedSockets::open(&directory)?);
        }
        let maps = Maps::take(&mut object)?;
        let breaker = breaker::BreakerMaps::take(&mut object)?;
        let observe = observe::ObserveMaps::take(&mut object)?;
        let mut local = LocalMaps::take(&mut object)?;
        local.steer(hooks.has_local())?;
        let mut this = Self {
            maps,
            flow_table,
            hooks,
            local,
            object,
            directory,
            was_adopted,
            breaker,
            observe,
            observed_sockets: None,
            socket,
            services: BTreeMap::new(),
            vips: Vips::default(),
            owners: HashMap::new(),
            targets: BTreeMap::new(),
            roster: Roster::default(),
            in_force: BTreeMap::new(),
            deals: tables::Deals::default(),
            flipped: BTreeSet::new(),
            planned_backends: BTreeSet::new(),
            bypassed: BTreeSet::new(),
            ways: None,
            effort: Effort::default(),
        };
        this.tell_syn_ack_number()?;
        this.recall()?;
        Ok(this)
    }

    /// Tells the programs where the kernel keeps the number of a SYN/ACK.
    fn tell_syn_ack_number(&mut self) -> Result<(), DataplaneError> {
        let offset = btf::member_offset_bytes("tcp_request_sock", "snt_isn").unwrap_or_else(|error| {
            tracing::warn!(
                "a handshake whose entry a flood of SYNs has taken is found again only when its backend \
                 speaks: {error}; use a kernel with CONFIG_DEBUG_INFO_BTF"
            );
            0
        });
        self.maps
            .settings
            .set(setting::SYN_ACK_NUMBER_OFFSET, offset, 0)
            .map_err(|error| maps::map_error("writing SETTINGS", error))
    }

    /// Reads names and VIPs back from the maps.
    fn recall(&mut self) -> Result<(), DataplaneError> {
        self.services = self.names()?;
        // An adopted table may have been retired a moment before its daemon died.
        self.flipped = self
            .services
            .values()
            .flat_map(|&service| Slot::ALL.map(|slot| (service, slot)))
            .collect();
        for entry in self.maps.vips.iter() {
            let (key, entry) = entry.map_err(|error| maps::map_error("reading VIPS", error))?;
            self.vips.insert((socket_addr(&key), key.protocol), entry);
        }
        for entry in self.maps.backend_services.iter() {
            let (key, owner) =
                entry.map_err(|error| maps::map_error("reading BACKEND_SERVICES", error))?;
            self.owners.insert(key, owner);
        }
        let vips = self.vips.iter();
        let vips = vips.map(|((vip, protocol), entry)| (vip_key(vip, protocol), entry.word()));
        self.maps.vip_sets.fill(vips, grace_period)?;
        let owners = self.owners.iter().map(|(key, owner)| (*key, owner.word()));
        self.maps.backend_sets.fill(owners, grace_period)?;
        self.recall_targets()?;
        for index in self.services.values() {
            self.breaker.resume(*index, self.word(*index));
        }
        let table = &self.maps.backends;
        self.roster = Roster::read((0..table.len()).map(|index| table.read(index)));
        // Until a plan says otherwise every backend found here stays.
        self.planned_backends = self.roster.used().collect();
        for (name, index) in &self.services {
            self.flow_table.set_name(name, Some(*index));
        }
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
        self.roster.of(service).map(|index| {
            self.effort
                .backends_seen
                .set(self.effort.backends_seen.get() + 1);
            (index, self.maps.backends.read(index as usize))
        })
    }

    /// What tells at once that the kernel has taken a canary out of traffic.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch_trips(&self) -> Result<KernelNews, DataplaneError> {
        KernelNews::open(&self.directory, shifter_common::breaker::map::TRIP_EVENTS)
    }

    /// What publications have cost so far.
    pub fn effort(&self) -> &Effort {
        &self.effort
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

    fn breaker(&self, service: &str) -> Result<super::BreakerReading, DataplaneError> {
        match self.services.get(service) {
            Some(index) => self.breaker.read(*index),
            None => Ok(super::BreakerReading::default()),
        }
    }

    fn tripped(&self) -> Vec<(String, SteeringWord)> {
        let words = self.services.iter();
        words
            .map(|(name, index)| (name.clone(), self.word(*index)))
            .filter(|(_, word)| word.tripped())
            .collect()
    }

    fn verdicts(&self) -> Result<Vec<u64>, DataplaneError> {
        self.read_verdicts()
    }

    fn flow_table(&self) -> Arc<dyn FlowTable> {
        Arc::<BpfFlowTable>::clone(&self.flow_table)
    }

    fn retire(&mut self, census: &Census) -> Result<(), DataplaneError> {
        self.retire_unreferenced(census)?;
        self.rest_or_wake(census)
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.hooks.status()
    }

    fn local_clients(&self) -> Result<LocalClientsStatus, DataplaneError> {
        self.local_status()
    }

    fn tend(&mut self) -> Vec<String> {
        self.hooks.tend(&mut self.object, &self.directory)
    }

    fn program_tags(&self) -> Vec<(String, u64)> {
        links::tags(&self.object)
    }

    fn pins(&self) -> String {
        self.directory.path().display().to_string()
    }

    fn was_adopted(&self) -> bool {
        self.was_adopted
    }

    fn lost_paths(&self) -> Vec<LostPath> {
        let vips = self.vips.iter().filter(|(_, entry)| entry.is_retired == 0);
        let vips = vips.map(|((vip, _), entry)| (vip, self.name_of(entry.service)));
        // The ways around go with the rest.
        let ways = self.ways.iter().flatten();
        let vips = vips.chain(ways.flat_map(|way| {
            let vips = way.vips.iter();
            vips.map(|vip| (*vip, way.service.clone()))
        }));
        let mut own = crate::paths::Own::gather();
        // What shifterd has given the host goes with it.
        for ip in host_vips::held().unwrap_or_default() {
            own.addresses.remove(&ip);
        }
        departure::lost(vips, &own)
    }

    fn held_vips(&self) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        host_vips::held()
    }

    fn hold_vips(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        kept: &BTreeSet<IpAddr>,
    ) -> Result<(), DataplaneError> {
        host_vips::hold(wanted, kept)
    }

    fn bypass(&mut self, ways: &[Bypass]) -> Result<(), DataplaneError> {
        self.put_bypass(ways)
    }

    fn expect_bypass(&mut self, services: Vec<String>) {
        self.bypassed = services.into_iter().collect();
    }

    fn detach(&mut self) -> Result<Vec<String>, DataplaneError> {
        let names = self
            .hooks
            .status()
            .into_iter()
            .map(|interface| interface.name)
            .collect();
        socket::SocketPlane::detach(&self.directory)?;
        let pinned = self.directory.survey()?;
        departure::tear_down(&self.directory, &pinned)?;
        self.hooks.forget();
        crate::bypass::remove()?;
        host_vips::hold(&BTreeSet::new(), &BTreeSet::new())?;
        Ok(names)
    }
}

/// Takes everything off that is pinned below a bpffs, without a daemon.
///
/// # Errors
/// If a daemon holds it, something would break and `force` is not set, or the kernel refuses.
pub fn detach_pinned(
    bpffs: &Path,
    force: bool,
    keep_bypass: bool,
) -> Result<String, DataplaneError> {
    let directory = PinDirectory::lock(bpffs)?;
    let pinned = match directory.survey() {
        Err(_) if force => directory.all()?,
        survey => survey?,
    };
    let own = crate::paths::Own::gather();
    let breaks = match departure::survey(&pinned, &own, keep_bypass) {
        Err(_) if force => String::new(),
        departure => departure?.to_string(),
    };
    if !breaks.is_empty() && !force {
        return Err(DataplaneError::Refused(format!(
            "{breaks}; send the clients elsewhere first, or break them with: shifterd --detach --force"
        )));
    }
    let links_count = departure::tear_down(&directory, &pinned)?;
    if !keep_bypass {
        crate::bypass::remove()?;
        // Where new connections go around shifter they still come to the address.
        host_vips::hold(&BTreeSet::new(), &BTreeSet::new())?;
    }
    Ok(match links_count {
        0 => "nothing was attached".to_owned(),
        1 => "1 program taken off".to_owned(),
        count => format!("{count} programs taken off"),
    })
}

/// Sends the new connections of all services that are pinned around shifter, without a daemon. Gives
/// their names.
///
/// # Errors
/// If a daemon holds the pins, there is no nft, or the kernel refuses.
pub fn bypass_pinned(bpffs: &Path) -> Result<Vec<String>, DataplaneError> {
    let directory = PinDirectory::lock(bpffs)?;
    detour::of_pinned(&directory.survey()?)
}

/// What is pinned. Of a dataplane of this version that is not whole, the remains are removed: its
/// programs would steer by maps that nobody can reach any more.
fn find(directory: &PinDirectory) -> Result<Pinned, DataplaneError> {
    let mut pinned = directory.survey()?;
    if let Some(path) = &pinned.in_force
        && path == directory.path()
        && !PinDirectory::is_whole(path)
        && !describes_itself(path)
    {
        tracing::warn!(
            "{} is not whole: it is removed and built anew",
            path.display()
        );
        directory.forget(path)?;
        pinned.in_force = None;
    }
    Ok(pinned)
}

/// Whether a dataplane says what its maps hold, and has those maps: then another build's may take it
/// over, whatever else it lacks.
fn describes_itself(path: &Path) -> bool {
    let Ok(Some(text)) = succession::description(path) else {
        return false;
    };
    let Ok(description) = super::layout::Description::parse(&text) else {
        // A later version's: refusing to touch it is not decided here.
        return !text.is_empty();
    };
    let maps = path.join("maps");
    let mut names = description.maps.keys();
    names.all(|name| maps.join(name).exists())
}

/// Whether a pinned dataplane has our maps, so that our programs can be put over them.
fn is_ours(directory: &PinDirectory, path: &Path) -> Result<bool, DataplaneError> {
    if path != directory.path() || !PinDirectory::is_whole(path) {
        return Ok(false);
    }
    let text = succession::description(path)
        .map_err(|error| DataplaneError::kernel("reading LAYOUT", error))?;
    Ok(text.as_deref() == Some(super::layout::own_text().as_str()))
}

/// Loads the programs over the pinned maps; maps that are not pinned yet are created and pinned.
fn load(directory: &PinDirectory, node: &NodeSpec) -> Result<Ebpf, DataplaneError> {
    use abi::map;
    use shifter_common::{
        breaker::{COHORT_COUNT, SOURCE_CELLS, map as breaker},
        observe::map as observe,
        socket::{SOCKETS_PER_BACKEND, map as sockets},
    };
    let sizes = &node.sizes;
    let mut loader = EbpfLoader::new();
    let parts = map::ALL.into_iter().chain(sockets::ALL);
    for name in parts.chain(breaker::ALL).chain(observe::ALL) {
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
        (map::LOCAL_SLOTS, sizes.services_count * 2),
        (map::LOCAL_BACKENDS, sizes.backends_count),
        (
            sockets::LISTENERS,
            sizes.backends_count * SOCKETS_PER_BACKEND,
        ),
        (breaker::BREAKER_RULES, sizes.services_count),
        (breaker::BREAKER_STATE, sizes.services_count),
        (breaker::COHORTS, sizes.services_count * COHORT_COUNT),
        (
            breaker::BREAKER_CELLS,
            sizes.services_count * SOURCE_CELLS as u32,
        ),
        (breaker::BREAKER_COUNTERS, sizes.services_count),
        (breaker::TRIPS, sizes.services_count),
        (observe::OBSERVE_RULES, sizes.services_count),
        (sockets::BACKEND_SOCKETS, sizes.backends_count),
        (sockets::CAPTURES, sizes.backends_count * 3),
        (sockets::SOCKET_COUNTERS, sizes.services_count * 2),
    ] {
        loader.map_max_entries(name, pinned_count(&directory.map(name), name, count)?);
    }
    loader
        .load(&rehearsal::object(OBJECT))
        .map_err(|error| load_error(&error))
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

/// Waits until no program runs that runs now.
fn grace_period() -> Result<(), DataplaneError> {
    sys::wait_for_running_programs().map_err(|error| DataplaneError::kernel("membarrier", error))
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
    total.unanswered += part.unanswered;
}

fn sum_slot(values: impl Iterator<Item = SlotCounters>) -> SlotCounters {
    values.fold(SlotCounters::default(), |mut total, part| {
        add_flows(&mut total.flows, &part.flows);
        total.failed_over += part.failed_over;
        total.unserved += part.unserved;
        total.targeted += part.targeted;
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
