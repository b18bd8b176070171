//! What an operator wants: services, slots and backends as values. Pure.

mod breaker;
mod idle;
mod node;
mod observe;
mod outlier;
mod prefix;
mod service;

pub use breaker::*;
pub use idle::*;
pub use node::*;
pub use observe::*;
pub use outlier::*;
pub use prefix::*;
pub use service::*;
