//! What an operator wants: services, slots and backends as values. Pure.

mod node;
mod outlier;
mod service;

pub use node::*;
pub use outlier::*;
pub use service::*;
