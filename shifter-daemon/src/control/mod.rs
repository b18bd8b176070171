//! What shall happen with each service, from its file, its probes and its operators. Pure.

mod deviation;
mod health;
mod listener;
mod outlier;
mod plan;
mod plane;
mod record;
mod service;

pub use deviation::Deviation;
pub use health::BackendHealth;
pub use listener::{ListenerView, Relistened};
pub use outlier::{Decision, Outcomes, Peer};
pub use plan::{
    PlanePlan, PlannedBackend, PublishedService, ServicePlan, SlotPlan, SocketPlan, effective_bp,
    serves,
};
pub use plane::{HostView, Steering, choose_plane};
pub use record::{Drained, ServiceRecord};
pub use service::{BREAKER, ServiceControl};
