//! What a rollout does not do, and what to do instead.

use super::phase::{Phase, PhaseKind};

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Refused {
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Refused {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    /// There is no rollout under way any more.
    pub(super) fn over(service: &str, phase: &Phase) -> Self {
        let message = format!("the rollout of {service} is over: {phase}");
        let help = match phase.kind() {
            PhaseKind::Succeeded => {
                format!(
                    "to go back: shifterctl undo {service}; forward: shifterctl start {service} VERSION"
                )
            }
            PhaseKind::RolledBack | PhaseKind::Failed => {
                format!("to try it again: shifterctl retry {service}")
            }
            _ => format!("for the one that replaced it: shifterctl status {service}"),
        };
        Self::new(message, help)
    }

    /// It goes back already.
    pub(super) fn going_back(service: &str) -> Self {
        Self::new(
            format!("the rollout of {service} goes back, which nothing stops"),
            format!("wait for its end: shifterctl status --wait {service}"),
        )
    }
}
