//! The whole of shifter: shifterd as a process, its API, real clients and real backends in network
//! namespaces of their own.

mod stage;

mod bypass;
mod changes;
mod crash;
mod departure;
mod foreign;
mod input;
mod outliers;
mod readiness;
mod rollback;
mod shares;
mod tables;
mod upgrade;
