//! Connections that a test holds itself, to speak on them when it wants.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket},
};
use shifter_tests::{http, netns::Inside};

/// Open connections of a client.
pub struct Kept {
    connections: Vec<(TcpStream, String, String)>,
}

/// Allows the process as many files as it may have.
fn raise_files_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit lives during both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

impl Kept {
    /// Opens connections to an address, each with one request.
    pub fn open(client: &Inside, to: SocketAddr, count: usize) -> Self {
        raise_files_limit();
        let connections = client.run(|| (0..count).map(|_| opened(None, to)).collect());
        Self { connections }
    }

    /// Opens one connection from an address of the client's.
    pub fn from(client: &Inside, from: IpAddr, to: SocketAddr) -> Self {
        let connections = client.run(|| vec![opened(Some(from), to)]);
        Self { connections }
    }

    /// The backend of the first connection.
    pub fn backend(&self) -> &str {
        &self.connections[0].1
    }

    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Speaks on every connection; gives what is wrong with those that are broken.
    pub fn broken(&mut self) -> Vec<String> {
        let mut broken = Vec::new();
        for at in 0..self.connections.len() {
            broken.extend(self.speak(at).err());
        }
        broken
    }

    /// Speaks on one connection.
    pub fn speak(&mut self, at: usize) -> Result<(), String> {
        let (stream, backend, connection) = &mut self.connections[at];
        let answer = http::ask(stream, "GET", "/", None).map_err(|error| error.to_string())?;
        if (&answer.backend, &answer.connection) == (backend, connection) {
            return Ok(());
        }
        Err(format!(
            "{backend} {connection} became {} {}",
            answer.backend, answer.connection
        ))
    }
}

fn opened(from: Option<IpAddr>, to: SocketAddr) -> (TcpStream, String, String) {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    if let Some(from) = from {
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(from, 0)),
        )
        .expect("an address");
    }
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
    let mut stream = TcpStream::from(fd);
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(Duration::from_secs(30))).expect("a timeout");
    }
    let answer = http::ask(&mut stream, "GET", "/", None).expect("an answer");
    (stream, answer.backend, answer.connection)
}
