//! What changes from one specification to another, as people read it.

use std::{collections::BTreeMap, fmt::Display, net::SocketAddr};

use shifter_common::wire::{ConfigChange, Effect, EstablishedPolicy};

use super::format_duration;
use crate::model::{
    Affinity, BackendSpec, BreakerSpec, HookSpec, InterfaceSpec, LocalClientsSpec, NodeSpec,
    OnEmpty, OnFull, OutlierSpec, Plane, Prefix, ProbeCheck, ProbeSpec, Protocol, Readmit,
    ServiceSpec, Slot, Target,
};
use crate::{
    analysis::{Counted, EvidencePlan, PromoteOn},
    rollout::{AnalysisPlan, Gate, GateCheck, OnInconclusive, RolloutSpec, Step, Strategy},
};

/// Elements of a list that are shown one by one.
const LISTED_MAX_COUNT: usize = 8;

/// The texts of a value in two specifications.
type BeforeAfter = (String, String);
/// Writes a value of the node file.
type ShowNode = fn(&NodeSpec) -> String;

/// The keys in which two specifications of a service differ. Values are written as in the file.
pub fn diff(old: &ServiceSpec, new: &ServiceSpec) -> Vec<ConfigChange> {
    let lists = |list: fn(&ServiceSpec) -> BTreeMap<SocketAddr, String>| {
        list_change(&list(old), &list(new))
    };
    let plain = |show: fn(&ServiceSpec) -> String| {
        let (before, after) = (show(old), show(new));
        (before != after).then_some((before, after))
    };
    let rows: [(&str, Option<BeforeAfter>); 25] = [
        ("service.vip", lists(vips)),
        ("service.protocol", plain(|spec| protocol(spec.protocol))),
        ("service.plane", plain(|spec| plane(spec.plane))),
        ("service.affinity", plain(|spec| affinity(spec.affinity))),
        (
            "service.default_slot",
            plain(|spec| quoted(spec.default_slot)),
        ),
        ("service.on_empty", plain(|spec| on_empty(spec.on_empty))),
        ("service.readmit", plain(|spec| readmit(spec.readmit))),
        (
            "service.manage_vip",
            plain(|spec| spec.manages_vips.to_string()),
        ),
        ("service.on_full", plain(|spec| on_full(spec.on_full))),
        (
            "service.observe",
            plain(|spec| spec.observe.names().join(", ")),
        ),
        ("slot.a.backends", lists(|spec| backends(spec, Slot::A))),
        ("slot.a.user", plain(|spec| user(spec, Slot::A))),
        ("slot.b.backends", lists(|spec| backends(spec, Slot::B))),
        ("slot.b.user", plain(|spec| user(spec, Slot::B))),
        ("target", list_change(&targets(old), &targets(new))),
        ("probe.readiness", plain(|spec| readiness(&spec.readiness))),
        (
            "outlier",
            plain(|spec| spec.outlier.as_ref().map(outlier).unwrap_or_default()),
        ),
        ("breaker", plain(|spec| breaker(&spec.breaker))),
        (
            "drain.timeout",
            plain(|spec| quoted(format_duration(spec.drain_timeout))),
        ),
        (
            "rollback.established",
            plain(|spec| established(spec.rollback_established)),
        ),
        (
            "rollback.cooldown",
            plain(|spec| millis(spec.rollout.rest.cooldown_ms)),
        ),
        (
            "rollback.keep_warm",
            plain(|spec| millis(spec.rollout.rest.keep_warm_ms)),
        ),
        ("rollout", plain(|spec| rollout(&spec.rollout))),
        (
            "analysis",
            plain(|spec| spec.rollout.rest.analysis.map(analysis).unwrap_or_default()),
        ),
        (
            "gate",
            plain(|spec| {
                let gates = spec.rollout.rest.gates.iter().map(gate);
                gates.collect::<Vec<_>>().join(", ")
            }),
        ),
    ];
    rows.into_iter()
        .filter_map(|(key, change)| {
            let (before, after) = change?;
            Some(ConfigChange {
                service: new.name.clone(),
                key: key.to_owned(),
                before,
                after,
                effect: Effect::Now,
                reason: remark(key).to_owned(),
            })
        })
        .collect()
}

