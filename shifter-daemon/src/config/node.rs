//! The node file, `shifter.toml`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use shifter_common::wire::Diagnostic;

use super::{
    address,
    field::Field,
    report::{Report, shown},
    schema,
    section::Section,
    syntax,
};
use crate::model::{HookSpec, IdleSpec, InterfaceSpec, LocalClientsSpec, NodeSpec, SizeSpec};

const CONTROL_SOCKET_DEFAULT: &str = "/run/shifter/shifter.sock";
const METRICS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_977);
const STATE_DIR_DEFAULT: &str = "/var/lib/shifter";
const BPFFS_DEFAULT: &str = "/sys/fs/bpf";
const SERVICES_DIR_DEFAULT: &str = "services.d";

/// What `local.clients` may be.
const LOCAL_CLIENTS: [(&str, LocalClientsSpec); 3] = [
    ("auto", LocalClientsSpec::Auto),
    ("on", LocalClientsSpec::On),
    ("off", LocalClientsSpec::Off),
];

/// Bytes of a path that a Unix socket can have (`sun_path` less its terminator).
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Bytes of a path anywhere else (`PATH_MAX` less its terminator).
const PATH_MAX_BYTES: usize = 4_095;
/// Bytes of an interface name (`IFNAMSIZ` less its terminator).
const INTERFACE_NAME_MAX_BYTES: usize = 15;

// The least a table must hold to be of any use, and the most that the kernel gives in one piece.
const SERVICES_RANGE_COUNT: RangeInclusive<u32> = 1..=65_536;
const BACKENDS_RANGE_COUNT: RangeInclusive<u32> = 1..=1_048_576;
const FLOWS_RANGE_COUNT: RangeInclusive<u32> = 1_024..=33_554_432;
const PENDING_RANGE_COUNT: RangeInclusive<u32> = 1_024..=33_554_432;
const TABLE_ENTRIES_RANGE_COUNT: RangeInclusive<u32> = 1_024..=268_435_456;

// A handshake lasts as long as a client retransmits its SYN; what is over is kept as long as the ends
// may still speak (TIME_WAIT). No flow is forgotten within a tick of the kernel's clock.
const HANDSHAKE_IDLE_RANGE: RangeInclusive<Duration> = seconds(10)..=seconds(3_600);
const ESTABLISHED_IDLE_RANGE: RangeInclusive<Duration> = seconds(60)..=seconds(8_760 * 3_600);
const HALF_CLOSED_IDLE_RANGE: RangeInclusive<Duration> = seconds(60)..=seconds(8_760 * 3_600);
const CLOSED_IDLE_RANGE: RangeInclusive<Duration> = seconds(10)..=seconds(3_600);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Reads the text of the node file. `file` is its path: its name in messages, and the place a
/// relative services directory starts from.
///
/// # Errors
/// All problems of the file, in the order of their places.
pub fn parse_node(file: &str, text: &str) -> Result<NodeSpec, Vec<Diagnostic>> {
    let mut report = Report::new(file, text);
    let tree = syntax::parse(text, &mut report);
    let top = Section::top(schema::NODE_FILE, tree.get_ref(), &mut report);
    let spec = read(file, &top, &mut report);
    report.finish(spec)
}

fn read(file: &str, top: &Section<'_>, report: &mut Report<'_>) -> NodeSpec {
    let interfaces = interfaces(top, report);
    let control = top.section("control", &schema::node::CONTROL, report);
    let metrics = top.section("metrics", &schema::node::METRICS, report);
    let state = top.section("state", &schema::node::STATE, report);
    let bpf = top.section("bpf", &schema::node::BPF, report);
    let services = top.section("services", &schema::node::SERVICES, report);
    let local = top.section("local", &schema::node::LOCAL, report);
    let tables = top.section("tables", &schema::node::TABLES, report);

    let idle_times = top.section("idle", &schema::node::IDLE, report);

    let services_dir = services
        .get("dir")
        .and_then(|field| path(&field, PATH_MAX_BYTES, report));
    let beside = Path::new(file).parent().unwrap_or(Path::new(""));
    NodeSpec {
        interfaces,
        control_socket: absolute(&control, "socket", SOCKET_PATH_MAX_BYTES, report)
            .unwrap_or_else(|| CONTROL_SOCKET_DEFAULT.into()),
        metrics: match metrics.get("listen") {
            Some(listen) => listen_address(&listen, report),
            None => Some(METRICS_DEFAULT),
        },
        state_dir: absolute(&state, "dir", PATH_MAX_BYTES, report)
            .unwrap_or_else(|| STATE_DIR_DEFAULT.into()),
        bpffs: absolute(&bpf, "bpffs", PATH_MAX_BYTES, report)
            .unwrap_or_else(|| BPFFS_DEFAULT.into()),
        services_dir: beside.join(services_dir.unwrap_or_else(|| SERVICES_DIR_DEFAULT.into())),
        local_clients: local
            .get("clients")
            .and_then(|field| field.choice(&LOCAL_CLIENTS, &[], report))
            .unwrap_or_default(),
        sizes: sizes(&tables, report),
        idle: idle(&idle_times, report),
    }
}

