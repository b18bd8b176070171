//! What load to make.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Load on one target. It ends with its time at the latest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to connect.
    pub target: SocketAddr,
    /// What to ask for.
    pub path: String,
    /// Connections open at a time.
    pub concurrency: usize,
    /// Requests on a connection before it is closed and the next one opened; `None`: as many as fit
    /// into the time.
    pub requests_per_connection: Option<u64>,
    /// Connections in all; `None`: as many as fit into the time.
    pub connections: Option<u64>,
    /// When to end; requests under way are finished.
    pub time: Duration,
    /// Requests begun a second, over all connections; `None`: as many as are answered.
    pub rate_per_s: Option<f64>,
    /// How long a handshake may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Addresses to connect from, in turn.
    pub sources: Option<Sources>,
    /// How often to report.
    pub interval: Duration,
}

impl Plan {
    /// Ends of a plan without an end of its own.
    pub const LONGEST: Duration = Duration::from_secs(600);

    fn new(target: SocketAddr, concurrency: usize) -> Self {
        Self {
            target,
            path: "/".into(),
            concurrency,
            requests_per_connection: None,
            connections: None,
            time: Self::LONGEST,
            rate_per_s: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            sources: None,
            interval: Duration::from_secs(1),
        }
    }

    /// One request a connection, a number of connections.
    pub fn connections(target: SocketAddr, concurrency: usize, count: u64) -> Self {
        Self {
            requests_per_connection: Some(1),
            connections: Some(count),
            ..Self::new(target, concurrency)
        }
    }

    /// One request a connection, for a time.
    pub fn churn(target: SocketAddr, concurrency: usize, time: Duration) -> Self {
        Self {
            requests_per_connection: Some(1),
            time,
            ..Self::new(target, concurrency)
        }
    }

    /// Connections that stay open, for a time.
    pub fn keep_alive(target: SocketAddr, concurrency: usize, time: Duration) -> Self {
        Self {
            time,
            ..Self::new(target, concurrency)
        }
    }
}

/// Addresses that are all the client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The first.
    pub first: IpAddr,
    /// How many follow each other, the first included.
    pub count: u32,
}

impl Sources {
    /// The address whose turn it is.
    pub fn nth(self, turn: u64) -> IpAddr {
        let offset = turn % u64::from(self.count.max(1));
        match self.first {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first).wrapping_add(offset as u32)).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(offset)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_turns() {
        let sources = |first: &str, count| Sources {
            first: first.parse().expect("valid"),
            count,
        };
        let rows = [
            (sources("10.9.0.254", 3), 0, "10.9.0.254"),
            (sources("10.9.0.254", 3), 2, "10.9.1.0"),
            (sources("10.9.0.254", 3), 3, "10.9.0.254"),
            (sources("2001:db8:9::ffff", 2), 1, "2001:db8:9::1:0"),
            (sources("10.9.0.1", 0), 7, "10.9.0.1"),
        ];
        for (sources, turn, expected) in rows {
            assert_eq!(
                sources.nth(turn).to_string(),
                expected,
                "{sources:?} {turn}"
            );
        }
    }
}
