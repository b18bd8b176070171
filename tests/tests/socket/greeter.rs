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
    /// In a `SO_REUSEPORT` map of the application, which takes `is_shared`.
    pub is_in_own_map: bool,
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
        let own_map = kind
            .is_in_own_map
            .then(|| put_into_map(&listener).expect("nobody else holds the listener"));
        listener.set_nonblocking(true).expect("does not block");
        let (name, stop) = (name.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _own_map = own_map;
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

/// A listener of some kind.
///
/// # Errors
/// What the kernel refuses.
pub fn open(at: SocketAddr, kind: Kind) -> io::Result<TcpListener> {
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

/// Makes a `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY` with a listener in it.
///
/// # Errors
/// `EBUSY` if the listener is in another map of sockets.
pub fn put_into_map(listener: &TcpListener) -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
    const REUSEPORT_SOCKARRAY: u32 = 20;
    // Type, length of a key and of a value in bytes, number of entries.
    let create = [REUSEPORT_SOCKARRAY, 4, 8, 1];
    let (key, value) = (0_u32, listener.as_raw_fd() as u64);
    // SAFETY: the kernel reads the attributes, which are as long as it is told, and what they point to; all
    // of it lives during the calls. The descriptor is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, create.as_ptr(), 16);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let map = OwnedFd::from_raw_fd(fd as i32);
        let update = [
            fd as u64,
            (&raw const key) as u64,
            (&raw const value) as u64,
            0,
        ];
        match libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, update.as_ptr(), 32) {
            0 => Ok(map),
            _ => Err(io::Error::last_os_error()),
        }
    }
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
