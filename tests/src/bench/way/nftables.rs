//! nftables: destination NAT by a random number, with connection tracking.

use super::{PORT, PORTS};
use crate::{
    netns::{Inside, Netns},
    world::{OTHER, VIP},
};

/// The ruleset of a namespace.
pub struct Nftables {
    host: Inside,
}

impl Nftables {
    /// Installs the rules; all connections go to version a.
    pub fn start(host: &Netns) -> Self {
        let nftables = Self {
            host: host.inside(),
        };
        nftables.load(&format!(
            "table ip shift {{\n chain pre {{\n \
             type nat hook prerouting priority dstnat\n {}\n }}\n}}\n",
            rule(0)
        ));
        nftables
    }

    /// Replaces the rule in one transaction.
    pub fn send_to(&self, version: usize) {
        self.load(&format!(
            "flush chain ip shift pre\nadd rule ip shift pre {}\n",
            rule(version)
        ));
    }

    fn load(&self, text: &str) {
        self.host.tool_with_input("nft", &["-f", "-"], text);
    }
}

/// The rule that gives a version all connections, by the way a share would be given.
fn rule(version: usize) -> String {
    format!(
        "ip daddr {vip} tcp dport {PORT} dnat ip to numgen random mod 10000 map \
         {{ 0-9999 : {backend} . {port} }}",
        vip = VIP.v4,
        backend = OTHER.v4,
        port = PORTS[version],
    )
}
