//! What the maps of the observation hold.

use super::{http::Response, watch::Watch};
use crate::{addr::Addr, histogram::BUCKET_COUNT};

/// Names of the maps, as pinned.
pub mod map {
    /// `Array<ObserveRules>`, mmapable, by service: what is looked at.
    pub const OBSERVE_RULES: &str = "OBSERVE_RULES";
    /// `LruHashMap<FlowKey, Watch>`: connections of the nat plane that are watched.
    pub const WATCHED: &str = "WATCHED";
    /// `SkStorage<WatchedSocket>`: connections of the socket plane that are watched.
    pub const WATCHED_SOCKETS: &str = "WATCHED_SOCKETS";
    /// `PerCpuArray<Observed>` by `row * 2 + slot`.
    pub const OBSERVED: &str = "OBSERVED";
    /// All maps, in the order they are pinned.
    pub const ALL: [&str; 4] = [OBSERVE_RULES, WATCHED, WATCHED_SOCKETS, OBSERVED];
}

/// Services that can be observed at once: each takes 6 KiB a processor.
pub const OBSERVED_COUNT: u32 = 256;
/// Connections of the nat plane that are watched at once; of more, those that were quiet longest are no
/// longer.
pub const WATCHED_COUNT: u32 = 65_536;

/// Bits of [`ObserveRules::what`].
pub mod what {
    /// How long handshakes and first bytes take.
    pub const LATENCY: u32 = 1 << 0;
    /// The status of responses of HTTP/1.x.
    pub const HTTP: u32 = 1 << 1;
    /// The service has a row. It keeps it when nothing is looked at any more.
    pub const HAS_ROW: u32 = 1 << 2;
    /// What costs anything.
    pub const ANY: u32 = LATENCY | HTTP;
}

/// What is looked at in the connections of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserveRules {
    /// Bits of [`what`].
    pub what: u32,
    /// Which row of `OBSERVED` the service has.
    pub row: u32,
}
const _: () = assert!(size_of::<ObserveRules>() == 8);

/// Durations of one kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// How many fell into each bucket of [`crate::histogram`].
    pub counts: [u64; BUCKET_COUNT],
    /// All of them together, ns.
    pub sum_ns: u64,
}

impl Waits {
    /// None.
    pub const NONE: Self = Self {
        counts: [0; BUCKET_COUNT],
        sum_ns: 0,
    };

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to = to.wrapping_add(*from);
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What was seen of a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// From the client's SYN to the backend's answer to it.
    pub connect: Waits,
    /// From the client's first data to the backend's.
    pub first_byte: Waits,
    /// Responses by [`Response`].
    pub responses: [u64; Response::COUNT],
}
const _: () = assert!(size_of::<Observed>() == (2 * (BUCKET_COUNT + 1) + Response::COUNT) * 8);

impl Observed {
    /// Adds what another processor saw.
    pub fn add(&mut self, other: &Self) {
        self.connect.add(&other.connect);
        self.first_byte.add(&other.first_byte);
        for (to, from) in self.responses.iter_mut().zip(&other.responses) {
            *to = to.wrapping_add(*from);
        }
    }
}

/// A connection of the socket plane that is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedSocket {
    /// What is known of it.
    pub watch: Watch,
    /// Its client.
    pub client: Addr,
    /// The client's port, network byte order.
    pub client_port: u16,
    /// The cohort it was selected in.
    pub cohort: u8,
    /// 1 once its first error was told.
    pub has_failed: u8,
    /// Service index.
    pub service: u32,
}
const _: () = assert!(size_of::<WatchedSocket>() == 64);

#[cfg(feature = "user")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one comment stands for all of them"
)]
mod pod {
    use super::*;
    // SAFETY: all of these are repr(C), have explicit padding (see the size assertions), contain
    // integers only, and every bit pattern is valid.
    unsafe impl aya::Pod for ObserveRules {}
    unsafe impl aya::Pod for Watch {}
    unsafe impl aya::Pod for Observed {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processors_saw_adds_up() {
        let mut one = Observed::default();
        one.connect.counts[3] = 2;
        one.connect.sum_ns = 7;
        one.first_byte.counts[BUCKET_COUNT - 1] = 1;
        one.responses[Response::ServerError as usize] = 5;
        let mut sum = one;
        sum.add(&one);
        assert_eq!((sum.connect.counts[3], sum.connect.sum_ns), (4, 14));
        assert_eq!(sum.first_byte.counts[BUCKET_COUNT - 1], 2);
        assert_eq!(sum.responses, [0, 0, 0, 0, 10, 0]);
    }
}
