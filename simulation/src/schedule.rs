//! Weights over the time of a rollout.

use shifter_common::breaker::{CohortRow, cohort_of};
use shifter_daemon::analysis::BreakerPlan;

/// How long a simulated rollout takes.
pub const ROLLOUT_S: u32 = 7_200;
/// Flows established this soon after a change belong to no cohort.
const SETTLE_S: u64 = 3;

/// A rollout that gives each weight, in basis points, the same time.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Rows of the cohorts; that of no cohort comes first.
    pub rows: Vec<CohortRow>,
    /// The cohort of flows established in each second, with settling.
    admitted: Vec<u8>,
    /// The cohort whose weight is in force in each second.
    current: Vec<u8>,
}

impl Schedule {
    /// One weight after the other.
    pub fn new(weights_bp: &[u16]) -> Self {
        let mut rows = vec![CohortRow::default()];
        rows.extend(weights_bp.iter().map(|&weight| BreakerPlan::row(weight)));
        let step_s = ROLLOUT_S / weights_bp.len() as u32;
        let cohort = |second: u32| (second / step_s).min(weights_bp.len() as u32 - 1) as u8 + 1;
        let current: Vec<u8> = (0..ROLLOUT_S).map(cohort).collect();
        let admitted = (0..ROLLOUT_S)
            .map(|second| {
                let changed = u64::from((u32::from(cohort(second)) - 1) * step_s);
                cohort_of(cohort(second), second.into(), changed, SETTLE_S)
            })
            .collect();
        Self {
            rows,
            admitted,
            current,
        }
    }

    /// The row of flows established at this second; before the rollout the row of no cohort.
    #[inline]
    pub fn admitted(&self, second: Option<u32>) -> &CohortRow {
        let cohort = second.and_then(|second| self.admitted.get(second as usize));
        &self.rows[usize::from(cohort.copied().unwrap_or(0))]
    }

    /// The row of the weight in force at this second.
    #[inline]
    pub fn current(&self, second: u32) -> &CohortRow {
        let last = self.current.len() - 1;
        &self.rows[usize::from(self.current[(second as usize).min(last)])]
    }
}

/// The shapes that good releases are simulated with, by name.
pub const SHAPES: &[(&str, &[u16])] = &[
    ("up 1-5-20-50 %", &[100, 500, 2_000, 5_000]),
    ("down 50-20-5-1 %", &[5_000, 2_000, 500, 100]),
    (
        "up and down",
        &[100, 5_000, 200, 8_000, 100, 9_900, 500, 2_000],
    ),
    ("from 1 bp", &[1, 5, 25, 100, 500]),
    ("up to 99 %", &[5_000, 8_000, 9_500, 9_900]),
];
