//! A server of one word: whoever connects reads its name.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
        setsockopt, socket, sockopt,
    },
};
use shifter_tests::netns::Netns;

/// What kind of listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// MPTCP, as a Go server's is by default.
    pub is_mptcp: bool,
    /// An IPv6 wildcard that takes IPv6 only.
    pub is_v6_only: bool,
    /// `SO_REUSEPORT`.
    pub is_shared: bool,
}

/// A running one; it closes its listener on drop.
pub struct Greeter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Greeter {
    /// Listens in a namespace.
    #[track_caller]
    pub fn start(netns: &Netns, name: &str, addr: &str) -> Self {
        Self::with(netns, name, addr, Kind::default())
    }

    /// Listens in a namespace with a socket of some kind.
    #[track_caller]
    pub fn with(netns: &Netns, name: &str, addr: &str, kind: Kind) -> Self {
        let at: SocketAddr = addr.parse().expect("an address");
        let listener = netns.run(|| open(at, kind)).expect("listens");
        listener.set_nonblocking(true).expect("does not block");
        let (name, stop) = (name.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let _ = stream.write_all(name.as_bytes());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(at: SocketAddr, kind: Kind) -> io::Result<TcpListener> {
    let family = if at.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = if kind.is_mptcp {
        let family = if at.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // SAFETY: plain numbers; the descriptor is ours alone.
        unsafe {
            match libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 262) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        }
    } else {
        socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Tcp,
        )?
    };
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if kind.is_shared {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    if at.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &kind.is_v6_only)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen(&socket, Backlog::new(128)?)?;
    Ok(TcpListener::from(socket))
}

/// Connects from a namespace and reads who answers.
pub fn ask(from: &Netns, to: SocketAddr) -> io::Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}
