//! What an operator wants: services, slots and backends as values. Pure.

mod node;
mod service;

pub use node::*;
pub use service::*;
