//! The socket plane as the daemon sees it: its programs and maps, what is captured for whom, and
//! the connections that carry tags.

mod captures;
mod heir;
mod heritage;
mod lease;
mod links;
mod look;

mod sys;
mod tagged;
mod trouble;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use shifter_common::{
    abi::VipKey,
    socket::{
        BackendSockets, Capture, LookupVerdict, SOCKETS_PER_BACKEND, SocketCounters, host, map,
        program,
    },
    steering::Slot,
};

pub use self::{
    captures::uids,
    heritage::{inherit, let_misfits_go, move_links},
    lease::Lease,
    tagged::TaggedSockets,
};
use super::{super::DataplaneError, directory::PinDirectory, mapped::Mapped, maps::map_error};

/// The socket plane, attached.
pub struct SocketPlane {
    /// The captured listeners.
    listeners: OwnedFd,
    /// Which of them may be selected.
    sockets: Mapped<BackendSockets>,
    captures: HashMap<MapData, VipKey, Capture>,
    counters: PerCpuArray<MapData, SocketCounters>,
    lookups: PerCpuArray<MapData, u64>,
    lease: Arc<Lease>,
    /// The tags of all sockets.
    tags: OwnedFd,
    /// The classifier that captures on demand.
    seize: OwnedFd,
    /// What stands in `captures`, by service.
    entered: BTreeMap<u32, BTreeMap<SocketAddr, Capture>>,
}

impl SocketPlane {
    /// Attaches the programs, or takes over those that are.
    ///
    /// # Errors
    /// What the kernel lacks or refuses.
    pub fn open(object: &mut Ebpf, directory: &PinDirectory) -> Result<Self, DataplaneError> {
        let seize = links::load_seize(object)?;
        links::load_watching(object)?;
        let this = Self {
            listeners: descriptor(directory, map::LISTENERS)?,
            sockets: mapped(directory, map::BACKEND_SOCKETS)?,
            captures: typed(directory, map::CAPTURES, Map::HashMap)?,
            counters: typed(directory, map::SOCKET_COUNTERS, Map::PerCpuArray)?,
            lookups: typed(directory, map::LOOKUP_VERDICTS, Map::PerCpuArray)?,
            lease: Arc::new(Lease::new(mapped(directory, map::HOST)?)),
            tags: descriptor(directory, map::SOCKET_TAGS)?,
            seize,
            entered: BTreeMap::new(),
        };
        this.lease.steer(netns_cookie()?);
        match super::btf::member_offset_bytes("sock", "sk_err") {
            Ok(offset) => this.lease.tell_error_offset(offset),
            Err(error) => tracing::warn!(
                "who ended a connection of the socket plane by force cannot be told, and the breaker \
                 gets no errors from there: {error}; use a kernel with CONFIG_DEBUG_INFO_BTF"
            ),
        }
        let of_sock = |member| super::btf::member_offset_bytes("sock", member);
        match (of_sock("sk_ack_backlog"), of_sock("sk_max_ack_backlog")) {
            (Ok(count), Ok(most)) => this.lease.tell_queue_offsets([count, most]),
            (Err(error), _) | (_, Err(error)) => tracing::warn!(
                "whether an accept queue is full cannot be told, so that on_full = \"failover\" does \
                 nothing: {error}; use a kernel with CONFIG_DEBUG_INFO_BTF"
            ),
        }
        links::attach(object, directory, &program::ATTACHED)?;
        Ok(this)
    }

