//! Times at which nothing is started.

use serde::{Deserialize, Serialize};

/// A stretch of time in which no rollout begins and no slot gets its first traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeWindow {
    /// Begin, Unix milliseconds, included.
    pub from_unix_ms: u64,
    /// End, Unix milliseconds, not included.
    pub until_unix_ms: u64,
    /// Why, in words.
    pub reason: String,
}

/// Why a window is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a freeze from {from_unix_ms} until {until_unix_ms} (Unix milliseconds) never holds: its end must come after its begin"
)]
pub struct FreezeError {
    from_unix_ms: u64,
    until_unix_ms: u64,
}

impl FreezeWindow {
    /// Checks that it ever holds.
    ///
    /// # Errors
    /// If it ends before it begins.
    pub fn check(&self) -> Result<(), FreezeError> {
        if self.from_unix_ms < self.until_unix_ms {
            return Ok(());
        }
        Err(FreezeError {
            from_unix_ms: self.from_unix_ms,
            until_unix_ms: self.until_unix_ms,
        })
    }

    /// Whether it holds at a time.
    pub const fn holds(&self, unix_ms: u64) -> bool {
        self.from_unix_ms <= unix_ms && unix_ms < self.until_unix_ms
    }

    /// The window that holds at a time and lasts longest.
    pub fn in_force(windows: &[Self], unix_ms: u64) -> Option<&Self> {
        let holding = windows.iter().filter(|window| window.holds(unix_ms));
        holding.max_by_key(|window| window.until_unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_unix_ms: u64, until_unix_ms: u64) -> FreezeWindow {
        FreezeWindow {
            from_unix_ms,
            until_unix_ms,
            reason: String::new(),
        }
    }

    #[test]
    fn the_longest_window_in_force_counts() {
        let windows = [window(10, 20), window(15, 30), window(18, 25)];
        let rows = [
            (9, None),
            (10, Some(20)),
            (15, Some(30)),
            (19, Some(30)),
            (29, Some(30)),
            (30, None),
        ];
        for (at, until) in rows {
            let found = FreezeWindow::in_force(&windows, at).map(|w| w.until_unix_ms);
            assert_eq!(found, until, "{at}");
        }
    }

    #[test]
    fn a_window_that_never_holds_is_refused() {
        assert_eq!(window(1, 2).check(), Ok(()));
        assert_eq!(
            window(2, 2).check().expect_err("never holds").to_string(),
            "a freeze from 2 until 2 (Unix milliseconds) never holds: its end must come after its \
             begin"
        );
    }
}
