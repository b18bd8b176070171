//! The Prometheus endpoint: one status of the driver, as OpenMetrics text, at each scrape.
//!
//! Nothing is counted here, so nothing can disagree with `shifterctl status`. The number of series
//! grows with the configuration (services, slots, backends, interfaces) and with nothing that
//! clients or errors could multiply.

mod family;
mod observed;
mod server;
mod socket;
mod text;

#[cfg(test)]
pub(crate) mod sample;

pub use server::serve;
pub use text::{CONTENT_TYPE, render};
