//! The kernel's breaker over the maps: what an error of a flow does to the service's test, and the trip.
//! The arithmetic is [`shifter_common::breaker`]; all branching is in [`judge`].
//!
//! ```text
//! error → armed? → cohort → origin → client's first? → prefix within its share? → arms → trip
//! ```

mod count;
mod maps;
mod trip;
mod word;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use shifter_common::{
    abi::TargetKey,
    addr::Addr,
    breaker::{
        ARM_COUNT, Arm, BreakerRules, COHORT_COUNT, COHORT_NONE, CellWords, CohortRow, Event,
        Increments, Origin, QuotaWord, Recorded, SOURCE_CELLS, Side, admits, cell, epoch,
        first_of_client, mode, origin, origin_of_trusted, record,
    },
    steering::{Affinity, Slot, SteeringWord},
};

use self::{
    count::{Counters, count},
    maps::{BREAKER_CELLS, BREAKER_CLIENTS, BREAKER_RULES, BREAKER_STATE, COHORTS, TRUSTED},
    word::Shared,
};
use crate::{clock::now_ticks, select};

/// A flow that failed.
#[derive(Clone, Copy)]
pub struct Failed<'a> {
    /// Its client.
    pub client: &'a Addr,
    /// Its client's port, to tell the flows of one address apart.
    pub client_port: u16,
    /// Service index.
    pub service: u32,
    /// The slot that was selected for it.
    pub slot: Slot,
    /// The cohort it was selected in.
    pub cohort: u8,
}

/// The cohort of a flow that is selected now under this word.
#[inline(always)]
pub fn admitted(service: u32, word: SteeringWord) -> u8 {
    if !word.armed() {
        return word.cohort();
    }
    let Some(rules) = BREAKER_RULES.get(service) else {
        return COHORT_NONE;
    };
    // The daemon's clock is exact, and this one may be a tick behind: then the change is still to come.
    let since_ticks = now_ticks().wrapping_sub(rules.changed_ticks).cast_signed();
    if since_ticks < rules.settle_ticks.cast_signed() {
        COHORT_NONE
    } else {
        word.cohort()
    }
}

/// The first error of a flow. Only flows that fail come here.
#[inline(always)]
pub fn error(failed: &Failed<'_>) {
    let Some(word) = select::steering_word(failed.service) else {
        return;
    };
    if !word.armed() {
        return;
    }
    // SAFETY: the helper takes no arguments and has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let what =
        u32::from(failed.client_port) << 16 | failed.slot.index() << 8 | u32::from(failed.cohort);
    let evidence = judge(failed.client, failed.service, what, now_ns);
    if evidence == 0 {
        return;
    }
    let mut arm = 0;
    while arm < ARM_COUNT as u64 {
        let reached = weigh(failed.service, evidence, arm);
        if reached != 0 {
            trip::trip(
                failed.service,
                arm << 8 | evidence >> 16 & 0xff,
                reached,
                now_ns,
            );
        }
        arm += 1;
    }
}

/// What an error is worth to the arms, in one register.
///
/// ```text
///  31    24 23    16 15     8    2      1     0
/// ┌────────┬────────┬────────┬──────┬──────┬───┐
/// │  cell  │ cohort │ source │prefix│canary│ 1 │
/// └────────┴────────┴────────┴──────┴──────┴───┘
/// ```
struct Evidence {
    is_canary: bool,
    has_prefix: bool,
    /// The lowest bits of the source's hash; the bitmap of sources takes no more.
    source: u8,
    cohort: u8,
    cell: u8,
}

impl Evidence {
    #[inline(always)]
    fn pack(&self) -> u64 {
        1 | u64::from(self.is_canary) << 1
            | u64::from(self.has_prefix) << 2
            | u64::from(self.source) << 8
            | u64::from(self.cohort) << 16
            | u64::from(self.cell) << 24
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        Self {
            is_canary: word & 2 != 0,
            has_prefix: word & 4 != 0,
            source: (word >> 8) as u8,
            cohort: (word >> 16) as u8,
            cell: (word >> 24) as u8,
        }
    }
}

// VERIFIER: global functions (exported, with arguments that BTF describes) are verified once, and not for
// every state of every caller. They are three, called one after another, because the stacks of a caller
// and what it calls are counted together.

/// Whether an error counts; its [`Evidence`], or 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn judge(client: *const Addr, service: u32, what: u32, now_ns: u64) -> u64 {
    if client.is_null() {
        return 0;
    }
    // SAFETY: it comes from a reference and is not null.
    let client = unsafe { &*client };
    let failed = Failed {
        client,
        client_port: (what >> 16) as u16,
        service,
        slot: Slot::from_index(what >> 8),
        cohort: what as u8,
    };
    let (Some(word), Some(rules)) = (select::steering_word(service), BREAKER_RULES.get(service))
    else {
        return 0;
    };
    if rules.mode == mode::OFF {
        return 0;
    }
    let counters = Counters(service);
    if row(service, failed.cohort).is_none() {
        count!(counters, no_cohort);
        return 0;
    }
    let origin = find_origin(&failed, rules);
    if !is_first(&failed, word) {
        count!(counters, repeated);
        return 0;
    }
    let cell = origin.prefix.map_or(0, cell) as u8;
    if !is_heard(service, origin.prefix.is_some(), cell, now_ns) {
        count!(counters, unheard);
        return 0;
    }
    let is_canary = failed.slot as u32 != word.baseline() as u32;
    if is_canary {
        count!(counters, canary);
    } else {
        count!(counters, baseline);
    }
    Evidence {
        is_canary,
        has_prefix: origin.prefix.is_some(),
        source: origin.source as u8,
        cohort: failed.cohort,
        cell,
    }
    .pack()
}

