//! The one loop that turns the outside world into events and effects into calls.

mod handle;

pub use handle::*;
