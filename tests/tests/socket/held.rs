//! Connections that a test holds open and speaks on when it wants.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use shifter_tests::{http, netns::Netns};

/// Open connections, each with one answered request.
pub struct Held {
    streams: Vec<TcpStream>,
    backend: String,
}

impl Held {
    /// Opens connections from a namespace. All of them must be answered by one backend.
    #[track_caller]
    pub fn open(from: &Netns, to: SocketAddr, count: usize) -> Self {
        let opened = from.run(|| {
            let one = || {
                let mut stream = http::connect(to).expect("a connection");
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .expect("a timeout");
                let answer = http::ask(&mut stream, "GET", "/", None).expect("an answer");
                (stream, answer.backend)
            };
            (0..count).map(|_| one()).collect::<Vec<_>>()
        });
        let backend = opened[0].1.clone();
        assert!(opened.iter().all(|(_, name)| *name == backend));
        Self {
            streams: opened.into_iter().map(|(stream, _)| stream).collect(),
            backend,
        }
    }

    /// Who answers.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Asks on every connection; gives how many are still answered.
    pub fn alive_count(&mut self) -> usize {
        let asked = self.streams.iter_mut();
        asked
            .filter_map(|stream| http::ask(stream, "GET", "/", None).ok())
            .filter(|answer| answer.backend == self.backend)
            .count()
    }
}