/// Puts an error into one arm. Gives the arm's word if it reached the threshold, else 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn weigh(service: u32, evidence: u64, arm: u64) -> u64 {
    let evidence = Evidence::unpack(evidence);
    let nth = (arm & 1) as usize;
    let Some(row) = row(service, evidence.cohort) else {
        return 0;
    };
    let (Some(rules), Some(state), Some(cells)) = (
        BREAKER_RULES.get(service),
        BREAKER_STATE.get_ptr_mut(service),
        cells(service, evidence.cell),
    ) else {
        return 0;
    };
    // SAFETY: the index is below the arms' number; aligned words of map values, which are not touched but
    // through these.
    let (word, debt, sources, cap) = unsafe {
        let arm = &raw mut (*state).arms[nth];
        (
            Shared::new(&raw mut (*arm).word),
            Shared::new(&raw mut (*arm).debt),
            Shared::new(&raw mut (*arm).sources),
            Shared::new(&raw mut (*cells).caps[nth]),
        )
    };
    let arm = Arm {
        state: &word,
        debt: &debt,
        sources: &sources,
    };
    let event = Event {
        side: if evidence.is_canary {
            Side::Canary
        } else {
            Side::Baseline
        },
        increments: row.increments[nth],
        source: evidence.source.into(),
        cap: evidence.has_prefix.then_some(&cap),
    };
    let counters = Counters(service);
    match record(&arm, &event, &rules.thresholds[nth], rules.min_sources) {
        Recorded::Counted { word, trip: true } => word.0,
        Recorded::Counted { trip: false, .. } => 0,
        Recorded::Dropped => {
            count!(counters, dropped);
            0
        }
        Recorded::Owed => {
            count!(counters, owed);
            0
        }
    }
}

/// What an error of a cohort adds; `None` if it counts for nothing.
#[inline(always)]
fn row(service: u32, cohort: u8) -> Option<&'static CohortRow> {
    if cohort == COHORT_NONE {
        return None;
    }
    let row = COHORTS.get(service * COHORT_COUNT + u32::from(cohort))?;
    let none = Increments::NONE;
    let counts = row.increments[0].gain != none.gain || row.increments[0].loss != none.loss;
    counts.then_some(row)
}

/// Where the error came from.
#[inline(always)]
fn find_origin(failed: &Failed<'_>, rules: &BreakerRules) -> Origin {
    let whole = aya_ebpf::maps::lpm_trie::Key::new(
        TargetKey::BITS,
        TargetKey::new(failed.service, *failed.client),
    );
    if TRUSTED.get(&whole).is_some() {
        let [a, b, c, d] = failed.client.words;
        let ends = u64::from(a ^ b ^ c ^ d) << 32 | u64::from(failed.client_port);
        return origin_of_trusted(ends, rules.key);
    }
    origin(failed.client, rules.key)
}

/// Whether the error counts where a client counts once a step: cohorts are steps, because each change of
/// the weight begins one.
#[inline(always)]
fn is_first(failed: &Failed<'_>, word: SteeringWord) -> bool {
    if matches!(word.affinity(), Affinity::Connection) {
        return true;
    }
    let key = TargetKey {
        scope: failed.service,
        client: *failed.client,
    };
    // SAFETY: the value is copied at once.
    let counted = unsafe { BREAKER_CLIENTS.get(key) }.copied();
    let now = u32::from(word.cohort());
    if !first_of_client(counted, u32::from(failed.cohort), now) {
        return false;
    }
    // Where it cannot be remembered it could count twice, so it does not count.
    BREAKER_CLIENTS.insert(key, now, 0).is_ok()
}

/// What is kept of the prefixes of a cell; trusted origins have none, and theirs is not looked at.
#[inline(always)]
fn cells(service: u32, cell: u8) -> Option<*mut CellWords> {
    BREAKER_CELLS.get_ptr_mut(service * SOURCE_CELLS as u32 + u32::from(cell))
}

/// Whether the prefix is within its share of what counts.
#[inline(always)]
fn is_heard(service: u32, has_prefix: bool, cell: u8, now_ns: u64) -> bool {
    let (Some(state), Some(cells)) = (BREAKER_STATE.get_ptr_mut(service), cells(service, cell))
    else {
        return false;
    };
    let epoch = epoch(now_ns);
    // SAFETY: both point to aligned words of map values that live as long as the program. Two errors at
    // once may count as one here: a share is a matter of eighths.
    unsafe {
        let all = &raw mut (*state).heard;
        let own = &raw mut (*cells).heard;
        let (of_all, of_own) = (
            QuotaWord(all.read_volatile()),
            QuotaWord(own.read_volatile()),
        );
        if has_prefix && !admits(of_own, of_all, epoch) {
            return false;
        }
        if has_prefix {
            own.write_volatile(of_own.with_one(epoch).0);
        }
        all.write_volatile(of_all.with_one(epoch).0);
    }
    true
}
