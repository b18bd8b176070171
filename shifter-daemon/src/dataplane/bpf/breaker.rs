//! The breaker's maps: what the daemon decides goes in, what the kernel saw comes out.
//!
//! Rules, rows and words are mapped, so that a change of the weight, which writes a cohort's row before
//! its own store, makes no system call.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    maps::{LpmTrie, MapData, PerCpuArray},
};
use shifter_common::{
    abi::{TICK_SHIFT, TargetKey},
    breaker::{
        ArmWord, BreakerCounters, BreakerRules, BreakerState, COHORT_COUNT, CellWords, CohortRow,
        SOURCE_CELLS, Trip, map, mode, threshold,
    },
    steering::SteeringWord,
};

use super::{
    super::{ArmReading, BreakerReading, DataplaneError},
    mapped::Mapped,
    maps::{map_error, mapped, typed},
    sys,
    targets::trie_key,
};
use crate::{
    analysis::{BreakerBudget, BreakerPlan},
    model::{BreakerMode, BreakerSpec, Prefix},
};

/// Until a rollout names its own: one good release in a hundred may be rolled back by chance, by the
/// breaker and the analysis together.
const BUDGET: BreakerBudget = BreakerBudget {
    false_rollback: 0.01,
    hosts: 1,
    restarts: 1,
};

/// The maps, and what was put into them.
pub struct BreakerMaps {
    rules: Mapped<BreakerRules>,
    state: Mapped<BreakerState>,
    cohorts: Mapped<CohortRow>,
    cells: Mapped<CellWords>,
    trips: Mapped<Trip>,
    trusted: LpmTrie<MapData, TargetKey, u32>,
    counters: PerCpuArray<MapData, BreakerCounters>,
    plan: BreakerPlan,
    entered: BTreeMap<u32, BTreeSet<Prefix>>,
}

