//! The trip: one compare-and-swap on the steering word, and the record of it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use shifter_common::{
    breaker::{ArmWord, BreakerRules, COHORT_COUNT, distinct, mode, threshold, trip_result},
    steering::SteeringWord,
};

use super::{
    count::{Counters, count},
    maps::{BREAKER_RULES, BREAKER_STATE, COHORTS, TRIP_EVENTS, TRIPS},
};
use crate::{atomic, maps::STEERING};

/// Tries of the compare-and-swap. Others change the word by hand or once in a while: a second try is rare.
const TRIES: u32 = 8;

/// Takes the canary out of traffic, or notes that it would have been. `what` is the arm in the second byte
/// and the deciding flow's cohort in the first; `word` the arm's word after the deciding error.
// VERIFIER: a global function, as its neighbours.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn trip(service: u32, what: u64, word: u64, decided_ns: u64) -> u32 {
    let (Some(steering), Some(rules)) = (STEERING.get_ptr_mut(service), BREAKER_RULES.get(service))
    else {
        return 0;
    };
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        // SAFETY: an aligned word of the map that everybody changes atomically.
        let before = SteeringWord(unsafe { steering.read_volatile() });
        // Somebody has taken it out already, or there is nothing to take.
        if before.tripped() || !before.armed() || before.weight_bp() == 0 {
            return 0;
        }
        let result = if rules.mode != mode::ARMED {
            trip_result::DRY_RUN
        } else if !before.eligible(before.baseline()) {
            trip_result::NO_BASELINE
        } else {
            trip_result::EXECUTED
        };
        // SAFETY: as above.
        let is_done = result != trip_result::EXECUTED
            || unsafe { atomic::compare_and_swap_u64(steering, before.0, before.after_trip().0) };
        if is_done {
            let reached = Reached {
                arm: (what >> 8 & 1) as u8,
                cohort: what as u8,
                word: ArmWord(word),
                decided_ns,
            };
            note(service, rules, before, result, &reached);
            return 1;
        }
    }
    0
}

/// What reached its threshold.
struct Reached {
    arm: u8,
    cohort: u8,
    word: ArmWord,
    decided_ns: u64,
}

/// Leaves the record and wakes the daemon, if there is one. What is only noted is noted once.
#[inline(always)]
fn note(service: u32, rules: &BreakerRules, before: SteeringWord, result: u8, reached: &Reached) {
    // SAFETY: the helper takes no arguments and has no preconditions.
    let flipped_ns = unsafe { bpf_ktime_get_ns() };
    let Some(trip) = TRIPS.get_ptr_mut(service) else {
        return;
    };
    let counters = Counters(service);
    if result == trip_result::EXECUTED {
        count!(counters, trips);
    } else {
        // SAFETY: an element of the map.
        let noted = unsafe { (&raw const (*trip).result).read_volatile() };
        if noted == result {
            return;
        }
        count!(counters, trips_held);
    }
    let arm = usize::from(reached.arm & 1);
    let excursion = reached.word.excursion();
    let threshold = threshold(&rules.thresholds[arm], excursion);
    let sources = BREAKER_STATE
        .get(service)
        .map_or(0, |state| distinct(state.arms[arm].sources) as u8);
    let cohort_weight_bp = COHORTS
        .get(service * COHORT_COUNT + u32::from(reached.cohort))
        .map_or(0, |row| row.weight_bp);
    // SAFETY: an element of the map. Of an executed trip there is one writer, the winner of the swap.
    unsafe {
        (&raw mut (*trip).decided_ns).write(reached.decided_ns);
        (&raw mut (*trip).flipped_ns).write(flipped_ns);
        (&raw mut (*trip).sum).write(reached.word.sum());
        (&raw mut (*trip).excursion).write(excursion);
        (&raw mut (*trip).threshold).write(threshold);
        (&raw mut (*trip).generation).write(before.generation());
        (&raw mut (*trip).weight_bp).write(before.weight_bp());
        (&raw mut (*trip).cohort_weight_bp).write(cohort_weight_bp);
        (&raw mut (*trip).arm).write(reached.arm);
        (&raw mut (*trip).sources).write(sources);
        // Last: whoever reads the result finds the rest.
        (&raw mut (*trip).result).write_volatile(result);
    }
    // A full ring has a daemon that is not there, or is busy; it looks at the words of itself too.
    if TRIP_EVENTS.output::<u32>(&service, 0).is_err() {
        count!(counters, untold);
    }
}