/// What a person should know who changes this key.
fn remark(key: &str) -> &'static str {
    match key {
        "target" => "open connections stay where they are",
        "service.observe" => "new connections; those that are open stay as they are",
        "breaker" => "a trial that is under way goes on with what it has seen",
        "service.affinity" => {
            "new connections of a client may go to another version or backend than before"
        }
        "service.default_slot" => {
            "traffic stays where it is; a start that finds no state will use it"
        }
        "rollback.cooldown" | "rollback.keep_warm" | "rollout" | "analysis" | "gate" => {
            "for rollouts that begin from now on"
        }
        _ => "",
    }
}

/// The keys in which two specifications of the node differ. None takes effect while the daemon
/// runs.
pub fn diff_node(old: &NodeSpec, new: &NodeSpec) -> Vec<ConfigChange> {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    let name_of = |interface: &InterfaceSpec| interface.name.clone();
    let mut names: Vec<_> = old
        .interfaces
        .iter()
        .chain(&new.interfaces)
        .map(name_of)
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        let text = |spec: &NodeSpec| {
            let found = spec
                .interfaces
                .iter()
                .find(|interface| interface.name == name);
            found.map(interface).unwrap_or_default()
        };
        rows.push((format!("interface.{name}"), text(old), text(new)));
    }
    let shows: [(&str, ShowNode); 15] = [
        ("control.socket", |node| {
            quoted(node.control_socket.display())
        }),
        ("metrics.listen", |node| {
            node.metrics.map_or("false".to_owned(), quoted)
        }),
        ("state.dir", |node| quoted(node.state_dir.display())),
        ("local.clients", |node| {
            quoted(match node.local_clients {
                LocalClientsSpec::Auto => "auto",
                LocalClientsSpec::On => "on",
                LocalClientsSpec::Off => "off",
            })
        }),
        ("bpf.bpffs", |node| quoted(node.bpffs.display())),
        ("services.dir", |node| quoted(node.services_dir.display())),
        ("tables.services", |node| {
            node.sizes.services_count.to_string()
        }),
        ("tables.backends", |node| {
            node.sizes.backends_count.to_string()
        }),
        ("tables.flows", |node| node.sizes.flows_count.to_string()),
        ("tables.pending", |node| {
            node.sizes.pending_count.to_string()
        }),
        ("tables.table_entries", |node| {
            node.sizes.table_entries_count.to_string()
        }),
        ("idle.handshake", |node| duration(node.idle.handshake)),
        ("idle.established", |node| duration(node.idle.established)),
        ("idle.half_closed", |node| duration(node.idle.half_closed)),
        ("idle.closed", |node| duration(node.idle.closed)),
    ];
    rows.extend(shows.map(|(key, show)| (key.to_owned(), show(old), show(new))));
    rows.into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| ConfigChange {
            service: String::new(),
            key,
            before,
            after,
            effect: Effect::Refused,
            reason: "restart shifterd to put it in force: systemctl restart shifterd".to_owned(),
        })
        .collect()
}

/// Both lists as they are if they are short; else what is only in one of them, and how many others
/// there are. The order of a list means nothing.
fn list_change<K: Ord>(
    old: &BTreeMap<K, String>,
    new: &BTreeMap<K, String>,
) -> Option<BeforeAfter> {
    let is_short = old.len().max(new.len()) <= LISTED_MAX_COUNT;
    let list = |of: &BTreeMap<K, String>, other: &BTreeMap<K, String>| {
        let shown: Vec<_> = of
            .iter()
            .filter(|&(addr, text)| is_short || other.get(addr) != Some(text))
            .map(|(_, text)| text.as_str())
            .take(LISTED_MAX_COUNT)
            .collect();
        let rest = match of.len() - shown.len() {
            0 => String::new(),
            rest if shown.is_empty() => format!("… {rest} in all"),
            rest => format!(", … {rest} more"),
        };
        format!("[{}{rest}]", shown.join(", "))
    };
    (old != new).then(|| (list(old, new), list(new, old)))
}

