//! Simulated rollouts: what the breaker and the analysis do to good and to bad releases.
//!
//! The code under test is the shipped code: the kernel's arithmetic from `shifter-common`, the analysis
//! from `shifter-daemon`. Every run begins from a seed, which is printed; `SHIFTER_SIMULATION_SEED` sets
//! it, and `SHIFTER_SIMULATION_SCALE` multiplies the number of rollouts.

pub mod analysis;
pub mod breaker;
pub mod cusum;
pub mod failing_client;
pub mod naive;
pub mod null;
pub mod random;
pub mod schedule;
pub mod setting;
