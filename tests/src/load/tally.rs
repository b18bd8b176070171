//! What the load client counts, and how it says it.

use std::{collections::BTreeMap, io, time::Duration};

use nix::libc;
use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Quantiles};

/// How many errors are told in words.
const EXAMPLES_COUNT: usize = 20;

/// Ways a connection or request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The client has no free port for the target. Its own limit, not the service's error.
    NoPort,
    /// A RST answered the SYN.
    Refused,
    /// No route or no neighbour.
    Unreachable,
    /// Nothing answered the SYN in time.
    ConnectTimeout,
    /// The connection was reset.
    Reset,
    /// The server closed the connection instead of answering.
    Closed,
    /// No complete answer in time.
    Timeout,
    /// Not HTTP, no length, no `X-Backend` or `X-Connection`, or something behind the last answer.
    BadResponse,
    /// A status other than 200.
    BadStatus,
    /// Another backend answered inside one connection.
    BackendChanged,
    /// Another connection of the same backend answered inside one connection.
    ConnectionChanged,
    /// Something else.
    Other,
}

impl ErrorKind {
    /// The kind of an error of the network.
    pub fn of(err: &io::Error) -> Self {
        match err.raw_os_error() {
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Self::NoPort,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Self::Unreachable,
            Some(libc::ECONNRESET | libc::EPIPE) => Self::Reset,
            Some(libc::ETIMEDOUT) => Self::Timeout,
            _ if err.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Other,
        }
    }
}

/// A failed connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How it failed.
    pub kind: ErrorKind,
    /// In words.
    pub detail: String,
}

impl Failure {
    /// A failure with its explanation.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::new(ErrorKind::of(&err), err.to_string())
    }
}

/// Counts of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTally {
    /// Connections whose first answer came from it.
    pub connections: u64,
    /// Answers that passed every check.
    pub requests: u64,
    /// Failures on its connections.
    pub errors: u64,
}

/// Counts of a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    attempts: u64,
    connections: u64,
    requests: u64,
    errors: BTreeMap<ErrorKind, u64>,
    backends: BTreeMap<String, BackendTally>,
    connect: Histogram,
    request: Histogram,
    examples: Vec<String>,
}

impl Tally {
    /// A connection is about to be opened.
    pub fn attempt(&mut self) {
        self.attempts += 1;
    }

    /// A handshake was completed.
    pub fn connected(&mut self, took: Duration) {
        self.connections += 1;
        self.connect.record(took);
    }

    /// An answer passed every check.
    pub fn answered(&mut self, backend: &str, first: bool, took: Duration) {
        self.requests += 1;
        self.request.record(took);
        let backend = self.backend(backend);
        backend.requests += 1;
        backend.connections += u64::from(first);
    }

    /// Something failed, on a connection of a backend if that is known.
    pub fn failed(&mut self, backend: Option<&str>, client: &str, failure: &Failure) {
        *self.errors.entry(failure.kind).or_default() += 1;
        if let Some(backend) = backend {
            self.backend(backend).errors += 1;
        }
        if self.examples.len() < EXAMPLES_COUNT {
            let backend = backend.unwrap_or("no backend yet");
            let Failure { kind, detail } = failure;
            self.examples
                .push(format!("{client}, {backend}: {kind:?}: {detail}"));
        }
    }

    fn backend(&mut self, name: &str) -> &mut BackendTally {
        if !self.backends.contains_key(name) {
            self.backends
                .insert(name.to_owned(), BackendTally::default());
        }
        self.backends.get_mut(name).expect("just inserted")
    }

    /// Adds everything another tally holds.
    pub fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.connections += other.connections;
        self.requests += other.requests;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        for (name, counts) in &other.backends {
            let mine = self.backend(name);
            mine.connections += counts.connections;
            mine.requests += counts.requests;
            mine.errors += counts.errors;
        }
        self.connect.merge(&other.connect);
        self.request.merge(&other.request);
        let room = EXAMPLES_COUNT.saturating_sub(self.examples.len());
        self.examples
            .extend(other.examples.iter().take(room).cloned());
    }

    /// The counts as a report.
    pub fn report(&self, at: Duration, window: Duration) -> Report {
        let ms = |duration: Duration| duration.as_millis() as u64;
        Report {
            at_ms: ms(at),
            window_ms: ms(window),
            attempts: self.attempts,
            connections: self.connections,
            requests: self.requests,
            errors: self.errors.clone(),
            backends: self.backends.clone(),
            connect: self.connect.quantiles(),
            request: self.request.quantiles(),
            examples: self.examples.clone(),
        }
    }
}

/// What happened in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its end, milliseconds since the start of the load.
    pub at_ms: u64,
    /// Its length, milliseconds.
    pub window_ms: u64,
    /// Connections begun.
    pub attempts: u64,
    /// Handshakes completed.
    pub connections: u64,
    /// Answers that passed every check.
    pub requests: u64,
    /// Failures by kind; kinds without one are not listed.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Counts by the name in `X-Backend`.
    pub backends: BTreeMap<String, BackendTally>,
    /// How long handshakes took.
    pub connect: Quantiles,
    /// How long answers took, from the request to the last byte.
    pub request: Quantiles,
    /// The first failures in words.
    pub examples: Vec<String>,
}

impl Report {
    /// Failures of a kind.
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors.get(&kind).copied().unwrap_or(0)
    }

    /// Failures of all kinds.
    pub fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts of a backend; zeros if it never answered.
    pub fn backend(&self, name: &str) -> BackendTally {
        self.backends.get(name).copied().unwrap_or_default()
    }

    /// The share of connections a backend got; 0 if there were none.
    pub fn share(&self, name: &str) -> f64 {
        let all: u64 = self
            .backends
            .values()
            .map(|backend| backend.connections)
            .sum();
        if all == 0 {
            0.0
        } else {
            self.backend(name).connections as f64 / all as f64
        }
    }

    /// Fails with the examples if anything went wrong.
    ///
    /// # Panics
    /// If there was any error.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(
            self.errors.is_empty(),
            "{:?}\n{}",
            self.errors,
            self.examples.join("\n")
        );
    }
}

/// One line of the load client's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// What happened since the line before.
    Interval(Report),
    /// What happened in all; the last line.
    Summary(Report),
}
