//! Which keys the files have. The reference for people is `docs/configuration.md`; a test holds
//! the two together.

/// A table of a file and the keys it may have.
#[derive(Debug)]
pub(super) struct Table {
    /// Path from the top of the file; empty for the top itself.
    pub path: &'static str,
    /// Its keys, in the order people are told about them.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    /// How it is written; empty if this version knows the key but does not support it.
    pub example: &'static str,
}

impl Key {
    const fn new(name: &'static str, example: &'static str) -> Self {
        Self { name, example }
    }

    /// A key that is reserved for a capability to come.
    const fn later(name: &'static str) -> Self {
        Self { name, example: "" }
    }

    pub fn is_supported(&self) -> bool {
        !self.example.is_empty()
    }
}

/// The kind of a file: its tables, the top first.
pub(super) type FileKind = &'static [&'static Table];

/// Tables of a service file.
pub(super) const SERVICE_FILE: FileKind = &[
    &service::TOP,
    &service::SERVICE,
    &service::SLOTS,
    &service::SLOT,
    &service::BACKEND,
    &service::TARGET,
    &service::PROBE,
    &service::READINESS,
    &service::OUTLIER,
    &service::BREAKER,
    &service::DRAIN,
    &service::ROLLBACK,
    &service::ROLLOUT,
    &service::STEP,
    &service::GATE,
    &service::ANALYSIS,
    &service::METRIC,
];

/// Tables of the node file.
pub(super) const NODE_FILE: FileKind = &[
    &node::TOP,
    &node::INTERFACE,
    &node::CONTROL,
    &node::METRICS,
    &node::STATE,
    &node::BPF,
    &node::SERVICES,
    &node::LOCAL,
    &node::TABLES,
    &node::IDLE,
];

/// Tables of a service file, one by one.
pub(super) mod service {
    use super::{Key, Table};

    pub const TOP: Table = Table {
        path: "",
        keys: &[
            Key::new("service", "[service]"),
            Key::new("slot", "[slot.a]"),
            Key::new("target", "[[target]]"),
            Key::new("probe", "[probe]"),
            Key::new("outlier", "[outlier]"),
            Key::new("breaker", "[breaker]"),
            Key::new("drain", "[drain]"),
            Key::new("rollback", "[rollback]"),
            Key::new("rollout", "[rollout]"),
            Key::new("analysis", "[analysis]"),
            Key::new("gate", "[[gate]]"),
        ],
    };
    pub const SERVICE: Table = Table {
        path: "service",
        keys: &[
            Key::new("name", "name = \"orders\""),
            Key::new("vip", "vip = \"10.0.0.10:443\""),
            Key::new("protocol", "protocol = \"tcp\""),
            Key::new("plane", "plane = \"auto\""),
            Key::new("affinity", "affinity = \"connection\""),
            Key::new("default_slot", "default_slot = \"a\""),
            Key::new("on_empty", "on_empty = \"drop\""),
            Key::new("readmit", "readmit = \"probe\""),
            Key::new("on_full", "on_full = \"stay\""),
            Key::new("manage_vip", "manage_vip = true"),
            Key::new(
                "observe",
                "observe = [\"connections\", \"latency\", \"http\"]",
            ),
        ],
    };
    pub const SLOTS: Table = Table {
        path: "slot",
        keys: &[Key::new("a", "[slot.a]"), Key::new("b", "[slot.b]")],
    };
    pub const SLOT: Table = Table {
        path: "slot.a",
        keys: &[
            Key::new("backends", "backends = [\"10.0.0.11:8443\"]"),
            Key::later("unit"),
            Key::new("user", "user = \"orders\""),
        ],
    };
    pub const BACKEND: Table = Table {
        path: "slot.a.backends",
        keys: &[
            Key::new("addr", "{ addr = \"10.0.0.11:8443\", weight = 50 }"),
            Key::new("weight", "{ addr = \"10.0.0.11:8443\", weight = 50 }"),
        ],
    };
    pub const TARGET: Table = Table {
        path: "target",
        keys: &[
            Key::new("from", "from = [\"10.0.0.0/8\"]"),
            Key::new("to", "to = \"canary\""),
        ],
    };
    pub const PROBE: Table = Table {
        path: "probe",
        keys: &[
            Key::new("readiness", "readiness = { http = \"/ready\" }"),
            Key::later("startup"),
            Key::later("liveness"),
        ],
    };
    pub const READINESS: Table = Table {
        path: "probe.readiness",
        keys: &[
            Key::new("http", "http = \"/ready\""),
            Key::new("tcp", "tcp = true"),
            Key::new("host", "host = \"orders.example\""),
            Key::new("port", "port = 8080"),
            Key::new("interval", "interval = \"1s\""),
            Key::new("timeout", "timeout = \"500ms\""),
            Key::new("success_threshold", "success_threshold = 3"),
            Key::new("failure_threshold", "failure_threshold = 3"),
        ],
    };
    pub const OUTLIER: Table = Table {
        path: "outlier",
        keys: &[
            Key::new("consecutive_errors", "consecutive_errors = 5"),
            Key::new("compare_peers", "compare_peers = true"),
            Key::new("min_flows", "min_flows = 50"),
            Key::new("interval", "interval = \"10s\""),
            Key::new("ejection", "ejection = \"30s\""),
            Key::new("max_ejection", "max_ejection = \"5m\""),
            Key::new("max_ejected_percent", "max_ejected_percent = 50"),
        ],
    };
    pub const BREAKER: Table = Table {
        path: "breaker",
        keys: &[
            Key::new("mode", "mode = \"armed\""),
            Key::new("min_sources", "min_sources = 3"),
            Key::new("settle", "settle = \"3s\""),
            Key::new("trusted", "trusted = [\"10.0.0.0/24\"]"),
        ],
    };
    pub const DRAIN: Table = Table {
        path: "drain",
        keys: &[
            Key::new("timeout", "timeout = \"60s\""),
            Key::later("on_timeout"),
        ],
    };
    pub const ROLLBACK: Table = Table {
        path: "rollback",
        keys: &[
            Key::new("established", "established = \"drain\""),
            Key::new("cooldown", "cooldown = \"30m\""),
            Key::new("keep_warm", "keep_warm = \"24h\""),
        ],
    };
    pub const ROLLOUT: Table = Table {
        path: "rollout",
        keys: &[
            Key::new("strategy", "strategy = \"canary\""),
            Key::new(
                "steps",
                "steps = [{ weight = 5, bake = \"5m\" }, { weight = 50 }]",
            ),
            Key::new("bake", "bake = \"5m\""),
            Key::new("add", "add = 10"),
            Key::new("max_surge", "max_surge = \"25%\""),
            Key::new("max_unavailable", "max_unavailable = 0"),
            Key::new("downtime", "downtime = \"accepted\""),
            Key::new("weight", "weight = 50"),
            Key::new("watch", "watch = \"1h\""),
            Key::new("progress_deadline", "progress_deadline = \"2h\""),
            Key::new("warm", "warm = \"5m\""),
            Key::new("unready", "unready = \"1m\""),
        ],
    };
    pub const STEP: Table = Table {
        path: "rollout.steps",
        keys: &[
            Key::new("weight", "{ weight = 5, bake = \"5m\" }"),
            Key::new("bake", "{ weight = 5, bake = \"5m\" }"),
            Key::new("pause", "{ pause = true }"),
        ],
    };
    pub const ANALYSIS: Table = Table {
        path: "analysis",
        keys: &[
            Key::new("false_rollback", "false_rollback = 0.01"),
            Key::new("promote_on", "promote_on = \"auto\""),
            Key::new("min_samples", "min_samples = 50"),
            Key::new("min_per_minute", "min_per_minute = 100"),
            Key::new("baseline_max_error", "baseline_max_error = 0.05"),
            Key::new("on_inconclusive", "on_inconclusive = \"extend\""),
            Key::new("metric", "[[analysis.metric]]"),
            Key::later("preset"),
        ],
    };
    pub const METRIC: Table = Table {
        path: "analysis.metric",
        keys: &[
            Key::new("name", "name = \"errors\""),
            Key::new("max_increase", "max_increase = 0.005"),
            Key::later("prometheus"),
        ],
    };
    pub const GATE: Table = Table {
        path: "gate",
        keys: &[
            Key::new("at", "at = \"pre-traffic\""),
            Key::new("name", "name = \"smoke\""),
            Key::new("http", "http = \"http://127.0.0.1:8080/smoke\""),
            Key::new("exec", "exec = [\"/usr/local/bin/smoke\", \"{{version}}\"]"),
            Key::new("user", "user = \"smoke\""),
            Key::new("file", "file = \"/run/orders/go\""),
            Key::new("manual", "manual = true"),
            Key::new("timeout", "timeout = \"30s\""),
            Key::new("retries", "retries = 2"),
        ],
    };
}

