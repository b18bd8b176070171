//! Messages of sock_diag as bytes (include/uapi/linux/inet_diag.h). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;
use shifter_common::socket::SocketTag;

use super::{Listener, Tagged};

const HEADER_LEN_BYTES: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// struct inet_diag_msg: family, state, timer, retransmits, 48 bytes of id, expiry, queues, user, inode.
const MSG_LEN_BYTES: usize = 72;
/// struct inet_diag_sockid inside of it.
const ID_AT: usize = 4;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_ULP_INFO_NAME: u16 = 1;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

const TCP_TIME_WAIT: u32 = 6;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// Request sockets, which have no tag yet, and what has no socket any more.
const TCP_NEW_SYN_RECV: u32 = 12;

/// Address families, as the kernel numbers them.
pub const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// A question for sockets of a family.
pub struct Query {
    family: u8,
    states: u32,
    extensions: u8,
    storage: Option<i32>,
}

impl Query {
    /// Those that listen, with their tags in a socket storage if one is given.
    pub const fn listeners(family: u8, storage: Option<i32>) -> Self {
        Self {
            family,
            states: 1 << TCP_LISTEN,
            // With it comes the name of the upper layer.
            extensions: 1 << (INET_DIAG_INFO - 1),
            storage,
        }
    }

    /// Those that are connected, with their tags in a socket storage.
    pub const fn connections(family: u8, storage: i32) -> Self {
        let out = 1 << TCP_LISTEN | 1 << TCP_TIME_WAIT | 1 << TCP_CLOSE | 1 << TCP_NEW_SYN_RECV;
        Self {
            family,
            states: 0xfff & !out,
            extensions: 1 << (INET_DIAG_INFO - 1),
            storage: Some(storage),
        }
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.family, libc::IPPROTO_TCP as u8, self.extensions, 0];
        body.extend(self.states.to_ne_bytes());
        body.extend([0; 48]);
        if let Some(fd) = self.storage {
            let mut nested = Vec::new();
            push(
                &mut nested,
                SK_DIAG_BPF_STORAGE_REQ_MAP_FD,
                &fd.to_ne_bytes(),
            );
            push(
                &mut body,
                INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED,
                &nested,
            );
        }
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        message(SOCK_DIAG_BY_FAMILY, flags as u16, &body)
    }
}

