//! Clients on the host itself: which network namespace is steered, the cgroup its hooks sit on, and
//! what they have counted.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use aya::{
    maps::{Array, MapData, PerCpuArray},
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
    util::nr_cpus,
};
use shifter_common::{
    abi::{LocalCounters, map},
    local::LocalOutcome,
    steering::Slot,
    wire::{LocalClientsStatus, LocalSlotStatus},
};

use super::{
    super::DataplaneError,
    BpfDataplane,
    maps::{map_error, typed},
    sys,
};
use crate::{doctor, model::LocalClientsSpec};

/// Where the hooks for the host's own clients sit.
#[derive(Debug)]
pub struct Cgroup {
    /// The mount point of cgroup v2.
    pub path: PathBuf,
    /// The cgroup's id, as links name it.
    pub id: u64,
    /// The directory, to attach to.
    pub directory: File,
}

impl Cgroup {
    /// The root of cgroup v2.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn root() -> Result<Self, String> {
        let path = doctor::cgroup2().ok_or(
            "cgroup v2 is not mounted; mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )?;
        let open = || -> io::Result<(File, u64)> {
            let directory = File::open(&path)?;
            let id = directory.metadata()?.ino();
            Ok((directory, id))
        };
        match open() {
            Ok((directory, id)) => Ok(Self {
                path: path.into(),
                id,
                directory,
            }),
            Err(error) => Err(format!("opening {path}: {error}")),
        }
    }
}

/// Whether the hooks are in place, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalHooks {
    /// They sit on this cgroup.
    On(PathBuf),
    /// The node file says no.
    Off,
    /// They cannot be had; the reason.
    Unavailable(String),
}

impl LocalHooks {
    /// What to do about the lack of something, as the node file wants it.
    ///
    /// # Errors
    /// If the node file insists.
    pub fn without(spec: LocalClientsSpec, why: String) -> Result<Self, DataplaneError> {
        match spec {
            LocalClientsSpec::On => Err(DataplaneError::Refused(format!(
                "[local] clients = \"on\": {why}; or write clients = \"auto\" and do without"
            ))),
            LocalClientsSpec::Auto | LocalClientsSpec::Off => {
                tracing::warn!("clients on this host itself are not steered: {why}");
                Ok(Self::Unavailable(why))
            }
        }
    }

    const fn state(&self) -> &'static str {
        match self {
            Self::On(_) => "on",
            Self::Off => "off",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::On(path) => format!("hooks on the cgroup {}", path.display()),
            Self::Off => "the node file says [local] clients = \"off\"".into(),
            Self::Unavailable(why) => why.clone(),
        }
    }
}

/// The maps of the cgroup hooks.
pub struct LocalMaps {
    netns: Array<MapData, u64>,
    outcomes: PerCpuArray<MapData, u64>,
    slots: PerCpuArray<MapData, LocalCounters>,
    backends: PerCpuArray<MapData, u64>,
}

impl LocalMaps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing or of another type.
    pub fn take(object: &mut aya::Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            netns: typed(object, map::LOCAL_NETNS)?,
            outcomes: typed(object, map::LOCAL_OUTCOMES)?,
            slots: typed(object, map::LOCAL_SLOTS)?,
            backends: typed(object, map::LOCAL_BACKENDS)?,
        })
    }

    /// Says whose sockets are steered: those of the caller's network namespace, or nobody's.
    ///
    /// # Errors
    /// If the kernel does not tell the namespace, or refuses the entry.
    pub fn steer(&mut self, is_on: bool) -> Result<(), DataplaneError> {
        let cookie = if is_on {
            sys::netns_cookie().map_err(|error| {
                DataplaneError::kernel("asking for the network namespace's cookie", error)
            })?
        } else {
            0
        };
        self.netns
            .set(0, cookie, 0)
            .map_err(|error| map_error("writing LOCAL_NETNS", error))
    }

    /// Sets a backend's count to zero.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn clear_backend(&mut self, index: u32) -> Result<(), DataplaneError> {
        let count =
            nr_cpus().map_err(|(_, error)| DataplaneError::kernel("counting CPUs", error))?;
        let zero = aya::maps::PerCpuValues::try_from(vec![0_u64; count])
            .map_err(|error| DataplaneError::kernel("clearing counters", error))?;
        self.backends
            .set(index, zero, 0)
            .map_err(|error| map_error("writing LOCAL_BACKENDS", error))
    }
}

