//! VIPs that shifterd gives the host itself, over rtnetlink(7). The kernel keeps with each address who made
//! it (`IFA_PROTO`): an address with our number is ours, whatever happens to a daemon or its files, and
//! no other ever is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
            setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

/// Where the addresses are: an interface that is always there.
const INTERFACE: &str = "lo";
/// Our number among those who make addresses.
const OURS: u8 = 0x53;

const HEADER_LEN_BYTES: usize = 16;
/// struct ifaddrmsg: family, prefix length, flags, scope, interface.
const IFADDR_LEN_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
/// Nobody else can have an address of the loopback interface.
const IFA_F_NODAD: u32 = 2;

/// The addresses that are ours.
///
/// # Errors
/// The kernel's error.
pub fn held() -> Result<BTreeSet<IpAddr>, Errno> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let socket = open()?;
    send(
        &socket,
        &message(libc::RTM_GETADDR, flags, &[0; IFADDR_LEN_BYTES]),
    )?;
    let mut held = BTreeSet::new();
    let mut reply = vec![0; 64 * 1024];
    loop {
        let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        let mut rest = reply.get(..len).unwrap_or_default();
        while let Some((kind, body)) = next(&mut rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(held),
                libc::NLMSG_ERROR => return Err(error(body).unwrap_or(Errno::EBADMSG)),
                _ => held.extend(ours(body)),
            }
        }
    }
}

/// Adds an address.
///
/// # Errors
/// The kernel's error; `EEXIST` if it is there already.
pub fn add(ip: IpAddr) -> Result<(), Errno> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    change(libc::RTM_NEWADDR, flags, ip)
}

/// Removes an address. One that is gone already is as it should be.
///
/// # Errors
/// The kernel's error.
pub fn remove(ip: IpAddr) -> Result<(), Errno> {
    match change(libc::RTM_DELADDR, libc::NLM_F_REQUEST | libc::NLM_F_ACK, ip) {
        Err(Errno::EADDRNOTAVAIL) => Ok(()),
        done => done,
    }
}

fn change(kind: u16, flags: i32, ip: IpAddr) -> Result<(), Errno> {
    let interface = if_nametoindex(INTERFACE)?;
    let socket = open()?;
    send(&socket, &message(kind, flags, &body(ip, interface)))?;
    let mut reply = vec![0; 4_096];
    let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    let mut rest = reply.get(..len).unwrap_or_default();
    match next(&mut rest) {
        Some((kind, body)) if i32::from(kind) == libc::NLMSG_ERROR => {
            error(body).map_or(Ok(()), Err)
        }
        _ => Err(Errno::EBADMSG),
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    // Answers come while the kernel is asked; the limit only guards against waiting for ever.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(5, 0))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), message, &kernel, MsgFlags::empty()).map(drop)
}

fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN_BYTES + body.len());
    message.extend(((HEADER_LEN_BYTES + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    // Sequence number 1; port 0 is the kernel's.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// What describes an address of ours: all of its bits, on an interface.
fn body(ip: IpAddr, interface: u32) -> Vec<u8> {
    let (family, octets) = match ip {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let mut body = vec![family as u8, (octets.len() * 8) as u8, 0, 0];
    body.extend(interface.to_ne_bytes());
    push(&mut body, IFA_LOCAL, &octets);
    push(&mut body, IFA_ADDRESS, &octets);
    push(&mut body, IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    push(&mut body, IFA_PROTO, &[OURS]);
    body
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The next message in what was received: its type and its body. One that is cut off ends them.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let len = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let body = rest.get(HEADER_LEN_BYTES..len)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

/// The error in an answer; `None` if it acknowledges.
fn error(body: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| Errno::from_raw(code.saturating_neg()))
}

/// The address that a message describes, if it is ours.
fn ours(body: &[u8]) -> Option<IpAddr> {
    let family = i32::from(*body.first()?);
    let (mut address, mut proto) = (None, 0);
    let mut rest = body.get(IFADDR_LEN_BYTES..)?;
    while let Some(header) = rest.get(..4) {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = rest.get(4..len)?;
        match kind {
            IFA_ADDRESS => address = Some(value),
            IFA_PROTO => proto = *value.first()?,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    if proto != OURS {
        return None;
    }
    let address = address?;
    Some(if family == libc::AF_INET {
        Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_with_our_number_is_ours() {
        for text in ["10.0.0.10", "2001:db8::10"] {
            let ip: IpAddr = text.parse().expect("an address");
            let mut body = body(ip, 1);
            assert_eq!(ours(&body), Some(ip));
            for len in 0..body.len() {
                assert_ne!(
                    ours(&body[..len]),
                    Some(IpAddr::from([0, 0, 0, 0])),
                    "{len}"
                );
            }
            // The number is the last attribute.
            let at = body.len() - 4;
            body[at] = 2;
            assert_eq!(ours(&body), None, "the kernel's own");
            assert_eq!(ours(&body[..at - 4]), None, "nobody's");
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = message(libc::RTM_NEWADDR, 0, &body([10, 0, 0, 10].into(), 1));
        let mut rest = &whole[..];
        assert!(next(&mut rest).is_some() && next(&mut rest).is_none());
        for len in 0..whole.len() {
            assert!(next(&mut &whole[..len]).is_none(), "{len} bytes");
        }
    }
}
