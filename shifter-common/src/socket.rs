//! The map ABI of the socket plane: steering to sockets that listen on this host.
//!
//! What is said in [`crate::abi`] of layouts and versions holds here too. The steering word, the
//! services, VIPs, backends and lookup tables are those of `abi`: both planes choose alike.

use crate::{addr::Addr, addr::Be16, steering::Slot};

/// Listening sockets one backend may have: the members of a `SO_REUSEPORT` group that are held.
/// Any one of them leads to the whole group; the others are there for when it closes.
pub const SOCKETS_PER_BACKEND: u32 = 16;

/// Names of the maps, as pinned.
pub mod map {
    /// `SockMap` (u64 values) by `backend * SOCKETS_PER_BACKEND + place`: the captured listeners.
    pub const LISTENERS: &str = "LISTENERS";
    /// `Array<BackendSockets>`, mmapable, by backend index.
    pub const BACKEND_SOCKETS: &str = "BACKEND_SOCKETS";
    /// `HashMap<VipKey, Capture>`: which listener addresses belong to which backends.
    pub const CAPTURES: &str = "CAPTURES";
    /// `SkStorage<SocketTag>`, cloned to accepted sockets: the version a socket belongs to.
    pub const SOCKET_TAGS: &str = "SOCKET_TAGS";
    /// `SkStorage<SocketOwner>`: the user who bound a socket.
    pub const SOCKET_OWNERS: &str = "SOCKET_OWNERS";
    /// `PerCpuArray<SocketCounters>` by `service * 2 + slot`.
    pub const SOCKET_COUNTERS: &str = "SOCKET_COUNTERS";
    /// `PerCpuArray<u64>` by [`super::LookupVerdict`].
    pub const LOOKUP_VERDICTS: &str = "LOOKUP_VERDICTS";
    /// `RingBuf` of [`super::CaptureEvent`].
    pub const CAPTURE_EVENTS: &str = "CAPTURE_EVENTS";
    /// `Array<u64>`, mmapable, by [`super::host`].
    pub const HOST: &str = "HOST";

    /// All maps, in the order they are pinned.
    pub const ALL: [&str; 9] = [
        LISTENERS,
        BACKEND_SOCKETS,
        CAPTURES,
        SOCKET_TAGS,
        SOCKET_OWNERS,
        SOCKET_COUNTERS,
        LOOKUP_VERDICTS,
        CAPTURE_EVENTS,
        HOST,
    ];
}

/// Names of the programs, as pinned.
pub mod program {
    /// `sk_lookup`: chooses the listener of a new connection.
    pub const LOOKUP: &str = "socket_lookup";
    /// `sock_ops`: captures listeners, counts flows.
    pub const OBSERVE: &str = "socket_observe";
    /// `cgroup/post_bind4`: notes who bound a socket.
    pub const BOUND_V4: &str = "socket_bound4";
    /// `cgroup/post_bind6`: notes who bound a socket.
    pub const BOUND_V6: &str = "socket_bound6";
    /// Classifier that is only run on demand: captures a listener older than the programs.
    pub const SEIZE: &str = "socket_seize";
    /// `cgroup_skb/ingress`: what clients send to watched connections.
    pub const SEEN_IN: &str = "socket_seen_in";
    /// `cgroup_skb/egress`: what versions answer.
    pub const SEEN_OUT: &str = "socket_seen_out";
    /// The programs that are attached while a service of this plane is observed: they see every packet.
    pub const WATCHING: [&str; 2] = [SEEN_IN, SEEN_OUT];
    /// The programs that are always attached, in the order in which they are: whoever bound before the
    /// first is captured on demand.
    pub const ATTACHED: [&str; 4] = [BOUND_V4, BOUND_V6, OBSERVE, LOOKUP];
}

/// Indexes into `HOST`.
pub mod host {
    /// Cookie of the steered network namespace; 0 captures nothing.
    pub const NETNS_COOKIE: u32 = 0;
    /// When the daemon was last seen alive, nanoseconds of the boot clock.
    pub const LEASE_NS: u32 = 1;
    /// Offset of `sk_err` in the kernel's `struct sock`, bytes; 0 if it is not known.
    pub const ERROR_OFFSET: u32 = 2;
    /// Offset of `sk_ack_backlog` in `struct sock`, bytes; 0 if it is not known.
    pub const QUEUE_OFFSET: u32 = 3;
    /// Offset of `sk_max_ack_backlog` in `struct sock`, bytes; 0 if it is not known.
    pub const QUEUE_MAX_OFFSET: u32 = 4;
    /// How many there are.
    pub const COUNT: u32 = 5;
}

