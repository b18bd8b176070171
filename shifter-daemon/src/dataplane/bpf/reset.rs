//! Resetting a flow from the middle: a RST to each end, as if the other had sent it.
//!
//! A receiver believes a RST only with exactly the sequence number it expects next (RFC 5961
//! section 3.2). The flow entry holds both numbers as the ends themselves acknowledged them, which
//! is exact for an idle flow; the packets of a busy one are turned into RSTs by the kernel programs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use shifter_common::{
    checksum::{fold, sum_bytes},
    tcp::flag,
};

use super::super::{DataplaneError, ListedFlow};

const PROTOCOL_TCP: u8 = 6;
const TCP_LEN_BYTES: usize = 20;

/// Raw sockets for both families.
pub struct Resetter {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Resetter {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<Self, DataplaneError> {
        let open = |family| {
            socket(
                family,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Raw,
            )
            .map_err(|errno| {
                DataplaneError::kernel("opening a raw socket for resets", errno)
                    .with_help("shifterd needs CAP_NET_RAW")
            })
        };
        // Protocol RAW implies that a packet brings its own header, in both families (raw(7)).
        Ok(Self {
            v4: open(AddressFamily::Inet)?,
            v6: open(AddressFamily::Inet6)?,
        })
    }

    /// Sends a RST to the client and one to the backend. A packet that cannot be sent leaves the
    /// flow to the kernel programs, which reset it at its next packet.
    pub fn reset(&mut self, flow: &ListedFlow) {
        let client = flow.key.client.to_socket_addr(flow.key.client_port);
        let backend = flow.entry.backend.to_socket_addr(flow.entry.backend_port);
        let (to_client, to_backend) = (flow.entry.next_from_backend, flow.entry.next_from_client);
        self.send(&rst(flow.vip, client, to_client, to_backend), client);
        self.send(&rst(client, backend, to_backend, to_client), backend);
    }

    fn send(&self, packet: &[u8], to: SocketAddr) {
        let sent = match to {
            SocketAddr::V4(to) => {
                // The port is in the packet; a raw socket's address must not have one.
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(*to.ip(), 0));
                sendto(self.v4.as_raw_fd(), packet, &to, MsgFlags::empty())
            }
            SocketAddr::V6(to) => {
                let to = SockaddrIn6::from(std::net::SocketAddrV6::new(*to.ip(), 0, 0, 0));
                sendto(self.v6.as_raw_fd(), packet, &to, MsgFlags::empty())
            }
        };
        if let Err(errno) = sent {
            tracing::debug!(%to, %errno, "a reset could not be sent; the next packet will do");
        }
    }
}

/// An IP packet that resets a connection. Both addresses are of one family, as those of a flow are.
fn rst(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32) -> Vec<u8> {
    let mut tcp = [0_u8; TCP_LEN_BYTES];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = (TCP_LEN_BYTES as u8 / 4) << 4;
    tcp[13] = flag::RST | flag::ACK;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let pseudo = sum_bytes(&source.octets()) + sum_bytes(&destination.octets());
            seal(&mut tcp, pseudo);
            [&ipv4(source, destination)[..], &tcp].concat()
        }
        (source, destination) => {
            let (source, destination) = (v6(source), v6(destination));
            let pseudo = sum_bytes(&source.octets()) + sum_bytes(&destination.octets());
            seal(&mut tcp, pseudo);
            [&ipv6(source, destination)[..], &tcp].concat()
        }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Writes the TCP checksum over the pseudo header (RFC 9293 section 3.1).
fn seal(tcp: &mut [u8; TCP_LEN_BYTES], addresses: u64) {
    let pseudo = addresses
        + sum_bytes(&u16::from(PROTOCOL_TCP).to_be_bytes())
        + sum_bytes(&(TCP_LEN_BYTES as u16).to_be_bytes());
    let check = !fold(pseudo + sum_bytes(tcp));
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
}

/// The kernel fills in identification and checksum (raw(7)).
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; 20] {
    let mut header = [0_u8; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((20 + TCP_LEN_BYTES) as u16).to_be_bytes());
    header[8] = 64;
    header[9] = PROTOCOL_TCP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    header
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; 40] {
    let mut header = [0_u8; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(TCP_LEN_BYTES as u16).to_be_bytes());
    header[6] = PROTOCOL_TCP;
    header[7] = 64;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_is_right(packet: &[u8], header_len_bytes: usize, addresses: std::ops::Range<usize>) {
        let tcp = &packet[header_len_bytes..];
        let pseudo = sum_bytes(&packet[addresses])
            + sum_bytes(&[0, PROTOCOL_TCP])
            + sum_bytes(&(tcp.len() as u16).to_be_bytes());
        assert_eq!(fold(pseudo + sum_bytes(tcp)), 0xffff);
    }

    #[test]
    fn a_reset_carries_the_numbers_the_receiver_expects() {
        let (from, to) = ("10.0.0.10:443", "10.9.0.2:40000");
        let packet = rst(from.parse().expect("addr"), to.parse().expect("addr"), 7, 9);
        assert_eq!(packet.len(), 40);
        assert_eq!(&packet[12..20], &[10, 0, 0, 10, 10, 9, 0, 2]);
        assert_eq!(
            &packet[20..24],
            &[443_u16.to_be_bytes(), 40_000_u16.to_be_bytes()].concat()[..]
        );
        assert_eq!(&packet[24..32], &[0, 0, 0, 7, 0, 0, 0, 9]);
        assert_eq!(packet[33], flag::RST | flag::ACK);
        check_is_right(&packet, 20, 12..20);
    }

    #[test]
    fn a_reset_over_ipv6() {
        let (from, to) = ("[2001:db8::10]:443", "[2001:db8:9::2]:40000");
        let packet = rst(from.parse().expect("addr"), to.parse().expect("addr"), 1, 2);
        assert_eq!(packet.len(), 60);
        check_is_right(&packet, 40, 8..40);
    }
}