impl BpfDataplane {
    pub(super) fn local_status(&self) -> Result<LocalClientsStatus, DataplaneError> {
        let maps = &self.local;
        let hooks = self.hooks.local();
        let mut outcomes = Vec::new();
        for outcome in LocalOutcome::ALL {
            let values = maps
                .outcomes
                .get(&(*outcome as u32), 0)
                .map_err(|error| map_error("reading LOCAL_OUTCOMES", error))?;
            outcomes.push((outcome.label().to_owned(), values.iter().sum()));
        }
        let mut slots = Vec::new();
        for (name, &service) in &self.services {
            for slot in Slot::ALL {
                slots.push(self.local_slot(name, service, slot)?);
            }
        }
        Ok(LocalClientsStatus {
            state: hooks.state().into(),
            reason: hooks.reason(),
            outcomes,
            slots,
        })
    }

    fn local_slot(
        &self,
        name: &str,
        service: u32,
        slot: Slot,
    ) -> Result<LocalSlotStatus, DataplaneError> {
        let values = self
            .local
            .slots
            .get(&(service * 2 + slot.index()), 0)
            .map_err(|error| map_error("reading LOCAL_SLOTS", error))?;
        let sum = |field: fn(&LocalCounters) -> u64| values.iter().map(field).sum();
        let mut backends = Vec::new();
        for (index, entry) in self.backends_of(service) {
            if u32::from(entry.slot) != slot.index() {
                continue;
            }
            let counts = self
                .local
                .backends
                .get(&index, 0)
                .map_err(|error| map_error("reading LOCAL_BACKENDS", error))?;
            let addr = entry.addr.to_socket_addr(entry.port);
            backends.push((addr.to_string(), counts.iter().sum()));
        }
        Ok(LocalSlotStatus {
            service: name.to_owned(),
            slot,
            selected_count: sum(|counters| counters.selected),
            failed_over_count: sum(|counters| counters.failed_over),
            unserved_count: sum(|counters| counters.unserved),
            backends,
        })
    }
}

/// Attaches a loaded program to a cgroup; the kernel runs it beside all that are there.
///
/// # Errors
/// The kernel's error.
pub fn attach(
    program: &mut CgroupSockAddr,
    cgroup: &Cgroup,
) -> Result<FdLink, Box<dyn std::error::Error>> {
    // The kernel takes no flags here; a link is always one of several.
    let mode = CgroupAttachMode::Single;
    let id = program.attach(cgroup.directory.as_fd(), mode)?;
    let link = program.take_link(id)?;
    Ok(FdLink::try_from(link)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said_or_refused() {
        let why = || "cgroup v2 is not mounted; mount it".to_owned();
        let auto = LocalHooks::without(LocalClientsSpec::Auto, why()).map_err(|e| e.to_string());
        assert_eq!(auto, Ok(LocalHooks::Unavailable(why())));
        let on = LocalHooks::without(LocalClientsSpec::On, why()).map_err(|e| e.to_string());
        assert_eq!(
            on,
            Err(
                "[local] clients = \"on\": cgroup v2 is not mounted; mount it; or write clients \
                 = \"auto\" and do without"
                    .into()
            )
        );
        let rows = [
            (
                LocalHooks::On("/sys/fs/cgroup".into()),
                "on: hooks on the cgroup /sys/fs/cgroup",
            ),
            (
                LocalHooks::Off,
                "off: the node file says [local] clients = \"off\"",
            ),
            (
                LocalHooks::Unavailable(why()),
                "unavailable: cgroup v2 is not mounted; mount it",
            ),
        ];
        for (hooks, expected) in rows {
            assert_eq!(format!("{}: {}", hooks.state(), hooks.reason()), expected);
        }
    }
}
