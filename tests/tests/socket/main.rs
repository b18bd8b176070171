//! The socket plane: real shifterd, real listeners, real clients, in network namespaces.

mod greeter;
mod stage;

mod breaker;
mod capture;
mod death;
mod observe;
mod planes;
mod shares;
mod strangers;