/// Tables of the node file, one by one.
pub(super) mod node {
    use super::{Key, Table};

    pub const TOP: Table = Table {
        path: "",
        keys: &[
            Key::new("interface", "[[interface]]"),
            Key::new("control", "[control]"),
            Key::new("metrics", "[metrics]"),
            Key::new("state", "[state]"),
            Key::new("bpf", "[bpf]"),
            Key::new("services", "[services]"),
            Key::new("local", "[local]"),
            Key::new("tables", "[tables]"),
            Key::new("idle", "[idle]"),
        ],
    };
    pub const INTERFACE: Table = Table {
        path: "interface",
        keys: &[
            Key::new("name", "name = \"eth0\""),
            Key::new("hook", "hook = \"auto\""),
            Key::new("checksums_complete", "checksums_complete = false"),
        ],
    };
    pub const CONTROL: Table = Table {
        path: "control",
        keys: &[Key::new("socket", "socket = \"/run/shifter/shifter.sock\"")],
    };
    pub const METRICS: Table = Table {
        path: "metrics",
        keys: &[Key::new("listen", "listen = \"127.0.0.1:9977\"")],
    };
    pub const STATE: Table = Table {
        path: "state",
        keys: &[Key::new("dir", "dir = \"/var/lib/shifter\"")],
    };
    pub const BPF: Table = Table {
        path: "bpf",
        keys: &[Key::new("bpffs", "bpffs = \"/sys/fs/bpf\"")],
    };
    pub const SERVICES: Table = Table {
        path: "services",
        keys: &[Key::new("dir", "dir = \"services.d\"")],
    };
    pub const LOCAL: Table = Table {
        path: "local",
        keys: &[Key::new("clients", "clients = \"auto\"")],
    };
    pub const TABLES: Table = Table {
        path: "tables",
        keys: &[
            Key::new("services", "services = 1024"),
            Key::new("backends", "backends = 16384"),
            Key::new("flows", "flows = 262144"),
            Key::new("pending", "pending = 65536"),
            Key::new("table_entries", "table_entries = 4194304"),
        ],
    };
    pub const IDLE: Table = Table {
        path: "idle",
        keys: &[
            Key::new("handshake", "handshake = \"130s\""),
            Key::new("established", "established = \"120h\""),
            Key::new("half_closed", "half_closed = \"1h\""),
            Key::new("closed", "closed = \"65s\""),
        ],
    };
}

/// The nearest of some words, if it is near enough to be what was meant.
pub(super) fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // A typing error or two; in a short word two errors make another word, in a letter one.
    let limit = match word.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    words
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, known)| known)
}
