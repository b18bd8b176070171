//! The packet rows: data.

use shifter_common::verdict::Verdict;

use crate::world::Family;

/// The hook whose program a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `xdp_ingress`
    Xdp,
    /// `tc_ingress`
    TcIngress,
    /// `tc_egress`
    TcEgress,
}

impl Hook {
    /// In tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::TcIngress => "TC in",
            Self::TcEgress => "TC out",
        }
    }

    /// Whether the program is one of XDP.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp)
    }
}

/// What the packets of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data of the client on flows that are established.
    Established,
    /// Data of the backend on flows that are established.
    Reply,
    /// SYNs, each of a flow of its own, into a table with room.
    New,
    /// The same into a full table.
    NewEvicting,
    /// To an address and port that are no VIP.
    Foreign,
    /// To a VIP's port at an address that is no VIP.
    ForeignOnPort,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is.
    pub kind: Kind,
    /// Where it runs.
    pub hook: Hook,
    /// Its packets' family.
    pub family: Family,
    /// Flows in random order; 0 if each packet has its own.
    pub flows_count: u32,
    /// Packets of a timed batch.
    pub batch_packets: u32,
    /// What it should take at most, ns, with the harness; IPv4 only.
    pub target_ns: Option<f64>,
}

/// The most flows of a row.
pub const FLOWS_MAX: u32 = 64_000;

impl Case {
    /// A name for programs and people: `established/xdp/v4/1000`.
    pub fn id(&self) -> String {
        let kind = match self.kind {
            Kind::Established => "established",
            Kind::Reply => "reply",
            Kind::New => "new",
            Kind::NewEvicting => "new-evicting",
            Kind::Foreign => "foreign",
            Kind::ForeignOnPort => "foreign-on-port",
        };
        let hook = match self.hook {
            Hook::Xdp => "xdp",
            Hook::TcIngress => "tc-in",
            Hook::TcEgress => "tc-out",
        };
        let family = self.family.pick("v4", "v6");
        match self.flows_count {
            0 => format!("{kind}/{hook}/{family}"),
            count => format!("{kind}/{hook}/{family}/{count}"),
        }
    }

    /// In words.
    pub const fn words(&self) -> &'static str {
        match self.kind {
            Kind::Established => "established flow",
            Kind::Reply => "reply",
            Kind::New => "new flow",
            Kind::NewEvicting => "new flow, table evicts",
            Kind::Foreign => "not ours",
            Kind::ForeignOnPort => "not ours, VIP's port",
        }
    }

    /// The verdict of every packet.
    pub const fn verdict(&self) -> Verdict {
        match self.kind {
            Kind::Established => Verdict::SteeredFlow,
            Kind::Reply => Verdict::SteeredReply,
            Kind::New | Kind::NewEvicting => Verdict::SteeredNew,
            Kind::Foreign | Kind::ForeignOnPort => Verdict::PassForeign,
        }
    }

    /// Packets that run before a batch is timed, so that it finds the caches as its own packets
    /// leave them.
    pub const fn warm_packets(&self) -> u32 {
        match self.kind {
            // A warm-up would fill the table.
            Kind::New | Kind::NewEvicting => 200,
            _ => self.flows_count + 2_000,
        }
    }
}

/// All rows.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::ALL {
        let v4 = family == Family::V4;
        for hook in [Hook::Xdp, Hook::TcIngress] {
            // The targets are those of XDP.
            let target = |ns: f64| (v4 && hook.is_xdp()).then_some(ns);
            for (flows_count, ns) in [(1, 100.0), (1_000, 110.0), (FLOWS_MAX, 260.0)] {
                let target_ns = target(ns);
                cases.push(case(
                    Kind::Established,
                    hook,
                    family,
                    flows_count,
                    target_ns,
                ));
            }
            cases.push(case(Kind::New, hook, family, 0, target(600.0)));
            cases.push(case(Kind::NewEvicting, hook, family, 0, target(1_000.0)));
            cases.push(case(Kind::Foreign, hook, family, 1_000, target(35.0)));
            cases.push(case(Kind::ForeignOnPort, hook, family, 1_000, None));
        }
        for (flows_count, ns) in [(1, None), (1_000, Some(120.0)), (FLOWS_MAX, Some(380.0))] {
            let target_ns = ns.filter(|_| v4);
            cases.push(case(
                Kind::Reply,
                Hook::TcEgress,
                family,
                flows_count,
                target_ns,
            ));
        }
    }
    cases
}

fn case(kind: Kind, hook: Hook, family: Family, flows_count: u32, target_ns: Option<f64>) -> Case {
    let batch_packets = match kind {
        Kind::New | Kind::NewEvicting => 10_000,
        _ if flows_count == FLOWS_MAX => 50_000,
        _ => 20_000,
    };
    Case {
        kind,
        hook,
        family,
        flows_count,
        batch_packets,
        target_ns,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        let cases = all();
        let ids: BTreeSet<String> = cases.iter().map(Case::id).collect();
        assert_eq!(ids.len(), cases.len());
        for id in [
            "established/xdp/v4/64000",
            "reply/tc-out/v6/1000",
            "new-evicting/tc-in/v4",
        ] {
            assert!(ids.contains(id), "{id} in {ids:?}");
        }
    }

    #[test]
    fn every_target_of_a_packet_row_stands_beside_one_row() {
        let targets: Vec<(String, f64)> = all()
            .iter()
            .filter_map(|case| Some((case.id(), case.target_ns?)))
            .collect();
        let expected = [
            ("established/xdp/v4/1", 100.0),
            ("established/xdp/v4/1000", 110.0),
            ("established/xdp/v4/64000", 260.0),
            ("new/xdp/v4", 600.0),
            ("new-evicting/xdp/v4", 1_000.0),
            ("foreign/xdp/v4/1000", 35.0),
            ("reply/tc-out/v4/1000", 120.0),
            ("reply/tc-out/v4/64000", 380.0),
        ];
        assert_eq!(targets, expected.map(|(id, ns)| (id.to_owned(), ns)));
    }
}
