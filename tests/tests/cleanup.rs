//! Nothing stays: no namespace, no mount, no process, no directory, however a test ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use shifter_daemon::model::{HookSpec, InterfaceSpec, SizeSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    process::Process,
    reap::{self, Namespace},
    scratch,
    world::{BACKEND, HOST_IF, Options, Place, VIP, World},
};

/// Makes a run of this test program the victim; its value is how it ends.
const VICTIM: &str = "SHIFTER_TESTS_VICTIM";
/// Where the victim says what it has.
const REPORT: &str = "SHIFTER_TESTS_REPORT";

/// What a victim has.
#[derive(Debug, Serialize, Deserialize)]
struct Belongings {
    paths: Vec<PathBuf>,
    mounts: Vec<PathBuf>,
    pids: Vec<i32>,
}

/// Makes one of everything, says what that is, and ends as it was told.
fn victim(how: &str) {
    let world = World::routed(Options::default());
    let _backends = [
        Backend::start(world.host(), Spec::new("v1", &VIP.ports(80))),
        Backend::start(
            world.backend(),
            Spec {
                body_bytes: 9_999,
                ..Spec::new("v2", &BACKEND.ports(80))
            },
        ),
    ];
    let target = VIP.ports(80)[0].to_string();
    let mut load = world.client().command(env!("CARGO_BIN_EXE_shifter-load"));
    let _load = Process::spawn(
        "load",
        load.args([&*target, "--time-s", "60"])
            .stdout(Stdio::null()),
    );
    let loose = world
        .client()
        .command("sh")
        .args(["-c", "setsid sleep 60 & sleep 60"])
        .spawn();
    let node = Node {
        program: "/bin/sleep".into(),
        interfaces: vec![InterfaceSpec {
            name: HOST_IF.into(),
            hook: HookSpec::Tc,
            checksums_complete: false,
        }],
        local_clients: shifter_daemon::model::LocalClientsSpec::Auto,
        sizes: SizeSpec::default(),
        idle: Default::default(),
        metrics: false,
        log: "info".into(),
        patience: Duration::from_secs(1),
    };
    let daemon = Daemon::prepare(world.host(), node, &[]);
    fs::write(daemon.state_dir().join("kept"), "state").expect("write");

    // Two processes of each nginx, the load, the shell and its two children.
    let places = [Place::Client, Place::Host, Place::Backend];
    let pids = || {
        places
            .iter()
            .flat_map(|place| world.get(*place).pids())
            .collect::<Vec<_>>()
    };
    while pids().len() < 8 {
        thread::sleep(Duration::from_millis(1));
    }
    let paths = reap::belongings(std::process::id());
    let belongings = Belongings {
        mounts: paths
            .iter()
            .flat_map(|path| scratch::mounts_below(path))
            .collect(),
        paths,
        pids: pids().into_iter().map(nix::unistd::Pid::as_raw).collect(),
    };
    let report = PathBuf::from(env::var_os(REPORT).expect("told where"));
    let unfinished = report.with_extension("new");
    fs::write(
        &unfinished,
        serde_json::to_string(&belongings).expect("JSON"),
    )
    .expect("write");
    fs::rename(unfinished, report).expect("rename");
    match how {
        "end" => drop(loose),
        "panic" => panic!("as told"),
        _ => thread::sleep(Duration::from_secs(60)),
    }
}

/// This test is two: run with the variable set, it is the victim.
#[test]
fn nothing_stays_however_a_test_ends() {
    if let Ok(how) = env::var(VICTIM) {
        return victim(&how);
    }
    for how in ["end", "panic", "kill"] {
        let dir = tempfile::tempdir().expect("a directory");
        let report = dir.path().join("report");
        let mut command = Command::new(env::current_exe().expect("a running test has a program"));
        command.args([
            "--exact",
            "nothing_stays_however_a_test_ends",
            "--nocapture",
        ]);
        command.env(VICTIM, how).env(REPORT, &report);
        let mut process = Process::spawn_logged(how, &mut command, &dir.path().join("log"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !report.exists() {
            assert!(
                process.is_running() && Instant::now() < deadline,
                "{how}: {}",
                process.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&report).expect("a report");
        let belongings: Belongings = serde_json::from_str(&text).expect("a report");
        // Three namespaces, two servers, the daemon's files and its bpffs.
        assert_eq!(belongings.paths.len(), 7, "{belongings:?}");
        assert_eq!(belongings.mounts.len(), 4, "{belongings:?}");
        assert_eq!(belongings.pids.len(), 8, "{belongings:?}");

        let victim = process.pid().as_raw().cast_unsigned();
        if how == "kill" {
            // Not the group: what it started lives on, as after a crash.
            process.signal(Signal::SIGKILL);
            while process.is_running() {
                thread::sleep(Duration::from_millis(1));
            }
            collect(&mut process);
            reap::leftovers();
        } else {
            let code = process.wait(Duration::from_secs(30)).code();
            assert_eq!(
                code,
                Some(if how == "end" { 0 } else { 101 }),
                "{}",
                process.log()
            );
        }
        assert_eq!(
            process.log().contains("---- log of shifterd ----"),
            how == "panic",
            "{how}"
        );
        assert_nothing_left(how, victim, &belongings);
    }
}

/// Takes the exit status alone.
fn collect(process: &mut Process) {
    process.child().wait().expect("it was killed");
}

fn assert_nothing_left(how: &str, victim: u32, belongings: &Belongings) {
    assert!(
        reap::belongings(victim).is_empty(),
        "{how}: {:?}",
        reap::belongings(victim)
    );
    for path in &belongings.paths {
        assert!(!path.exists(), "{how}: {}", path.display());
        assert!(
            scratch::mounts_below(path).is_empty(),
            "{how}: {}",
            path.display()
        );
    }
    for pid in &belongings.pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{how}: process {pid}"
        );
    }
}

#[test]
fn what_the_living_have_stays() {
    let world = World::pair(Options::default());
    let backend = Backend::start(world.host(), Spec::new("v1", &VIP.ports(80)));
    let before = reap::belongings(std::process::id());
    reap::leftovers();
    assert_eq!(reap::belongings(std::process::id()), before);
    assert_eq!(world.host().pids().len(), 2, "{}", backend.log());
    assert!(Namespace::of(world.host().path()).is_some());
}
