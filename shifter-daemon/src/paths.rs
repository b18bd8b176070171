//! Whether a VIP is served without shifter: it must be an address of this host, and somebody must listen
//! there.

use std::{collections::BTreeSet, fs, net::IpAddr, net::SocketAddr};

use shifter_common::addr::Addr;

/// What the host has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Where somebody listens for TCP connections.
    pub listeners: BTreeSet<SocketAddr>,
}

impl Own {
    /// Looks at the host, in the network namespace of this process.
    pub fn gather() -> Self {
        // A host without IPv6 has no such file, and no such listener.
        let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
        let texts = ["tcp", "tcp6"].map(|name| read(name).unwrap_or_default());
        Self {
            addresses: crate::doctor::local_addresses(),
            listeners: texts.iter().flat_map(|text| listeners(text)).collect(),
        }
    }

    /// Why nobody answers at `vip` without shifter; `None` if somebody does.
    pub fn obstacle(&self, vip: SocketAddr) -> Option<&'static str> {
        if !self.addresses.contains(&vip.ip()) {
            return Some("it is no address of this host");
        }
        let any_v4 = SocketAddr::from(([0, 0, 0, 0], vip.port()));
        // Unless it says otherwise such a listener takes IPv4 too.
        let any = SocketAddr::from(([0_u16; 8], vip.port()));
        let is_served = self.listeners.contains(&vip)
            || self.listeners.contains(&any)
            || (vip.is_ipv4() && self.listeners.contains(&any_v4));
        (!is_served).then_some("nobody listens there")
    }
}

/// The listening sockets in a text like `/proc/net/tcp` (proc_pid_net(5)).
fn listeners(text: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    const LISTEN: &str = "0A";
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        (state == LISTEN).then(|| socket_addr(local)).flatten()
    })
}

/// An address as the kernel prints it: words of 32 bits as they stand in memory, and the port.
fn socket_addr(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => Addr::from_v4_word(word(0)?),
        32 => Addr {
            words: [word(0)?, word(8)?, word(16)?, word(24)?],
        },
        _ => return None,
    };
    Some(address.to_socket_addr(shifter_common::addr::Be16::from_host(port)))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 0A00000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   2: 0A00000A:01BB 0200010A:C350 01 00000000:00000000 00:00000000 00000000     0        0 1
";
    const TCP6: &str =
        "  sl  local_address                         remote_address                        st
   0: B80D0120000000000000000010000000:0051 00000000000000000000000000000000:0000 0A 0
   1: 00000000000000000000000000000000:0052 00000000000000000000000000000000:0000 0A 0
";

    #[test]
    fn vips_without_shifter() {
        let own = Own {
            addresses: ["10.0.0.10", "2001:db8::10"]
                .map(|text| text.parse().expect("an address"))
                .into(),
            listeners: listeners(TCP).chain(listeners(TCP6)).collect(),
        };
        assert_eq!(own.listeners.len(), 4, "{:?}", own.listeners);
        let rows = [
            ("10.0.0.10:80", None),
            ("10.0.0.10:8080", None),
            ("10.0.0.10:82", None),
            ("10.0.0.10:443", Some("nobody listens there")),
            ("10.0.0.10:81", Some("nobody listens there")),
            ("10.0.0.11:80", Some("it is no address of this host")),
            ("[2001:db8::10]:81", None),
            ("[2001:db8::10]:82", None),
            ("[2001:db8::10]:80", Some("nobody listens there")),
            ("[2001:db8::10]:8080", Some("nobody listens there")),
            ("[2001:db8::11]:82", Some("it is no address of this host")),
        ];
        for (vip, expected) in rows {
            assert_eq!(own.obstacle(vip.parse().expect("a VIP")), expected, "{vip}");
        }
    }

    #[test]
    fn what_this_host_has() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("its address");
        assert_eq!(Own::gather().obstacle(here), None);
        drop(listener);
        assert_eq!(Own::gather().obstacle(here), Some("nobody listens there"));
    }
}
