//! The phases of a flow as a node in the middle sees them: of TCP (RFC 9293 section 3.6), and of UDP
//! (see [`crate::udp`]).
//!
//! ```text
//!              SYN/ACK            ACK
//!  SynSent ────────────► SynReceived ────────► Established
//!     │ RST                  │ RST              │        │
//!     │                      │              FIN │        │ FIN
//!     │                      │        of client ▼        ▼ of backend
//!     │                      │           ClientFin     BackendFin
//!     │                      │                  │ other   │
//!     ▼                      ▼                  ▼ FIN     ▼
//!   Reset ◄──────────────────────── RST ─────── Closed ◄──┘
//!
//!   Aborted: set by an operator's reset, from any phase.
//!
//!               datagram of the backend
//!   Unanswered ─────────────────────────► Answered
//!        └────────── port unreachable ───────┴────► Reset
//! ```

/// Bits of the TCP flags byte (RFC 9293 section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// Where a flow stands.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "wire", serde(rename_all = "snake_case"))]
pub enum Phase {
    /// The client's SYN was sent to the backend.
    SynSent = 1,
    /// The backend answered with SYN/ACK.
    SynReceived = 2,
    /// The handshake is complete.
    Established = 3,
    /// The client has sent FIN.
    ClientFin = 4,
    /// The backend has sent FIN.
    BackendFin = 5,
    /// Both have sent FIN.
    Closed = 6,
    /// One side has sent RST.
    Reset = 7,
    /// An operator has asked for a reset: each further packet becomes a RST for its receiver.
    Aborted = 8,
    /// UDP: the client has sent a datagram, the backend none yet.
    Unanswered = 9,
    /// UDP: the backend has answered.
    Answered = 10,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 10] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::ClientFin,
        Self::BackendFin,
        Self::Closed,
        Self::Reset,
        Self::Aborted,
        Self::Unanswered,
        Self::Answered,
    ];

    /// The phase with this number, as stored in a flow entry.
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::ClientFin,
            5 => Self::BackendFin,
            6 => Self::Closed,
            7 => Self::Reset,
            8 => Self::Aborted,
            9 => Self::Unanswered,
            10 => Self::Answered,
            _ => return None,
        })
    }

    /// Whether the handshake is not complete, or the first datagram not answered.
    #[inline(always)]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Unanswered)
    }

    /// Whether the connection is over: a SYN on the same ports starts a new one.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Reset | Self::Aborted)
    }

    /// Whether the connection is established and at least one side may still send.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Established | Self::ClientFin | Self::BackendFin | Self::Answered
        )
    }

    /// Whether the flow keeps its backend busy: it is live, or it is UDP that may well go one way
    /// only, as a log's does.
    #[inline(always)]
    pub const fn is_busy(self) -> bool {
        self.is_live() || matches!(self, Self::Unanswered)
    }
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

/// What a change of phase means for the flow's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Milestone {
    /// The handshake is complete, or the first datagram answered.
    Established,
    /// The backend refused the handshake, or a datagram it has answered none before.
    Refused,
    /// Both sides have sent FIN.
    Closed,
    /// The client reset an established flow.
    ResetByClient,
    /// The backend reset an established flow, or its port of an answered one is closed.
    ResetByBackend,
}

/// A change of phase, with what to count for it.
pub type Transition = (Phase, Option<Milestone>);

