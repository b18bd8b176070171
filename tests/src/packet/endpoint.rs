//! What stands for an address with a port in a row of a table.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address with a port: a socket address, or text such as `"10.0.0.10:80"`, `"[2001:db8::10]:80"`.
pub trait Endpoint: Copy {
    /// The address.
    ///
    /// # Panics
    /// If the text is no address with a port.
    fn addr(self) -> SocketAddr;

    /// The address, which is IPv4.
    ///
    /// # Panics
    /// If it is not.
    fn v4(self) -> SocketAddr {
        let addr = self.addr();
        assert!(addr.is_ipv4(), "{addr} is no IPv4 address");
        addr
    }

    /// The address, which is IPv6.
    ///
    /// # Panics
    /// If it is not.
    fn v6(self) -> SocketAddr {
        let addr = self.addr();
        assert!(addr.is_ipv6(), "{addr} is no IPv6 address");
        addr
    }
}

impl Endpoint for &str {
    fn addr(self) -> SocketAddr {
        self.parse().unwrap_or_else(|_| {
            panic!("{self:?} is no address with a port, such as 10.0.0.10:80 or [2001:db8::10]:80")
        })
    }
}

impl Endpoint for SocketAddr {
    fn addr(self) -> SocketAddr {
        self
    }
}

impl Endpoint for SocketAddrV4 {
    fn addr(self) -> SocketAddr {
        self.into()
    }
}

impl Endpoint for SocketAddrV6 {
    fn addr(self) -> SocketAddr {
        self.into()
    }
}
