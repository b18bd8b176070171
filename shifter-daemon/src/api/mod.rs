//! The control API: HTTP/JSON on a Unix socket.
//!
//! A request goes through rooms that know nothing of each other: [`bind`] makes the socket,
//! `connections` bounds what a client can hold, [`Access`] says what its user may do, [`Endpoint`]
//! turns path, query and body into a [`Request`](crate::driver::Request) or a refusal, and
//! `server` asks the driver. The wire types are in `shifter_common::wire`; `docs/api.md` and
//! `docs/openapi.json` describe them for people and programs.

mod access;
mod audit;
mod body;
pub(crate) mod connections;
mod endpoint;
mod peer;
mod refused;
mod rollout;
mod server;
mod socket;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod openapi_test;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod server_test;

pub use access::{Access, Accounts, Caller, GROUP_CHANGE, GROUP_VIEW, Right, SystemAccounts};
pub use connections::Limits;
pub use endpoint::Endpoint;
pub use peer::Peer;
pub use refused::http_status;
pub use server::{ApiServer, serve};
pub use socket::{ApiError, SocketGroups, bind, bind_for};
