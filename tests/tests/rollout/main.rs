//! Rollouts: real shifterd, real versions, real clients, in network namespaces.

mod stage;

mod back;
mod canary;
mod crash;
mod gates;
mod operators;
