//! Connections that carry a version's tag: counted, listed and ended as the kernel has them.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::errno::Errno;
use shifter_common::{
    abi::{BackendEntry, FlowEntry, FlowKey, flow_flag, map as abi_map},
    addr::Be16,
    socket::{map, tag_kind},
    steering::Slot,
    tcp::Phase,
};

use super::{
    super::{
        super::{Census, DataplaneError, ListedFlow},
        directory::PinDirectory,
        mapped::Mapped,
    },
    descriptor, mapped,
};
use crate::sock_diag::{SockDiag, Tagged};

/// The connections of the socket plane.
pub struct TaggedSockets {
    tags: OwnedFd,
    backends: Mutex<Mapped<BackendEntry>>,
}

/// A connection with the backend it is on.
pub struct Connection {
    /// The socket.
    pub socket: Tagged,
    /// The entry at its backend index; another's if the version has left.
    pub backend: BackendEntry,
}

impl Connection {
    /// Whether its version still has the slot.
    pub fn is_current(&self) -> bool {
        self.backend.backend_id == self.socket.tag.backend_ids[0]
            && self.backend.version_id == self.socket.tag.version_id
    }
}

impl Connection {
    /// Whether nobody has spoken on it for a time and no request is open: nothing is unread by the
    /// application or unacknowledged by the client, and the last word was the application's, or none
    /// was ever spoken. The kernel notes times by its tick, up to ten milliseconds: a request that
    /// came within the tick of the answer before cannot be told from none, but for the first.
    pub fn is_idle(&self, silence_ms: u32) -> bool {
        let socket = &self.socket;
        let is_first_open = socket.data_sent_count == 0 && socket.data_received_count > 0;
        !is_first_open
            && socket.unread_bytes == 0
            && socket.unacknowledged_bytes == 0
            && socket.sent_ago_ms >= silence_ms
            && socket.received_ago_ms >= socket.sent_ago_ms
    }
}

