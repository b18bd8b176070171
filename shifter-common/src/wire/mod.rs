//! Types of the control API: HTTP/JSON on a Unix socket, paths below `/v1`.
//!
//! | Method and path | Request | Reply |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/services/{service}` | | [`ServiceStatus`] |
//! | `GET /v1/services/{service}/flows?limit=N` | | [`Flows`] |
//! | `GET /v1/services/{service}/plan/{version}` | | [`PlannedRollout`] |
//! | `GET /v1/services/{service}/history` | | [`History`] |
//! | `GET /v1/services/{service}/history/{rollout}` | | [`DeploymentRecord`] |
//! | `GET /v1/audit?after=N&limit=N&service=NAME&rollout=N` | | [`AuditPage`] |
//! | `POST /v1/apply` | | [`ApplyReport`] |
//! | `POST /v1/services/{service}/weight` | [`SetWeight`] | [`Changed`] |
//! | `POST /v1/services/{service}/rollback` | [`Rollback`] | [`Changed`] |
//! | `POST /v1/services/{service}/rollout` | [`StartRollout`] | [`RolloutReply`] |
//! | `POST /v1/services/{service}/rollout/command` | [`RolloutCommand`] | [`RolloutReply`] |
//! | `POST /v1/services/{service}/drain` | [`Drain`] | [`Changed`] |
//! | `POST /v1/detach` | [`Detach`] | [`Detached`] |
//!
//! Every refusal is a [`Refusal`] with a status of 4xx or 5xx. Unknown request fields are refused.

mod audit;
mod breaker;
mod command;
mod history;
mod local;
mod observed;
mod plan;
mod rollout;
mod status;

pub use audit::*;
pub use breaker::*;
pub use command::*;
pub use history::*;
pub use local::*;
pub use observed::*;
pub use plan::*;
pub use rollout::*;
pub use status::*;

pub use crate::{
    steering::{Affinity, Slot},
    tcp::Phase,
};
