//! Putting an error into an arm that others change at the same time: a bounded compare-and-swap, and a
//! debt for what it could not do.
//!
//! A gain that loses every try is dropped, a loss is not: it goes to the arm's debt, which the next
//! event absorbs. Coming late it takes from a sum that others have raised, so it can only lower it
//! further than in its turn. Errors of the same instant on several processors have no order but the one
//! in which their stores succeed; that order does not depend on their side.

use super::{
    arm::{ArmWord, Increments, Side, Thresholds, step},
    cap::{CapWord, allowance},
    source::{distinct, seen},
};

/// Tries of the compare-and-swap.
pub const TRIES: u32 = 8;

/// A word that others change at the same time: an atomic in the simulation, a map value in the kernel.
pub trait Word {
    /// The value.
    fn load(&self) -> u64;
    /// Stores a value.
    fn store(&self, value: u64);
    /// Stores `new` if the value is `old`; whether it was.
    fn replace(&self, old: u64, new: u64) -> bool;
    /// Stores `new`; the value before.
    fn swap(&self, new: u64) -> u64;
    /// Adds to the value.
    fn add(&self, more: u64);
}

/// The words of one arm of one test.
#[derive(Debug)]
pub struct Arm<'a, W> {
    /// An [`ArmWord`].
    pub state: &'a W,
    /// What baseline errors could not take away yet, Q8.24.
    pub debt: &'a W,
    /// Canary sources of the current excursion, see [`seen`].
    pub sources: &'a W,
}

/// An error that counts.
#[derive(Debug)]
pub struct Event<'a, W> {
    /// Whose it is.
    pub side: Side,
    /// What it adds, by its cohort.
    pub increments: Increments,
    /// Hash of its source.
    pub source: u64,
    /// The [`CapWord`] of its prefix in this arm; `None` for trusted origins.
    pub cap: Option<&'a W>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the sum.
    Counted {
        /// The arm's word after it.
        word: ArmWord,
        /// Whether the canary is to be taken out of traffic.
        trip: bool,
    },
    /// A canary error that lost every try: to be counted as dropped.
    Dropped,
    /// A baseline error that lost every try: the next event takes it into account.
    Owed,
}