impl TaggedSockets {
    /// Opens what is pinned, with handles of its own.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(directory: &PinDirectory) -> Result<Self, DataplaneError> {
        Ok(Self {
            tags: descriptor(directory, map::SOCKET_TAGS)?,
            backends: Mutex::new(mapped(directory, abi_map::BACKENDS)?),
        })
    }

    /// All connections through VIPs.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn all(&self) -> Result<Vec<Connection>, DataplaneError> {
        let sockets = diag()?
            .tagged(self.tags.as_fd())
            .map_err(|errno| DataplaneError::kernel("listing connections", errno))?;
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let flows = sockets.into_iter().filter(|socket| {
            socket.tag.kind == tag_kind::FLOW && (socket.tag.backends[0] as usize) < backends.len()
        });
        Ok(flows
            .map(|socket| Connection {
                backend: backends.read(socket.tag.backends[0] as usize),
                socket,
            })
            .collect())
    }

    /// Adds them to a census. A connection of a version that has left its slot is nobody's live
    /// flow, and keeps its backend's index from being given away.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn count(&self, census: &mut Census) -> Result<(), DataplaneError> {
        for connection in self.all()? {
            let index = connection.socket.tag.backends[0];
            census.referenced_backends.insert(index);
            if connection.is_current() {
                *census.live.entry(index).or_default() += 1;
            } else {
                *census.departed.entry(index).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Those of a service as flows.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn list(&self, service: u32) -> Result<Vec<ListedFlow>, DataplaneError> {
        let ours = self.all()?.into_iter();
        Ok(ours
            .filter(|connection| connection.socket.tag.service == service)
            .map(|connection| listed(&connection))
            .collect())
    }

    /// Ends the connections of a slot that are meant, those of versions that have left it too. Gives
    /// how many.
    ///
    /// # Errors
    /// If the kernel does not answer, or cannot do it.
    pub fn reset(
        &self,
        service: u32,
        slot: Slot,
        is_meant: impl Fn(&Connection) -> bool,
    ) -> Result<u64, DataplaneError> {
        let diag = diag()?;
        let mut count = 0;
        for connection in self.all()? {
            let socket = &connection.socket;
            if socket.tag.service != service || socket.tag.slot() != slot || !is_meant(&connection)
            {
                continue;
            }
            let done =
                diag.destroy(socket.local, socket.remote, socket.cookie)
                    .map_err(|errno| {
                        let failed = DataplaneError::kernel("ending a connection", errno);
                        match errno {
                            Errno::EOPNOTSUPP => failed
                                .with_help("the kernel is built without CONFIG_INET_DIAG_DESTROY"),
                            _ => failed,
                        }
                    })?;
            count += u64::from(done);
        }
        Ok(count)
    }
}

fn listed(connection: &Connection) -> ListedFlow {
    const ESTABLISHED: u8 = 1;
    const CLOSE_WAIT: u8 = 8;
    let (socket, tag) = (&connection.socket, connection.socket.tag);
    let phase = match socket.state {
        ESTABLISHED => Phase::Established,
        CLOSE_WAIT => Phase::ClientFin,
        // The application has closed; the rest is between the two kernels.
        _ => Phase::BackendFin,
    };
    ListedFlow {
        key: FlowKey {
            client: socket.remote.ip().into(),
            service: tag.service,
            client_port: Be16::from_host(socket.remote.port()),
            protocol: shifter_common::protocol::TCP,
            vip_ordinal: 0,
        },
        entry: FlowEntry {
            backend: connection.backend.addr,
            backend_index: tag.backends[0],
            backend_port: connection.backend.port,
            cohort: tag.cohort,
            flags: match tag.slot() {
                Slot::A => 0,
                Slot::B => flow_flag::SLOT_B,
            },
            phase: phase as u32,
            ..FlowEntry::default()
        },
        vip: socket.local,
        idle_ms: u64::from(socket.sent_ago_ms.min(socket.received_ago_ms)),
    }
}

fn diag() -> Result<SockDiag, DataplaneError> {
    SockDiag::open().map_err(|errno| DataplaneError::kernel("opening sock_diag", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_when_nothing_is_under_way() {
        // Unread, unacknowledged, sent and received so long ago, segments sent and received; whether
        // that is idle for 5 s.
        let rows = [
            ([0, 0, 5_000, 5_000, 1, 1], true),
            ([0, 0, 6_000, 60_000, 9, 2], true),
            // Nobody has ever spoken, or the application alone.
            ([0, 0, 6_000, 6_000, 0, 0], true),
            ([0, 0, 6_000, 7_000, 1, 0], true),
            ([0, 0, 4_999, 5_000, 1, 1], false),
            ([0, 0, 60_000, 4_999, 1, 1], false),
            // The application has not answered yet; the last one within the tick of the handshake.
            ([0, 0, 60_000, 6_000, 1, 2], false),
            ([0, 0, 6_000, 6_000, 0, 1], false),
            // It has not read the request yet, or the answer has not arrived.
            ([1, 0, 6_000, 6_000, 1, 1], false),
            ([0, 1, 6_000, 6_000, 1, 1], false),
        ];
        for (row, is_idle) in rows {
            let [
                unread_bytes,
                unacknowledged_bytes,
                sent_ago_ms,
                received_ago_ms,
                data_sent_count,
                data_received_count,
            ] = row;
            let addr = "10.0.0.10:80".parse().expect("an address");
            let connection = Connection {
                socket: Tagged {
                    local: addr,
                    remote: addr,
                    state: 1,
                    cookie: 1,
                    tag: Default::default(),
                    unread_bytes,
                    unacknowledged_bytes,
                    sent_ago_ms,
                    received_ago_ms,
                    data_sent_count,
                    data_received_count,
                },
                backend: BackendEntry::default(),
            };
            assert_eq!(connection.is_idle(5_000), is_idle, "{row:?}");
        }
    }
}
