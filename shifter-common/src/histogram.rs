//! Buckets of a log-linear histogram of durations: eight for each power of two, so a value is known to
//! within an eighth (12.5 %). Pure; runs in the kernel.
//!
//! The unit is 1024 ns, because the kernel shifts where it would have to divide. Durations below eight
//! units have a bucket each; the last bucket holds everything from 64 s up.

/// log₂ of the nanoseconds of a unit.
pub const UNIT_SHIFT_NS: u32 = 10;
/// log₂ of the buckets of a power of two.
const SUB_BITS: u32 = 3;
/// Powers of two that have buckets: durations below 2²⁶ units, 68.7 s.
const TOP_BIT: u32 = 26;
/// Buckets of a histogram.
pub const BUCKET_COUNT: usize = ((TOP_BIT - SUB_BITS + 1) << SUB_BITS) as usize;

/// The bucket of a duration, below [`BUCKET_COUNT`].
#[inline(always)]
pub const fn bucket(duration_ns: u64) -> usize {
    let units = duration_ns >> UNIT_SHIFT_NS;
    if units < 1 << SUB_BITS {
        return units as usize;
    }
    if units >= 1 << TOP_BIT {
        return BUCKET_COUNT - 1;
    }
    let top = 63 - units.leading_zeros();
    let sub = (units >> (top - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((top - SUB_BITS + 1) << SUB_BITS) as u64 + sub) as usize
}

/// The least duration of a bucket, in nanoseconds. A bucket ends where the next begins; for
/// [`BUCKET_COUNT`] this is the end of the last but one as well, and the last has none.
pub const fn lower_bound_ns(bucket: usize) -> u64 {
    let bucket = if bucket >= BUCKET_COUNT {
        BUCKET_COUNT as u64
    } else {
        bucket as u64
    };
    let units = if bucket < 1 << SUB_BITS {
        bucket
    } else {
        let shift = (bucket >> SUB_BITS) - 1;
        ((1 << SUB_BITS) + (bucket & ((1 << SUB_BITS) - 1))) << shift
    };
    units << UNIT_SHIFT_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        assert_eq!(BUCKET_COUNT, 192);
        for index in 0..BUCKET_COUNT {
            let low = lower_bound_ns(index);
            assert_eq!(bucket(low), index);
            assert!(index == 0 || bucket(low - 1) == index - 1, "{index}");
            let width = lower_bound_ns(index + 1) - low;
            assert!(
                index < 8 || width * 8 <= low,
                "{index}: {width} ns from {low} ns"
            );
        }
        assert_eq!(lower_bound_ns(BUCKET_COUNT), 1 << 36);
        assert_eq!(bucket(u64::MAX), BUCKET_COUNT - 1);
    }

    proptest! {
        #[test]
        fn a_duration_lies_in_its_bucket(duration_ns in 0_u64..1 << 36) {
            let index = bucket(duration_ns);
            prop_assert!(lower_bound_ns(index) <= duration_ns);
            prop_assert!(duration_ns < lower_bound_ns(index + 1));
        }
    }
}