    /// Has the packets of all sockets looked at, or no more.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn watch(
        object: &mut Ebpf,
        directory: &PinDirectory,
        is_wanted: bool,
    ) -> Result<(), DataplaneError> {
        links::watch(object, directory, is_wanted)
    }

    /// Takes the programs off.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn detach(directory: &PinDirectory) -> Result<(), DataplaneError> {
        links::detach(directory)
    }

    /// What tells the kernel that the daemon is alive.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// Counters of a service's slots.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read(&self, service: u32) -> Result<[SocketCounters; 2], DataplaneError> {
        let mut slots = [SocketCounters::default(); 2];
        for (slot, total) in Slot::ALL.into_iter().zip(&mut slots) {
            let values = self
                .counters
                .get(&(service * 2 + slot.index()), 0)
                .map_err(|error| map_error("reading SOCKET_COUNTERS", error))?;
            values.iter().for_each(|part| total.add(part));
        }
        Ok(slots)
    }

    /// Lookups by verdict.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read_lookups(&self) -> Result<Vec<u64>, DataplaneError> {
        (0..LookupVerdict::COUNT)
            .map(|index| {
                self.lookups
                    .get(&index, 0)
                    .map(|values| values.iter().sum())
                    .map_err(|error| map_error("reading LOOKUP_VERDICTS", error))
            })
            .collect()
    }

    /// Lets a backend's listeners of an epoch be selected.
    pub fn admit(&self, backend: u32, epoch: u32) {
        self.sockets
            .admitted(backend)
            .store(epoch, Ordering::Release);
    }

    /// Forgets everything captured for a backend: its index will be another's.
    pub fn forget(&self, backend: u32) {
        for place in 0..SOCKETS_PER_BACKEND {
            self.release(backend, place);
        }
        self.sockets.captured(backend).store(0, Ordering::Release);
        self.admit(backend, 0);
    }

    /// Takes a listener out of a place.
    fn release(&self, backend: u32, place: u32) {
        self.sockets
            .cookie(backend, place)
            .store(0, Ordering::Release);
        let key = backend * SOCKETS_PER_BACKEND + place;
        if let Err(error) = sys::forget_socket(self.listeners.as_fd(), key) {
            tracing::warn!(backend, place, "a listener cannot be released: {error}");
        }
    }
}

impl Mapped<BackendSockets> {
    fn field<T>(&self, backend: u32, offset: usize) -> *mut T {
        self.at(backend as usize)
            .cast::<u8>()
            .as_ptr()
            .wrapping_add(offset)
            .cast()
    }

    /// The cookie in a place.
    fn cookie(&self, backend: u32, place: u32) -> &AtomicU64 {
        let place = (place % SOCKETS_PER_BACKEND) as usize;
        let offset = std::mem::offset_of!(BackendSockets, cookies) + place * size_of::<u64>();
        // SAFETY: inside an element of the mapping, aligned to eight bytes, accessed atomically.
        unsafe { AtomicU64::from_ptr(self.field(backend, offset)) }
    }

    fn captured(&self, backend: u32) -> &AtomicU32 {
        let offset = std::mem::offset_of!(BackendSockets, captured_epoch);
        // SAFETY: inside an element of the mapping, aligned to four bytes, accessed atomically.
        unsafe { AtomicU32::from_ptr(self.field(backend, offset)) }
    }

    fn admitted(&self, backend: u32) -> &AtomicU32 {
        let offset = std::mem::offset_of!(BackendSockets, admitted_epoch);
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.field(backend, offset)) }
    }
}

/// Opens a pinned map.
fn open(directory: &PinDirectory, name: &str) -> Result<MapData, DataplaneError> {
    MapData::from_pin(directory.map(name))
        .map_err(|error| map_error(format!("opening the pin of {name}"), error))
}

fn descriptor(directory: &PinDirectory, name: &str) -> Result<OwnedFd, DataplaneError> {
    open(directory, name)?
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| DataplaneError::kernel(format!("keeping {name} open"), error))
}

fn mapped<T: Copy>(directory: &PinDirectory, name: &str) -> Result<Mapped<T>, DataplaneError> {
    let data = open(directory, name)?;
    let info = data
        .info()
        .map_err(|error| map_error(format!("reading {name}"), error))?;
    Mapped::new(data.fd().as_fd(), name, info.max_entries())
}

fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(
    directory: &PinDirectory,
    name: &str,
    kind: fn(MapData) -> Map,
) -> Result<T, DataplaneError> {
    kind(open(directory, name)?)
        .try_into()
        .map_err(|error| map_error(format!("opening {name}"), error))
}

/// The number of this network namespace.
fn netns_cookie() -> Result<u64, DataplaneError> {
    use nix::libc;
    use std::os::fd::AsRawFd as _;
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let failed = |error: std::io::Error| {
        DataplaneError::kernel("asking for the network namespace's cookie", error)
    };
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|errno| failed(errno.into()))?;
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: value and length live during the call, and the value has the length.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if code == 0 {
        Ok(cookie)
    } else {
        Err(failed(std::io::Error::last_os_error()))
    }
}

const _: () = assert!(host::COUNT == 5);
