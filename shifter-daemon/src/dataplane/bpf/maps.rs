//! All maps of the packet path, typed.

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray},
};
use shifter_common::abi::{
    BackendCounters, BackendEntry, BackendService, ServiceEntry, SlotCounters, TargetKey, VipEntry,
    VipKey, map,
};

use super::{super::DataplaneError, addr_sets::AddrSets, mapped::Mapped};

/// The maps the daemon writes or reads, apart from the flow tables.
pub struct Maps {
    /// Steering word by service index.
    pub steering: Mapped<u64>,
    /// Packed region by [`shifter_common::abi::Region::index`].
    pub regions: Mapped<u64>,
    /// Lookup tables.
    pub tables: Mapped<[u32; 2]>,
    /// Backends by index.
    pub backends: Mapped<BackendEntry>,
    /// Services by index.
    pub services: Array<MapData, ServiceEntry>,
    /// VIPs.
    pub vips: HashMap<MapData, VipKey, VipEntry>,
    /// VIP by service and ordinal.
    pub vip_addrs: Array<MapData, VipKey>,
    /// Service by backend address.
    pub backend_services: HashMap<MapData, VipKey, BackendService>,
    /// What `vips` holds, for fast reading.
    pub vip_sets: AddrSets,
    /// What `backend_services` holds.
    pub backend_sets: AddrSets,
    /// Packets by verdict.
    pub verdicts: PerCpuArray<MapData, u64>,
    /// Counters by service and slot.
    pub slot_counters: PerCpuArray<MapData, SlotCounters>,
    /// Counters by backend.
    pub backend_counters: PerCpuArray<MapData, BackendCounters>,
    /// Target rules.
    pub targets: LpmTrie<MapData, TargetKey, u32>,
    /// Settings by number.
    pub settings: Array<MapData, u32>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing, of another type, or cannot be mapped.
    pub fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            steering: mapped(object, map::STEERING)?,
            regions: mapped(object, map::REGIONS)?,
            tables: mapped(object, map::TABLES)?,
            backends: mapped(object, map::BACKENDS)?,
            services: typed(object, map::SERVICES)?,
            vips: typed(object, map::VIPS)?,
            vip_addrs: typed(object, map::VIP_ADDRS)?,
            backend_services: typed(object, map::BACKEND_SERVICES)?,
            vip_sets: AddrSets::new(mapped(object, map::VIP_SETS)?),
            backend_sets: AddrSets::new(mapped(object, map::BACKEND_SETS)?),
            verdicts: typed(object, map::VERDICTS)?,
            slot_counters: typed(object, map::SLOT_COUNTERS)?,
            backend_counters: typed(object, map::BACKEND_COUNTERS)?,
            targets: typed(object, map::TARGETS)?,
            settings: typed(object, map::SETTINGS)?,
        })
    }
}

fn untyped(object: &mut Ebpf, name: &str) -> Result<Map, DataplaneError> {
    object.take_map(name).ok_or_else(|| {
        DataplaneError::Refused(format!(
            "the kernel object has no map {name}: shifterd is built wrong"
        ))
    })
}

/// Takes a map as the type it is used as.
///
/// # Errors
/// If it is missing or of another type.
pub fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(
    object: &mut Ebpf,
    name: &str,
) -> Result<T, DataplaneError> {
    untyped(object, name)?
        .try_into()
        .map_err(|error: aya::maps::MapError| {
            DataplaneError::Refused(format!("map {name}: {error}"))
        })
}

/// Maps an array.
///
/// # Errors
/// If it is missing, of another type, or cannot be mapped.
pub fn mapped<T: aya::Pod>(object: &mut Ebpf, name: &str) -> Result<Mapped<T>, DataplaneError> {
    let Map::Array(data) = untyped(object, name)? else {
        return Err(DataplaneError::Refused(format!(
            "map {name} is not an array"
        )));
    };
    let info = data
        .info()
        .map_err(|error| DataplaneError::Refused(format!("map {name}: {error}")))?;
    use std::os::fd::AsFd as _;
    Mapped::new(data.fd().as_fd(), name, info.max_entries())
}

/// Turns aya's map error into ours, keeping the kernel's number where there is one.
pub fn map_error(what: impl Into<String>, error: aya::maps::MapError) -> DataplaneError {
    use aya::maps::MapError;
    match error {
        MapError::SyscallError(error) => DataplaneError::kernel(what, error.io_error),
        MapError::KeyNotFound => DataplaneError::kernel(what, nix::Error::ENOENT),
        other => DataplaneError::Refused(format!("{}: {other}", what.into())),
    }
}
