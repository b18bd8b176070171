//! What is known of the sockets that listen for a backend on the socket plane.

use super::BackendHealth;

/// The listeners of a backend, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerView {
    /// Whether new flows can be given to one of them.
    pub is_captured: bool,
    /// Why not, with what to do; empty if they can.
    pub reason: String,
    /// How often a listener appeared while there was no other.
    pub epoch: u32,
    /// Connections that wait to be accepted.
    pub queue_count: u32,
}

/// What a look at a backend's listeners has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relistened {
    /// All is as it was.
    No,
    /// Whether flows can be given to it has changed, or why not.
    Changed,
    /// They had all closed, and it listens again: it is not the server any more that was probed.
    Anew,
}

impl ListenerView {
    /// What has changed since an earlier look.
    pub fn since(&self, before: Option<&Self>) -> Relistened {
        let Some(before) = before else {
            return Relistened::Changed;
        };
        if self.epoch != before.epoch && before.epoch != 0 {
            Relistened::Anew
        } else if (self.is_captured, &self.reason) == (before.is_captured, &before.reason)
            && self.epoch == before.epoch
        {
            Relistened::No
        } else {
            Relistened::Changed
        }
    }

    /// What this makes of a probe's finding: nobody gets flows who cannot take them.
    pub fn limit(&self, health: &BackendHealth) -> BackendHealth {
        if self.is_captured || !health.ready {
            return health.clone();
        }
        BackendHealth::not_ready(self.reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(is_captured: bool, reason: &str, epoch: u32) -> ListenerView {
        ListenerView {
            is_captured,
            reason: reason.into(),
            epoch,
            queue_count: 0,
        }
    }

    #[test]
    fn what_a_look_brings() {
        use Relistened::{Anew, Changed, No};
        let rows = [
            (None, view(false, "nobody", 0), Changed),
            (Some(view(false, "nobody", 0)), view(false, "nobody", 0), No),
            (Some(view(false, "nobody", 0)), view(true, "", 1), Changed),
            (Some(view(true, "", 1)), view(true, "", 1), No),
            (Some(view(true, "", 1)), view(false, "nobody", 1), Changed),
            (Some(view(false, "nobody", 1)), view(true, "", 2), Anew),
            // It closed and came back between two looks.
            (Some(view(true, "", 1)), view(true, "", 2), Anew),
        ];
        for (before, now, expected) in rows {
            assert_eq!(now.since(before.as_ref()), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_ready_backend_without_listener_is_not_ready() {
        let ready = BackendHealth::ready();
        assert_eq!(view(true, "", 1).limit(&ready), ready);
        let limited = view(false, "nobody listens", 0).limit(&ready);
        assert_eq!(limited, BackendHealth::not_ready("nobody listens"));
        let failed = BackendHealth::not_ready("status 503");
        assert_eq!(view(false, "nobody listens", 0).limit(&failed), failed);
    }
}
