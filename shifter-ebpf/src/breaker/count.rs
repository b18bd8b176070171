//! Counters of the breaker. Errors are also seen in process context, where a softirq may come in between:
//! every addition is one instruction.

use shifter_common::breaker::BreakerCounters;

use super::maps::BREAKER_COUNTERS;
use crate::atomic;

/// Those of a service.
#[derive(Clone, Copy)]
pub struct Counters(pub u32);

impl Counters {
    /// Counts one.
    #[inline(always)]
    pub fn count(self, field: impl Fn(*mut BreakerCounters) -> *mut u64) {
        if let Some(counters) = BREAKER_COUNTERS.get_ptr_mut(self.0) {
            // SAFETY: the field is an aligned number of this CPU's own copy.
            unsafe { atomic::add(field(counters), 1) };
        }
    }
}

/// Counts one in a field of [`BreakerCounters`].
macro_rules! count {
    ($counters:expr, $field:ident) => {
        $counters.count(
            // SAFETY: no reference is made, and the pointer is to a whole value.
            |counters| unsafe { &raw mut (*counters).$field },
        )
    };
}
pub(super) use count;
