//! Whether a rollout may begin.

use shifter_common::steering::Slot;

use super::{
    freeze::FreezeWindow,
    label::Label,
    machine::Rollout,
    migration::{MigrationPhase, MigrationRefused, OldVersion, check_contract},
    phase::{Phase, PhaseKind},
    time::Now,
};

/// How things stand when somebody wants to start a version.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The service.
    pub service: &'a str,
    /// The version that serves now, if it is known.
    pub serving: Option<&'a Label>,
    /// The slot the new version would take.
    pub canary: Slot,
    /// Backends of that slot.
    pub backends_count: usize,
    /// The service's last rollout, over or not.
    pub last: Option<Last<'a>>,
    /// Times at which nothing begins.
    pub freezes: &'a [FreezeWindow],
    /// The version before the one that serves, if there was one.
    pub old: Option<&'a OldVersion>,
    /// How long a version may still be wanted back, milliseconds.
    pub rollback_window_ms: u64,
}

/// A service's last rollout.
#[derive(Clone, Copy, Debug)]
pub struct Last<'a> {
    version: &'a Label,
    phase: &'a Phase,
}

impl<'a> From<&'a Rollout> for Last<'a> {
    fn from(rollout: &'a Rollout) -> Self {
        Self {
            version: &rollout.parts().version,
            phase: rollout.phase(),
        }
    }
}

/// What becomes of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It begins.
    Begin,
    /// It takes the place of the rollout that is under way.
    Supersede,
    /// It has been done.
    Already(String),
}

/// Why a start is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartRefused {
    /// Nowhere to put it.
    #[error(
        "slot {slot} of {service} has no backends, and the next version goes there; add \
         [slot.{slot}] to its file, then: shifterctl apply"
    )]
    NoBackends {
        /// The slot.
        slot: Slot,
        /// The service.
        service: String,
    },
    /// Not now.
    #[error(
        "{service} is frozen for another {left_s} s ({reason}); wait, or lift it: shifterctl unfreeze"
    )]
    Frozen {
        /// The service.
        service: String,
        /// What is left of the freeze.
        left_s: u64,
        /// Why.
        reason: String,
    },
    /// It failed a moment ago.
    #[error(
        "version {version} of {service} was rolled back ({cause}), and is refused for another \
         {left_s} s; wait, or start a version that is mended"
    )]
    Cooldown {
        /// The version.
        version: Label,
        /// The service.
        service: String,
        /// Why it was rolled back.
        cause: String,
        /// What is left of the cooldown.
        left_s: u64,
    },
    /// It is being taken back.
    #[error(
        "version {version} of {service} goes back right now; wait for its end: shifterctl status \
         --wait {service}"
    )]
    GoingBack {
        /// The version.
        version: Label,
        /// The service.
        service: String,
    },
    /// The database.
    #[error(transparent)]
    Migration(#[from] MigrationRefused),
}

/// Whether a version may be started.
///
/// # Errors
/// Why it may not, with what to do.
pub fn admit(
    version: &Label,
    migration: Option<MigrationPhase>,
    situation: &Situation<'_>,
    now: Now,
) -> Result<Admission, StartRefused> {
    let service = || situation.service.to_owned();
    let live = situation.last.filter(|last| !last.phase.is_final());
    if let Some(last) = live.filter(|last| last.version == version) {
        return if last.phase.kind() == PhaseKind::RollingBack {
            Err(StartRefused::GoingBack {
                version: version.clone(),
                service: service(),
            })
        } else {
            let phase = last.phase;
            Ok(Admission::Already(format!("it is under way: {phase}")))
        };
    }
    if live.is_none() && situation.serving == Some(version) {
        return Ok(Admission::Already("it serves".into()));
    }
    if situation.backends_count == 0 {
        return Err(StartRefused::NoBackends {
            slot: situation.canary,
            service: service(),
        });
    }
    if let Some(window) = FreezeWindow::in_force(situation.freezes, now.unix_ms) {
        return Err(StartRefused::Frozen {
            service: service(),
            left_s: (window.until_unix_ms - now.unix_ms).div_ceil(1_000),
            reason: window.reason.clone(),
        });
    }
    check_cooldown(version, situation, now)?;
    match (migration, situation.old) {
        (Some(MigrationPhase::Contract), Some(old)) => {
            check_contract(old, situation.rollback_window_ms, now.unix_ms)?;
        }
        (Some(MigrationPhase::Contract | MigrationPhase::Expand) | None, _) => {}
    }
    Ok(match live {
        Some(_) => Admission::Supersede,
        None => Admission::Begin,
    })
}

fn check_cooldown(
    version: &Label,
    situation: &Situation<'_>,
    now: Now,
) -> Result<(), StartRefused> {
    let Some(Last {
        version: last,
        phase:
            Phase::RolledBack {
                cause,
                since_unix_ms,
                cooldown_ms,
            },
    }) = situation.last
    else {
        return Ok(());
    };
    // A clock that stepped back makes no cooldown longer than it was.
    let passed_ms = now.unix_ms.saturating_sub(*since_unix_ms);
    let left_ms = cooldown_ms.saturating_sub(passed_ms);
    if last != version || left_ms == 0 {
        return Ok(());
    }
    Err(StartRefused::Cooldown {
        version: version.clone(),
        service: situation.service.to_owned(),
        cause: cause.to_string(),
        left_s: left_ms.div_ceil(1_000),
    })
}
