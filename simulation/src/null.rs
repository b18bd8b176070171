//! Good releases: errors have nothing to do with the version. Each flow's version was drawn at its
//! admission; it fails a while later, and others fail with it.

use shifter_common::breaker::{ARM_COUNT, ArmWord, CohortRow, Increments, Side, Thresholds, step};

use crate::{
    random::Random,
    schedule::{ROLLOUT_S, Schedule},
};

/// How long after its admission a flow fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// At once.
    None,
    /// By a timeout of 30 s.
    Timeout,
    /// Some time in 300 s of keep-alive.
    KeepAlive,
    /// One of these, flow by flow.
    Mixed,
}

/// All delays.
pub const DELAYS: [Delay; 4] = [Delay::None, Delay::Timeout, Delay::KeepAlive, Delay::Mixed];

/// Which weight an error is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// That of its flow's admission.
    AtAdmission,
    /// The one in force when it fails: the mistake.
    AtFailure,
}

/// A rollout of a good release.
#[derive(Clone, Copy, Debug)]
pub struct Null<'a> {
    /// Its weights.
    pub schedule: &'a Schedule,
    /// How long flows take to fail.
    pub delay: Delay,
    /// How many of them fail in the rollout.
    pub errors: u32,
    /// Which weight errors are judged by.
    pub judged: Judged,
    /// Which increments an error has; what the row says, unless something is to be broken.
    pub increments: fn(&CohortRow) -> [Increments; ARM_COUNT],
}

/// What a row says.
pub fn increments_of(row: &CohortRow) -> [Increments; ARM_COUNT] {
    row.increments
}

impl Null<'_> {
    /// Whether the breaker trips. Half of the errors come evenly, a quarter in a drift that grows, a
    /// quarter in an outage of both versions: a minute in which a hundred sources have ten errors a
    /// second each and more.
    pub fn trips(&self, thresholds: &[Thresholds; ARM_COUNT], random: &mut Random) -> bool {
        let mut arms = [ArmWord::default(); ARM_COUNT];
        let outage = f64::from(random.below(ROLLOUT_S - 60));
        let end = f64::from(ROLLOUT_S);
        // Errors up to a second: even, growing with the square of the time, and the outage.
        let steps = f64::from(self.errors);
        let mut now = 0.0_f64;
        for _ in 0..self.errors {
            let mut rate = 0.5 / end + 0.25 * 3.0 * now * now / (end * end * end);
            if (outage..outage + 60.0).contains(&now) {
                rate += 0.25 / 60.0;
            }
            now += 1.0 / (steps * rate);
            if now >= end {
                break;
            }
            let bits = random.bits();
            let delay_s = match (self.delay, bits & 3) {
                (Delay::None, _) | (Delay::Mixed, 0) => 0,
                (Delay::Timeout, _) | (Delay::Mixed, 1) => 30,
                _ => ((((bits >> 2) & 0xffff) * 300) >> 16) as u32,
            };
            let second = now as u32;
            let admission = second.checked_sub(delay_s);
            let admitted = self.schedule.admitted(admission);
            let judged = match self.judged {
                Judged::AtAdmission => admitted,
                Judged::AtFailure => self.schedule.current(second),
            };
            let side = if random.below(10_000) < u32::from(admitted.weight_bp) {
                Side::Canary
            } else {
                Side::Baseline
            };
            let increments = (self.increments)(judged);
            for ((arm, increments), thresholds) in arms.iter_mut().zip(increments).zip(thresholds) {
                let stepped = step(*arm, side, increments, 0, u32::MAX, thresholds);
                if stepped.reached {
                    return true;
                }
                *arm = stepped.word;
            }
        }
        false
    }
}