/// The message that ends one connection: it is looked up by its addresses and must have this cookie.
pub fn destroy(local: SocketAddr, remote: SocketAddr, cookie: u64) -> Vec<u8> {
    let family = match local {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    for addr in [local, remote] {
        match addr.ip() {
            IpAddr::V4(v4) => {
                body.extend(v4.octets());
                body.extend([0; 12]);
            }
            IpAddr::V6(v6) => body.extend(v6.octets()),
        }
    }
    // Any interface.
    body.extend(0_u32.to_ne_bytes());
    let (low, high) = (cookie as u32, (cookie >> 32) as u32);
    body.extend(low.to_ne_bytes());
    body.extend(high.to_ne_bytes());
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    message(SOCK_DESTROY, flags as u16, &body)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN_BYTES + body.len());
    message.extend(((HEADER_LEN_BYTES + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number 1; port 0 is the kernel's.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A socket.
    Socket(&'a [u8]),
    /// The end of a dump.
    Done,
    /// An error number; 0 acknowledges.
    Error(i32),
}

/// The messages in what was received. One that is cut off ends them.
pub fn bodies(received: &[u8]) -> impl Iterator<Item = Body<'_>> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let len = u32_at(rest, 0)? as usize;
        let kind = u16_at(rest, 4)?;
        let body = rest.get(HEADER_LEN_BYTES..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(match i32::from(kind) {
            // A dump that fails ends with its error.
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                let code = u32_at(body, 0).unwrap_or(0).cast_signed().saturating_neg();
                match (i32::from(kind), code) {
                    (libc::NLMSG_DONE, 0) => Body::Done,
                    (_, code) => Body::Error(code),
                }
            }
            _ => Body::Socket(body),
        })
    })
}

/// The listener a message describes.
pub fn listener(body: &[u8]) -> Option<Listener> {
    let v6_only = attribute(body.get(MSG_LEN_BYTES..)?, INET_DIAG_SKV6ONLY);
    Some(Listener {
        local: address(body, 0, 4)?,
        is_v6_only: v6_only
            .and_then(|value| value.first())
            .is_some_and(|v| *v != 0),
        uid: u32_at(body, 64)?,
        cookie: cookie(body)?,
        queue_count: u32_at(body, 56)?,
        queue_capacity_count: u32_at(body, 60)?,
        is_mptcp: upper_layer(body.get(MSG_LEN_BYTES..)?) == Some(b"mptcp"),
        tag: tag_of(body.get(MSG_LEN_BYTES..)?),
    })
}

/// The connection a message describes, if it carries a tag.
pub fn tagged(body: &[u8]) -> Option<Tagged> {
    let attributes = body.get(MSG_LEN_BYTES..)?;
    let tag = tag_of(attributes)?;
    // struct tcp_info: tcpi_last_data_sent, tcpi_last_data_recv, tcpi_data_segs_out, tcpi_data_segs_in.
    let info = attribute(attributes, INET_DIAG_INFO).unwrap_or_default();
    Some(Tagged {
        local: address(body, 0, 4)?,
        remote: address(body, 2, 20)?,
        state: *body.get(1)?,
        cookie: cookie(body)?,
        tag,
        unread_bytes: u32_at(body, 56)?,
        unacknowledged_bytes: u32_at(body, 60)?,
        sent_ago_ms: u32_at(info, 44).unwrap_or(0),
        received_ago_ms: u32_at(info, 52).unwrap_or(0),
        data_sent_count: u32_at(info, 156).unwrap_or(0),
        data_received_count: u32_at(info, 152).unwrap_or(0),
    })
}

/// Name of the protocol between the socket and its application, if there is one.
fn upper_layer(attributes: &[u8]) -> Option<&[u8]> {
    let info = attribute(attributes, INET_DIAG_ULP_INFO)?;
    let name = attribute(info, INET_ULP_INFO_NAME)?;
    Some(name.strip_suffix(b"\0").unwrap_or(name))
}

/// The tag among a socket's attributes.
fn tag_of(attributes: &[u8]) -> Option<SocketTag> {
    let storages = attribute(attributes, INET_DIAG_SK_BPF_STORAGES)?;
    let storage = attribute(storages, SK_DIAG_BPF_STORAGE)?;
    let value = attribute(storage, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    Some(SocketTag {
        service: u32_at(value, 0)?,
        version_id: u32_at(value, 4)?,
        backends: [u32_at(value, 8)?, u32_at(value, 12)?],
        backend_ids: [u32_at(value, 16)?, u32_at(value, 20)?],
        places: [*value.get(24)?, *value.get(25)?],
        slot: *value.get(26)?,
        kind: *value.get(27)?,
        cohort: *value.get(28)?,
        pad: [0; 3],
    })
}

/// An address of the socket's id: its port and its address lie at these offsets.
fn address(body: &[u8], port_at: usize, addr_at: usize) -> Option<SocketAddr> {
    let port = body.get(ID_AT + port_at..ID_AT + port_at + 2)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let addr = body.get(ID_AT + addr_at..ID_AT + addr_at + 16)?;
    let ip = if i32::from(*body.first()?) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(addr.get(..4)?).ok()?))
    } else {
        let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(addr).ok()?);
        // A dual-stack socket has its IPv4 peers in IPv6 form.
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    };
    Some(SocketAddr::new(ip, port))
}

fn cookie(body: &[u8]) -> Option<u64> {
    let (low, high) = (u32_at(body, ID_AT + 40)?, u32_at(body, ID_AT + 44)?);
    Some(u64::from(high) << 32 | u64::from(low))
}

