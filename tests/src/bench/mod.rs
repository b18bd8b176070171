//! The bench: what shifter costs beside its peers, and how fast it moves traffic.
//!
//! Three parts make one [`results::Results`]; [`markdown`] and [`pictures`] show it. Whoever reads the
//! numbers finds the method in `docs/performance.md`.

pub mod change;
pub mod chart;
pub mod cpu;
pub mod end_to_end;
#[cfg(test)]
mod fixture;
pub mod machine;
pub mod markdown;
pub mod opener;
pub mod packets;
pub mod pictures;
pub mod results;
pub mod spread;
pub mod way;
