//! Questions to the kernel about interfaces, over netlink: unlike /sys it always answers for the
//! network namespace of the caller.

use std::os::fd::{AsRawFd as _, OwnedFd};

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

const HEADER_LEN_BYTES: usize = 16;
/// struct ifinfomsg: family, pad, type, index, flags, change.
const IFINFO_LEN_BYTES: usize = 16;
/// struct genlmsghdr: command, version, reserved.
const GENL_LEN_BYTES: usize = 4;
/// Link messages carry statistics and can be long.
const REPLY_LEN_BYTES: usize = 64 * 1024;

const IFLA_PARENT_DEV_NAME: u16 = 56;
/// `IFLA_XDP_PROG_ID`, and where programs of several modes are attached, which has no such id, those
/// of the driver, the stack and the hardware.
const XDP_PROG_IDS: [u16; 4] = [4, 5, 6, 7];
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;

/// What the kernel says of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub up: bool,
    pub loopback: bool,
    pub mtu_bytes: u32,
    /// Index of the bond or bridge it is enslaved to.
    pub master: Option<u32>,
    /// `veth`, `bond`, `bridge`; software devices have one, NICs have none.
    pub kind: Option<String>,
    /// The device on a bus behind the interface; software devices have none.
    pub parent: Option<String>,
    pub xdp_prog_id: Option<u32>,
}

/// Asks for one link.
pub(super) fn link(ifindex: u32) -> Result<Link, Errno> {
    let mut body = vec![0; IFINFO_LEN_BYTES];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let reply = ask(SockProtocol::NetlinkRoute, libc::RTM_GETLINK, &body)?;
    parse_link(&reply).ok_or(Errno::EBADMSG)
}

