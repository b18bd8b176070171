//! Rollouts: how a version gets its traffic, step by step, and loses it at once. Pure.
//!
//! ```text
//! request ─ strategy, preset ─► Plan ─ freeze ─► FrozenPlan ─► Rollout ─► effects
//!                                                               ▲    │
//!                                            events, commands ──┘    └─► waiting_on, next_deadline
//! ```
//!
//! [`Rollout`] is the state machine: it takes what happened and the time, and gives what is to be
//! done. [`run`] puts decisions, disk and kernel in order; whoever owns the outside world implements
//! [`Shell`] and has no other choice to make.

mod admission;
mod cidr;
mod event;
mod fault;
mod forecast;
mod freeze;
mod gate;
mod label;
mod machine;
mod migration;
mod phase;
mod plan;
mod preset;
mod refused;
mod rolling;
mod run;
mod share;
mod spec;
mod strategy;
#[cfg(test)]
mod tests;
mod time;
mod wanted;

pub use admission::{Admission, Last, Situation, StartRefused, admit};
pub use cidr::{Cidr, CidrError};
pub use event::{
    Act, Command, Done, Effect, Event, GateAnswer, Order, Seen, SlotFlows, Transition, Verb,
};
pub use forecast::{Forecast, forecast};
pub use freeze::{FreezeError, FreezeWindow};
pub use gate::{GATE_USER_DEFAULT, Gate, GateCheck, GatePoint};
pub use label::{Label, LabelError};
pub use machine::{Rollout, RolloutParts, Waiting};
pub use migration::{
    MigrationPhase, MigrationRefused, OldVersion, Release, check_contract, check_undo,
};
pub use phase::{
    BakeStage, Cause, MoveStage, PauseReason, Phase, PhaseKind, RestoreStage, Resumption,
    WarmStage, WatchStage,
};
pub use plan::{
    AnalysisPlan, FrozenPlan, Limits, OnDrainTimeout, OnInconclusive, Plan, PlanError, PlanKind,
    Step,
};
pub use preset::{PRESETS, Preset, preset};
pub use refused::Refused;
pub use rolling::{Batch, Portion, batches};
pub use run::{Ran, Shell, run};
pub use share::Share;
pub use spec::{BAKE_DEFAULT_MS, RolloutSpec};
pub use strategy::{Composed, ServiceShape, Strategy, compose};
pub use time::{Now, OBSERVED_GAP_MAX_MS, Stopwatch};
pub use wanted::Wanted;
