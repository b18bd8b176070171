//! The real program against a fake daemon on a Unix socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod audit;
mod commands;
mod failures;
mod shifterd;
mod support;
mod waiting;
mod watch;
