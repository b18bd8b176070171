//! Counters of the socket plane. `sock_ops` also runs in process context, where a softirq may come
//! in between: every addition is one instruction.

use shifter_common::{
    abi::FlowCounters,
    socket::{LookupVerdict, SocketCounters},
    steering::Slot,
};

use super::maps::{LOOKUP_VERDICTS, SOCKET_COUNTERS};
use crate::{
    atomic,
    maps::{BACKEND_COUNTERS, SLOT_COUNTERS},
};

/// Names the counters of a slot; a number, so that it can be handed to a function of its own.
#[derive(Clone, Copy)]
pub struct Counters(pub u32);

impl Counters {
    /// Nobody's: counts nothing.
    pub const NONE: Self = Self(u32::MAX);

    /// Those of a slot of a service.
    #[inline(always)]
    pub const fn of(service: u32, slot: Slot) -> Self {
        Self(service * 2 + slot.index())
    }

    /// Counts one.
    #[inline(always)]
    pub fn count(self, field: impl Fn(*mut SocketCounters) -> *mut u64) {
        if let Some(counters) = SOCKET_COUNTERS.get_ptr_mut(self.0) {
            // SAFETY: the field is an aligned number of this CPU's own copy.
            unsafe { atomic::add(field(counters), 1) };
        }
    }
}

/// Counts one in a field of [`SocketCounters`].
macro_rules! count {
    ($counters:expr, $field:ident) => {
        $counters.count(
            // SAFETY: no reference is made, and the pointer is to a whole value.
            |counters| unsafe { &raw mut (*counters).$field },
        )
    };
}
pub(super) use count;

/// Counts what became of a lookup.
#[inline(always)]
pub fn verdict(verdict: LookupVerdict) {
    if let Some(count) = LOOKUP_VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: as in `Counters::count`.
        unsafe { atomic::add(count, 1) };
    }
}

/// Counts a change of a flow for its slot and its backend.
#[inline(always)]
pub fn flow(service: u32, slot: Slot, backend: u32, field: impl Fn(*mut FlowCounters) -> *mut u64) {
    if let Some(counters) = SLOT_COUNTERS.get_ptr_mut(service * 2 + slot.index()) {
        // SAFETY: as in `Counters::count`.
        unsafe { atomic::add(field(&raw mut (*counters).flows), 1) };
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) {
        // SAFETY: as in `Counters::count`.
        unsafe { atomic::add(field(&raw mut (*counters).flows), 1) };
    }
}
