//! Why a backend's listener takes no flows, in words.

use std::{fmt, net::SocketAddr};

use crate::model::Slot;

/// What is the matter with a backend's listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is none.
    Nobody,
    /// Somebody listens who may not.
    Stranger {
        /// Where.
        at: SocketAddr,
        /// Who.
        uid: u32,
        /// For which slot.
        slot: Slot,
    },
    /// The kernel does not steer to MPTCP sockets.
    Mptcp(SocketAddr),
    /// The application has put it into a map of its own.
    OwnMap(SocketAddr),
    /// IPv6 only, and there are IPv4 clients.
    V6Only(SocketAddr),
    /// It listens, and no lookup finds it.
    Hidden(SocketAddr),
    /// The wildcard is another backend's.
    Elsewhere(SocketAddr),
    /// Another answer of the kernel.
    Refused(SocketAddr, i32),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody listens there"),
            Self::Stranger { at, uid, slot } => {
                let name = nix::unistd::User::from_uid((*uid).into())
                    .ok()
                    .flatten()
                    .map(|user| format!(" ({})", user.name))
                    .unwrap_or_default();
                write!(
                    f,
                    "user {uid}{name} listens on {at} and may not: name the user in [slot.{slot}], \
                     user = \"NAME\""
                )
            }
            Self::Mptcp(at) => write!(
                f,
                "its listener on {at} is an MPTCP socket, which the kernel cannot steer to: start a \
                 Go server with GODEBUG=multipathtcp=0, or write plane = \"nat\""
            ),
            Self::OwnMap(at) => write!(
                f,
                "its listener on {at} is in a SO_REUSEPORT map of the application, and the kernel \
                 allows no second one: write plane = \"nat\""
            ),
            Self::V6Only(at) => write!(
                f,
                "its listener on {at} takes IPv6 only, and the service has an IPv4 VIP: switch \
                 IPV6_V6ONLY off, or let it listen on IPv4 as well"
            ),
            Self::Hidden(at) => write!(
                f,
                "its listener on {at} is found by no lookup: is it bound to one interface, or does \
                 another program steer the port?"
            ),
            Self::Elsewhere(at) => write!(
                f,
                "its port is served by the listener on {at}, which belongs to another backend: let \
                 each listen on its own address"
            ),
            Self::Refused(at, code) => write!(
                f,
                "its listener on {at} cannot be captured: {}",
                std::io::Error::from_raw_os_error(*code)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_says_what_to_do() {
        let at = "[::]:81".parse().expect("an address");
        let stranger = Trouble::Stranger {
            at,
            uid: 4_000_000_001,
            slot: Slot::B,
        };
        let rows = [
            (Trouble::Nobody, "nobody listens there"),
            (
                stranger,
                "user 4000000001 listens on [::]:81 and may not: name the user in [slot.b], user = \
                 \"NAME\"",
            ),
            (
                Trouble::Mptcp(at),
                "its listener on [::]:81 is an MPTCP socket, which the kernel cannot steer to: start \
                 a Go server with GODEBUG=multipathtcp=0, or write plane = \"nat\"",
            ),
            (
                Trouble::OwnMap(at),
                "its listener on [::]:81 is in a SO_REUSEPORT map of the application, and the kernel \
                 allows no second one: write plane = \"nat\"",
            ),
            (
                Trouble::V6Only(at),
                "its listener on [::]:81 takes IPv6 only, and the service has an IPv4 VIP: switch \
                 IPV6_V6ONLY off, or let it listen on IPv4 as well",
            ),
            (
                Trouble::Hidden(at),
                "its listener on [::]:81 is found by no lookup: is it bound to one interface, or \
                 does another program steer the port?",
            ),
            (
                Trouble::Elsewhere(at),
                "its port is served by the listener on [::]:81, which belongs to another backend: \
                 let each listen on its own address",
            ),
            (
                Trouble::Refused(at, nix::libc::ENOMEM),
                "its listener on [::]:81 cannot be captured: Cannot allocate memory (os error 12)",
            ),
        ];
        for (trouble, text) in rows {
            assert_eq!(trouble.to_string(), text);
        }
    }
}
