//! Why a probe failed, in the words that `status` shows.

use std::time::Duration;

/// What a probe was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The TCP handshake.
    Connect,
    /// The status line of the answer.
    Status,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "while connecting",
            Self::Status => "waiting for a status",
        })
    }
}

/// Why one probe failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// Nobody listens on the backend's address.
    #[error("connection refused: nobody listens there")]
    Refused,
    /// The connection could not be opened for another reason.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The probe's timeout passed first.
    #[error("timed out after {after:?} {waiting}")]
    TimedOut {
        /// The timeout.
        after: Duration,
        /// What was still missing.
        waiting: Waiting,
    },
    /// The answer's status is not 200..=399.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not HTTP/1.
    #[error("not HTTP: {0} (a backend that speaks TLS needs a tcp probe)")]
    NotHttp(String),
    /// The backend closed the connection without an answer.
    #[error("connection closed before a status")]
    Closed,
    /// The backend reset the connection without an answer.
    #[error("connection reset before a status")]
    Reset,
    /// The probe's path or Host header cannot be sent.
    #[error("cannot ask: {0}")]
    Unaskable(String),
}
