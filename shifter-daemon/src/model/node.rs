//! The node as `shifter.toml` describes it.

use std::{net::SocketAddr, path::PathBuf};

use super::IdleSpec;

/// Settings of the host, fixed while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Interfaces clients come in by; at least one.
    pub interfaces: Vec<InterfaceSpec>,
    /// Control socket, default `/run/shifter/shifter.sock`.
    pub control_socket: PathBuf,
    /// Address of the metrics endpoint, default `127.0.0.1:9977`; `None` if switched off.
    pub metrics: Option<SocketAddr>,
    /// State directory, default `/var/lib/shifter`.
    pub state_dir: PathBuf,
    /// Mounted bpffs, default `/sys/fs/bpf`; pins go to `shifter/` below it.
    pub bpffs: PathBuf,
    /// Directory of the service files, default `services.d` beside the node file.
    pub services_dir: PathBuf,
    /// Whether clients on the host itself are steered.
    pub local_clients: LocalClientsSpec,
    /// Sizes of the kernel tables.
    pub sizes: SizeSpec,
    /// How long flows may be silent.
    pub idle: IdleSpec,
}

/// Whether connections that the host itself makes to a VIP are steered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalClientsSpec {
    /// Where the kernel and the host allow it.
    #[default]
    Auto,
    /// Yes, or shifterd does not start.
    On,
    /// No: the host answers them itself.
    Off,
}

/// An interface clients come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Name.
    pub name: String,
    /// Which hook to use.
    pub hook: HookSpec,
    /// The operator asserts that packets arrive with complete checksums although the NIC is
    /// virtual (the peer has checksum offload off), so that XDP may rewrite what is forwarded.
    pub checksums_complete: bool,
}

/// Which hook to use on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookSpec {
    /// Native XDP on a real NIC that supports it, TC elsewhere.
    #[default]
    Auto,
    /// Native XDP or nothing.
    Xdp,
    /// XDP run by the kernel's stack.
    XdpGeneric,
    /// TC.
    Tc,
}

/// Sizes of the kernel tables, fixed when the dataplane is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeSpec {
    /// Services.
    pub services_count: u32,
    /// Backends of all services.
    pub backends_count: u32,
    /// Established flows.
    pub flows_count: u32,
    /// Flows in handshake.
    pub pending_count: u32,
    /// Lookup table entries of all services.
    pub table_entries_count: u32,
}

impl Default for SizeSpec {
    fn default() -> Self {
        use shifter_common::abi::capacity;
        Self {
            services_count: capacity::SERVICES,
            backends_count: capacity::BACKENDS,
            flows_count: capacity::FLOWS,
            pending_count: capacity::PENDING,
            table_entries_count: capacity::TABLE_ENTRIES,
        }
    }
}
