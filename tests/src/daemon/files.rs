//! Node and service files from the values they must be read as.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use shifter_daemon::{
    config::format_duration,
    model::{
        Affinity, BackendSpec, BreakerSpec, EstablishedPolicy, HookSpec, LocalClientsSpec,
        NodeSpec, OnEmpty, OnFull, Plane, ProbeCheck, ProbeSpec, Protocol, Readmit, ServiceSpec,
        Slot, SlotSpec, Target, Targets,
    },
};

/// A TCP service whose backends are asked for `/ready` every 50 ms; one answer makes them ready, two
/// failures in a row make them not ready.
pub fn service(name: &str, vips: &[SocketAddr], a: &[SocketAddr], b: &[SocketAddr]) -> ServiceSpec {
    let slot = |addrs: &[SocketAddr]| SlotSpec {
        backends: addrs
            .iter()
            .map(|addr| BackendSpec {
                addr: *addr,
                weight: 100,
            })
            .collect(),
        user: None,
    };
    ServiceSpec {
        name: name.to_owned(),
        vips: vips.to_vec(),
        protocol: Protocol::Tcp,
        plane: Plane::Nat,
        affinity: Affinity::Connection,
        default_slot: Slot::A,
        on_empty: OnEmpty::Drop,
        readmit: Readmit::Probe,
        on_full: OnFull::Stay,
        manages_vips: false,
        slots: [slot(a), slot(b)],
        targets: Targets::new(),
        readiness: ProbeSpec {
            port: None,
            check: ProbeCheck::Http {
                path: "/ready".into(),
                host: None,
            },
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(50),
            success_threshold: 1,
            failure_threshold: 2,
        },
        outlier: None,
        observe: Default::default(),
        breaker: Default::default(),
        drain_timeout: Duration::from_secs(60),
        rollback_established: EstablishedPolicy::Drain,
        rollout: Default::default(),
    }
}

/// The text of the node file that says this.
pub fn node_toml(node: &NodeSpec) -> String {
    let mut text = String::new();
    for interface in &node.interfaces {
        let hook = match interface.hook {
            HookSpec::Auto => "auto",
            HookSpec::Xdp => "xdp",
            HookSpec::XdpGeneric => "xdp-generic",
            HookSpec::Tc => "tc",
        };
        let _ = writeln!(
            text,
            "[[interface]]\nname = {:?}\nhook = {hook:?}\nchecksums_complete = {}",
            interface.name, interface.checksums_complete
        );
    }
    let metrics = node
        .metrics
        .map_or("false".to_owned(), |addr| format!("\"{addr}\""));
    let sizes = &node.sizes;
    let local_clients = match node.local_clients {
        LocalClientsSpec::Auto => "auto",
        LocalClientsSpec::On => "on",
        LocalClientsSpec::Off => "off",
    };
    let _ = write!(
        text,
        "[control]\nsocket = {:?}\n[metrics]\nlisten = {metrics}\n[state]\ndir = {:?}\n\
         [bpf]\nbpffs = {:?}\n[services]\ndir = {:?}\n[local]\nclients = {local_clients:?}\n\
         [tables]\nservices = {}\nbackends = {}\nflows = {}\npending = {}\ntable_entries = {}\n",
        node.control_socket,
        node.state_dir,
        node.bpffs,
        node.services_dir,
        sizes.services_count,
        sizes.backends_count,
        sizes.flows_count,
        sizes.pending_count,
        sizes.table_entries_count,
    );
    let idle = &node.idle;
    let _ = write!(
        text,
        "[idle]\nhandshake = \"{}\"\nestablished = \"{}\"\nhalf_closed = \"{}\"\nclosed = \"{}\"\n",
        format_duration(idle.handshake),
        format_duration(idle.established),
        format_duration(idle.half_closed),
        format_duration(idle.closed),
    );
    text
}