/// The phase after a packet, or `None` if the packet changes nothing. The caller has checked that a
/// SYN/ACK acknowledges this flow's SYN and that the ACK which completes a handshake acknowledges
/// its SYN/ACK. A UDP flow has no flags; that its backend's port is closed counts as RST.
#[inline(always)]
pub const fn advance(phase: Phase, sender: Sender, flags: u8) -> Option<Transition> {
    let (syn, fin, rst, ack) = (
        flags & flag::SYN != 0,
        flags & flag::FIN != 0,
        flags & flag::RST != 0,
        flags & flag::ACK != 0,
    );
    match (phase, sender) {
        (Phase::SynSent | Phase::SynReceived, Sender::Backend) if rst => {
            Some((Phase::Reset, Some(Milestone::Refused)))
        }
        (Phase::SynSent | Phase::SynReceived, Sender::Client) if rst => Some((Phase::Reset, None)),
        (Phase::SynSent, Sender::Backend) if syn && ack => Some((Phase::SynReceived, None)),
        (Phase::SynReceived, Sender::Client) if ack && !syn => {
            // A FIN may ride on the ACK that completes the handshake.
            let phase = if fin {
                Phase::ClientFin
            } else {
                Phase::Established
            };
            Some((phase, Some(Milestone::Established)))
        }
        (Phase::Established | Phase::ClientFin | Phase::BackendFin, Sender::Client) if rst => {
            Some((Phase::Reset, Some(Milestone::ResetByClient)))
        }
        (Phase::Established | Phase::ClientFin | Phase::BackendFin, Sender::Backend) if rst => {
            Some((Phase::Reset, Some(Milestone::ResetByBackend)))
        }
        (Phase::Unanswered, Sender::Backend) if rst => {
            Some((Phase::Reset, Some(Milestone::Refused)))
        }
        (Phase::Answered, Sender::Backend) if rst => {
            Some((Phase::Reset, Some(Milestone::ResetByBackend)))
        }
        (Phase::Unanswered, Sender::Backend) => {
            Some((Phase::Answered, Some(Milestone::Established)))
        }
        (Phase::Established, Sender::Client) if fin => Some((Phase::ClientFin, None)),
        (Phase::Established, Sender::Backend) if fin => Some((Phase::BackendFin, None)),
        (Phase::ClientFin, Sender::Backend) | (Phase::BackendFin, Sender::Client) if fin => {
            Some((Phase::Closed, Some(Milestone::Closed)))
        }
        (
            Phase::SynSent
            | Phase::SynReceived
            | Phase::Established
            | Phase::ClientFin
            | Phase::BackendFin
            | Phase::Closed
            | Phase::Reset
            | Phase::Aborted
            | Phase::Unanswered
            | Phase::Answered,
            Sender::Client | Sender::Backend,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Milestone as M, Phase as P, Sender::*, flag::*, *};
    use proptest::prelude::*;

    /// phase, sender, flags, expected.
    const TABLE: &[(P, Sender, u8, Option<Transition>)] = &[
        (P::SynSent, Client, SYN, None),
        (P::SynSent, Client, ACK, None),
        (P::SynSent, Client, RST, Some((P::Reset, None))),
        (P::SynSent, Backend, SYN | ACK, Some((P::SynReceived, None))),
        (
            P::SynSent,
            Backend,
            RST | ACK,
            Some((P::Reset, Some(M::Refused))),
        ),
        (P::SynReceived, Client, SYN, None),
        (P::SynReceived, Backend, SYN | ACK, None),
        (
            P::SynReceived,
            Client,
            ACK,
            Some((P::Established, Some(M::Established))),
        ),
        (
            P::SynReceived,
            Client,
            FIN | ACK,
            Some((P::ClientFin, Some(M::Established))),
        ),
        (P::SynReceived, Client, RST, Some((P::Reset, None))),
        (
            P::SynReceived,
            Backend,
            RST,
            Some((P::Reset, Some(M::Refused))),
        ),
        (P::Established, Client, ACK, None),
        (P::Established, Client, SYN, None),
        (
            P::Established,
            Client,
            FIN | ACK,
            Some((P::ClientFin, None)),
        ),
        (
            P::Established,
            Backend,
            FIN | ACK,
            Some((P::BackendFin, None)),
        ),
        (
            P::Established,
            Client,
            RST,
            Some((P::Reset, Some(M::ResetByClient))),
        ),
        (
            P::Established,
            Backend,
            RST | ACK,
            Some((P::Reset, Some(M::ResetByBackend))),
        ),
        (P::ClientFin, Client, FIN | ACK, None),
        (P::ClientFin, Backend, ACK, None),
        (
            P::ClientFin,
            Backend,
            FIN | ACK,
            Some((P::Closed, Some(M::Closed))),
        ),
        (
            P::ClientFin,
            Client,
            RST,
            Some((P::Reset, Some(M::ResetByClient))),
        ),
        (
            P::ClientFin,
            Backend,
            RST,
            Some((P::Reset, Some(M::ResetByBackend))),
        ),
        (P::BackendFin, Backend, FIN | ACK, None),
        (P::BackendFin, Client, ACK, None),
        (
            P::BackendFin,
            Client,
            FIN | ACK,
            Some((P::Closed, Some(M::Closed))),
        ),
        (
            P::BackendFin,
            Client,
            RST,
            Some((P::Reset, Some(M::ResetByClient))),
        ),
        (
            P::BackendFin,
            Backend,
            RST,
            Some((P::Reset, Some(M::ResetByBackend))),
        ),
        (P::Closed, Client, RST, None),
        (P::Closed, Backend, FIN | ACK, None),
        (P::Reset, Backend, RST, None),
        (P::Reset, Client, ACK, None),
        (P::Aborted, Client, ACK, None),
        (P::Aborted, Backend, RST, None),
        (P::Unanswered, Client, 0, None),
        (
            P::Unanswered,
            Backend,
            0,
            Some((P::Answered, Some(M::Established))),
        ),
        (
            P::Unanswered,
            Backend,
            RST,
            Some((P::Reset, Some(M::Refused))),
        ),
        (P::Answered, Client, 0, None),
        (P::Answered, Backend, 0, None),
        (
            P::Answered,
            Backend,
            RST,
            Some((P::Reset, Some(M::ResetByBackend))),
        ),
    ];

    #[test]
    fn transitions() {
        for &(phase, sender, flags, expected) in TABLE {
            assert_eq!(
                advance(phase, sender, flags),
                expected,
                "{phase:?} {sender:?} {flags:#04x}"
            );
        }
    }

    #[test]
    fn every_phase_stands_in_the_table_and_survives_its_number() {
        for phase in P::ALL {
            assert!(TABLE.iter().any(|row| row.0 == phase), "{phase:?}");
            assert_eq!(P::from_u32(phase as u32), Some(phase));
        }
        assert_eq!(P::from_u32(0), None);
        assert_eq!(P::from_u32(11), None);
    }

    proptest! {
        /// Whatever packets arrive in whatever order: a flow is established at most once, ends at
        /// most once, and only an established flow ends.
        #[test]
        fn at_most_one_outcome(
            is_udp: bool, packets in prop::collection::vec((any::<bool>(), 0_u8..32), 0..40),
        ) {
            let mut phase = if is_udp { P::Unanswered } else { P::SynSent };
            let (mut established, mut ended) = (0, 0);
            for (from_client, flags) in packets {
                let sender = if from_client { Client } else { Backend };
                if let Some((next, milestone)) = advance(phase, sender, flags) {
                    prop_assert!(next > phase || next == P::Reset, "{:?} -> {:?}", phase, next);
                    match milestone {
                        Some(M::Established) => established += 1,
                        Some(M::Closed | M::ResetByClient | M::ResetByBackend) => {
                            prop_assert_eq!(established, 1);
                            ended += 1;
                        }
                        Some(M::Refused) => prop_assert_eq!(established, 0),
                        None => {}
                    }
                    phase = next;
                }
            }
            prop_assert!(established <= 1 && ended <= established);
            prop_assert_eq!(ended == 1, established == 1 && phase.is_over());
        }
    }
}