/// The value of an attribute.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if u16_at(attributes, 2)? & NLA_TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message about a socket, as the kernel writes it.
    fn socket(family: i32, state: u8, attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![0; MSG_LEN_BYTES];
        body[0] = family as u8;
        body[1] = state;
        body[4..6].copy_from_slice(&443_u16.to_be_bytes());
        body[6..8].copy_from_slice(&40_000_u16.to_be_bytes());
        body[8..12].copy_from_slice(&[10, 0, 0, 10]);
        body[24..28].copy_from_slice(&[10, 9, 0, 2]);
        body[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        body[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        body[56..60].copy_from_slice(&3_u32.to_ne_bytes());
        body[60..64].copy_from_slice(&128_u32.to_ne_bytes());
        body[64..68].copy_from_slice(&1_000_u32.to_ne_bytes());
        body.extend(attributes);
        body
    }

    #[test]
    fn a_listener_is_read() {
        let mut attributes = Vec::new();
        push(&mut attributes, 8, &[0]);
        push(&mut attributes, INET_DIAG_SKV6ONLY, &[1]);
        let read = listener(&socket(libc::AF_INET, 10, &attributes)).expect("a listener");
        assert_eq!(
            read,
            Listener {
                local: "10.0.0.10:443".parse().expect("an address"),
                is_v6_only: true,
                uid: 1_000,
                cookie: (1 << 32) | 7,
                queue_count: 3,
                queue_capacity_count: 128,
                is_mptcp: false,
                tag: None,
            }
        );
        for (name, is_mptcp) in [(&b"mptcp\0"[..], true), (b"tls\0", false)] {
            let (mut info, mut attributes) = (Vec::new(), Vec::new());
            push(&mut info, INET_ULP_INFO_NAME, name);
            push(&mut attributes, INET_DIAG_ULP_INFO | NLA_F_NESTED, &info);
            let read = listener(&socket(libc::AF_INET, 10, &attributes));
            assert_eq!(read.expect("a listener").is_mptcp, is_mptcp);
        }
        let value: Vec<u8> = [5_u32, 9, 1, 1, 2, 2]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .chain([0, 0, 1, 1, 0, 0, 0, 0])
            .collect();
        let tagged = listener(&socket(libc::AF_INET, 10, &storages(&value)));
        let tag = tagged.expect("a listener").tag.expect("a tag");
        assert_eq!((tag.service, tag.version_id, tag.slot), (5, 9, 1));
    }

    /// Attributes of a socket with this value in its storage.
    fn storages(value: &[u8]) -> Vec<u8> {
        let (mut storage, mut storages, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
        push(&mut storage, 2, &77_u32.to_ne_bytes());
        push(&mut storage, SK_DIAG_BPF_STORAGE_MAP_VALUE, value);
        push(&mut storages, SK_DIAG_BPF_STORAGE | NLA_F_NESTED, &storage);
        let kind = INET_DIAG_SK_BPF_STORAGES | NLA_F_NESTED;
        push(&mut attributes, kind, &storages);
        attributes
    }

    #[test]
    fn only_a_tagged_connection_is_ours() {
        assert_eq!(tagged(&socket(libc::AF_INET, 1, &[])), None);
        let value: Vec<u8> = [5_u32, 9, 1, 1, 2, 2]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .chain([255, 255, 1, 2, 4, 0, 0, 0])
            .collect();
        let read = tagged(&socket(libc::AF_INET, 1, &storages(&value))).expect("a connection");
        assert_eq!(read.remote, "10.9.0.2:40000".parse().expect("an address"));
        assert_eq!((read.tag.service, read.tag.version_id), (5, 9));
        assert_eq!((read.tag.backends, read.tag.backend_ids), ([1, 1], [2, 2]));
        assert_eq!((read.tag.slot, read.tag.kind, read.tag.cohort), (1, 2, 4));
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_ipv4() {
        let mut body = socket(libc::AF_INET6, 10, &[]);
        body[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 10]);
        let read = listener(&body).expect("a listener");
        assert_eq!(read.local, "10.0.0.10:443".parse().expect("an address"));
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_nothing() {
        let whole = socket(libc::AF_INET, 10, &[]);
        for len in 0..whole.len() {
            assert_eq!(listener(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(tagged(&socket(libc::AF_INET, 1, &[3, 0, 20, 0])), None);
        assert_eq!(tagged(&socket(libc::AF_INET, 1, &[0; 4])), None);
        assert_eq!(bodies(&[1, 2, 3]).count(), 0);
        let mut bad = message(SOCK_DIAG_BY_FAMILY, 0, &whole);
        bad[0] = 200;
        assert_eq!(bodies(&bad).count(), 0);
    }

    #[test]
    fn ends_and_errors() {
        let done = message(libc::NLMSG_DONE as u16, 0, &0_u32.to_ne_bytes());
        assert_eq!(bodies(&done).collect::<Vec<_>>(), [Body::Done]);
        let code = (-libc::EPERM).to_ne_bytes();
        let failed = message(libc::NLMSG_ERROR as u16, 0, &code);
        assert_eq!(
            bodies(&failed).collect::<Vec<_>>(),
            [Body::Error(libc::EPERM)]
        );
        let both = [message(20, 0, &[1; 8]), done].concat();
        assert_eq!(
            bodies(&both).collect::<Vec<_>>(),
            [Body::Socket(&[1; 8]), Body::Done]
        );
    }

    #[test]
    fn the_cookie_names_whom_to_destroy() {
        let addr = |text: &str| text.parse().expect("an address");
        let message = destroy(addr("10.0.0.10:443"), addr("10.9.0.2:40000"), (1 << 32) | 7);
        let body = &message[HEADER_LEN_BYTES..];
        assert_eq!(body.len(), 56);
        // struct inet_diag_req_v2: the id begins at 8, its cookie at 8 + 40.
        assert_eq!(u32_at(body, 48), Some(7));
        assert_eq!(u32_at(body, 52), Some(1));
    }
}