/// The text of the service file that says this.
pub fn service_toml(service: &ServiceSpec) -> String {
    let vips: Vec<String> = service
        .vips
        .iter()
        .map(|vip| format!("\"{vip}\""))
        .collect();
    let plane = match service.plane {
        Plane::Auto => "auto",
        Plane::Socket => "socket",
        Plane::Nat => "nat",
    };
    let affinity = match service.affinity {
        Affinity::Connection => "connection",
        Affinity::Client => "client",
    };
    let on_empty = match service.on_empty {
        OnEmpty::Drop => "drop",
        OnEmpty::Pass => "pass",
    };
    let readmit = match service.readmit {
        Readmit::Probe => "probe",
        Readmit::Listen => "listen",
    };
    let on_full = match service.on_full {
        OnFull::Stay => "stay",
        OnFull::Failover => "failover",
    };
    let protocol = service.protocol.name();
    let mut text = format!(
        "[service]\nname = {:?}\nvip = [{}]\nprotocol = {protocol:?}\nplane = {plane:?}\n\
         affinity = {affinity:?}\ndefault_slot = \"{}\"\non_empty = {on_empty:?}\n\
         readmit = {readmit:?}\non_full = {on_full:?}\nmanage_vip = {}\nobserve = {:?}\n",
        service.name,
        vips.join(", "),
        service.default_slot,
        service.manages_vips,
        service.observe.names(),
    );
    for slot in Slot::ALL {
        let _ = writeln!(text, "[slot.{slot}]");
        if let Some(user) = &service.slot(slot).user {
            let _ = writeln!(text, "user = {user:?}");
        }
        text += "backends = [\n";
        for BackendSpec { addr, weight } in &service.slot(slot).backends {
            let _ = writeln!(text, "    {{ addr = \"{addr}\", weight = {weight} }},");
        }
        text += "]\n";
    }
    for (prefix, target) in &service.targets {
        let to = match target {
            Target::Baseline => "baseline",
            Target::Canary => "canary",
        };
        let _ = writeln!(text, "[[target]]\nfrom = \"{prefix}\"\nto = \"{to}\"");
    }
    let probe = &service.readiness;
    let check = match &probe.check {
        ProbeCheck::None => None,
        ProbeCheck::Tcp => Some("tcp = true".to_owned()),
        ProbeCheck::Http { path, host: None } => Some(format!("http = {path:?}")),
        ProbeCheck::Http {
            path,
            host: Some(host),
        } => Some(format!("http = {path:?}\nhost = {host:?}")),
    };
    if let Some(outlier) = &service.outlier {
        let _ = writeln!(
            text,
            "[outlier]\nconsecutive_errors = {}\ncompare_peers = {}\nmin_flows = {}\n\
             interval = \"{}\"\nejection = \"{}\"\nmax_ejection = \"{}\"\n\
             max_ejected_percent = {}",
            outlier.consecutive_errors,
            outlier.compare_peers,
            outlier.min_flows,
            format_duration(outlier.interval),
            format_duration(outlier.ejection),
            format_duration(outlier.max_ejection),
            outlier.max_ejected_percent,
        );
    }
    let breaker = &service.breaker;
    if *breaker != BreakerSpec::default() {
        let trusted: Vec<String> = breaker.trusted.iter().map(|p| format!("\"{p}\"")).collect();
        let _ = writeln!(
            text,
            "[breaker]\nmode = \"{}\"\nmin_sources = {}\nsettle = \"{}\"",
            breaker.mode.name(),
            breaker.min_sources,
            format_duration(breaker.settle),
        );
        if !trusted.is_empty() {
            let _ = writeln!(text, "trusted = [{}]", trusted.join(", "));
        }
    }
    if let Some(check) = check {
        let _ = writeln!(
            text,
            "[probe.readiness]\n{check}\ninterval = \"{}\"\ntimeout = \"{}\"\n\
             success_threshold = {}\nfailure_threshold = {}",
            format_duration(probe.interval),
            format_duration(probe.timeout),
            probe.success_threshold,
            probe.failure_threshold,
        );
        if let Some(port) = probe.port {
            let _ = writeln!(text, "port = {port}");
        }
    }
    let established = match service.rollback_established {
        EstablishedPolicy::Drain => "drain",
        EstablishedPolicy::Reset => "reset",
        EstablishedPolicy::ResetIdle => "reset-idle",
    };
    let _ = write!(
        text,
        "[drain]\ntimeout = \"{}\"\n[rollback]\nestablished = {established:?}\n",
        format_duration(service.drain_timeout),
    );
    text
}

