//! What the kernel's breaker has done: known, on disk, and carried on.

use shifter_common::{
    breaker::{BreakerCounters, FRACTION_BITS, Trip, trip_result},
    steering::{Slot, SteeringWord},
    wire::{ArmStatus, BreakerStatus, EstablishedPolicy, TripStatus},
};

use super::{Driver, events::Happening, rollback, unix_ms};
use crate::{
    analysis::ARM_RATIOS,
    control::{BREAKER, ServiceControl, effective_bp},
    dataplane::DataplaneError,
    rollout::Event,
};

/// How shifterd learns of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearntFrom {
    /// The kernel says so at once.
    Kernel,
    /// shifterd looks once a second, because what the kernel says may get lost.
    Look,
}

impl LearntFrom {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Kernel => "the kernel tells of a trip",
            Self::Look => "a look finds a trip that the kernel has not told of",
        }
    }
}

impl Driver {
    /// Looks for canaries that the kernel has taken out of traffic by itself. It reads mapped memory
    /// alone, so it may be called often.
    pub(super) fn look_for_trips(&mut self, from: LearntFrom) {
        for (name, word) in self.dataplane.tripped() {
            if self.services.contains_key(&name) && self.tripped.insert(name.clone()) {
                tracing::warn!(service = name, "{}", from.in_words());
                self.note_trip(&name, word);
            }
        }
    }

    fn note_trip(&mut self, name: &str, word: SteeringWord) {
        let trip = match self.dataplane.breaker(name) {
            Ok(reading) => reading.trip,
            Err(error) => {
                tracing::error!(service = name, "reading what the breaker saw: {error}");
                Trip::default()
            }
        };
        let Some(control) = self.services.get_mut(name) else {
            return;
        };
        let canary = control.canary();
        let policy = control.spec().rollback_established;
        control.note_trip(unix_ms());
        let record = control.record().clone();
        self.words.insert(name.to_owned(), word);
        if let Err(error) = self.state.save(name, &record) {
            // The kernel's word counts more than the disk at the next start.
            tracing::error!(
                service = name,
                "the trip is in force, but not on disk: {error}"
            );
        }
        self.record(Happening {
            service: name,
            by: BREAKER,
            what: "tripped",
            slot: Some(canary),
            detail: describe(&trip, canary),
            before_bp: effective_bp(word.with_weight_bp(trip.weight_bp)),
            took_ns: trip.flipped_ns.saturating_sub(trip.decided_ns),
        });
        match policy {
            EstablishedPolicy::Drain => {}
            // A rollout that is under way does it itself.
            EstablishedPolicy::Reset if self.rollouts.under_way(name).is_some() => {}
            EstablishedPolicy::Reset => {
                rollback::reset_beside(self.flow_table(), name.to_owned(), canary);
            }
            EstablishedPolicy::ResetIdle => self.reset_when_idle(name, canary),
        }
        self.tell_news(name, Event::Tripped);
    }

    /// Whether the kernel has taken a service's canary out of traffic by itself.
    pub(super) fn is_tripped(&self, name: &str) -> bool {
        let word = self.words.get(name).copied().unwrap_or_default();
        word.tripped() && !self.rollouts.is_latch_own(name)
    }
}

impl Driver {
    /// What the breaker of a service shows.
    pub(super) fn breaker_status(
        &self,
        name: &str,
        control: &ServiceControl,
    ) -> Result<BreakerStatus, DataplaneError> {
        let spec = &control.spec().breaker;
        let reading = self.dataplane.breaker(name)?;
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
        } = reading.counters;
        let errors = [
            ("canary", canary),
            ("baseline", baseline),
            ("no_cohort", no_cohort),
            ("unheard", unheard),
            ("repeated", repeated),
            ("dropped", dropped),
            ("owed", owed),
            ("trips", trips),
            ("trips_held", trips_held),
            ("untold", untold),
        ];
        let arms = reading.arms.iter().zip(ARM_RATIOS);
        Ok(BreakerStatus {
            mode: spec.mode.name().to_owned(),
            tripped: self.is_tripped(name),
            errors: errors.map(|(name, count)| (name.to_owned(), count)).into(),
            arms: arms
                .map(|(arm, ratio)| ArmStatus {
                    ratio: ratio as u32,
                    evidence_milli: milli(arm.word.sum()),
                    threshold_milli: milli(arm.threshold),
                    excursions_count: arm.word.excursion(),
                })
                .collect(),
            min_sources: spec.min_sources,
            trip: trip_status(&reading.trip, reading.now_ns),
        })
    }
}

fn trip_status(trip: &Trip, now_ns: u64) -> Option<TripStatus> {
    let result = match trip.result {
        trip_result::EXECUTED => "executed",
        trip_result::DRY_RUN => "dry-run",
        trip_result::NO_BASELINE => "no-baseline",
        _ => return None,
    };
    Some(TripStatus {
        result: result.to_owned(),
        ratio: ARM_RATIOS[usize::from(trip.arm & 1)] as u32,
        evidence_milli: milli(trip.sum),
        threshold_milli: milli(trip.threshold),
        excursion: trip.excursion,
        sources_count: trip.sources.into(),
        weight_bp: trip.weight_bp,
        cohort_weight_bp: trip.cohort_weight_bp,
        took_ns: trip.flipped_ns.saturating_sub(trip.decided_ns),
        age_ms: now_ns.saturating_sub(trip.flipped_ns) / 1_000_000,
    })
}

/// Thousandths of a number in Q8.24.
fn milli(value: u32) -> u64 {
    (u64::from(value) * 1_000) >> FRACTION_BITS
}

/// A trip in words.
pub fn describe(trip: &Trip, canary: Slot) -> String {
    if trip.result != trip_result::EXECUTED {
        return format!("the kernel took slot {canary} out of traffic and left no record of why");
    }
    let ratio = ARM_RATIOS[usize::from(trip.arm & 1)];
    format!(
        "the kernel took slot {canary} out of traffic at {}: its flows fail as if errors were {ratio} \
         times as frequent (evidence {} of {}, {} clients)",
        super::weight::percent(trip.weight_bp),
        fixed(trip.sum),
        fixed(trip.threshold),
        trip.sources,
    )
}

/// A number in Q8.24 with two places.
pub fn fixed(value: u32) -> String {
    format!(
        "{:.2}",
        f64::from(value) / f64::from(1_u32 << FRACTION_BITS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trip_is_told_in_numbers() {
        let trip = Trip {
            sum: 12 << 24 | 1 << 23,
            threshold: 10 << 24 | 3 << 22,
            weight_bp: 500,
            arm: 1,
            sources: 4,
            result: trip_result::EXECUTED,
            ..Trip::default()
        };
        assert_eq!(
            describe(&trip, Slot::B),
            "the kernel took slot b out of traffic at 5 %: its flows fail as if errors were 30 times as \
             frequent (evidence 12.50 of 10.75, 4 clients)"
        );
        assert_eq!(
            describe(&Trip::default(), Slot::A),
            "the kernel took slot a out of traffic and left no record of why"
        );
    }
}
