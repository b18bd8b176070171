//! Watching the connections of the nat plane: how long handshakes and first bytes take, and what responses
//! say. What a segment means is [`shifter_common::observe`]; here are the maps and the packets.
//!
//! A connection is watched if its entry says so: nothing else is looked at in one that is not.

pub mod account;
pub mod maps;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use shifter_common::{
    abi::FlowKey,
    observe::{HEAD_LEN_BYTES, Head, ObserveRules, Response, Segment, Watch, what},
    steering::Slot,
    tcp::flag,
};

use self::maps::{OBSERVE_RULES, WATCHED};
use crate::{frame::Frame, parse::Packet};

/// Longer data than any frame has: what a header that lies about its length may give.
const LEN_MAX_BYTES: u32 = 1 << 24;

/// Bits of what a segment of the backend may mean to its flow.
pub mod news {
    /// An error of the version: a 5xx.
    pub const FAILED: u32 = 1 << 0;
    /// There is nothing more to see.
    pub const LAST: u32 = 1 << 1;
}

/// A segment as it is handed over.
#[repr(C)]
struct Sight {
    head: Head,
    seq: u32,
    len_bytes: u32,
    has_head: u32,
    is_syn: u32,
}

impl Sight {
    /// A segment that is worth a look: with data, or a backend's answer to a SYN.
    #[inline(always)]
    fn of<F: Frame>(frame: &F, packet: &Packet) -> Option<Self> {
        let (syn, fin) = (packet.has(flag::SYN), packet.has(flag::FIN));
        let len_bytes = packet
            .sequence_len
            .wrapping_sub(u32::from(syn))
            .wrapping_sub(u32::from(fin));
        if (len_bytes == 0 && !syn) || len_bytes > LEN_MAX_BYTES {
            return None;
        }
        let mut this = Self {
            head: [0; HEAD_LEN_BYTES],
            seq: packet.seq,
            len_bytes,
            has_head: 0,
            is_syn: u32::from(syn),
        };
        if !syn
            && len_bytes >= HEAD_LEN_BYTES as u32
            && let Some(head) = frame.load::<Head>(packet.data_offset())
        {
            this.head = head;
            this.has_head = 1;
        }
        Some(this)
    }

    #[inline(always)]
    fn segment(&self) -> Segment<'_> {
        Segment {
            seq: self.seq,
            len_bytes: self.len_bytes,
            head: (self.has_head != 0).then_some(&self.head),
        }
    }
}

/// What is looked at in the connections of a service; `None` if nothing is.
#[inline(always)]
pub fn rules(service: u32) -> Option<&'static ObserveRules> {
    OBSERVE_RULES
        .get(service)
        .filter(|rules| rules.what & what::ANY != 0)
}

/// Begins to watch a connection whose SYN comes now, if its service asks for it. Says whether it does.
#[inline(always)]
pub fn open(key: &FlowKey, packet: &Packet) -> bool {
    rules(key.service).is_some() && watch_open(key, packet.next_seq()) != 0
}

/// Looks at a segment of the client. Says whether there is nothing more to see.
#[inline(always)]
pub fn client<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey) -> bool {
    // Data that come with a SYN are not looked at.
    if packet.has(flag::SYN) {
        return false;
    }
    match Sight::of(frame, packet) {
        Some(sight) => watch_client(key, &sight) & news::LAST != 0,
        None => false,
    }
}

/// Looks at a segment of the backend. Gives bits of [`news`].
#[inline(always)]
pub fn backend<F: Frame>(frame: &F, packet: &Packet, key: &FlowKey, slot: Slot) -> u32 {
    match Sight::of(frame, packet) {
        Some(sight) => watch_backend(key, &sight, slot.index()),
        None => 0,
    }
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments and has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

// VERIFIER: global functions, as those of the breaker: verified once, and not for every state of the
// packet's way. Keys are copied, because memory that a function was handed is no map key before Linux 6.2.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn watch_open(key: *const FlowKey, next_from_client: u32) -> u32 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: it comes from a reference and is not null.
    let key = unsafe { *key };
    let watch = Watch::opened(now_ns(), next_from_client);
    WATCHED.insert(key, watch, 0).is_ok().into()
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn watch_client(key: *const FlowKey, sight: *const Sight) -> u32 {
    if key.is_null() || sight.is_null() {
        return 0;
    }
    // SAFETY: both come from references and are not null.
    let (key, sight) = unsafe { (*key, &*sight) };
    let (Some(rules), Some(watch)) = (rules(key.service), WATCHED.get_ptr_mut(key)) else {
        return news::LAST;
    };
    // SAFETY: a value of the map, of whose fields the client's segments write only the client's.
    let watch = unsafe { &mut *watch };
    let now_ns = if watch.asked_ns == 0 { now_ns() } else { 0 };
    watch.ask(rules.what, now_ns, &sight.segment());
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn watch_backend(key: *const FlowKey, sight: *const Sight, slot: u32) -> u32 {
    if key.is_null() || sight.is_null() {
        return 0;
    }
    // SAFETY: both come from references and are not null.
    let (key, sight) = unsafe { (*key, &*sight) };
    let slot = Slot::from_index(slot);
    let (Some(rules), Some(watch)) = (rules(key.service), WATCHED.get_ptr_mut(key)) else {
        return news::LAST;
    };
    // SAFETY: a value of the map, of whose fields the backend's segments write only the backend's.
    let watch = unsafe { &mut *watch };
    if sight.is_syn != 0 {
        let took_ns = watch.accept(now_ns(), sight.seq.wrapping_add(1));
        account::connect(rules, slot, took_ns);
        return 0;
    }
    let now_ns = if watch.has_spoken == 0 { now_ns() } else { 0 };
    let answer = watch.answer(rules.what, now_ns, &sight.segment());
    account::answer(rules, slot, &answer);
    let failed = matches!(answer.response, Some(Response::ServerError));
    (u32::from(failed) * news::FAILED) | (u32::from(answer.is_last) * news::LAST)
}
