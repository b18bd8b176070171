//! A rolling update: backend by backend, never more than so many extra, never fewer than so many.

use serde::{Deserialize, Serialize};
use shifter_common::steering::WEIGHT_FULL_BP;

/// How many backends of either version take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Backends of the new version, in the order of the file.
    pub new_count: u32,
    /// Backends of the old version, in the order of the file.
    pub old_count: u32,
}

impl Batch {
    /// The share of new flows that gives each taking part the same, basis points.
    pub fn weight_bp(self) -> u16 {
        let (new, all) = (u64::from(self.new_count), self.total_count());
        if all == 0 {
            return 0;
        }
        let weight = (new * u64::from(WEIGHT_FULL_BP) + all / 2) / all;
        u16::try_from(weight).unwrap_or(WEIGHT_FULL_BP)
    }

    fn total_count(self) -> u64 {
        u64::from(self.new_count) + u64::from(self.old_count)
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "backends: {} new, {} old",
            self.new_count, self.old_count
        )
    }
}

/// A number of backends, or a part of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Portion {
    /// So many.
    Count(u32),
    /// So many hundredths of the old version's, 0..=100.
    Percent(u8),
}

impl Portion {
    fn of(self, count: u32, is_rounded_up: bool) -> u32 {
        match self {
            Self::Count(portion) => portion,
            Self::Percent(percent) => {
                let hundredths = u64::from(count) * u64::from(percent);
                let portion = if is_rounded_up {
                    hundredths.div_ceil(100)
                } else {
                    hundredths / 100
                };
                u32::try_from(portion).unwrap_or(u32::MAX)
            }
        }
    }
}

impl std::fmt::Display for Portion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// The batches of a rolling update from `old_count` to `new_count` backends, without the last, in
/// which only the new version is left. Surge is rounded up, unavailability down, as Kubernetes does;
/// at least one of them must come to a backend, or nothing could move: then `None`.
pub fn batches(
    new_count: u32,
    old_count: u32,
    max_surge: Portion,
    max_unavailable: Portion,
) -> Option<Vec<Batch>> {
    let surge = max_surge.of(old_count, true);
    let unavailable = max_unavailable.of(old_count, false);
    if new_count == 0 || old_count == 0 || (surge == 0 && unavailable == 0) {
        return None;
    }
    let most = u64::from(old_count.max(new_count)) + u64::from(surge);
    let least = u64::from(old_count.min(new_count)).saturating_sub(u64::from(unavailable));
    let mut batches = Vec::new();
    let mut now = Batch {
        new_count: 0,
        old_count,
    };
    // Each round takes at least one old backend out, or adds at least one new.
    for _ in 0..u64::from(new_count) + u64::from(old_count) {
        let before = now;
        // Old ones that may go at once make room, new ones fill it.
        let spare = now.total_count().saturating_sub(least);
        let leaving = spare.min(u64::from(now.old_count)) as u32;
        now.old_count -= leaving;
        let room = most.saturating_sub(now.total_count());
        let coming = room.min(u64::from(new_count - now.new_count)) as u32;
        // What still serves while they come decides how many of the leaving may go.
        now.new_count += coming;
        if now.old_count == 0 && now.new_count == new_count {
            return Some(batches);
        }
        if now == before {
            return None;
        }
        if now.new_count > 0 && now.old_count > 0 {
            batches.push(now);
        }
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(new: u32, old: u32, surge: Portion, unavailable: Portion) -> Option<Vec<(u32, u32)>> {
        let batches = batches(new, old, surge, unavailable)?;
        Some(batches.iter().map(|b| (b.new_count, b.old_count)).collect())
    }

    #[test]
    fn batches_stay_within_their_limits() {
        use Portion::{Count, Percent};
        for old in 1..=9_u32 {
            for new in 1..=9_u32 {
                for (surge, unavailable) in [
                    (Count(1), Count(0)),
                    (Count(0), Count(1)),
                    (Count(2), Count(1)),
                    (Percent(25), Percent(25)),
                    (Percent(100), Percent(0)),
                ] {
                    let (s, u) = (surge.of(old, true), unavailable.of(old, false));
                    let Some(found) = pairs(new, old, surge, unavailable) else {
                        panic!("{old} -> {new}: nothing moves with {surge:?}, {unavailable:?}");
                    };
                    let mut before = (0, old);
                    for now in found.iter().copied() {
                        let what = format!("{old} -> {new}, {surge:?}, {unavailable:?}: {found:?}");
                        assert!(now.0 + now.1 <= old.max(new) + s, "too many: {what}");
                        // While the new ones come, only these serve.
                        assert!(before.0 + now.1 + u >= old.min(new), "too few: {what}");
                        assert!(
                            now.0 >= before.0 && now.1 <= before.1 && now != before,
                            "{what}"
                        );
                        before = now;
                    }
                    assert!(before.0 + u >= old.min(new), "the last leave too few");
                }
            }
        }
    }

    #[test]
    fn one_at_a_time() {
        use Portion::Count;
        let found = pairs(3, 3, Count(1), Count(0));
        assert_eq!(found, Some(vec![(1, 3), (2, 2), (3, 1)]));
        let found = pairs(3, 3, Count(0), Count(1));
        assert_eq!(found, Some(vec![(1, 2), (2, 1)]));
        assert_eq!(pairs(3, 3, Count(0), Count(0)), None);
        assert_eq!(pairs(0, 3, Count(1), Count(0)), None);
    }

    #[test]
    fn each_backend_has_the_same_share() {
        for (new_count, old_count, weight_bp) in [
            (1, 3, 2_500),
            (1, 2, 3_333),
            (2, 1, 6_667),
            (0, 3, 0),
            (0, 0, 0),
        ] {
            assert_eq!(
                Batch {
                    new_count,
                    old_count
                }
                .weight_bp(),
                weight_bp
            );
        }
    }
}
