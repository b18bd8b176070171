//! Readiness: a pure state machine of thresholds, and the tasks that ask backends.