fn quoted(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn vips(spec: &ServiceSpec) -> BTreeMap<SocketAddr, String> {
    spec.vips.iter().map(|&vip| (vip, quoted(vip))).collect()
}

fn backends(spec: &ServiceSpec, slot: Slot) -> BTreeMap<SocketAddr, String> {
    let text = |backend: &BackendSpec| match backend.weight {
        100 => quoted(backend.addr),
        weight => format!("{{ addr = \"{}\", weight = {weight} }}", backend.addr),
    };
    spec.slot(slot)
        .backends
        .iter()
        .map(|backend| (backend.addr, text(backend)))
        .collect()
}

fn targets(spec: &ServiceSpec) -> BTreeMap<Prefix, String> {
    let role = |target: &Target| match target {
        Target::Baseline => "baseline",
        Target::Canary => "canary",
    };
    spec.targets
        .iter()
        .map(|(prefix, target)| (*prefix, format!("\"{prefix}\" to \"{}\"", role(target))))
        .collect()
}

fn duration(duration: std::time::Duration) -> String {
    quoted(format_duration(duration))
}

fn protocol(protocol: Protocol) -> String {
    quoted(protocol.name())
}

fn plane(plane: Plane) -> String {
    quoted(match plane {
        Plane::Auto => "auto",
        Plane::Socket => "socket",
        Plane::Nat => "nat",
    })
}

fn affinity(affinity: Affinity) -> String {
    quoted(match affinity {
        Affinity::Connection => "connection",
        Affinity::Client => "client",
    })
}

fn on_empty(on_empty: OnEmpty) -> String {
    quoted(match on_empty {
        OnEmpty::Drop => "drop",
        OnEmpty::Pass => "pass",
    })
}

fn readmit(readmit: Readmit) -> String {
    quoted(match readmit {
        Readmit::Probe => "probe",
        Readmit::Listen => "listen",
    })
}

fn on_full(on_full: OnFull) -> String {
    quoted(match on_full {
        OnFull::Stay => "stay",
        OnFull::Failover => "failover",
    })
}

fn user(spec: &ServiceSpec, slot: Slot) -> String {
    spec.slot(slot).user.as_ref().map_or(String::new(), quoted)
}

fn established(policy: EstablishedPolicy) -> String {
    quoted(match policy {
        EstablishedPolicy::Drain => "drain",
        EstablishedPolicy::Reset => "reset",
        EstablishedPolicy::ResetIdle => "reset-idle",
    })
}

fn readiness(probe: &ProbeSpec) -> String {
    let what = match &probe.check {
        ProbeCheck::None => return String::new(),
        ProbeCheck::Tcp => "tcp = true".to_owned(),
        ProbeCheck::Http { path, host: None } => format!("http = \"{path}\""),
        ProbeCheck::Http {
            path,
            host: Some(host),
        } => {
            format!("http = \"{path}\", host = \"{host}\"")
        }
    };
    let port = probe.port.map(|port| format!(", port = {port}"));
    let port = port.unwrap_or_default();
    format!(
        "{{ {what}{port}, interval = \"{}\", timeout = \"{}\", success_threshold = {}, \
         failure_threshold = {} }}",
        format_duration(probe.interval),
        format_duration(probe.timeout),
        probe.success_threshold,
        probe.failure_threshold
    )
}

fn outlier(spec: &OutlierSpec) -> String {
    format!(
        "{{ consecutive_errors = {}, compare_peers = {}, min_flows = {}, interval = \"{}\", \
         ejection = \"{}\", max_ejection = \"{}\", max_ejected_percent = {} }}",
        spec.consecutive_errors,
        spec.compare_peers,
        spec.min_flows,
        format_duration(spec.interval),
        format_duration(spec.ejection),
        format_duration(spec.max_ejection),
        spec.max_ejected_percent
    )
}

fn breaker(spec: &BreakerSpec) -> String {
    let trusted: Vec<String> = spec.trusted.iter().map(quoted).collect();
    format!(
        "{{ mode = \"{}\", min_sources = {}, settle = \"{}\", trusted = [{}] }}",
        spec.mode.name(),
        spec.min_sources,
        format_duration(spec.settle),
        trusted.join(", ")
    )
}

fn millis(ms: u64) -> String {
    duration(std::time::Duration::from_millis(ms))
}

fn rollout(spec: &RolloutSpec) -> String {
    let details = match &spec.strategy {
        Strategy::Canary(steps) => {
            let steps: Vec<_> = steps.iter().map(step).collect();
            format!("steps = [{}]", steps.join(", "))
        }
        Strategy::Linear { add_bp, every_ms } => format!(
            "add = {}, bake = {}",
            f64::from(*add_bp) / 100.0,
            millis(*every_ms)
        ),
        Strategy::Rolling {
            max_surge,
            max_unavailable,
            bake_ms,
        } => format!(
            "max_surge = {max_surge}, max_unavailable = {max_unavailable}, bake = {}",
            millis(*bake_ms)
        ),
        Strategy::Ab { weight_bp } => format!("weight = {}", f64::from(*weight_bp) / 100.0),
        Strategy::BlueGreen | Strategy::Recreate { .. } | Strategy::Cohort { .. } => String::new(),
    };
    let separator = if details.is_empty() { "" } else { ", " };
    format!(
        "{{ strategy = \"{}\"{separator}{details}, watch = {}, progress_deadline = {}, warm = {}, \
         unready = {} }}",
        spec.name,
        millis(spec.rest.watch_ms),
        millis(spec.rest.limits.progress_ms),
        millis(spec.rest.limits.warm_ms),
        millis(spec.rest.limits.unready_ms)
    )
}

fn step(step: &Step) -> String {
    format!(
        "{{ weight = {}, bake = {}{} }}",
        f64::from(step.share.weight_bp) / 100.0,
        millis(step.bake_ms),
        if step.is_manual { ", pause = true" } else { "" }
    )
}

fn analysis(plan: AnalysisPlan) -> String {
    let share = |ppm: u32| f64::from(ppm) / 1e6;
    let EvidencePlan {
        false_rollback_ppm,
        promote_on,
        min_samples,
        min_per_minute,
        baseline_max_error_ppm,
        ..
    } = plan.evidence;
    let metrics: Vec<String> = Counted::ALL
        .into_iter()
        .filter_map(|counted| {
            let margin = plan.evidence.margin(counted)?;
            Some(format!("{} {margin}", counted.name()))
        })
        .collect();
    let promote_on = match promote_on {
        PromoteOn::Auto => "auto",
        PromoteOn::NoAlarm => "no-alarm",
        PromoteOn::Evidence => "evidence",
    };
    let on_inconclusive = match plan.on_inconclusive {
        OnInconclusive::Extend => "extend",
        OnInconclusive::Pause => "pause",
        OnInconclusive::Rollback => "rollback",
    };
    format!(
        "{}, false_rollback {}, promote_on {promote_on}, min_samples {min_samples}, \
         min_per_minute {min_per_minute}, baseline_max_error {}, on_inconclusive {on_inconclusive}",
        metrics.join(", "),
        share(false_rollback_ppm),
        share(baseline_max_error_ppm),
    )
}

fn gate(gate: &Gate) -> String {
    let asks = match &gate.check {
        GateCheck::Http(url) => format!("http = {url:?}"),
        GateCheck::Exec(arguments) => format!("exec = {arguments:?} as {}", gate.user),
        GateCheck::File(path) => format!("file = {path:?}"),
        GateCheck::Manual => "manual = true".to_owned(),
    };
    format!(
        "{{ name = \"{}\", at = \"{}\", {asks}, timeout = {}, retries = {} }}",
        gate.name,
        gate.at,
        millis(gate.timeout_ms),
        gate.retries_count
    )
}

fn interface(interface: &InterfaceSpec) -> String {
    let InterfaceSpec {
        hook,
        checksums_complete,
        ..
    } = interface;
    let hook = match hook {
        HookSpec::Auto => "auto",
        HookSpec::Xdp => "xdp",
        HookSpec::XdpGeneric => "xdp-generic",
        HookSpec::Tc => "tc",
    };
    format!("{{ hook = \"{hook}\", checksums_complete = {checksums_complete} }}")
}
