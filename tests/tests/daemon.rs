//! The harness around shifterd, with a stand-in for the program: what it starts, asks, kills and shows.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use shifter_common::wire::{Changed, DaemonStatus, EstablishedPolicy, Refusal, Slot, Status};
use shifter_daemon::{
    config::{parse_node, parse_service},
    model::{HookSpec, InterfaceSpec, SizeSpec},
};
use shifter_tests::{
    daemon::{Daemon, Node, service},
    netns::Netns,
    scratch::{self, Scratch},
    world::{HOST_IF, OTHER, VIP},
};

/// Names the node file of a run of this test program that stands in for shifterd.
const STAND_IN: &str = "SHIFTER_TESTS_STAND_IN";

fn node(program: PathBuf) -> Node {
    Node {
        program,
        interfaces: vec![InterfaceSpec {
            name: HOST_IF.into(),
            hook: HookSpec::Tc,
            checksums_complete: false,
        }],
        local_clients: shifter_daemon::model::LocalClientsSpec::Auto,
        sizes: SizeSpec::default(),
        idle: Default::default(),
        metrics: false,
        log: "debug".into(),
        patience: Duration::from_secs(10),
    }
}

fn script(scratch: &Scratch, text: &str) -> PathBuf {
    let path = scratch.write("shifterd", format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

/// Answers on the control socket as shifterd would, until it is killed. Every request is logged.
fn stand_in(node_file: &str) {
    let text = fs::read_to_string(node_file).expect("a node file");
    let node = parse_node(node_file, &text).expect("a valid node file");
    eprintln!(
        "stand-in starts, log level {}",
        env::var("SHIFTER_LOG").expect("a level")
    );
    let _ = fs::remove_file(&node.control_socket);
    let listener = UnixListener::bind(&node.control_socket).expect("bind");
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        let mut request = [0; 4096];
        let count = stream.read(&mut request).expect("a request");
        let request = String::from_utf8_lossy(&request[..count]);
        let path = request.lines().next().unwrap_or_default();
        let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
        eprintln!("asked: {path} {body}");
        let (status, body) = answer(path);
        let _ = write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}

fn answer(path: &str) -> (u16, String) {
    match path.split(' ').nth(1).unwrap_or_default() {
        "/v1/status" => {
            let daemon = DaemonStatus {
                version: "stand-in".into(),
                pid: std::process::id(),
                started_unix_ms: 0,
                adopted: false,
                pins: String::new(),
                abi_version: 1,
                flows_count: 0,
                flows_capacity_count: 0,
                flows_evicted_count: 0,
                pending_count: 0,
                pending_capacity_count: 0,
                pending_evicted_count: 0,
                lookups: vec![],
                verdicts: Vec::new(),
            };
            let status = Status {
                daemon,
                interfaces: vec![],
                local_clients: Default::default(),
                services: vec![],
                events: vec![],
            };
            (200, json(&status))
        }
        "/v1/services/web/weight" => {
            let changed = Changed {
                service: "web".into(),
                weight_before_bp: 0,
                weight_bp: 500,
                generation: 2,
                took_ns: 1,
                flows_reset_count: 0,
                notes: vec![],
            };
            (200, json(&changed))
        }
        "/v1/detach" => (200, "not json".into()),
        _ => {
            let refusal = Refusal {
                code: "unknown_service".into(),
                message: "no such service".into(),
                help: "shifterctl status".into(),
            };
            (404, json(&refusal))
        }
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("wire types are JSON")
}

/// This test is two: run with the variable set, it is the stand-in.
#[test]
fn a_daemon_is_started_asked_killed_and_started_again() {
    if let Ok(node_file) = env::var(STAND_IN) {
        return stand_in(&node_file);
    }
    let own = env::current_exe().expect("a running test has a program");
    let name = "a_daemon_is_started_asked_killed_and_started_again";
    let scratch = Scratch::new("stand-in");
    let run = format!(
        "{STAND_IN}=\"$2\" exec {} --exact {name} --nocapture",
        own.display()
    );
    let program = script(&scratch, &run);
    let netns = Netns::new("host");
    let web = service("web", &VIP.ports(80), &VIP.ports(8080), &OTHER.ports(8080));

    let mut daemon = Daemon::start(&netns, node(program), std::slice::from_ref(&web));
    let first = daemon.pid().expect("it runs");
    assert_eq!(daemon.status().daemon.pid, first.as_raw().cast_unsigned());
    assert_eq!(netns.pids(), [first], "it runs in the namespace");

    // The files say what was asked for, and everything lies in the harness's own directories.
    let read = |path: &Path| fs::read_to_string(path).expect("a file");
    let spec = parse_node(
        &daemon.node_file().to_string_lossy(),
        &read(&daemon.node_file()),
    );
    assert_eq!(spec, Ok(daemon.node_spec()));
    assert_eq!(
        parse_service("web.toml", &read(&daemon.service_file("web"))),
        Ok(web)
    );
    assert!(
        daemon.bpffs().starts_with(scratch::ROOT) && daemon.state_dir().starts_with(scratch::ROOT)
    );
    assert_eq!(scratch::mounts_below(&daemon.bpffs()), [daemon.bpffs()]);
    daemon.remove_service("web");
    assert!(!daemon.service_file("web").exists());

    // Calls have the paths and bodies of the contract; refusals are values.
    assert_eq!(daemon.set_weight("web", 500).expect("done").weight_bp, 500);
    let refusals = [
        daemon
            .rollback("web", Some(EstablishedPolicy::Reset))
            .expect_err("refused"),
        daemon.drain("web", Slot::B, true).expect_err("refused"),
        daemon.flows("web", 7).expect_err("refused"),
        daemon.service("none").expect_err("refused"),
        daemon.apply().expect_err("refused"),
    ];
    assert!(
        refusals
            .iter()
            .all(|refusal| refusal.code == "unknown_service")
    );
    let log = daemon.logs();
    let asked = [
        "stand-in starts, log level debug",
        "asked: POST /v1/services/web/weight HTTP/1.1 {\"weight_bp\":500}",
        "asked: POST /v1/services/web/rollback HTTP/1.1 {\"established\":\"reset\"}",
        "asked: POST /v1/services/web/drain HTTP/1.1 {\"slot\":\"b\",\"undo\":true}",
        "asked: GET /v1/services/web/flows?limit=7 HTTP/1.1",
        "asked: GET /v1/services/none HTTP/1.1",
        "asked: POST /v1/apply HTTP/1.1",
    ];
    for line in asked {
        assert!(log.contains(line), "{line} in:\n{log}");
    }
    let panic = catch_unwind(AssertUnwindSafe(|| daemon.detach(false))).expect_err("not JSON");
    let text = panic.downcast::<String>().expect("a message");
    assert!(
        text.starts_with("POST /v1/detach: status 200: ") && text.ends_with("in: not json"),
        "{text}"
    );

    daemon.kill9();
    assert!(daemon.pid().is_none() && netns.pids().is_empty());
    assert!(daemon.client().ask("GET", "/v1/status", None).is_err());
    daemon.start_again();
    assert_ne!(daemon.pid(), Some(first));
    assert_eq!(
        daemon.logs().matches("stand-in starts").count(),
        2,
        "logs of all starts"
    );
    assert_eq!(daemon.stop(), None, "the stand-in does not catch SIGTERM");

    daemon.start_again();
    let (bpffs, file) = (daemon.bpffs(), daemon.node_file());
    drop(daemon);
    assert!(netns.pids().is_empty() && !bpffs.exists() && !file.exists());
    assert!(scratch::mounts_below(&bpffs).is_empty());
}

/// A program that does not become a daemon, and what is said of it.
const FAILURES: &[(&str, &str)] = &[
    (
        "echo cannot load the programs >&2; exit 1",
        "cannot load the programs",
    ),
    (
        "echo waiting for nothing; exec sleep 60",
        "waiting for nothing",
    ),
];

#[test]
fn no_start_is_reported_with_the_log() {
    let netns = Netns::new("host");
    for (text, log) in FAILURES {
        let scratch = Scratch::new("failing");
        let patience = Duration::from_millis(300);
        let node = Node {
            patience,
            ..node(script(&scratch, text))
        };
        let panic =
            catch_unwind(|| Daemon::start(&netns, node, &[])).expect_err("it does not start");
        let message = panic.downcast::<String>().expect("a message");
        assert!(
            message.starts_with("shifterd does not answer at its socket: "),
            "{message}"
        );
        assert!(
            message.ends_with(&format!("its log:\n{log}\n")),
            "{message}"
        );
        assert!(netns.pids().is_empty());
    }
}
