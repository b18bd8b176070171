//! What shall happen with each service, from its file, its probes and its operators. Pure.

mod plan;
mod record;
mod service;

pub use plan::{PlannedBackend, PublishedService, ServicePlan, SlotPlan};
pub use record::{ServiceRecord, StateRecord};
pub use service::{BackendHealth, ServiceControl};
