//! Which part of `TABLES` belongs to which lookup table. Pure: the allocation is derived from the
//! regions in use, so there is nothing to keep in step with the kernel.

use shifter_common::abi::Region;

/// Finds room for a table of `size` entries among `capacity`, given the regions in use in any
/// order. The base is even. `None` if no gap is large enough.
pub fn find_gap(in_use: impl Iterator<Item = Region>, size: u32, capacity: u32) -> Option<Region> {
    let mut taken: Vec<Region> = in_use.filter(|region| region.size > 0).collect();
    taken.sort_unstable();
    let mut base = 0_u32;
    for region in taken {
        if region.base.saturating_sub(base) >= size {
            break;
        }
        let end = region
            .base
            .saturating_add(region.size)
            .checked_next_multiple_of(2)?;
        base = base.max(end);
    }
    let end = base.checked_add(size)?;
    (end <= capacity).then_some(Region { base, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(base: u32, size: u32) -> Region {
        Region { base, size }
    }

    #[test]
    fn gaps() {
        // regions in use, wanted size, capacity, expected base
        type Row = (&'static [(u32, u32)], u32, u32, Option<u32>);
        const ROWS: &[Row] = &[
            (&[], 127, 127, Some(0)),
            (&[], 128, 127, None),
            (&[(0, 127)], 127, 1_000, Some(128)),
            (&[(128, 127), (0, 127)], 127, 1_000, Some(256)),
            (&[(200, 127)], 127, 1_000, Some(0)),
            (&[(0, 50), (100, 50)], 51, 1_000, Some(150)),
            (&[(0, 50), (100, 50)], 50, 1_000, Some(50)),
            (&[(0, 0), (10, 0)], 5, 10, Some(0)),
            (&[(0, 127)], 127, 254, None),
            (&[(0, u32::MAX)], 1, u32::MAX, None),
        ];
        for &(in_use, size, capacity, expected) in ROWS {
            let in_use = in_use.iter().map(|&(base, size)| region(base, size));
            let found = find_gap(in_use, size, capacity).map(|region| region.base);
            assert_eq!(found, expected, "{size} of {capacity}");
        }
    }
}
