//! One interface as the kernel describes it, in the network namespace of the caller.

use std::{ffi::CStr, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    libc,
    net::if_::{if_indextoname, if_nametoindex},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{bpf, netlink};

/// Drivers with a device behind them that is a hypervisor's: packets of a neighbour on the same
/// machine may arrive with checksums nobody has computed yet.
const PARAVIRTUAL_DRIVERS: [&str; 4] = ["virtio_net", "vif", "hv_netvsc", "vmxnet3"];

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub ifindex: u32,
    /// Name of its driver, or its kind if it is made of software (`veth`, `bridge`); `None` if the
    /// kernel names neither.
    pub driver: Option<String>,
    /// Made of software, or a hypervisor's: checksums may be left to hardware that is not there.
    pub is_virtual: bool,
    /// The bond or bridge it is enslaved to.
    pub master: Option<Master>,
    /// The XDP program on it, whoever attached it.
    pub xdp_prog_id: Option<u32>,
    /// That program's name; `None` without CAP_SYS_ADMIN.
    pub xdp_prog_name: Option<String>,
    /// Whether its driver runs XDP programs itself; `None` where the kernel does not tell (before
    /// Linux 6.3).
    pub native_xdp: Option<bool>,
    /// Administratively up.
    pub up: bool,
    /// Largest packet, bytes.
    pub mtu_bytes: u32,
}

/// The interface another one is enslaved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// Name.
    pub name: String,
    /// `bond`, `bridge`, `vrf`, …
    pub kind: String,
}

impl std::fmt::Display for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Interface {
    /// The driver's name, or that it has none.
    pub fn driver_name(&self) -> &str {
        self.driver.as_deref().unwrap_or("(none)")
    }

    /// The XDP program in words, if there is one: `xdp_filter (id 7)`.
    pub fn xdp_program(&self) -> Option<String> {
        let id = self.xdp_prog_id?;
        Some(match self.xdp_prog_name.as_deref() {
            None | Some("") => format!("id {id}"),
            Some(name) => format!("{name} (id {id})"),
        })
    }

    /// The same interface as if the XDP program `own_id` were not on it: an own program does not
    /// stand in the way of itself.
    #[must_use]
    pub fn without_own_xdp(mut self, is_own: impl Fn(u32) -> bool) -> Self {
        if self.xdp_prog_id.is_some_and(is_own) {
            self.xdp_prog_id = None;
            self.xdp_prog_name = None;
        }
        self
    }
}

/// Why an interface could not be inspected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name.
    #[error("there is no interface {0:?}; those there are: ip -br link")]
    Missing(String),
    /// The kernel refused to describe it.
    #[error("cannot inspect interface {name:?}: {errno}")]
    Netlink {
        /// Name.
        name: String,
        /// What the kernel returned.
        errno: Errno,
    },
}

/// Describes the interface `name`.
///
/// # Errors
/// If there is no such interface, or the kernel refuses to describe it.
pub fn inspect(name: &str) -> Result<Interface, InterfaceError> {
    let ifindex = match if_nametoindex(name) {
        Ok(ifindex) => ifindex,
        Err(Errno::ENODEV | Errno::EINVAL) => return Err(InterfaceError::Missing(name.into())),
        Err(errno) => {
            return Err(InterfaceError::Netlink {
                name: name.into(),
                errno,
            });
        }
    };
    let link = netlink::link(ifindex).map_err(|errno| InterfaceError::Netlink {
        name: name.into(),
        errno,
    })?;
    let driver = driver(name).or_else(|| link.kind.clone());
    let paravirtual = driver
        .as_deref()
        .is_some_and(|driver| PARAVIRTUAL_DRIVERS.contains(&driver));
    Ok(Interface {
        name: name.into(),
        ifindex,
        is_virtual: link.parent.is_none() || paravirtual,
        driver: driver.or_else(|| link.loopback.then(|| "loopback".into())),
        master: link.master.map(master),
        xdp_prog_id: link.xdp_prog_id,
        xdp_prog_name: link.xdp_prog_id.and_then(program_name),
        native_xdp: netlink::native_xdp(ifindex),
        up: link.up,
        mtu_bytes: link.mtu_bytes,
    })
}

fn master(ifindex: u32) -> Master {
    let name = if_indextoname(ifindex)
        .ok()
        .and_then(|name| name.into_string().ok());
    let kind = netlink::link(ifindex).ok().and_then(|link| link.kind);
    Master {
        name: name.unwrap_or_else(|| format!("with index {ifindex}")),
        kind: kind.unwrap_or_else(|| "master".into()),
    }
}

fn program_name(id: u32) -> Option<String> {
    let program = bpf::program_by_id(id).ok()?;
    bpf::program_info(&program).ok().map(|(_, name)| name)
}

/// The driver as it names itself (ETHTOOL_GDRVINFO); `None` if it does not.
fn driver(name: &str) -> Option<String> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    /// struct ethtool_drvinfo.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let socket = socket.ok()?;
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    // SAFETY: ifreq consists of integers and pointers; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel reads the name and writes the driver's information, 196 bytes, to `info`,
    // which is as long and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(result).ok()?;
    let name = CStr::from_bytes_until_nul(&info.driver)
        .ok()?
        .to_str()
        .ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_and_where() {
        #[rustfmt::skip]
        let rows = [
            (inspect("nope0").map(drop),
             "there is no interface \"nope0\"; those there are: ip -br link"),
            (inspect("much-too-long-for-a-name").map(drop),
             "there is no interface \"much-too-long-for-a-name\"; those there are: ip -br link"),
            (inspect("").map(drop),
             "there is no interface \"\"; those there are: ip -br link"),
            (Err(InterfaceError::Netlink { name: "eth0".into(), errno: Errno::EPERM }),
             "cannot inspect interface \"eth0\": EPERM: Operation not permitted"),
        ];
        for (result, expected) in rows {
            assert_eq!(
                result.map_err(|error| error.to_string()),
                Err(expected.into())
            );
        }
    }

    #[test]
    fn the_loopback_interface_is_virtual() {
        let interface = inspect("lo").map(|interface| {
            (
                interface.ifindex,
                interface.is_virtual,
                interface.driver,
                interface.master,
            )
        });
        assert_eq!(interface, Ok((1, true, Some("loopback".into()), None)));
    }

    #[test]
    fn programs_are_named_and_own_ones_set_aside() {
        let interface = Interface {
            xdp_prog_id: Some(7),
            xdp_prog_name: Some("xdp_filter".into()),
            ..Interface::default()
        };
        assert_eq!(
            interface.xdp_program().as_deref(),
            Some("xdp_filter (id 7)")
        );
        let nameless = Interface {
            xdp_prog_name: None,
            ..interface.clone()
        };
        assert_eq!(nameless.xdp_program().as_deref(), Some("id 7"));
        assert_eq!(interface.clone().without_own_xdp(|id| id == 8), interface);
        assert_eq!(
            interface.without_own_xdp(|id| id == 7),
            Interface::default()
        );
    }
}