impl BreakerMaps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing, of another type, or cannot be mapped.
    pub fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        let plan = BreakerPlan::new(&BUDGET)
            .map_err(|error| DataplaneError::Refused(format!("the breaker's budget: {error}")))?;
        let mut this = Self {
            rules: mapped(object, map::BREAKER_RULES)?,
            state: mapped(object, map::BREAKER_STATE)?,
            cohorts: mapped(object, map::COHORTS)?,
            cells: mapped(object, map::BREAKER_CELLS)?,
            trips: mapped(object, map::TRIPS)?,
            trusted: typed(object, map::TRUSTED)?,
            counters: typed(object, map::BREAKER_COUNTERS)?,
            plan,
            entered: BTreeMap::new(),
        };
        this.recall()?;
        Ok(this)
    }

    /// Reads the trusted prefixes back.
    fn recall(&mut self) -> Result<(), DataplaneError> {
        for found in self.trusted.iter() {
            let (key, _) = found.map_err(|error| map_error("reading TRUSTED", error))?;
            if let Some((service, prefix)) = super::targets::prefix_of(&key) {
                self.entered.entry(service).or_default().insert(prefix);
            }
        }
        Ok(())
    }

    /// Puts the rules of a service in force. The words of a trial that is under way are kept.
    ///
    /// # Errors
    /// If there is no room for the trusted prefixes.
    pub fn set_rules(&mut self, service: u32, spec: &BreakerSpec) -> Result<(), DataplaneError> {
        let place = service as usize;
        let old = self.rules.read(place);
        let new = BreakerRules {
            key: old.key,
            changed_ticks: old.changed_ticks,
            settle_ticks: settle_ticks(spec),
            mode: match spec.mode {
                BreakerMode::Armed => mode::ARMED,
                BreakerMode::DryRun => mode::DRY_RUN,
                BreakerMode::Off => mode::OFF,
            },
            min_sources: spec.min_sources,
            thresholds: self.plan.thresholds,
        };
        if old != new {
            self.rules.write(place, new);
        }
        self.trust(service, &spec.trusted)
    }

    fn trust(&mut self, service: u32, wanted: &BTreeSet<Prefix>) -> Result<(), DataplaneError> {
        let entered = self.entered.entry(service).or_default();
        for prefix in wanted.difference(&entered.clone()) {
            self.trusted
                .insert(&trie_key(service, *prefix), 1, 0)
                .map_err(|error| map_error(format!("entering trusted {prefix}"), error))?;
            entered.insert(*prefix);
        }
        for prefix in entered.clone().difference(wanted) {
            self.trusted
                .remove(&trie_key(service, *prefix))
                .map_err(|error| map_error(format!("removing trusted {prefix}"), error))?;
            entered.remove(prefix);
        }
        Ok(())
    }

    /// What must stand in the maps before a steering word with another weight or baseline is stored: the
    /// row of its cohort, the time, and where a trial begins a clean slate. Doing it twice does no harm.
    pub fn prepare(&self, service: u32, before: SteeringWord, after: SteeringWord) {
        let begins =
            before.weight_bp() == 0 || before.tripped() || before.baseline() != after.baseline();
        if begins && after.weight_bp() > 0 {
            self.begin(service);
        }
        let row = BreakerPlan::row(after.weight_bp());
        let place = (service * COHORT_COUNT + u32::from(after.cohort())) as usize;
        // SAFETY: inside the mapping; no flow has this cohort yet.
        unsafe { self.cohorts.at(place).as_ptr().write_volatile(row) };
        let now_ticks = (sys::monotonic_ns() >> TICK_SHIFT) as u32;
        // SAFETY: inside the mapping, an aligned word that only the daemon writes.
        unsafe {
            let rules = self.rules.at(service as usize).as_ptr();
            (&raw mut (*rules).changed_ticks).write_volatile(now_ticks);
        }
    }

    /// Goes on with a trial that is under way. Where the maps do not know it, because another build's
    /// dataplane was taken over without them, it begins anew.
    pub fn resume(&self, service: u32, word: SteeringWord) {
        let place = (service * COHORT_COUNT + u32::from(word.cohort())) as usize;
        let is_unknown = self.cohorts.read(place) == CohortRow::default();
        if word.weight_bp() > 0 && !word.tripped() && is_unknown {
            self.prepare(service, word.with_weight_bp(0), word);
        }
    }

    /// A clean slate: flows from before count for nothing.
    fn begin(&self, service: u32) {
        let (first_row, first_cell) = (
            (service * COHORT_COUNT) as usize,
            service as usize * SOURCE_CELLS,
        );
        // SAFETY: inside the mappings. The kernel judges nothing meanwhile: the weight is 0, or the trial
        // has tripped; at a change of the baseline an error more or less in a test that ends is nothing.
        unsafe {
            for row in first_row..first_row + COHORT_COUNT as usize {
                self.cohorts
                    .at(row)
                    .as_ptr()
                    .write_volatile(CohortRow::default());
            }
            for cell in first_cell..first_cell + SOURCE_CELLS {
                self.cells
                    .at(cell)
                    .as_ptr()
                    .write_volatile(CellWords::default());
            }
            let place = service as usize;
            self.state
                .at(place)
                .as_ptr()
                .write_volatile(BreakerState::default());
            self.trips
                .at(place)
                .as_ptr()
                .write_volatile(Trip::default());
            match sys::random_u64() {
                Ok(key) => {
                    let rules = self.rules.at(place).as_ptr();
                    (&raw mut (*rules).key).write_volatile(key);
                }
                // The former one was secret too.
                Err(error) => tracing::warn!("drawing a key for the breaker: {error}"),
            }
        }
    }

    /// Forgets a service.
    pub fn forget(&mut self, service: u32) {
        self.rules.write(service as usize, BreakerRules::default());
        // What cannot be removed is met again by the next service in its place.
        let _ = self.trust(service, &BTreeSet::new());
        self.begin(service);
    }

    /// What the breaker of a service says.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read(&self, service: u32) -> Result<BreakerReading, DataplaneError> {
        let place = service as usize;
        let counters = self
            .counters
            .get(&service, 0)
            .map_err(|error| map_error("reading BREAKER_COUNTERS", error))?;
        let (rules, state) = (self.rules.read(place), self.state.read(place));
        let arm = |nth: usize| {
            let word = ArmWord(state.arms[nth].word);
            ArmReading {
                word,
                threshold: threshold(&rules.thresholds[nth], word.excursion().max(1)),
            }
        };
        Ok(BreakerReading {
            counters: sum(counters.iter()),
            arms: [arm(0), arm(1)],
            trip: self.trips.read(place),
            now_ns: sys::monotonic_ns(),
        })
    }
}

/// Ticks that are at least as long as the time: flows begin in the middle of one.
fn settle_ticks(spec: &BreakerSpec) -> u32 {
    match spec.settle.as_nanos() as u64 {
        0 => 0,
        settle_ns => (settle_ns >> TICK_SHIFT) as u32 + 2,
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a BreakerCounters>) -> BreakerCounters {
    parts.fold(BreakerCounters::default(), |mut sum, part| {
        // Taken apart, so that a new counter cannot be forgotten here.
        let BreakerCounters {
            canary,
            baseline,
            no_cohort,
            unheard,
            repeated,
            dropped,
            owed,
            trips,
            trips_held,
            untold,
        } = part;
        sum.canary += canary;
        sum.baseline += baseline;
        sum.no_cohort += no_cohort;
        sum.unheard += unheard;
        sum.repeated += repeated;
        sum.dropped += dropped;
        sum.owed += owed;
        sum.trips += trips;
        sum.trips_held += trips_held;
        sum.untold += untold;
        sum
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn flows_settle_for_at_least_the_time() {
        let ticks = |settle| {
            settle_ticks(&BreakerSpec {
                settle,
                ..BreakerSpec::default()
            })
        };
        assert_eq!(ticks(Duration::ZERO), 0);
        for settle_ms in [1, 1_000, 3_000, 60_000] {
            let settle = Duration::from_millis(settle_ms);
            // A flow may begin in the last instant of the tick in which the weight changed.
            let whole = u64::from(ticks(settle) - 1) << TICK_SHIFT;
            assert!(u128::from(whole) >= settle.as_nanos(), "{settle_ms} ms");
        }
    }
}