/// How long the daemon counts as alive after it was last seen. It renews every second; a machine
/// under load may keep it from that for a while.
pub const LEASE_NS: u64 = 5_000_000_000;

/// Values of [`crate::abi::VipEntry::plane`]: where new connections to a VIP are steered.
pub mod plane {
    /// By rewriting packets.
    pub const NAT: u8 = 0;
    /// To listening sockets.
    pub const SOCKET: u8 = 1;
}

/// The listening sockets of a backend.
///
/// Written by `sock_ops` and by the daemon; every field is valid alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendSockets {
    /// Cookie of the listener in each place of `LISTENERS`; 0 if there is none. A place is looked
    /// at only while this says so: what stands in `LISTENERS` alone is not yet checked.
    pub cookies: [u64; SOCKETS_PER_BACKEND as usize],
    /// How often a listener appeared while there was no other.
    pub captured_epoch: u32,
    /// The `captured_epoch` that the daemon found ready.
    pub admitted_epoch: u32,
}
const _: () = assert!(size_of::<BackendSockets>() == 136);

impl BackendSockets {
    /// Whether any place is taken.
    pub fn is_captured(&self) -> bool {
        self.cookies.iter().any(|cookie| *cookie != 0)
    }
}

/// No backend, in [`Capture::backends`].
pub const NO_BACKEND: u32 = u32::MAX;
/// No place, in [`SocketTag::places`].
pub const NO_PLACE: u8 = u8::MAX;

/// The backends that a listener on some address serves.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Backend for IPv4 clients and for IPv6 clients; [`NO_BACKEND`] if none. Both are the same for
    /// a backend that is one wildcard address.
    pub backends: [u32; 2],
    /// The user, besides root, whose sockets are trusted. 0 for none.
    pub uid: u32,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<Capture>() == 16);

/// What a socket is, in [`SocketTag::kind`].
pub mod tag_kind {
    /// A captured listener.
    pub const LISTENER: u8 = 1;
    /// A connection through a VIP.
    pub const FLOW: u8 = 2;
    /// A connection to the listener's own address: not ours.
    pub const DIRECT: u8 = 3;
}

/// The version a socket belongs to. A listener's tag is copied to each socket it accepts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketTag {
    /// Service index.
    pub service: u32,
    /// Version of the slot when the listener was captured or the connection began; never reused.
    pub version_id: u32,
    /// Backend index for IPv4 and for IPv6; of a flow, both are its own.
    pub backends: [u32; 2],
    /// Backend ids of these, never reused.
    pub backend_ids: [u32; 2],
    /// Place of a listener in each backend; [`NO_PLACE`] if it has none.
    pub places: [u8; 2],
    /// Slot index, 0 or 1.
    pub slot: u8,
    /// One of [`tag_kind`].
    pub kind: u8,
    /// Cohort in force when the connection was established.
    pub cohort: u8,
    /// Zero.
    pub pad: [u8; 3],
}
const _: () = assert!(size_of::<SocketTag>() == 32);

impl SocketTag {
    /// Slot of the version.
    #[inline(always)]
    pub const fn slot(&self) -> Slot {
        Slot::from_index(self.slot as u32)
    }
}

/// Who bound a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOwner {
    /// User id in the initial user namespace.
    pub uid: u32,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of one slot on the socket plane. Lookups count for the slot that the weight
        /// asked for, wherever the connection went in the end; captures for the listener's slot.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SocketCounters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl SocketCounters {
            /// All counters with name and meaning.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
                [$((stringify!($name), self.$name, concat!($($doc,)+).trim_ascii()),)+].into_iter()
            }

            /// Adds another CPU's part.
            pub fn add(&mut self, part: &Self) {
                $(self.$name += part.$name;)+
            }
        }
    };
}

counters! {
    /// Lookups of a listener. SYN cookies and full queues repeat them: they are not connections.
    lookups,
    /// Listeners that had closed since they were captured, or a backend that had none.
    no_listener,
    /// Backends that listen again and wait for their readiness probe.
    not_admitted,
    /// Listeners that were shut down but not closed (ESOCKTNOSUPPORT).
    shut_down,
    /// Listeners of another address family than the client's (EAFNOSUPPORT).
    wrong_family,
    /// Listeners the kernel refused for another reason.
    not_assigned,
    /// Listeners whose accept queue was full; with `on_full = "stay"` the connection waits there.
    queue_full,
    /// Lookups that went to another backend of the slot.
    other_backend,
    /// Lookups that went to the other slot.
    other_slot,
    /// Lookups that found no listener in any slot.
    unserved,
    /// Listeners captured.
    captured,
    /// Listeners of users who may not listen for the slot, or whose user is not known.
    capture_refused,
    /// Listeners that cannot be steered to, because they are MPTCP (EOPNOTSUPP).
    capture_mptcp,
    /// Listeners that the application has put into a map of its own (EBUSY).
    capture_busy,
    /// Listeners for which no place was left.
    capture_full,
    /// Connections that ended otherwise than by both sides closing, and not by a reset either: nobody
    /// answered any more, the client's end was there already, or shifter itself closed them. Resets too,
    /// where the kernel does not tell whose they were.
    aborted,
    /// Connections that ended after their version had left the slot: they count nowhere else.
    departed,
}
const _: () = assert!(size_of::<SocketCounters>() == 17 * 8);

