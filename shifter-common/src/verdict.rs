//! What the nat plane did with a packet. Each packet increments exactly one of these.

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal, $action:ident;)+) => {
        /// The verdict counter of one packet.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Verdict { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Verdict {
            /// All verdicts, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
            /// How many there are; the size of the `VERDICTS` map.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Name in metrics and tests.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// Whether the packet goes on or is dropped.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)+ }
            }

            /// Meaning in one line, for the metrics' help and the reference.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It continues, rewritten or not.
    Pass,
    /// It is dropped.
    Drop,
    /// It goes back by the interface it came in by.
    Turn,
}

verdicts! {
    /// Neither IPv4 nor IPv6.
    PassNotIp = 0, "pass_not_ip", Pass;
    /// Not addressed to a VIP, not sent by a backend.
    PassForeign = 1, "pass_foreign", Pass;
    /// A fragment, or an ICMP error about one: fragments are not steered.
    PassFragment = 2, "pass_fragment", Pass;
    /// Shorter than its headers say; the host's stack judges it.
    PassTruncated = 3, "pass_truncated", Pass;
    /// A TCP segment to a VIP that belongs to no known flow and opens none.
    PassNoFlow = 4, "pass_no_flow", Pass;
    /// A new flow with no eligible slot, and the service says pass.
    PassUnserved = 5, "pass_unserved", Pass;
    /// A packet of a backend on a connection that did not come through a VIP.
    PassDirect = 6, "pass_direct", Pass;
    /// First packet of a new flow, sent to a selected backend.
    SteeredNew = 7, "steered_new", Pass;
    /// Packet of a known flow, sent to its backend.
    SteeredFlow = 8, "steered_flow", Pass;
    /// Packet of a backend, sent to the client with the VIP as source.
    SteeredReply = 9, "steered_reply", Pass;
    /// Packet of a flow an operator has reset, turned into a RST for its receiver.
    SteeredReset = 10, "steered_reset", Pass;
    /// A new flow with no eligible slot, and the service says drop.
    DropUnserved = 11, "drop_unserved", Drop;
    /// Flags no connection can have, such as SYN with FIN.
    DropBadFlags = 12, "drop_bad_flags", Drop;
    /// The client port is taken at the backend by a flow through another VIP of the service.
    DropPortConflict = 13, "drop_port_conflict", Drop;
    /// The kernel refused a new entry in the flow table.
    DropTableFull = 14, "drop_table_full", Drop;
    /// The kernel refused to change the packet.
    DropRewriteFailed = 15, "drop_rewrite_failed", Drop;
    /// The published tables contradict each other; never seen unless the daemon has a defect.
    DropBrokenState = 16, "drop_broken_state", Drop;
    /// Neither TCP nor UDP nor an ICMP error: an echo request, GRE and the like.
    PassProtocol = 17, "pass_protocol", Pass;
    /// More than two VLAN tags.
    PassTags = 18, "pass_tags", Pass;
    /// IPsec (AH or ESP): its ports are hidden, or its addresses must not be changed.
    PassSecured = 19, "pass_secured", Pass;
    /// IPv6 extension headers that steering does not follow: too many, out of order, or a route that
    /// is not at its end.
    PassExtension = 20, "pass_extension", Pass;
    /// An ICMP error about a packet of a VIP or a backend that belongs to no known flow.
    PassErrorNoFlow = 21, "pass_error_no_flow", Pass;
    /// An ICMP error of the network about a flow, sent to the flow's backend.
    SteeredError = 22, "steered_error", Pass;
    /// An ICMP error of a backend, or from the way to it, sent to the client as one about the VIP.
    SteeredErrorReply = 23, "steered_error_reply", Pass;
    /// Packet of a flow whose entry was lost, found again by its backend's socket on this host.
    SteeredRescued = 24, "steered_rescued", Pass;
    /// Packet of a backend that called its own VIP and was selected itself, sent back to it.
    SteeredTurned = 25, "steered_turned", Turn;
    /// Packet to a VIP of the socket plane: a first one, for which a listener is chosen, or one of a
    /// connection that has its socket.
    PassSocketPlane = 26, "pass_socket_plane", Pass;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_labels_say_the_action() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            let drops = verdict.label().starts_with("drop_");
            assert_eq!(
                drops,
                verdict.action() == Action::Drop,
                "{}",
                verdict.label()
            );
            assert!(verdict.meaning().len() > 10);
        }
    }
}
