//! A client that opens connections as fast as it can and notes when each began and who answered.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::way::VERSIONS;
use crate::netns::Inside;

/// Connections under way at a time.
const THREADS: usize = 4;
/// How long a connection may take in each of its parts.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many failures are told in words.
const EXAMPLES_COUNT: usize = 5;

/// A connection that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Just before it was begun.
    pub begun: Instant,
    /// When its answer was complete.
    pub ended: Instant,
    /// The version that answered.
    pub version: usize,
}

/// What was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Connections that were answered, in no order.
    pub flows: Vec<Flow>,
    /// Connections that failed.
    pub failed: u64,
    /// What some of them said.
    pub failures: Vec<String>,
}

impl Opened {
    /// Adds another client's.
    pub fn merge(&mut self, other: Self) {
        self.flows.extend(other.flows);
        self.failed += other.failed;
        for failure in other.failures {
            self.note(failure);
        }
    }

    fn note(&mut self, failure: String) {
        if self.failures.len() < EXAMPLES_COUNT && !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }
}

/// Threads that open connections until they are told to end.
pub struct Opener {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Opened>>,
}

impl Opener {
    /// Starts to open connections to an address.
    pub fn start(client: &Inside, target: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |_| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            std::thread::spawn(move || client.run(|| open_until(&stop, target)))
        };
        let threads = (0..THREADS).map(spawn).collect();
        Self { stop, threads }
    }

    /// Ends it.
    ///
    /// # Panics
    /// If a thread did.
    pub fn end(self) -> Opened {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Opened::default();
        for thread in self.threads {
            all.merge(thread.join().expect("a client that does not panic"));
        }
        all
    }
}

fn open_until(stop: &AtomicBool, target: SocketAddr) -> Opened {
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    let mut opened = Opened::default();
    let mut buffer = Vec::with_capacity(2_048);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match exchange(target, request.as_bytes(), &mut buffer) {
            Ok(version) => opened.flows.push(Flow {
                begun,
                ended: Instant::now(),
                version,
            }),
            Err(failure) => {
                opened.failed += 1;
                opened.note(failure);
            }
        }
    }
    opened
}

fn exchange(target: SocketAddr, request: &[u8], buffer: &mut Vec<u8>) -> Result<usize, String> {
    let in_part = |part: &str| {
        let part = part.to_owned();
        move |err: std::io::Error| format!("{part}: {err}")
    };
    let mut stream =
        TcpStream::connect_timeout(&target, PATIENCE).map_err(in_part("connecting"))?;
    let timed = stream.set_read_timeout(Some(PATIENCE));
    timed.map_err(in_part("setting a timeout"))?;
    stream.write_all(request).map_err(in_part("asking"))?;
    buffer.clear();
    stream.read_to_end(buffer).map_err(in_part("reading"))?;
    version_of(buffer).ok_or_else(|| format!("an answer of {} bytes from nobody", buffer.len()))
}

/// Who gave an answer, by its `X-Backend`.
fn version_of(answer: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"X-Backend: ";
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return None;
    }
    let at = answer
        .windows(FIELD.len())
        .position(|window| window.eq_ignore_ascii_case(FIELD))?;
    let rest = &answer[at + FIELD.len()..];
    VERSIONS
        .iter()
        .position(|name| rest.starts_with(format!("{name}\r\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_who_gave_them() {
        let rows = [
            ("HTTP/1.1 200 OK\r\nX-Backend: a\r\n\r\nx", Some(0)),
            ("HTTP/1.1 200 OK\r\nx-backend: b\r\nX-Y: z\r\n\r\n", Some(1)),
            ("HTTP/1.1 200 OK\r\nX-Backend: c\r\n\r\n", None),
            ("HTTP/1.1 503 No\r\nX-Backend: a\r\n\r\n", None),
            ("", None),
        ];
        for (answer, expected) in rows {
            assert_eq!(version_of(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_closed_port_is_a_failure_and_not_silence() {
        let netns = crate::netns::Netns::new("opener");
        let target = SocketAddr::from(([127, 0, 0, 1], 9));
        let opener = Opener::start(&netns.inside(), target);
        std::thread::sleep(Duration::from_millis(20));
        let opened = opener.end();
        assert!(opened.failed > 0 && opened.flows.is_empty());
        assert_eq!(
            opened.failures,
            ["connecting: Connection refused (os error 111)"]
        );
    }
}
