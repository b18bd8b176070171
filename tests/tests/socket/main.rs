//! The socket plane: real shifterd, real listeners, real clients, in network namespaces.

mod greeter;
mod held;
mod stage;

mod breaker;
mod capture;
mod death;
mod full;
mod planes;
mod rest;
mod shares;
mod silence;
mod strangers;
mod tenants;
mod upgrade;
mod vip;
