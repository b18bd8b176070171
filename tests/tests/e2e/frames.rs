//! Frames as a NIC may hand them in: with priority tags (802.1Q with VLAN 0, which every kernel takes
//! off), and with headers beyond the linear part of the buffer.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use shifter_daemon::model::{HookSpec, Protocol};
use shifter_tests::{
    daemon::{Daemon, Node},
    netns::{Inside, Netns},
    packet::{Mac, Packet},
    world::{CLIENT, Family, OTHER, Options, VIP, World},
};

use crate::{
    stage::{ORDERS, PORT, PORT_A, vip},
    transfer,
};

/// What the client sends from, and is answered at.
const CLIENT_PORT: u16 = 40_000;

/// Sends frames as they are: a packet socket whose `linear_len` first bytes lie in one piece if the
/// frame is longer than a page (`packet_snd` of the kernel).
struct Wire {
    socket: OwnedFd,
}

impl Wire {
    fn open(netns: &Inside) -> Self {
        let socket = netns.run(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                Some(SockProtocol::EthAll),
            )
            .expect("a packet socket");
            let on: libc::c_int = 1;
            // SAFETY: the pointer and the length are those of a live integer.
            let code = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_VNET_HDR,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
            // SAFETY: an address of zeros is one, filled in below.
            let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            addr.sll_family = libc::AF_PACKET as u16;
            addr.sll_ifindex = nix::net::if_::if_nametoindex("eth0").expect("eth0") as i32;
            // SAFETY: the pointer and the length are those of a live address.
            let code = unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const addr).cast(),
                    size_of_val(&addr) as libc::socklen_t,
                )
            };
            assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
            socket
        });
        Self { socket }
    }

    fn send(&self, frame: &[u8], linear_len: u16) {
        // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
        let mut message = vec![0_u8; 10];
        message[2..4].copy_from_slice(&linear_len.to_ne_bytes());
        message.extend(frame);
        let sent = nix::unistd::write(&self.socket, &message).expect("sent");
        assert_eq!(sent, message.len());
    }
}

fn mac(netns: &Netns) -> Mac {
    let shown = netns.ip("-o link show eth0");
    let after = shown.split("link/ether ").nth(1);
    let after = after.unwrap_or_else(|| panic!("no address in {shown}"));
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(after[..17].split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("a hexadecimal number");
    }
    mac
}

/// One UDP backend that answers with what it got.
fn echo(netns: &Inside, addr: SocketAddr) {
    let socket = netns.run(|| UdpSocket::bind(addr)).expect("a free port");
    thread::spawn(move || {
        let mut buffer = [0; 10_000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
}

/// Sends a datagram in a frame of one's own making; the answer must come from the VIP.
fn asked(hook: HookSpec, tags: usize, payload_len: usize, linear_len: u16) {
    let what = format!("{hook:?}, {tags} tags, {payload_len} bytes, {linear_len} linear");
    let world = World::pair(Options::default());
    for netns in [world.client(), world.host()] {
        netns.ip("link set eth0 mtu 9000");
    }
    let mut spec = transfer::plain(&VIP.ports(PORT), &OTHER.ports(PORT_A));
    spec.protocol = Protocol::Udp;
    let daemon = Daemon::start(world.host(), Node::new(hook), &[spec]);
    let wire = Wire::open(&world.client().inside());
    let macs = (mac(world.client()), mac(world.host()));
    for family in Family::ALL {
        echo(&world.host().inside(), OTHER.port(family, PORT_A));
        let from = CLIENT.port(family, CLIENT_PORT);
        let socket = world.client().run(|| {
            let socket = UdpSocket::bind(from).expect("a free port");
            socket.connect(vip(family)).expect("a route");
            socket
        });
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        let payload: Vec<u8> = (0..payload_len).map(|number| number as u8).collect();
        let packet = Packet::udp(from, vip(family))
            .macs(macs.0, macs.1)
            .payload(&payload);
        let tagged = (0..tags).fold(packet, |packet, _| packet.vlan(0));
        wire.send(&tagged.build(), linear_len);
        let mut buffer = [0; 10_000];
        let len = socket.recv(&mut buffer);
        assert_eq!(
            len.as_ref().ok(),
            Some(&payload_len),
            "{what} {family:?}: {len:?}"
        );
        assert!(buffer[..payload_len] == payload, "{what} {family:?}");
    }
    let service = daemon.service(ORDERS).expect("the service is known");
    assert_eq!(service.slots[0].counters.established, 2, "{what}");
}

#[test]
fn priority_tags_in_the_frame() {
    for hook in [HookSpec::Tc, HookSpec::Xdp] {
        for tags in [1, 2] {
            asked(hook, tags, 100, 0);
        }
    }
}

/// Longer than a page, so that the packet socket puts all but the first bytes into other buffers: the
/// IP header begins there.
#[test]
fn headers_in_another_buffer() {
    for hook in [HookSpec::Tc, HookSpec::Xdp] {
        for linear_len in [0, 30, 46] {
            asked(hook, 0, 6_000, linear_len);
        }
    }
}
