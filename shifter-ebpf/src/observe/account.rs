//! Counters of what was seen. Answers are also sent in process context, where a softirq may come in between:
//! every addition is one instruction.

use shifter_common::{
    histogram::{BUCKET_COUNT, bucket},
    observe::{Answer, ObserveRules, Observed, Response, Waits, what},
    steering::Slot,
};

use super::maps::OBSERVED;
use crate::atomic;

/// Which durations.
#[derive(Clone, Copy)]
enum Kind {
    Connect,
    FirstByte,
}

/// Counts how long a handshake took.
#[inline(always)]
pub fn connect(rules: &ObserveRules, slot: Slot, took_ns: Option<u64>) {
    count(rules, slot, Kind::Connect, took_ns);
}

/// Counts what a segment of the backend said.
#[inline(always)]
pub fn answer(rules: &ObserveRules, slot: Slot, answer: &Answer) {
    count(rules, slot, Kind::FirstByte, answer.first_byte_ns);
    if let Some(response) = answer.response {
        count_response(rules, slot, response);
    }
}

#[inline(always)]
fn of(rules: &ObserveRules, slot: Slot) -> Option<*mut Observed> {
    OBSERVED.get_ptr_mut(rules.row * 2 + slot.index())
}

#[inline(always)]
fn count(rules: &ObserveRules, slot: Slot, kind: Kind, took_ns: Option<u64>) {
    let Some(took_ns) = took_ns else {
        return;
    };
    if rules.what & what::LATENCY == 0 {
        return;
    }
    let Some(observed) = of(rules, slot) else {
        return;
    };
    let mut place = bucket(took_ns);
    // VERIFIER: what the function promises is said again where the verifier can see it.
    if place >= BUCKET_COUNT {
        place = BUCKET_COUNT - 1;
    }
    // SAFETY: no reference is made; the pointer is to a whole value, and the numbers are aligned words of
    // this CPU's own copy.
    unsafe {
        let waits: *mut Waits = match kind {
            Kind::Connect => &raw mut (*observed).connect,
            Kind::FirstByte => &raw mut (*observed).first_byte,
        };
        atomic::add((&raw mut (*waits).counts).cast::<u64>().add(place), 1);
        atomic::add(&raw mut (*waits).sum_ns, took_ns);
    }
}

#[inline(always)]
fn count_response(rules: &ObserveRules, slot: Slot, response: Response) {
    let Some(observed) = of(rules, slot) else {
        return;
    };
    let mut place = response as usize;
    // VERIFIER: as above.
    if place >= Response::COUNT {
        place = Response::COUNT - 1;
    }
    // SAFETY: as above.
    unsafe {
        atomic::add((&raw mut (*observed).responses).cast::<u64>().add(place), 1);
    }
}
