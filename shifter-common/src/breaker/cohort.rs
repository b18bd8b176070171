//! Which errors count, and with which weight.

use super::arm::{ARM_COUNT, Increments};

/// The cohort whose errors count for nothing: flows that were not drawn by a known weight.
pub const COHORT_NONE: u8 = 0;

/// What the daemon writes of a cohort before its first flow is admitted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CohortRow {
    /// What an error adds, by arm.
    pub increments: [Increments; ARM_COUNT],
    /// The weight at which the cohort's flows were drawn, in basis points.
    pub weight_bp: u16,
    /// Zero.
    pub pad: [u8; 6],
}
const _: () = assert!(size_of::<CohortRow>() == 24);

/// The cohort a flow keeps: that of its selection, or none if it was established within `settle_ns`
/// of the last change of the weight (caches are cold, and old and new choices overlap).
#[inline(always)]
pub const fn cohort_of(selected: u8, established_ns: u64, changed_ns: u64, settle_ns: u64) -> u8 {
    if established_ns.saturating_sub(changed_ns) < settle_ns {
        COHORT_NONE
    } else {
        selected
    }
}

/// Under client affinity: whether this is the client's first error of its step. `counted` is the step
/// in which an error of the client last counted, whichever version it came from, if that is known.
/// Steps are counted from 1 in a rollout. An error counts only in the step that admitted its flow:
/// across steps a client's version is not drawn anew.
#[inline(always)]
pub const fn first_of_client(counted: Option<u32>, admitted: u32, now: u32) -> bool {
    if admitted != now {
        return false;
    }
    match counted {
        Some(step) => step != now,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_established_too_near_a_change_belong_to_no_cohort() {
        let rows = [
            (10, 10, COHORT_NONE),
            (12, 10, COHORT_NONE),
            (13, 10, 7),
            (9, 10, COHORT_NONE),
            (u64::MAX, 0, 7),
        ];
        for (established_ns, changed_ns, expected) in rows {
            assert_eq!(
                cohort_of(7, established_ns, changed_ns, 3),
                expected,
                "{established_ns} after {changed_ns}"
            );
        }
    }

    #[test]
    fn a_client_counts_once_a_step() {
        let rows = [
            (None, 1, 1, true),
            (Some(1), 1, 1, false),
            (Some(1), 2, 2, true),
            (Some(1), 1, 2, false),
            (None, 1, 2, false),
        ];
        for (counted, admitted, now, expected) in rows {
            assert_eq!(
                first_of_client(counted, admitted, now),
                expected,
                "{counted:?} {admitted} {now}"
            );
        }
    }
}
