//! Reads the texts of `shifter.toml` and of the service files into the model. Pure: texts come in,
//! specifications or problems go out; [`crate::config_files`] does the reading.
//!
//! A text is parsed into a tree whose every node knows its place, and the tree is walked by hand, so
//! that all problems of a file are found in one pass. Each is a [`Diagnostic`] that says where it
//! is, what is wrong, and what would be right. A key that shifter does not know, or does not
//! support yet, is a problem too: nobody shall believe that something is in force which is not.
//!
//! ```text
//! text ─ syntax ─► tree ─ section, field ─► values ─ relations ─► ServiceSpec ─ conflict ─► Services
//!                            │ schema                                 │ diff ─► changes
//! ```

mod address;
mod analysis;
mod breaker;
mod conflict;
mod diff;
mod duration;
mod field;
mod file_set;
mod gate;
mod node;
mod observe;
mod outlier;
mod place;
mod probe;
mod relations;
mod report;
mod rollout;
mod schema;
mod section;
mod service;
mod slot;
mod syntax;
mod target;
#[cfg(test)]
mod tests;

pub use conflict::{check_all, check_kept};
pub use diff::{diff, diff_node};
pub use duration::{DurationError, format_duration, parse_duration};
pub use file_set::{LoadedServices, collect};
pub use node::parse_node;
pub use place::Place;
pub use service::{ServiceFile, parse_service};
pub use shifter_common::wire::Diagnostic;

/// Backends one slot may have: beyond it the largest lookup table no longer holds
/// [`shifter_common::maglev::ENTRIES_PER_BACKEND`] entries for each, and shares get coarser.
pub const BACKENDS_PER_SLOT_MAX_COUNT: usize = 2_621;

/// Bytes a configuration file may have.
pub const FILE_MAX_BYTES: usize = 1 << 20;
