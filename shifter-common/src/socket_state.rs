//! What the state of a backend's socket says about the flow it belongs to.

use crate::tcp::Phase;

/// States of a TCP socket (`enum` in include/net/tcp_states.h; also `BPF_TCP_*`).
pub mod state {
    /// Open in both directions.
    pub const ESTABLISHED: u32 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u32 = 2;
    /// A SYN was received and answered, with TCP Fast Open.
    pub const SYN_RECV: u32 = 3;
    /// The application has closed; its FIN is not acknowledged.
    pub const FIN_WAIT1: u32 = 4;
    /// The application has closed; its FIN is acknowledged.
    pub const FIN_WAIT2: u32 = 5;
    /// Over; late segments are still recognised.
    pub const TIME_WAIT: u32 = 6;
    /// Nothing.
    pub const CLOSE: u32 = 7;
    /// The peer has sent FIN.
    pub const CLOSE_WAIT: u32 = 8;
    /// The peer has sent FIN first, then the application has closed.
    pub const LAST_ACK: u32 = 9;
    /// Waits for connections.
    pub const LISTEN: u32 = 10;
    /// Both have sent FIN at the same time.
    pub const CLOSING: u32 = 11;
    /// A SYN was received; there is no socket yet, and the peer has proved nothing.
    pub const NEW_SYN_RECV: u32 = 12;
}

/// The phase of a flow whose backend holds a socket in this state, before a segment of the client is
/// delivered to it. `None`: the socket is no proof of a connection with this client.
#[inline(always)]
pub const fn phase(socket_state: u32) -> Option<Phase> {
    match socket_state {
        state::ESTABLISHED => Some(Phase::Established),
        state::FIN_WAIT1 | state::FIN_WAIT2 => Some(Phase::BackendFin),
        state::CLOSE_WAIT => Some(Phase::ClientFin),
        state::LAST_ACK | state::CLOSING => Some(Phase::Closed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_is_a_proof() {
        let rows = [
            (state::ESTABLISHED, Some(Phase::Established)),
            (state::SYN_SENT, None),
            (state::SYN_RECV, None),
            (state::FIN_WAIT1, Some(Phase::BackendFin)),
            (state::FIN_WAIT2, Some(Phase::BackendFin)),
            (state::TIME_WAIT, None),
            (state::CLOSE, None),
            (state::CLOSE_WAIT, Some(Phase::ClientFin)),
            (state::LAST_ACK, Some(Phase::Closed)),
            (state::LISTEN, None),
            (state::CLOSING, Some(Phase::Closed)),
            (state::NEW_SYN_RECV, None),
            (0, None),
            (13, None),
        ];
        for (socket_state, expected) in rows {
            assert_eq!(phase(socket_state), expected, "state {socket_state}");
        }
    }
}