#[cfg(test)]
mod tests {
    use shifter_daemon::{
        config::{parse_node, parse_service},
        model::{IdleSpec, InterfaceSpec, Prefix, SizeSpec},
    };

    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    /// What the daemon's own reader makes of the text is what went in.
    #[test]
    fn service_files_say_what_they_should() {
        let plain = service(
            "web",
            &addrs(&["10.0.0.10:80", "[2001:db8::10]:80"]),
            &addrs(&["10.0.0.10:8080", "[2001:db8::10]:8080"]),
            &addrs(&["10.2.0.2:80", "[2001:db8:2::2]:80"]),
        );
        let mut other = plain.clone();
        other.plane = Plane::Socket;
        other.readmit = Readmit::Listen;
        other.on_full = OnFull::Failover;
        other.observe.http = true;
        other.manages_vips = true;
        other.slots[1].user = Some("orders".into());
        other.affinity = Affinity::Client;
        other.default_slot = Slot::B;
        other.on_empty = OnEmpty::Pass;
        other.slots[1].backends[0].weight = 7;
        other.slots[0].backends.clear();
        other.targets = [
            ("10.0.0.0", 8, Target::Canary),
            ("2001:db8::", 32, Target::Baseline),
        ]
        .into_iter()
        .filter_map(|(addr, len, to)| Some((Prefix::of(addr.parse().ok()?, len)?, to)))
        .collect();
        other.readiness.check = ProbeCheck::Http {
            path: "/x?y=%20".into(),
            host: Some("web.example:80".into()),
        };
        other.readiness.interval = Duration::from_secs(2);
        other.readiness.success_threshold = 5;
        other.drain_timeout = Duration::from_secs(90);
        other.rollback_established = EstablishedPolicy::Reset;
        let mut tcp = plain.clone();
        tcp.readiness.check = ProbeCheck::Tcp;
        for spec in [plain, other, tcp] {
            let text = service_toml(&spec);
            assert_eq!(parse_service("web.toml", &text), Ok(spec), "{text}");
        }
    }

    #[test]
    fn node_files_say_what_they_should() {
        let interface = |name: &str, hook, checksums_complete| InterfaceSpec {
            name: name.into(),
            hook,
            checksums_complete,
        };
        let one = NodeSpec {
            interfaces: vec![interface("eth0", HookSpec::Auto, false)],
            control_socket: "/run/x/shifter.sock".into(),
            metrics: None,
            state_dir: "/run/x/state".into(),
            bpffs: "/run/x/bpf".into(),
            services_dir: "/run/x/services.d".into(),
            local_clients: LocalClientsSpec::Auto,
            sizes: SizeSpec::default(),
            idle: IdleSpec::default(),
        };
        let mut two = one.clone();
        two.interfaces = vec![
            interface("a", HookSpec::Xdp, true),
            interface("b", HookSpec::Tc, false),
            interface("c", HookSpec::XdpGeneric, false),
        ];
        two.local_clients = LocalClientsSpec::Off;
        two.metrics = Some("127.0.0.1:9977".parse().expect("an address"));
        two.sizes.flows_count = 65_536;
        two.idle.half_closed = Duration::from_secs(61);
        for spec in [one, two] {
            let text = node_toml(&spec);
            assert_eq!(parse_node("/run/x/shifter.toml", &text), Ok(spec), "{text}");
        }
    }
}
