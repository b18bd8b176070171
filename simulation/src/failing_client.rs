//! Clients that always fail, under client affinity: an old client, a bad certificate. The version is
//! no cause of it.

use shifter_common::breaker::{Side, first_of_client, origin_of_trusted};
use shifter_daemon::analysis::{BreakerBudget, BreakerPlan};

use crate::{breaker::Breaker, random::Random};

/// What happens to the test when the weight changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStep {
    /// It goes on, and each client counts once more.
    GoesOn,
    /// It begins anew, and each step has its part of α.
    BeginsAnew,
}

/// Whether a good release trips: `clients` that always fail try once a step, in random order.
pub fn trips(clients: usize, weights_bp: &[u16], at: AtStep, random: &mut Random) -> bool {
    let budget = BreakerBudget {
        false_rollback: 0.01,
        hosts: 1,
        restarts: match at {
            AtStep::GoesOn => 1,
            AtStep::BeginsAnew => weights_bp.len() as u32,
        },
    };
    let buckets: Vec<u32> = (0..clients).map(|_| random.below(10_000)).collect();
    let mut counted = vec![None; clients];
    let mut breaker = Breaker::new(&budget);
    for (step, &weight_bp) in (1..).zip(weights_bp) {
        if at == AtStep::BeginsAnew {
            breaker = Breaker::new(&budget);
        }
        let row = BreakerPlan::row(weight_bp);
        let mut order: Vec<usize> = (0..clients).collect();
        for last in (1..clients).rev() {
            order.swap(last, random.below(last as u32 + 1) as usize);
        }
        for client in order {
            if !first_of_client(counted[client], step, step) {
                continue;
            }
            counted[client] = Some(step);
            let side = if buckets[client] < u32::from(weight_bp) {
                Side::Canary
            } else {
                Side::Baseline
            };
            let from = origin_of_trusted(client as u64, 7);
            if breaker.error(u64::from(step) << 37, side, &row, from) {
                return true;
            }
        }
    }
    false
}
