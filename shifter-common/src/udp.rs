//! Pseudo-flows of UDP, which has no handshake and no end.
//!
//! A datagram to a VIP opens a flow if there is none, and stands in the table of handshakes, so that
//! forged sources push out other unanswered flows only. The backend's first datagram back confirms
//! the flow and moves it to the established ones. Silence ends it.

use crate::abi::TICK_SHIFT;

/// How long a flow lives that no backend has answered, seconds: as long as Linux' connection tracking
/// waits (`nf_conntrack_udp_timeout`).
pub const UNANSWERED_IDLE_S: u64 = 30;
/// How long an answered flow lives without a packet, seconds. RFC 4787 REQ-5 asks for two minutes at
/// least.
pub const ANSWERED_IDLE_S: u64 = 180;

/// The same in ticks.
pub const UNANSWERED_IDLE_TICKS: u32 = ticks(UNANSWERED_IDLE_S);
/// The same in ticks.
pub const ANSWERED_IDLE_TICKS: u32 = ticks(ANSWERED_IDLE_S);

const fn ticks(time_s: u64) -> u32 {
    ((time_s * 1_000_000_000) >> TICK_SHIFT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_a_little_longer_than_seconds() {
        assert_eq!((UNANSWERED_IDLE_TICKS, ANSWERED_IDLE_TICKS), (27, 167));
    }
}
