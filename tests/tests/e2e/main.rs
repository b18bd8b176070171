//! The whole of shifter: shifterd as a process, its API, real clients and real backends in network
//! namespaces of their own.

mod cgroup;
mod stage;

mod audit;
mod breaker;
mod bypass;
mod changes;
mod crash;
mod departure;
mod disk;
mod filters;
mod flood;
mod foreign;
mod frames;
mod hairpin;
mod input;
mod interfaces;
mod kept;
mod local;
mod observe;
mod outliers;
mod paths;
mod readiness;
mod rollback;
mod services;
mod shares;
mod silence;
mod tables;
mod targets;
mod transfer;
mod udp;
mod upgrade;
