//! Requests that change something, and their replies.

use serde::{Deserialize, Serialize};

use super::Slot;

/// `POST /v1/services/{service}/weight`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// The canary's share of new flows, 0..=10000 basis points.
    pub weight_bp: u16,
}

/// What happens to established flows of the version that loses its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EstablishedPolicy {
    /// They continue until they end by themselves.
    #[default]
    Drain,
    /// Client and backend get a TCP reset at once.
    Reset,
    /// Those that nobody speaks on get a TCP reset, the others when they have fallen silent.
    ResetIdle,
}

/// `POST /v1/services/{service}/rollback`: weight to 0 in one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Overrides the service file's `[rollback] established`.
    #[serde(default)]
    pub established: Option<EstablishedPolicy>,
}

/// `POST /v1/services/{service}/drain`: no new flows to a slot until it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The slot.
    pub slot: Slot,
    /// Takes the drain back: the slot may be selected again once it is ready.
    #[serde(default)]
    pub undo: bool,
}

/// `POST /v1/detach`: takes all programs off the interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Detaches although live flows will break.
    #[serde(default)]
    pub force: bool,
}

/// Reply to `detach`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Interfaces that were left alone again.
    pub interfaces: Vec<String>,
    /// Live flows that were cut off.
    pub flows_broken_count: u64,
}

/// Reply to a change of a service: what was, what is. On disk and in the kernel when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The service.
    pub service: String,
    /// Weight before, basis points.
    pub weight_before_bp: u16,
    /// Weight now, basis points.
    pub weight_bp: u16,
    /// Generation of the published state.
    pub generation: u32,
    /// Time from the request's arrival to the store that the kernel reads, nanoseconds.
    pub took_ns: u64,
    /// Live flows that were reset.
    pub flows_reset_count: u64,
    /// Remarks a person should read, such as "slot b is not ready: it gets no flows yet".
    #[serde(default)]
    pub notes: Vec<String>,
}

/// When a change of configuration takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is in force.
    Now,
    /// It is taken over, for rollouts that begin after the one that is under way.
    NextRollout,
    /// It was refused; the old value stays in force.
    Refused,
}

/// One difference between the files and what was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// The service, or empty for the node file.
    pub service: String,
    /// Key, as in the file: `slot.a.backends`.
    pub key: String,
    /// Value before; empty if there was none.
    pub before: String,
    /// Value in the file; empty if there is none.
    pub after: String,
    /// When it takes effect.
    pub effect: Effect,
    /// Why it was refused, and what to do.
    #[serde(default)]
    pub reason: String,
}

/// A problem in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// File, as given.
    pub file: String,
    /// Line, from 1; 0 if the problem has no place.
    pub line: u32,
    /// Column in characters, from 1; 0 if the problem has no place.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(default)]
    pub help: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n    help: {}", self.help)?;
        }
        Ok(())
    }
}

/// Body of `bypass`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    /// Steer new connections again.
    #[serde(default)]
    pub undo: bool,
}

/// Reply to `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Differences found.
    pub changes: Vec<ConfigChange>,
    /// Problems; a file with a problem changes nothing.
    pub diagnostics: Vec<Diagnostic>,
    /// Services that are steered although their file is gone.
    pub orphaned: Vec<String>,
}

/// Reply to a request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs: `unknown_service`, `unknown_rollout`, `bad_request`, `forbidden`, `not_eligible`,
    /// `flows_open`, `vip_lost`, `rollout`, `kernel`, `state`, `internal`, `unknown_path`, `wrong_method`.
    pub code: String,
    /// What was refused and why.
    pub message: String,
    /// What to do next; a command where there is one.
    #[serde(default)]
    pub help: String,
}
