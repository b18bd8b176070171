//! A flood of TCP SYNs from random addresses, as fast as a packet socket sends.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::libc;

/// Frames handed to the kernel in one call.
const BATCH: usize = 64;
/// Ethernet, IPv4 and TCP without options.
const FRAME_LEN_BYTES: usize = 54;

/// First address of the senders and how many there are: 172.16.0.0/12 (RFC 1918).
const SOURCES: (u32, u32) = (0xac10_0000, 1 << 20);

/// Who is flooded, and how.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Interface to send by.
    pub interface: String,
    /// Its peer's hardware address.
    pub to: [u8; 6],
    /// The VIP.
    pub target: SocketAddrV4,
    /// Where the random numbers begin; the same seed sends the same frames.
    pub seed: u64,
}

impl Flood {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Panics
    /// Without such an interface, or without CAP_NET_RAW.
    pub fn open(self) -> Sender {
        let index = nix::net::if_::if_nametoindex(self.interface.as_str()).expect("an interface");
        // SAFETY: plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all bits zero are a valid address, which is filled in.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = index as i32;
        // SAFETY: the address lives during the call and has the length that is said.
        let code = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const addr).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(code, 0, "bind: {}", io::Error::last_os_error());
        Sender {
            socket,
            frames: vec![template(&self); BATCH],
            state: self.seed | 1,
        }
    }
}

/// An open flood.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    frames: Vec<[u8; FRAME_LEN_BYTES]>,
    state: u64,
}

impl Sender {
    /// Sends some SYNs; gives how many the kernel took.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self) -> io::Result<u64> {
        for at in 0..self.frames.len() {
            let random = self.random();
            fill(&mut self.frames[at], random);
        }
        let mut vectors: Vec<libc::iovec> = self
            .frames
            .iter_mut()
            .map(|frame| libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all bits zero are a message without address, data and length.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: the messages and what they point to live during the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                0,
            )
        };
        match u64::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => match io::Error::last_os_error() {
                // The queue is full: the receiver is behind.
                error if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
                error => Err(error),
            },
        }
    }

    /// xorshift64* (Vigna 2016).
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A SYN with everything but what is random, and sums over that.
fn template(flood: &Flood) -> [u8; FRAME_LEN_BYTES] {
    let mut frame = [0_u8; FRAME_LEN_BYTES];
    frame[0..6].copy_from_slice(&flood.to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&40_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    frame[30..34].copy_from_slice(&flood.target.ip().octets());
    frame[36..38].copy_from_slice(&flood.target.port().to_be_bytes());
    frame[46] = 5 << 4;
    frame[47] = 0x02;
    frame[48..50].copy_from_slice(&64_240_u16.to_be_bytes());
    frame
}

/// Source address, source port and sequence number out of 64 random bits, and both checksums.
fn fill(frame: &mut [u8; FRAME_LEN_BYTES], random: u64) {
    let source = Ipv4Addr::from_bits(SOURCES.0 + (random >> 44) as u32 % SOURCES.1);
    let port = 1_024 | (random >> 32) as u16;
    frame[26..30].copy_from_slice(&source.octets());
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[38..42].copy_from_slice(&(random as u32).to_be_bytes());
    frame[24..26].fill(0);
    let ip = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    frame[50..52].fill(0);
    let tcp = !fold(sum(&frame[26..34]) + 6 + 20 + sum(&frame[34..54]));
    frame[50..52].copy_from_slice(&tcp.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::packet::{Packet, flag};

    /// Frames are what the packet builder makes of the same fields, checksums included.
    #[test]
    fn frames_are_good_syns() {
        let flood = Flood {
            interface: String::new(),
            to: [2, 0, 0, 0, 1, 1],
            target: "10.0.0.10:443".parse().expect("an address"),
            seed: 1,
        };
        for random in [0, u64::MAX, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] {
            let mut frame = template(&flood);
            fill(&mut frame, random);
            let source = Ipv4Addr::new(frame[26], frame[27], frame[28], frame[29]);
            let port = u16::from_be_bytes([frame[34], frame[35]]);
            let expected = Packet::tcp(
                SocketAddr::from((source, port)),
                SocketAddr::from(flood.target),
            )
            .flags(flag::SYN)
            .seq(random as u32)
            .build();
            let mut expected = expected;
            // The builder's own hardware addresses, window and identification.
            expected[0..12].copy_from_slice(&frame[0..12]);
            assert_eq!(source.octets()[0], 172);
            let valid = |bytes: &[u8]| {
                let ip = fold(sum(&bytes[14..34]));
                let tcp = fold(sum(&bytes[26..34]) + 6 + 20 + sum(&bytes[34..54]));
                (ip, tcp)
            };
            assert_eq!(valid(&frame), (0xffff, 0xffff), "{random:x}");
            assert_eq!(valid(&expected), (0xffff, 0xffff), "the builder's");
            assert_eq!(frame[26..48], expected[26..48], "{random:x}");
        }
    }
}