/// Records one error in one arm. `min_sources` distinct canary sources in the excursion are part of
/// what a trip takes.
#[inline(always)]
pub fn record<W: Word>(
    arm: &Arm<'_, W>,
    event: &Event<'_, W>,
    thresholds: &Thresholds,
    min_sources: u32,
) -> Recorded {
    let debt = if arm.debt.load() == 0 {
        0
    } else {
        arm.debt.swap(0)
    };
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let old = arm.state.load();
        let word = ArmWord(old).less(debt);
        let most = match event.cap {
            Some(cap) => allowance(word, CapWord(cap.load()), thresholds),
            None => u32::MAX,
        };
        let stepped = step(word, event.side, event.increments, 0, most, thresholds);
        if !arm.state.replace(old, stepped.word.0) {
            continue;
        }
        if matches!(event.side, Side::Baseline) {
            return Recorded::Counted {
                word: stepped.word,
                trip: false,
            };
        }
        if let Some(cap) = event.cap {
            let gain = stepped.word.sum() - word.sum();
            cap.store(CapWord(cap.load()).with(stepped.word.excursion(), gain).0);
        }
        // Two that begin and continue an excursion at once may lose a source, never invent one.
        let before = if stepped.began { 0 } else { arm.sources.load() };
        let sources = seen(before, event.source);
        arm.sources.store(sources);
        return Recorded::Counted {
            word: stepped.word,
            trip: stepped.reached && distinct(sources) >= min_sources,
        };
    }
    match event.side {
        Side::Canary => {
            if debt > 0 {
                arm.debt.add(debt);
            }
            Recorded::Dropped
        }
        Side::Baseline => {
            arm.debt.add(debt + event.increments.loss as u64);
            Recorded::Owed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::arm::ONE;
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    /// A word whose compare-and-swap fails as often as it is told.
    #[derive(Default)]
    struct Stubborn {
        value: Cell<u64>,
        failures: Cell<u32>,
    }

    impl Word for Stubborn {
        fn load(&self) -> u64 {
            self.value.get()
        }
        fn store(&self, value: u64) {
            self.value.set(value);
        }
        fn replace(&self, old: u64, new: u64) -> bool {
            if self.failures.get() > 0 {
                self.failures.set(self.failures.get() - 1);
                return false;
            }
            assert_eq!(self.value.get(), old);
            self.value.set(new);
            true
        }
        fn swap(&self, new: u64) -> u64 {
            self.value.replace(new)
        }
        fn add(&self, more: u64) {
            self.value.set(self.value.get() + more);
        }
    }

    struct Shared(AtomicU64);

    impl Word for Shared {
        fn load(&self) -> u64 {
            self.0.load(SeqCst)
        }
        fn store(&self, value: u64) {
            self.0.store(value, SeqCst);
        }
        fn replace(&self, old: u64, new: u64) -> bool {
            self.0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
        }
        fn swap(&self, new: u64) -> u64 {
            self.0.swap(new, SeqCst)
        }
        fn add(&self, more: u64) {
            self.0.fetch_add(more, SeqCst);
        }
    }

    const INCREMENTS: Increments = Increments {
        gain: 3 * ONE,
        loss: ONE,
    };
    const THRESHOLDS: Thresholds = [12 * ONE; 32];

    #[derive(Default)]
    struct World {
        state: Stubborn,
        debt: Stubborn,
        sources: Stubborn,
        caps: [Stubborn; 4],
    }

    impl World {
        fn error(&self, side: Side, source: u64, cap: Option<usize>) -> Recorded {
            let arm = Arm {
                state: &self.state,
                debt: &self.debt,
                sources: &self.sources,
            };
            let event = Event {
                side,
                increments: INCREMENTS,
                source,
                cap: cap.map(|cap| &self.caps[cap]),
            };
            record(&arm, &event, &THRESHOLDS, 3)
        }
    }

    fn trip(recorded: Recorded) -> bool {
        matches!(recorded, Recorded::Counted { trip: true, .. })
    }

    #[test]
    fn a_trip_takes_the_sum_and_the_sources() {
        let rows: [(&str, &[u64], bool); 4] = [
            ("three sources", &[1, 2, 3, 3], true),
            ("two sources", &[1, 2, 2, 1], false),
            ("two sources, then a third", &[1, 2, 2, 1, 1, 3], true),
            ("too few errors", &[1, 2, 3], false),
        ];
        for (name, sources, expected) in rows {
            let world = World::default();
            let last = sources.iter().fold(Recorded::Dropped, |_, &source| {
                world.error(Side::Canary, source, None)
            });
            assert_eq!(trip(last), expected, "{name}");
        }
    }

    #[test]
    fn sources_of_an_excursion_that_ended_are_forgotten() {
        let world = World::default();
        for source in [1, 2] {
            world.error(Side::Canary, source, None);
        }
        for _ in 0..6 {
            world.error(Side::Baseline, 9, None);
        }
        assert_eq!(world.state.load(), ArmWord::new(0, 1).0);
        for _ in 0..10 {
            assert!(!trip(world.error(Side::Canary, 3, None)));
        }
        assert_eq!(distinct(world.sources.load()), 1);
    }

    #[test]
    fn one_prefix_alone_never_trips_and_four_do() {
        let world = World::default();
        for source in 0..10_000 {
            assert!(!trip(world.error(Side::Canary, source, Some(0))));
        }
        assert_eq!(world.state.load(), ArmWord::new(3 * ONE, 1).0);
        for prefix in [1, 2] {
            assert!(!trip(world.error(Side::Canary, 77, Some(prefix))));
        }
        assert!(trip(world.error(Side::Canary, 78, Some(3))));
    }

    #[test]
    fn a_loss_that_exhausts_its_tries_is_owed_and_absorbed_a_gain_is_dropped() {
        let world = World::default();
        world.error(Side::Canary, 1, None);
        world.state.failures.set(TRIES);
        assert_eq!(world.error(Side::Baseline, 1, None), Recorded::Owed);
        assert_eq!(world.debt.load(), u64::from(ONE));
        world.state.failures.set(TRIES);
        assert_eq!(world.error(Side::Canary, 1, None), Recorded::Dropped);
        assert_eq!(world.debt.load(), u64::from(ONE), "the debt stays");
        world.state.failures.set(TRIES);
        assert_eq!(world.error(Side::Baseline, 1, None), Recorded::Owed);
        assert_eq!(world.debt.load(), 2 * u64::from(ONE), "and grows");
        assert_eq!(world.state.load(), ArmWord::new(3 * ONE, 1).0);
        world.state.failures.set(TRIES - 1);
        let counted = Recorded::Counted {
            word: ArmWord::new(4 * ONE, 1),
            trip: false,
        };
        assert_eq!(world.error(Side::Canary, 1, None), counted);
        assert_eq!(world.debt.load(), 0);
    }

    /// Four threads, as four processors: what the arm holds in the end is what went in, less what was
    /// reported as dropped.
    #[test]
    fn nothing_is_lost_between_threads() {
        const EACH: u32 = 20_000;
        // Gains and losses so small that the sum neither reaches zero nor its greatest value.
        let increments = Increments { gain: 3, loss: 2 };
        let start = 100 * ONE;
        let words = [
            AtomicU64::new(ArmWord::new(start, 1).0),
            AtomicU64::new(0),
            AtomicU64::new(0),
        ]
        .map(Shared);
        let dropped = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for side in [Side::Canary, Side::Baseline, Side::Canary, Side::Baseline] {
                let (words, dropped) = (&words, &dropped);
                scope.spawn(move || {
                    let [state, debt, sources] = words;
                    let arm = Arm {
                        state,
                        debt,
                        sources,
                    };
                    for source in 0..u64::from(EACH) {
                        let event = Event {
                            side,
                            increments,
                            source,
                            cap: None,
                        };
                        if record(&arm, &event, &[u32::MAX; 32], 3) == Recorded::Dropped {
                            dropped.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        let gains = 3 * (2 * u64::from(EACH) - dropped.load(SeqCst));
        let losses = 2 * 2 * u64::from(EACH);
        let sum = u64::from(ArmWord(words[0].load()).sum()) - words[1].load();
        assert_eq!(sum, u64::from(start) + gains - losses);
    }
}