fn interfaces(top: &Section<'_>, report: &mut Report<'_>) -> Vec<InterfaceSpec> {
    let help = "add [[interface]] and name = \"eth0\"; names are listed by: ip -brief link";
    let Some(field) = top.get("interface") else {
        report.whole(
            None,
            "there is no [[interface]], so no packet would be seen",
            help,
        );
        return Vec::new();
    };
    if field.is_table() {
        report.value(
            &field.at(),
            "`interface` must be an array of tables, found a table",
            "write [[interface]], in two brackets, once for each interface",
        );
        return Vec::new();
    }
    let Some(elements) = field.elements(report) else {
        return Vec::new();
    };
    if elements.is_empty() {
        report.whole(
            Some(&field.at()),
            "`interface` is empty, so no packet would be seen",
            help,
        );
    }
    let mut seen = BTreeMap::<&str, Range<usize>>::new();
    let mut interfaces = Vec::new();
    for element in &elements {
        let table = top.open(element, &schema::node::INTERFACE, report);
        let name_field = table.required("name", report);
        let name = name_field
            .as_ref()
            .and_then(|field| interface_name(field, report));
        if let (Some(name), Some(field)) = (name, &name_field) {
            if let Some(first) = seen.get(name) {
                let line = report.line(first);
                report.value(
                    &field.at(),
                    format!("interface {} is given twice", shown(name)),
                    format!("remove one; the first is in line {line}"),
                );
            } else {
                seen.insert(name, field.at());
            }
        }
        let hooks = [
            ("auto", HookSpec::Auto),
            ("xdp", HookSpec::Xdp),
            ("xdp-generic", HookSpec::XdpGeneric),
            ("tc", HookSpec::Tc),
        ];
        interfaces.push(InterfaceSpec {
            name: name.unwrap_or_default().to_owned(),
            hook: table
                .get("hook")
                .and_then(|field| field.choice(&hooks, &[], report))
                .unwrap_or_default(),
            checksums_complete: table
                .get("checksums_complete")
                .and_then(|field| field.boolean(report))
                .unwrap_or(false),
        });
    }
    interfaces
}

fn interface_name<'d>(field: &Field<'d>, report: &mut Report<'_>) -> Option<&'d str> {
    let name = field.string(report)?;
    let impossible = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !name.is_empty()
        && name.len() <= INTERFACE_NAME_MAX_BYTES
        && name != "."
        && name != ".."
        && !name.contains(impossible)
    {
        return Some(name);
    }
    report.value(
        &field.at(),
        format!("`{}` cannot be {}", field.path(), shown(name)),
        "1 to 15 bytes without spaces, / and :; names are listed by: ip -brief link",
    );
    None
}

fn listen_address(field: &Field<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    if field.as_boolean() == Some(false) {
        return None;
    }
    if field.as_string().is_none() {
        field.mistyped("a string with address and port, or false", report);
        return None;
    }
    address::read(field, address::Role::Listen, report)
}

/// A path that does not depend on the directory the daemon was started in.
fn absolute(
    section: &Section<'_>,
    key: &str,
    len_max_bytes: usize,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let field = section.get(key)?;
    let path = path(&field, len_max_bytes, report)?;
    if path.is_absolute() {
        return Some(path);
    }
    report.value(
        &field.at(),
        format!(
            "`{}` must be an absolute path, found {}",
            field.path(),
            shown(&path.to_string_lossy())
        ),
        "begin it with /",
    );
    None
}

fn path(field: &Field<'_>, len_max_bytes: usize, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = field.string(report)?;
    let at = field.at();
    if path.is_empty() || path.contains(char::is_control) {
        report.value(
            &at,
            format!("`{}` must be a path, found {}", field.path(), shown(path)),
            "write a path without line breaks and other control characters",
        );
        return None;
    }
    if path.len() > len_max_bytes {
        report.value(
            &at,
            format!(
                "`{}` must have at most {len_max_bytes} bytes, found {}",
                field.path(),
                path.len()
            ),
            "choose a shorter path",
        );
        return None;
    }
    Some(PathBuf::from(path))
}

fn sizes(tables: &Section<'_>, report: &mut Report<'_>) -> SizeSpec {
    let default = SizeSpec::default();
    let mut size = |key, range, unit, default| {
        let field = tables.get(key);
        field
            .and_then(|field| field.count(range, unit, report))
            .unwrap_or(default)
    };
    SizeSpec {
        services_count: size(
            "services",
            SERVICES_RANGE_COUNT,
            "services",
            default.services_count,
        ),
        backends_count: size(
            "backends",
            BACKENDS_RANGE_COUNT,
            "backends",
            default.backends_count,
        ),
        flows_count: size("flows", FLOWS_RANGE_COUNT, "flows", default.flows_count),
        pending_count: size(
            "pending",
            PENDING_RANGE_COUNT,
            "flows",
            default.pending_count,
        ),
        table_entries_count: size(
            "table_entries",
            TABLE_ENTRIES_RANGE_COUNT,
            "entries",
            default.table_entries_count,
        ),
    }
}

fn idle(times: &Section<'_>, report: &mut Report<'_>) -> IdleSpec {
    let default = IdleSpec::default();
    let mut time = |key, range, default| {
        let field = times.get(key);
        field
            .and_then(|field| field.duration(range, report))
            .unwrap_or(default)
    };
    IdleSpec {
        handshake: time("handshake", HANDSHAKE_IDLE_RANGE, default.handshake),
        established: time("established", ESTABLISHED_IDLE_RANGE, default.established),
        half_closed: time("half_closed", HALF_CLOSED_IDLE_RANGE, default.half_closed),
        closed: time("closed", CLOSED_IDLE_RANGE, default.closed),
    }
}
