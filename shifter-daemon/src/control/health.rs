//! What probing knows of a backend.

/// Whether a backend takes new flows, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendHealth {
    /// Whether new flows may go there.
    pub ready: bool,
    /// Why not; empty if ready.
    pub reason: String,
    /// Whether that is knowledge: a probe has spoken, or the packet path held it ready.
    pub is_known: bool,
}

impl BackendHealth {
    /// Known to be ready.
    pub fn ready() -> Self {
        Self {
            ready: true,
            reason: String::new(),
            is_known: true,
        }
    }

    /// Known not to be ready.
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self {
            ready: false,
            reason: reason.into(),
            is_known: true,
        }
    }

    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            ready: false,
            reason: "not probed yet".into(),
            is_known: false,
        }
    }

    /// Whether this says something about readiness that the other did not. Another reason for the
    /// same state is none.
    pub fn is_news_after(&self, before: &Self) -> bool {
        self.ready != before.ready || self.is_known && !before.is_known
    }
}