/// Whether the driver runs XDP programs itself; `None` where the kernel does not tell (before
/// Linux 6.3).
pub(super) fn native_xdp(ifindex: u32) -> Option<bool> {
    let mut body = vec![libc::CTRL_CMD_GETFAMILY as u8, 1, 0, 0];
    push(&mut body, libc::CTRL_ATTR_FAMILY_NAME as u16, b"netdev\0");
    let control = libc::GENL_ID_CTRL as u16;
    let reply = ask(SockProtocol::NetlinkGeneric, control, &body).ok()?;
    let family = find(
        reply.get(GENL_LEN_BYTES..)?,
        libc::CTRL_ATTR_FAMILY_ID as u16,
    )?;
    let family = u16::from_ne_bytes(family.try_into().ok()?);

    let mut body = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    push(&mut body, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let reply = ask(SockProtocol::NetlinkGeneric, family, &body).ok()?;
    let features = find(reply.get(GENL_LEN_BYTES..)?, NETDEV_A_DEV_XDP_FEATURES)?;
    let features = u64::from_ne_bytes(features.try_into().ok()?);
    Some(features & NETDEV_XDP_ACT_BASIC != 0)
}

/// Sends one request and returns the body of the one message that answers it.
fn ask(protocol: SockProtocol, kind: u16, body: &[u8]) -> Result<Vec<u8>, Errno> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    // The kernel answers before sendto returns; the limit only guards against waiting for ever.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(2, 0))?;
    let len = u32::try_from(HEADER_LEN_BYTES + body.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut message = Vec::with_capacity(HEADER_LEN_BYTES + body.len());
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number 1; port 0 is the kernel's.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    sendto(
        socket.as_raw_fd(),
        &message,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut reply = vec![0; REPLY_LEN_BYTES];
    let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    reply.truncate(len);
    payload(&reply)
}

/// The body of the first message, or the error it carries.
fn payload(reply: &[u8]) -> Result<Vec<u8>, Errno> {
    let len = u32_at(reply, 0).ok_or(Errno::EBADMSG)? as usize;
    let kind = u16_at(reply, 4).ok_or(Errno::EBADMSG)?;
    let body = reply.get(HEADER_LEN_BYTES..len).ok_or(Errno::EBADMSG)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = u32_at(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
        return Err(Errno::from_raw(code.saturating_neg()));
    }
    Ok(body.to_vec())
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let attributes = body.get(IFINFO_LEN_BYTES..)?;
    let number = |kind| u32_at(find(attributes, kind)?, 0);
    let nested = |outer, inner| find(find(attributes, outer)?, inner);
    Some(Link {
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        mtu_bytes: number(libc::IFLA_MTU)?,
        master: number(libc::IFLA_MASTER),
        kind: nested(libc::IFLA_LINKINFO, libc::IFLA_INFO_KIND).map(text),
        parent: find(attributes, IFLA_PARENT_DEV_NAME).map(text),
        xdp_prog_id: XDP_PROG_IDS
            .iter()
            .find_map(|kind| u32_at(nested(libc::IFLA_XDP, *kind)?, 0)),
    })
}

/// Appends an attribute.
fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Callers pass names and numbers of a few bytes.
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this kind. Attributes that do not fit end the search.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        // The two highest bits say how the value is encoded, not what it is.
        let found = u16_at(attributes, 2)? & 0x3fff;
        let value = attributes.get(4..len)?;
        if found == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = Vec::new();
        for (kind, value) in list {
            push(&mut message, *kind, value);
        }
        message
    }

    fn link_body(flags: i32, list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; IFINFO_LEN_BYTES];
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body.extend(attributes(list));
        body
    }

    #[test]
    fn links_are_read() {
        let mtu = 1400_u32.to_ne_bytes();
        let info = attributes(&[(libc::IFLA_INFO_KIND, b"veth\0")]);
        let xdp = attributes(&[(2, &[1]), (4, &77_u32.to_ne_bytes())]);
        let several = attributes(&[(2, &[4]), (6, &78_u32.to_ne_bytes())]);
        let no_xdp = attributes(&[(2, &[0])]);
        let nested = libc::IFLA_XDP | 0x8000;
        type Row<'a> = (&'a str, Vec<u8>, Option<Link>);
        let rows: Vec<Row<'_>> = vec![
            (
                "a member of a bridge with a program",
                link_body(
                    libc::IFF_UP,
                    &[
                        (libc::IFLA_MTU, &mtu),
                        (libc::IFLA_MASTER, &9_u32.to_ne_bytes()),
                        (libc::IFLA_LINKINFO, &info),
                        (nested, &xdp),
                    ],
                ),
                Some(Link {
                    up: true,
                    mtu_bytes: 1400,
                    master: Some(9),
                    kind: Some("veth".into()),
                    xdp_prog_id: Some(77),
                    ..Link::default()
                }),
            ),
            (
                "a NIC that is down",
                link_body(
                    0,
                    &[
                        (libc::IFLA_MTU, &mtu),
                        (IFLA_PARENT_DEV_NAME, b"0000:01:00.0\0"),
                        (nested, &no_xdp),
                    ],
                ),
                Some(Link {
                    mtu_bytes: 1400,
                    parent: Some("0000:01:00.0".into()),
                    ..Link::default()
                }),
            ),
            (
                "programs of several modes",
                link_body(0, &[(libc::IFLA_MTU, &mtu), (nested, &several)]),
                Some(Link {
                    mtu_bytes: 1400,
                    xdp_prog_id: Some(78),
                    ..Link::default()
                }),
            ),
            ("without MTU it is no link", link_body(0, &[]), None),
            ("too short", vec![0; 7], None),
        ];
        for (what, body, expected) in rows {
            assert_eq!(parse_link(&body), expected, "{what}");
        }
    }

    #[test]
    fn broken_messages_end_the_search() {
        let whole = attributes(&[(1, b"abcd"), (2, b"efgh")]);
        assert_eq!(find(&whole, 2), Some(&b"efgh"[..]));
        for cut in 0..whole.len() {
            assert_eq!(find(&whole[..cut], 2), None, "cut at {cut}");
        }
        assert_eq!(find(&[0, 0, 1, 0, 9, 9, 9, 9], 2), None, "a length of zero");
        for reply in [&[][..], &[16, 0, 0, 0], &[200, 0, 0, 0, 16, 0, 0, 0]] {
            assert_eq!(payload(reply), Err(Errno::EBADMSG));
        }
    }

    #[test]
    fn a_refusal_is_its_error() {
        let mut reply = Vec::new();
        reply.extend(36_u32.to_ne_bytes());
        reply.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
        reply.resize(HEADER_LEN_BYTES, 0);
        reply.extend((-libc::ENODEV).to_ne_bytes());
        reply.resize(36, 0);
        assert_eq!(payload(&reply), Err(Errno::ENODEV));
        assert_eq!(link(u32::MAX >> 1), Err(Errno::ENODEV));
    }

    #[test]
    fn the_loopback_interface_is_as_everywhere() {
        let link = link(1).map(|link| (link.loopback, link.parent, link.kind, link.xdp_prog_id));
        assert_eq!(link, Ok((true, None, None, None)));
        assert_ne!(native_xdp(1), Some(true));
    }
}