macro_rules! lookup_verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// What became of one lookup of a listener in the steered namespace. Each increments
        /// exactly one of these.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LookupVerdict { $($(#[doc = $doc])+ $name = $number,)+ }

        impl LookupVerdict {
            /// All verdicts, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Name in metrics and tests.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// Meaning in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

lookup_verdicts! {
    /// Not addressed to a VIP.
    Foreign = 0, "foreign";
    /// To a VIP of the nat plane.
    OtherPlane = 1, "other_plane";
    /// To the backend that was chosen.
    Steered = 2, "steered";
    /// To another backend of the chosen slot.
    OtherBackend = 3, "other_backend";
    /// To the other slot.
    OtherSlot = 4, "other_slot";
    /// Another program had chosen a socket already.
    Taken = 5, "taken";
    /// No listener, and the service says pass.
    PassUnserved = 6, "pass_unserved";
    /// No listener, and the service says drop.
    DropUnserved = 7, "drop_unserved";
    /// The published tables contradict each other; never seen unless the daemon has a defect.
    DropBrokenState = 8, "drop_broken_state";
}

/// What happened to a listener, in [`CaptureEvent::what`].
pub mod capture_event {
    /// It was captured.
    pub const CAPTURED: u32 = 1;
    /// It closed.
    pub const CLOSED: u32 = 2;
    /// It was not captured; the daemon looks why.
    pub const NOT_CAPTURED: u32 = 3;
}

/// News of a listener, so that the daemon looks at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureEvent {
    /// One of [`capture_event`].
    pub what: u32,
    /// Backend index.
    pub backend: u32,
}
const _: () = assert!(size_of::<CaptureEvent>() == 8);

/// What `socket_seize` is asked to look up, at [`SEIZE_OFFSET`] of its packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seize {
    /// A client's address, in the family of `to`.
    pub from: Addr,
    /// The address a connection is looked up for.
    pub to: Addr,
    /// The address the listener must have.
    pub listener: Addr,
    /// A client's port.
    pub from_port: Be16,
    /// The port.
    pub to_port: Be16,
    /// Where in `LISTENERS` to put it, for each family; [`NO_BACKEND`] for nowhere. With no place at
    /// all a listener that is captured gets the tag's version, and nothing is captured.
    pub keys: [u32; 2],
    /// Its tag.
    pub tag: SocketTag,
}
const _: () = assert!(size_of::<Seize>() == 92);

/// Where [`Seize`] begins in the packet, behind a link-layer header.
pub const SEIZE_OFFSET: usize = 16;

/// Results of `socket_seize` that are no error number.
pub mod seized {
    /// It is captured.
    pub const CAPTURED: u32 = 0;
    /// Nothing is found there.
    pub const NOTHING: u32 = 1_001;
    /// What is found is not the listener that was meant.
    pub const OTHER: u32 = 1_002;
    /// The listener found is tagged already.
    pub const KNOWN: u32 = 1_003;
    /// The request cannot be read.
    pub const BAD_REQUEST: u32 = 1_004;
}

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: all of these are repr(C), have explicit padding (see the size assertions), contain
    // integers only, and every bit pattern is valid.
    unsafe impl aya::Pod for BackendSockets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Capture {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketTag {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketCounters {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_numbers_are_dense_and_have_meanings() {
        for (index, verdict) in LookupVerdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert!(verdict.meaning().len() > 10 && !verdict.label().is_empty());
        }
    }

    #[test]
    fn every_counter_has_a_row_and_adds() {
        let mut sum = SocketCounters::default();
        let part = SocketCounters {
            lookups: 1,
            departed: 2,
            ..SocketCounters::default()
        };
        sum.add(&part);
        sum.add(&part);
        assert_eq!((sum.lookups, sum.departed), (2, 4));
        assert_eq!(sum.rows().count() * 8, size_of::<SocketCounters>());
        assert_eq!(sum.rows().map(|(_, count, _)| count).sum::<u64>(), 6);
    }
}
