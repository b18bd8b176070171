//! What shall happen with each service, from its file, its probes and its operators. Pure.

mod deviation;
mod health;
mod outlier;
mod plan;
mod record;
mod service;

pub use deviation::Deviation;
pub use health::BackendHealth;
pub use outlier::{Decision, Outcomes, Peer};
pub use plan::{PlannedBackend, PublishedService, ServicePlan, SlotPlan, effective_bp};
pub use record::{Drained, ServiceRecord, StateRecord};
pub use service::ServiceControl;
