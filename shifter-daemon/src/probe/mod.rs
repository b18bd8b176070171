//! Readiness: a pure state machine of thresholds, and the tasks that ask backends.

mod check;
mod failure;
mod health;
mod prober;
mod schedule;

pub use check::*;
pub use failure::*;
pub use health::*;
pub use prober::*;
