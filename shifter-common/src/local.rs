//! What became of the connects and datagrams of the host's own clients.
//!
//! They never reach a packet hook with the VIP as destination, so they are no packets of the nat
//! plane and have no verdict. Each connect or datagram to a VIP increments exactly one of these.

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// The counter of one connect or datagram.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LocalOutcome { $($(#[doc = $doc])+ $name = $number,)+ }

        impl LocalOutcome {
            /// All outcomes, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
            /// How many there are; the size of the `LOCAL_OUTCOMES` map.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Name in status, metrics and tests.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// Meaning in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// Whether the caller is told that its connection was refused.
            #[inline(always)]
            pub const fn refuses(self) -> bool {
                matches!(
                    self,
                    Self::RefusedUnserved | Self::RefusedNoMemory | Self::RefusedBrokenState
                )
            }
        }
    };
}

outcomes! {
    /// A backend was selected and the destination changed to it.
    Selected = 0, "selected";
    /// A datagram to the backend that the socket's earlier ones went to.
    Kept = 1, "kept";
    /// No slot is eligible, and the service says pass: the host answers for itself.
    PassUnserved = 2, "pass_unserved";
    /// No slot is eligible, and the service says drop: the caller gets ECONNREFUSED.
    RefusedUnserved = 3, "refused_unserved";
    /// The kernel had no memory to note the VIP: the caller gets ECONNREFUSED.
    RefusedNoMemory = 4, "refused_no_memory";
    /// The published tables contradict each other; never seen unless the daemon has a defect.
    RefusedBrokenState = 5, "refused_broken_state";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_labels_say_what_the_caller_sees() {
        for (index, outcome) in LocalOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
            let refuses = outcome.label().starts_with("refused_");
            assert_eq!(refuses, outcome.refuses(), "{}", outcome.label());
            assert!(outcome.meaning().len() > 10);
        }
    }
}
