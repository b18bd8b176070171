//! shifterd as a library: everything but the command line, so that tests can run it.

pub mod analysis;
pub mod api;
pub mod bypass;
pub mod config;
pub mod config_files;
pub mod control;
pub mod dataplane;
pub mod deployment;
pub mod doctor;
pub mod driver;
pub mod gates;
pub mod hook;
pub mod metrics;
pub mod model;
pub mod paths;
pub mod probe;
pub mod rollout;
pub mod sock_diag;
pub mod store;
pub mod vip_addresses;
