//! When the kernel takes the canary out of traffic by itself.

use std::{collections::BTreeSet, time::Duration};

use super::Prefix;

/// The limits of `[breaker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerSpec {
    /// Whether it judges, and whether it acts.
    pub mode: BreakerMode,
    /// Distinct clients of the canary whose flows must have failed, 1..=32.
    pub min_sources: u32,
    /// After a change of the weight, how long new flows are no part of the trial.
    pub settle: Duration,
    /// Proxies and load balancers: each of their flows counts as a client of its own, and they may
    /// supply every error there is. At most 64 prefixes.
    pub trusted: BTreeSet<Prefix>,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            mode: BreakerMode::Armed,
            min_sources: 3,
            settle: Duration::from_secs(3),
            trusted: BTreeSet::new(),
        }
    }
}

/// Whether the breaker judges, and whether it acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerMode {
    /// It judges and takes the canary's weight away.
    #[default]
    Armed,
    /// It judges, and says what it would have done.
    DryRun,
    /// It does nothing.
    Off,
}

impl BreakerMode {
    /// As service files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Armed => "armed",
            Self::DryRun => "dry-run",
            Self::Off => "off",
        }
    }
}
