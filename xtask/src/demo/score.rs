//! How the two versions shared the traffic while the weight stayed the same.

use super::{load::Window, server::Accepted};

/// A stretch of the demo with one weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Share asked for the second version, basis points.
    pub asked_bp: u16,
    /// What else there is to say about it.
    pub remark: &'static str,
    /// Answers by version.
    pub answered: [u64; 2],
}

impl Score {
    /// Nothing is counted yet.
    pub fn new(asked_bp: u16, remark: &'static str) -> Self {
        Self {
            asked_bp,
            remark,
            answered: [0, 0],
        }
    }

    /// Counts a window in which the weight did not change.
    pub fn count(&mut self, window: &Window) {
        for (mine, theirs) in self.answered.iter_mut().zip(window.answered) {
            *mine += theirs;
        }
    }
}

/// Shares of the first and the second of two counts, hundredths of a percent, rounded; together
/// they are 10000. `None` if both counts are 0.
pub fn shares(answered: [u64; 2]) -> Option<[u64; 2]> {
    let all = answered[0] + answered[1];
    let second = (answered[1] * 20_000 + all).checked_div(2 * all)?;
    Some([10_000 - second, second])
}

/// Connections of a version that it accepted after it was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub count: usize,
    /// How much later the last of them was, milliseconds.
    pub last_ms: u64,
}

impl Late {
    /// Counts those later than `taken_out_unix_ms`. Both clocks tick in milliseconds, so one
    /// millisecond of difference is none.
    pub fn of(accepted: &[Accepted], taken_out_unix_ms: u64) -> Self {
        let late = accepted
            .iter()
            .filter_map(|one| one.unix_ms.checked_sub(taken_out_unix_ms));
        late.filter(|later_ms| *later_ms > 1)
            .fold(Self::default(), |sum, later_ms| Self {
                count: sum.count + 1,
                last_ms: sum.last_ms.max(later_ms),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_a_whole() {
        let rows = [
            ([0, 0], None),
            ([10, 0], Some([10_000, 0])),
            ([0, 10], Some([0, 10_000])),
            ([9_503, 497], Some([9_503, 497])),
            ([2, 1], Some([6_667, 3_333])),
            ([1, 2], Some([3_333, 6_667])),
            ([19_999, 1], Some([9_999, 1])),
            ([20_001, 1], Some([10_000, 0])),
        ];
        for (answered, expected) in rows {
            assert_eq!(shares(answered), expected, "{answered:?}");
        }
    }

    #[test]
    fn windows_add_up() {
        let mut score = Score::new(500, "");
        for answered in [[1_900, 100], [1_905, 95]] {
            score.count(&Window {
                answered,
                ..Window::default()
            });
        }
        assert_eq!(score.answered, [3_805, 195]);
    }

    #[test]
    fn late_connections_are_told_apart() {
        let at = |unix_ms: u64| Accepted { unix_ms };
        let rows = [
            (vec![], Late::default()),
            (vec![at(900), at(1_000), at(1_001)], Late::default()),
            (
                vec![at(999), at(1_002)],
                Late {
                    count: 1,
                    last_ms: 2,
                },
            ),
            (
                vec![at(1_007), at(1_003)],
                Late {
                    count: 2,
                    last_ms: 7,
                },
            ),
        ];
        for (accepted, expected) in rows {
            assert_eq!(Late::of(&accepted, 1_000), expected, "{accepted:?}");
        }
    }
}
