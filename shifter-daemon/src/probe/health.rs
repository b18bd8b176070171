//! Readiness of one backend as a state machine of thresholds. Pure: time is an argument.

use std::time::Instant;

use super::ProbeFailure;
use crate::model::ProbeSpec;

/// Reason of a target that has not had its first verdict.
pub const NOT_PROBED_YET: &str = "not probed yet";

/// What is known of a backend.
///
/// ```text
///            successes = success_threshold
///   Assumed ──────────────────────────────► Ready ◄─┐
///      │                                      │     │ successes =
///      │ failures = failure_threshold         │     │ success_threshold
///      │                                      ▼     │
///      └─────────────────────────────────► NotReady ┘
///                      failures = failure_threshold
/// ```
///
/// Only results in a row count: one of the other kind starts the count again. Every arrow is a
/// [`Change`]; so the first verdict is one even where it confirms what was assumed. So is a new
/// reason in `NotReady`, because what was true while a backend started (refused) is misleading
/// once it runs (status 503).
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No verdict yet; readiness as it was taken over.
    Assumed { ready: bool },
    /// The last verdict was ready.
    Ready,
    /// The last verdict was not ready, for this reason.
    NotReady { failure: ProbeFailure },
}

/// Results of one kind in a row.
#[derive(Clone, Copy, Debug)]
struct Streak {
    success: bool,
    count: u32,
    since: Instant,
}

/// A verdict: the first one, or one that differs from the last in readiness or in what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The verdict.
    pub ready: bool,
    /// Why, in words: the last probe's failure, or how often it succeeded.
    pub reason: String,
    /// When the answer came that began the streak that decided; for a new reason, when the first
    /// answer with it came.
    pub caused_at: Instant,
    /// When the answer came that decided.
    pub decided_at: Instant,
}

/// Readiness of one backend.
#[derive(Clone, Debug)]
pub struct Health {
    success_threshold: u32,
    failure_threshold: u32,
    state: State,
    streak: Option<Streak>,
}

impl Health {
    /// A backend without a verdict. `initially_ready` is what counts until the first one: true for
    /// a backend that was ready when its state was taken over, else false ([`NOT_PROBED_YET`]).
    /// A threshold of 0 counts as 1.
    pub fn new(spec: &ProbeSpec, initially_ready: bool) -> Self {
        Self {
            success_threshold: spec.success_threshold.max(1),
            failure_threshold: spec.failure_threshold.max(1),
            state: State::Assumed {
                ready: initially_ready,
            },
            streak: None,
        }
    }

    /// Whether new flows may go to the backend.
    pub fn ready(&self) -> bool {
        match self.state {
            State::Assumed { ready } => ready,
            State::Ready => true,
            State::NotReady { .. } => false,
        }
    }

    /// Whether there has been a verdict.
    pub fn decided(&self) -> bool {
        !matches!(self.state, State::Assumed { .. })
    }

    /// Takes one probe's result, answered at `at`.
    pub fn observe(&mut self, result: Result<(), ProbeFailure>, at: Instant) -> Option<Change> {
        let success = result.is_ok();
        let streak = match self.streak {
            Some(streak) if streak.success == success => Streak {
                count: streak.count.saturating_add(1),
                ..streak
            },
            _ => Streak {
                success,
                count: 1,
                since: at,
            },
        };
        self.streak = Some(streak);

        let (threshold, verdict) = match result {
            Ok(()) => (self.success_threshold, State::Ready),
            Err(failure) => (self.failure_threshold, State::NotReady { failure }),
        };
        if streak.count < threshold || self.state == verdict {
            return None;
        }
        let is_new_reason = self.decided() && !self.ready() && !success;
        let reason = match &verdict {
            State::NotReady { failure } if is_new_reason => failure.to_string(),
            State::NotReady { failure } => in_a_row(failure.to_string(), streak.count, "failures"),
            _ => in_a_row("answered".into(), streak.count, "successes"),
        };
        let caused_at = if is_new_reason { at } else { streak.since };
        self.state = verdict;
        Some(Change {
            ready: success,
            reason,
            caused_at,
            decided_at: at,
        })
    }
}

