//! The socket plane: real shifterd, real listeners, real clients, in network namespaces.

mod greeter;
mod held;
mod own_cgroup;
mod stage;

mod breaker;
mod capture;
mod cost;
mod death;
mod full;
mod groups;
mod handshake;
mod observe;
mod planes;
mod reload;
mod rest;
mod shares;
mod silence;
mod strangers;
mod tenants;
mod upgrade;
mod vip;
