//! Counters. Per CPU and reached with bottom halves off, so plain additions lose nothing.

use shifter_common::{
    abi::{BackendCounters, FlowCounters, SlotCounters},
    steering::Slot,
    tcp::Milestone,
    verdict::Verdict,
};

use crate::maps::{BACKEND_COUNTERS, SLOT_COUNTERS, TABLE_TRAFFIC, VERDICTS};

/// Counts the verdict of one packet.
#[inline(always)]
pub fn verdict(verdict: Verdict) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the pointer is this CPU's own copy and nothing else writes it meanwhile.
        unsafe { *count += 1 };
    }
}

/// Counts a packet steered to a backend.
#[inline(always)]
pub fn packet_in(backend_index: u32, len_bytes: u64) {
    if let Some(counters) = backend(backend_index) {
        counters.packets_in += 1;
        counters.bytes_in += len_bytes;
    }
}

/// Counts a packet of a backend translated for the client.
#[inline(always)]
pub fn packet_out(backend_index: u32, len_bytes: u64) {
    if let Some(counters) = backend(backend_index) {
        counters.packets_out += 1;
        counters.bytes_out += len_bytes;
    }
}

/// Counts the selection of a backend for a new flow.
#[inline(always)]
pub fn selected(service: u32, slot: Slot, backend_index: u32) {
    if let Some(counters) = self::slot(service, slot) {
        counters.flows.selected += 1;
    }
    if let Some(counters) = backend(backend_index) {
        counters.flows.selected += 1;
    }
}

/// Counts a new flow that is on its slot by a target rule.
#[inline(always)]
pub fn targeted(service: u32, slot: Slot) {
    if let Some(counters) = self::slot(service, slot) {
        counters.targeted += 1;
    }
}

/// Counts what went into a flow table or out of it; one of [`shifter_common::abi::traffic`].
#[inline(always)]
pub fn traffic(index: u32) {
    if let Some(count) = TABLE_TRAFFIC.get_ptr_mut(index) {
        // SAFETY: the pointer is this CPU's own copy and nothing else writes it meanwhile.
        unsafe { *count += 1 };
    }
}

/// Counts a flow that left the slot it was wanted in.
#[inline(always)]
pub fn failed_over(service: u32, wanted: Slot) {
    if let Some(counters) = slot(service, wanted) {
        counters.failed_over += 1;
    }
}

/// Counts a flow that found no eligible slot.
#[inline(always)]
pub fn unserved(service: u32, wanted: Slot) {
    if let Some(counters) = slot(service, wanted) {
        counters.unserved += 1;
    }
}

/// Counts what a change of phase means.
#[inline(always)]
pub fn milestone(service: u32, slot: Slot, backend_index: u32, milestone: Milestone) {
    if let Some(counters) = self::slot(service, slot) {
        add(&mut counters.flows, milestone);
    }
    if let Some(counters) = backend(backend_index) {
        add(&mut counters.flows, milestone);
    }
}

/// Counts a flow whose client had to send its SYN again.
#[inline(always)]
pub fn unanswered(service: u32, slot: Slot, backend_index: u32) {
    if let Some(counters) = self::slot(service, slot) {
        counters.flows.unanswered += 1;
    }
    if let Some(counters) = backend(backend_index) {
        counters.flows.unanswered += 1;
    }
}

#[inline(always)]
fn add(flows: &mut FlowCounters, milestone: Milestone) {
    match milestone {
        Milestone::Established => flows.established += 1,
        Milestone::Refused => flows.refused += 1,
        Milestone::Closed => flows.closed += 1,
        Milestone::ResetByClient => flows.reset_by_client += 1,
        Milestone::ResetByBackend => flows.reset_by_backend += 1,
    }
}

#[inline(always)]
fn slot(service: u32, slot: Slot) -> Option<&'static mut SlotCounters> {
    // SAFETY: the pointer is this CPU's own copy and nothing else writes it meanwhile; the
    // reference does not outlive the call that increments.
    SLOT_COUNTERS
        .get_ptr_mut(service * 2 + slot.index())
        .map(|counters| unsafe { &mut *counters })
}

#[inline(always)]
fn backend(backend_index: u32) -> Option<&'static mut BackendCounters> {
    // SAFETY: as in `slot`.
    BACKEND_COUNTERS
        .get_ptr_mut(backend_index)
        .map(|counters| unsafe { &mut *counters })
}
