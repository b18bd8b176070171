//! shifterd as a library: everything but the command line, so that tests can run it.

pub mod api;
pub mod config;
pub mod config_files;
pub mod doctor;
pub mod driver;
pub mod metrics;
pub mod model;
pub mod probe;
