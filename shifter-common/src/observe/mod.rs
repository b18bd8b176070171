//! What the kernel sees of a version's answers without touching the application: how long the handshake
//! and the first byte take, and the status of responses of HTTP/1.x in clear text. Pure; the kernel programs
//! run it on each new segment of the connections they watch.

mod abi;
mod http;
mod watch;

pub use abi::{
    OBSERVED_COUNT, ObserveRules, Observed, WATCHED_COUNT, Waits, WatchedSocket, map, what,
};
pub use http::{HEAD_LEN_BYTES, Head, Response, is_request, status};
pub use watch::{Answer, Segment, Watch};
