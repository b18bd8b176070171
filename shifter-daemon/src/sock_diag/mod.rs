//! What the kernel says of TCP sockets (sock_diag(7)): which listen, which are open and carry a
//! version's tag, and the end of those that shall end. It answers for the network namespace of the
//! caller.

mod message;

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
            setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use shifter_common::socket::SocketTag;

use self::message::{Body, Query};

/// The kernel fills at most 32 KiB at once, and says so.
const REPLY_LEN_BYTES: usize = 64 * 1024;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its own address.
    pub local: SocketAddr,
    /// Whether an IPv6 wildcard takes IPv6 clients only.
    pub is_v6_only: bool,
    /// The user who made it.
    pub uid: u32,
    /// The kernel's number for it.
    pub cookie: u64,
    /// Connections that wait to be accepted.
    pub queue_count: u32,
    /// How many may wait.
    pub queue_capacity_count: u32,
    /// Whether it is the TCP side of an MPTCP socket. The kernel tells with CAP_NET_ADMIN only.
    pub is_mptcp: bool,
    /// The version it belongs to, if that was asked for and it has one.
    pub tag: Option<SocketTag>,
}

/// A connection that carries a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Its own address: the VIP.
    pub local: SocketAddr,
    /// The client.
    pub remote: SocketAddr,
    /// State of RFC 9293 as the kernel numbers it (include/net/tcp_states.h).
    pub state: u8,
    /// The kernel's number for it.
    pub cookie: u64,
    /// The version it belongs to.
    pub tag: SocketTag,
    /// Bytes received that the application has not read.
    pub unread_bytes: u32,
    /// Bytes sent that the client has not acknowledged.
    pub unacknowledged_bytes: u32,
    /// Time since data was sent, milliseconds.
    pub sent_ago_ms: u32,
    /// Time since data was received, milliseconds.
    pub received_ago_ms: u32,
    /// Segments with data that were sent.
    pub data_sent_count: u32,
    /// Segments with data that were received.
    pub data_received_count: u32,
}

/// A question to the kernel about sockets.
pub struct SockDiag {
    socket: OwnedFd,
}

impl SockDiag {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open() -> Result<Self, Errno> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        // Answers come while the kernel is asked; the limit only guards against waiting for ever.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket })
    }

    /// Every TCP socket that listens, with its tag in a socket storage if one is given. That needs
    /// CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn listeners(&self, storage: Option<BorrowedFd<'_>>) -> Result<Vec<Listener>, Errno> {
        let storage = storage.map(|fd| fd.as_raw_fd());
        let mut found = Vec::new();
        for family in message::FAMILIES {
            let query = Query::listeners(family, storage).encode();
            self.dump(&query, |body| found.extend(message::listener(body)))?;
        }
        Ok(found)
    }

    /// Every open TCP connection that carries a value of this socket storage. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn tagged(&self, storage: BorrowedFd<'_>) -> Result<Vec<Tagged>, Errno> {
        let mut found = Vec::new();
        for family in message::FAMILIES {
            let query = Query::connections(family, storage.as_raw_fd()).encode();
            self.dump(&query, |body| found.extend(message::tagged(body)))?;
        }
        Ok(found)
    }

    /// Ends one connection: both sides get a reset. Says whether it was still there.
    ///
    /// # Errors
    /// The kernel's error; `EOPNOTSUPP` if it cannot do this (CONFIG_INET_DIAG_DESTROY).
    pub fn destroy(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        cookie: u64,
    ) -> Result<bool, Errno> {
        self.send(&message::destroy(local, remote, cookie))?;
        let mut reply = vec![0; REPLY_LEN_BYTES];
        let len = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        for body in message::bodies(reply.get(..len).unwrap_or_default()) {
            if let Body::Error(code) = body {
                return match code {
                    0 => Ok(true),
                    libc::ENOENT => Ok(false),
                    code => Err(Errno::from_raw(code)),
                };
            }
        }
        Err(Errno::EBADMSG)
    }

    fn dump(&self, query: &[u8], mut visit: impl FnMut(&[u8])) -> Result<(), Errno> {
        self.send(query)?;
        let mut reply = vec![0; REPLY_LEN_BYTES];
        loop {
            let len = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
            for body in message::bodies(reply.get(..len).unwrap_or_default()) {
                match body {
                    Body::Socket(body) => visit(body),
                    Body::Done | Body::Error(0) => return Ok(()),
                    // The kernel has no sockets of this family.
                    Body::Error(libc::ENOENT) => return Ok(()),
                    Body::Error(code) => return Err(Errno::from_raw(code)),
                }
            }
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), Errno> {
        sendto(
            self.socket.as_raw_fd(),
            message,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn listeners_of_both_families_are_found() {
        let v4 = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let v6 = TcpListener::bind("[::1]:0").expect("a listener");
        let found = SockDiag::open().and_then(|diag| diag.listeners(None));
        let found = found.expect("the kernel answers");
        for listener in [v4, v6] {
            let local = listener.local_addr().expect("bound");
            let listed: Vec<_> = found.iter().filter(|l| l.local == local).collect();
            assert_eq!(listed.len(), 1, "{local} in {found:?}");
            assert_ne!(listed[0].cookie, 0);
            assert_eq!(listed[0].uid, nix::unistd::getuid().as_raw());
            assert_eq!(listed[0].queue_count, 0);
            assert!(listed[0].queue_capacity_count > 0);
        }
    }

    #[test]
    fn a_connection_that_waits_to_be_accepted_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let local = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(local).expect("a connection");
        client.write_all(b"x").expect("sent");
        let diag = SockDiag::open().expect("opens");
        let count = || {
            let found = diag.listeners(None).expect("the kernel answers");
            let of = found.into_iter().find(|l| l.local == local);
            of.map(|l| l.queue_count)
        };
        assert_eq!(count(), Some(1));
        let (mut accepted, _) = listener.accept().expect("a connection");
        accepted.read_exact(&mut [0]).expect("a byte");
        assert_eq!(count(), Some(0));
    }

    #[test]
    fn a_connection_that_is_not_there_is_not_destroyed() {
        let diag = SockDiag::open().expect("opens");
        let addr = "127.0.0.1:1".parse().expect("an address");
        match diag.destroy(addr, addr, 0x1234_5678_9abc) {
            Ok(is_done) => assert!(!is_done),
            // Without CAP_NET_ADMIN the kernel does not even look.
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        }
    }
}
