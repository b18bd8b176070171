//! The daemon's lease: while it is fresh, the kernel leaves it to the daemon's probes who is
//! readmitted.

use std::sync::atomic::Ordering;

use shifter_common::socket::host;

use super::super::{mapped::Mapped, sys::monotonic_ns};

/// Numbers of the host that the programs read.
pub struct Lease {
    host: Mapped<u64>,
}

// SAFETY: the mapping is accessed by atomic loads and stores only.
unsafe impl Sync for Lease {}

impl Lease {
    pub(super) fn new(host: Mapped<u64>) -> Self {
        Self { host }
    }

    /// Says whose sockets are captured.
    pub(super) fn steer(&self, netns_cookie: u64) {
        self.renew();
        self.host
            .atomic(host::NETNS_COOKIE as usize)
            .store(netns_cookie, Ordering::Release);
    }

    /// Tells the programs where a socket keeps its error.
    pub(super) fn tell_error_offset(&self, offset_bytes: u32) {
        self.host
            .atomic(host::ERROR_OFFSET as usize)
            .store(offset_bytes.into(), Ordering::Release);
    }

    /// Tells the programs where a listener counts the connections that wait to be accepted, and where
    /// how many may.
    pub(super) fn tell_queue_offsets(&self, [count, most]: [u32; 2]) {
        for (index, offset_bytes) in [(host::QUEUE_OFFSET, count), (host::QUEUE_MAX_OFFSET, most)] {
            self.host
                .atomic(index as usize)
                .store(offset_bytes.into(), Ordering::Release);
        }
    }

    /// Says that the daemon is alive. To be called every second.
    pub fn renew(&self) {
        self.host
            .atomic(host::LEASE_NS as usize)
            .store(monotonic_ns(), Ordering::Release);
    }
}
