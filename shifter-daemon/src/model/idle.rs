//! How long a flow may be silent before its entry goes.

use std::time::Duration;

use shifter_common::{tcp::Phase, udp};

/// Idle times by phase. A flow that speaks after its entry went is lost, unless the socket of its
/// backend is on this host: then the kernel finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleSpec {
    /// A handshake that is not complete.
    pub handshake: Duration,
    /// An established connection. It may be silent for days (an SSH session).
    pub established: Duration,
    /// A connection that one side has closed.
    pub half_closed: Duration,
    /// A connection that is over.
    pub closed: Duration,
}

impl Default for IdleSpec {
    fn default() -> Self {
        Self {
            // Longer than a client retransmits its SYN (tcp_syn_retries 6: 127 s).
            handshake: Duration::from_secs(130),
            // As the kernel's own connection tracking (nf_conntrack_tcp_timeout_established); a NAT
            // must keep it for 2 h 4 min at least (RFC 5382 REQ-5).
            established: Duration::from_hours(120),
            half_closed: Duration::from_hours(1),
            // TIME_WAIT lasts 60 s.
            closed: Duration::from_secs(65),
        }
    }
}

impl IdleSpec {
    /// How long a flow in this phase may be silent.
    pub const fn limit(&self, phase: Phase) -> Duration {
        match phase {
            Phase::SynSent | Phase::SynReceived => self.handshake,
            Phase::Established => self.established,
            Phase::ClientFin | Phase::BackendFin => self.half_closed,
            Phase::Closed | Phase::Reset | Phase::Aborted => self.closed,
            Phase::Unanswered => Duration::from_secs(udp::UNANSWERED_IDLE_S),
            Phase::Answered => Duration::from_secs(udp::ANSWERED_IDLE_S),
        }
    }
}