fn in_a_row(what: String, count: u32, kind: &str) -> String {
    if count > 1 {
        format!("{what}; {count} {kind} in a row")
    } else {
        what
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ProbeCheck;

    fn spec(success_threshold: u32, failure_threshold: u32) -> ProbeSpec {
        ProbeSpec {
            port: None,
            check: ProbeCheck::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            success_threshold,
            failure_threshold,
        }
    }

    /// Runs results ('+' success, '-' status 503, '!' refused), one a second from second 0, and writes each change
    /// as `R` or `N`, then the second of its cause and of its decision.
    fn run(thresholds: (u32, u32), initially_ready: bool, results: &str) -> String {
        let mut health = Health::new(&spec(thresholds.0, thresholds.1), initially_ready);
        assert_eq!(health.ready(), initially_ready);
        assert!(!health.decided());
        let start = Instant::now();
        let second = |at: Instant| at.duration_since(start).as_secs();
        let mut changes = Vec::new();
        for (at, result) in (0..).zip(results.chars()) {
            let result = match result {
                '+' => Ok(()),
                '-' => Err(ProbeFailure::Status(503)),
                _ => Err(ProbeFailure::Refused),
            };
            if let Some(change) = health.observe(result, start + Duration::from_secs(at)) {
                assert_eq!(change.ready, health.ready());
                assert!(health.decided());
                let letter = if change.ready { 'R' } else { 'N' };
                let (cause, decision) = (second(change.caused_at), second(change.decided_at));
                changes.push(format!("{letter}{cause}-{decision}"));
            }
        }
        changes.join(" ")
    }

    #[test]
    fn transitions() {
        type Row = (&'static str, (u32, u32), bool, &'static str, &'static str);
        #[rustfmt::skip]
        let rows: &[Row] = &[
            ("nothing asked, nothing said",         (3, 3), false, "",              ""),
            ("below both thresholds",               (3, 3), false, "++--++--",      ""),
            ("first verdict ready",                 (3, 3), false, "+++",           "R0-2"),
            ("first verdict not ready, once only",  (3, 3), false, "------",        "N0-2"),
            ("first verdict confirms ready",        (3, 3), true,  "+++++++",       "R0-2"),
            ("first verdict against adopted ready", (3, 3), true,  "---",           "N0-2"),
            ("the other kind starts again",         (3, 3), false, "++-+++",        "R3-5"),
            ("ready, fails, back",                  (2, 3), false, "++---++",       "R0-1 N2-4 R5-6"),
            ("cause is the first of the streak",    (1, 3), false, "+-+--+---",     "R0-0 N6-8"),
            ("flapping below the threshold",        (1, 2), false, "+-+-+-+-",      "R0-0"),
            ("threshold 1 follows each result",     (1, 1), false, "-+-",           "N0-0 R1-1 N2-2"),
            ("threshold 0 counts as 1",             (0, 0), false, "+-",            "R0-0 N1-1"),
            ("failures of all kinds are one streak",(3, 3), true,  "!-!",           "N0-2"),
            ("a new reason is told when it comes",  (3, 3), false, "!!!!--!",       "N0-2 N4-4 N6-6"),
            ("a reason stays over a lone success",  (3, 3), false, "!!!+!!!",       "N0-2"),
            ("below the threshold no new reason",   (3, 3), false, "!!!+--",        "N0-2"),
            ("not ready recovers after a relapse",  (2, 1), false, "-+-++",         "N0-0 R3-4"),
        ];
        for (what, thresholds, ready, results, expected) in rows {
            assert_eq!(run(*thresholds, *ready, results), *expected, "{what}");
        }
    }

    #[test]
    fn a_long_streak_does_not_overflow() {
        let at = Instant::now();
        let mut health = Health::new(&spec(u32::MAX, 1), false);
        health.streak = Some(Streak {
            success: true,
            count: u32::MAX - 1,
            since: at,
        });
        assert!(health.observe(Ok(()), at).is_some());
        assert!(health.observe(Ok(()), at).is_none());
        assert_eq!(health.streak.map(|streak| streak.count), Some(u32::MAX));
    }

    #[test]
    fn the_reason_names_the_last_failure_and_the_count() {
        let at = Instant::now();
        let mut health = Health::new(&spec(2, 2), true);
        assert_eq!(health.observe(Err(ProbeFailure::Refused), at), None);
        let change = health
            .observe(Err(ProbeFailure::Status(503)), at)
            .map(|c| c.reason);
        assert_eq!(change.as_deref(), Some("status 503; 2 failures in a row"));
        let change = health
            .observe(Err(ProbeFailure::Refused), at)
            .map(|c| c.reason);
        assert_eq!(
            change.as_deref(),
            Some("connection refused: nobody listens there")
        );
        health.observe(Ok(()), at);
        let change = health.observe(Ok(()), at).map(|c| c.reason);
        assert_eq!(change.as_deref(), Some("answered; 2 successes in a row"));

        let mut health = Health::new(&spec(1, 1), false);
        let change = health.observe(Ok(()), at).map(|c| c.reason);
        assert_eq!(change.as_deref(), Some("answered"));
        let change = health
            .observe(Err(ProbeFailure::Status(500)), at)
            .map(|c| c.reason);
        assert_eq!(change.as_deref(), Some("status 500"));
    }
}
