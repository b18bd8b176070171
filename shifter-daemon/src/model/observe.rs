//! What is looked at in the connections of a service, besides what becomes of them.

/// The choice of `service.observe`. What becomes of connections is counted always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserveSpec {
    /// How long handshakes and first bytes take.
    pub latency: bool,
    /// The status of responses of HTTP/1.x in clear text.
    pub http: bool,
}

impl ObserveSpec {
    /// Whether anything is looked at.
    pub const fn is_on(self) -> bool {
        self.latency || self.http
    }

    /// As service files write it.
    pub fn names(self) -> Vec<&'static str> {
        let rows = [
            ("connections", true),
            ("latency", self.latency),
            ("http", self.http),
        ];
        rows.iter()
            .filter(|(_, is_on)| *is_on)
            .map(|(name, _)| *name)
            .collect()
    }
}
