//! The driver with everything around it but a kernel: real files, a real state file, a real prober,
//! a dataplane in memory.

mod applying;
mod auditing;
mod bypassing;
mod detaching;
mod drains;
mod failures;
mod flood;
mod outliers;
mod planning;
mod probing;
mod rollbacks;
mod rollouts;
mod session;
mod showing;
mod silences;
mod starting;
mod sweeping;
mod trips;
mod versions;
mod vips;
mod weights;
