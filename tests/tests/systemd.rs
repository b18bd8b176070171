//! The packaged unit under a real systemd: a booted machine, installed as a package would do it,
//! with clients outside.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use shifter_common::wire::ServiceStatus;
use shifter_daemon::model::ServiceSpec;
use shifter_tests::{
    daemon::{Client, service, service_toml, shifterd},
    http,
    load::{self, Plan, Report},
    nspawn::Machine,
    scratch,
    world::{Family, OTHER, Options, VIP, World},
};

/// Name of the service.
const ORDERS: &str = "orders";
/// Port of its VIP.
const PORT: u16 = 80;
/// Port of another service, that comes with a reload.
const PORT_OF_OTHER: u16 = 81;
/// Port of version a's backends.
const PORT_A: u16 = 8_081;
/// Port of version b's backends.
const PORT_B: u16 = 8_082;
/// Ports of the other service's versions, c and d.
const PORTS_OF_OTHER: [u16; 2] = [8_083, 8_084];
/// How long a change that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);
const NODE_FILE: &str = "/etc/shifter/shifter.toml";

/// A booted host with nginx for both versions and shifter installed, not started; and a client.
struct Stage {
    machine: Machine,
    // Dropped last: the machine runs in it.
    world: World,
}

impl Stage {
    fn new() -> Self {
        let world = World::pair(Options::default());
        let mut machine = Machine::prepare(world.host());
        machine.write("/etc/nginx/nginx.conf", &nginx_conf());
        machine.boot();
        let stage = Self { machine, world };
        stage.install();
        stage
    }

    /// What docs/operations.md tells people to do, with a package's directory for the unit.
    fn install(&self) {
        let machine = &self.machine;
        let packaging = repository().join("packaging");
        machine.install(&shifterd(), "/usr/sbin/shifterd", 0o755);
        let shifterctl = shifterd().with_file_name("shifterctl");
        machine.install(&shifterctl, "/usr/bin/shifterctl", 0o755);
        for (file, place) in [
            (
                "shifterd.service",
                "/usr/lib/systemd/system/shifterd.service",
            ),
            ("shifter.sysusers.conf", "/usr/lib/sysusers.d/shifter.conf"),
            ("shifter.tmpfiles.conf", "/usr/lib/tmpfiles.d/shifter.conf"),
        ] {
            machine.install(&packaging.join(file), place, 0o644);
        }
        machine.tool(&["systemd-sysusers", "shifter.conf"]);
        machine.tool(&["systemd-tmpfiles", "--create", "shifter.conf"]);
        let example = repository().join("examples/shifter.toml");
        machine.install(&example, NODE_FILE, 0o644);
        self.write_service(&orders());
        machine.tool(&["shifterd", "--check"]);
        machine.tool(&["systemctl", "daemon-reload"]);
    }

    fn write_service(&self, spec: &ServiceSpec) {
        let path = format!("/etc/shifter/services.d/{}.toml", spec.name);
        self.machine.write(&path, &service_toml(spec));
    }

    fn systemctl(&self, verb: &str) -> String {
        self.machine.tool(&["systemctl", verb, "shifterd"])
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> String {
        let property = format!("--property={property}");
        self.machine
            .tool(&["systemctl", "show", &property, "--value", "shifterd"])
    }

    /// `is-active` and its kin: they fail for every answer but the best.
    fn is_active(&self) -> String {
        let said = self
            .machine
            .run(&["systemctl", "is-active", "shifterd"])
            .said;
        said.trim().to_owned()
    }

    fn client(&self) -> Client {
        Client::new(&self.machine.live_path("/run/shifter/shifter.sock"))
    }

    fn orders(&self) -> ServiceStatus {
        self.client().service(ORDERS).expect("it is known")
    }

    fn wait_until_eligible(&self) {
        wait_for("both slots are eligible", || {
            self.orders().slots.iter().all(|slot| slot.eligible)
        });
    }

    /// Asks once from outside, and returns the name of the version that answered.
    fn ask(&self, addr: SocketAddr) -> String {
        let answer = self.world.client().run(|| http::get(addr, "/"));
        let answer = answer.unwrap_or_else(|err| panic!("{addr}: {err}"));
        assert_eq!(answer.status, 200, "{addr}");
        answer.backend
    }

    fn load(&self, plan: &Plan) -> Report {
        load::run(&self.world.client().inside(), plan)
    }
}

fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("tests/ is in it").to_owned()
}

fn orders() -> ServiceSpec {
    spec(ORDERS, PORT, [PORT_A, PORT_B])
}

/// Probes are patient, because the machine may be busy.
fn spec(name: &str, port: u16, [a, b]: [u16; 2]) -> ServiceSpec {
    let mut spec = service(name, &VIP.ports(port), &OTHER.ports(a), &OTHER.ports(b));
    spec.readiness.interval = Duration::from_millis(500);
    spec.readiness.timeout = Duration::from_millis(500);
    spec.readiness.failure_threshold = 6;
    spec
}

/// All versions in one nginx, under the unit of Debian's package.
fn nginx_conf() -> String {
    let server = |name: &str, port: u16| {
        let [v4, v6] = Family::ALL.map(|family| OTHER.port(family, port));
        format!(
            "    server {{\n        listen {v4};\n        listen {v6};\n\
             \x20       add_header X-Backend {name} always;\n\
             \x20       add_header X-Connection \"$pid-$connection\" always;\n\
             \x20       location / {{ return 200 \"{name}\\n\"; }}\n    }}\n"
        )
    };
    format!(
        "user www-data;\npid /run/nginx.pid;\nworker_processes 1;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n    access_log off;\n\
         \x20   default_type text/plain;\n    keepalive_requests 1000000000;\n\
         \x20   keepalive_timeout 1h;\n{}}}\n",
        [
            ("a", PORT_A),
            ("b", PORT_B),
            ("c", PORTS_OF_OTHER[0]),
            ("d", PORTS_OF_OTHER[1])
        ]
        .map(|(name, port)| server(name, port))
        .concat()
    )
}

#[track_caller]
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn started_reached_and_reloaded() {
    let stage = Stage::new();
    assert_eq!(stage.is_active(), "inactive");
    assert_eq!(stage.systemctl("start"), "", "nothing to say");

    // At this very moment it answers and traffic is its business.
    let status = stage.client().status();
    assert!(!status.daemon.adopted, "there was nothing to take over");
    assert_eq!(stage.is_active(), "active");
    assert_eq!(stage.show("MainPID"), status.daemon.pid.to_string());
    let hooks: Vec<_> = status
        .interfaces
        .iter()
        .map(|i| (&*i.name, &*i.hook))
        .collect();
    assert_eq!(hooks, [("eth0", "tc")]);
    let pins = Path::new(&status.daemon.pins);
    assert!(
        pins.starts_with("/sys/fs/bpf/shifter"),
        "{}",
        pins.display()
    );

    stage.wait_until_eligible();
    for family in Family::ALL {
        assert_eq!(stage.ask(VIP.port(family, PORT)), "a", "{family:?}");
    }
    people(&stage);
    directories(&stage);

    // A reload puts new files in force, and leaves alone what they do not mention.
    stage.client().set_weight(ORDERS, 10_000).expect("accepted");
    stage.write_service(&spec("other", PORT_OF_OTHER, PORTS_OF_OTHER));
    stage.systemctl("reload");
    wait_for("the new service is in force", || {
        let service = stage.client().service("other");
        service.is_ok_and(|service| service.slots.iter().all(|slot| slot.eligible))
    });
    for family in Family::ALL {
        assert_eq!(
            stage.ask(VIP.port(family, PORT_OF_OTHER)),
            "c",
            "{family:?}"
        );
        assert_eq!(stage.ask(VIP.port(family, PORT)), "b", "{family:?}");
    }

    // A file with a mistake changes nothing, and whoever reloads hears of it, and where it is.
    let file = "/etc/shifter/services.d/other.toml";
    stage.machine.write(file, "[service]\nnam = 1\n");
    let ran = stage.machine.run(&["systemctl", "reload", "shifterd"]);
    assert!(!ran.status.success(), "{}", ran.said);
    let journal = stage.machine.journal("shifterd");
    assert!(journal.contains(&format!("{file}:2:1: ")), "{journal}");
    assert_eq!(stage.ask(VIP.port(Family::V4, PORT_OF_OTHER)), "c");
    assert_eq!(stage.is_active(), "active");
    assert_eq!(stage.show("MainPID"), status.daemon.pid.to_string());
}

/// Who may do what, with the groups that the package makes.
fn people(stage: &Stage) {
    let socket = "/run/shifter/shifter.sock";
    let found = stage
        .machine
        .tool(&["stat", "--format=%a %U %G %F", socket]);
    assert_eq!(found, "660 root shifter socket");
    for (user, groups) in [
        ("changer", "shifter"),
        ("viewer", "shifter-view"),
        ("other", ""),
    ] {
        stage
            .machine
            .tool(&["useradd", "--no-create-home", "--groups", groups, user]);
    }
    let look: &[&str] = &["shifterctl", "status"];
    let change: &[&str] = &["shifterctl", "set-weight", ORDERS, "0"];
    let rows = [
        ("root", look, true),
        ("root", change, true),
        ("changer", look, true),
        ("changer", change, true),
        ("viewer", look, true),
        ("viewer", change, false),
        ("other", look, false),
        ("other", change, false),
    ];
    for (user, words, may) in rows {
        let words = [&["runuser", "-u", user, "--"], words].concat();
        let ran = stage.machine.run(&words);
        assert_eq!(ran.status.success(), may, "{words:?}: {}", ran.said);
        assert_eq!(
            ran.said.contains("usermod -aG shifter"),
            !may,
            "a refusal says what would help: {words:?}: {}",
            ran.said
        );
    }
    assert_eq!(stage.orders().weight_by, "changer (uid 1000)");
}

/// What the unit and the package make, and who may go there.
fn directories(stage: &Stage) {
    let rows = [
        ("/run/shifter", "755 root root"),
        ("/var/lib/shifter", "750 root root"),
        ("/etc/shifter", "755 root root"),
        ("/etc/shifter/services.d", "755 root root"),
    ];
    for (path, expected) in rows {
        let found = stage.machine.tool(&["stat", "--format=%a %U %G", path]);
        assert_eq!(found, expected, "{path}");
    }
}

/// New connections without a pause, and one that stays open, until it is told to stop.
fn load_until(stage: &Stage, stop: &Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let (client, stop) = (stage.world.client().inside(), Arc::clone(stop));
    thread::spawn(move || {
        let mut kept = client
            .run(|| http::connect(VIP.port(Family::V6, PORT)))
            .expect("connected");
        let mut ask = || http::ask(&mut kept, "GET", "/", None).expect("an answer");
        let first = ask();
        let mut connections = 0;
        while !stop.load(Ordering::Relaxed) {
            let plan = Plan {
                rate_per_s: Some(300.0),
                ..Plan::churn(VIP.port(Family::V4, PORT), 8, Duration::from_millis(500))
            };
            let report = load::run(&client, &plan);
            report.assert_clean();
            connections += report.connections;
            assert_eq!(ask(), first, "the same version, the same connection");
        }
        connections
    })
}

#[test]
fn killed_stopped_and_started_under_load() {
    let stage = Stage::new();
    stage.systemctl("start");
    stage.wait_until_eligible();
    stage.client().set_weight(ORDERS, 3_000).expect("accepted");
    let before = stage.orders();
    let stop = Arc::new(AtomicBool::new(false));
    let load = load_until(&stage, &stop);

    let killed = stage.show("MainPID");
    stage.machine.tool(&["kill", "-KILL", &killed]);
    wait_for("systemd has started it again", || {
        stage.show("NRestarts") == "1" && stage.is_active() == "active"
    });
    let status = stage.client().status();
    assert_ne!(status.daemon.pid.to_string(), killed);
    assert!(status.daemon.adopted);
    let after = stage.orders();
    assert_eq!(
        (after.weight_bp, after.weight_set_unix_ms, after.generation),
        (
            before.weight_bp,
            before.weight_set_unix_ms,
            before.generation
        )
    );

    stage.systemctl("stop");
    assert_eq!(stage.is_active(), "inactive");
    assert_eq!(stage.show("Result"), "success");
    let nobody = stage.client().ask("GET", "/v1/status", None);
    assert!(nobody.is_err(), "{nobody:?}");
    let pins = stage.machine.tool(&["ls", "/sys/fs/bpf/shifter"]);
    assert!(!pins.is_empty(), "pins stay");
    let plan = Plan::connections(VIP.port(Family::V4, PORT), 8, 2_000);
    let report = stage.load(&plan);
    report.assert_clean();
    let share = report.share("b");
    assert!(
        (0.26..0.34).contains(&share),
        "weighed without a daemon: {share}"
    );

    stage.systemctl("start");
    let status = stage.client().status();
    assert!(status.daemon.adopted);
    assert_eq!(stage.orders().weight_bp, 3_000);
    assert_eq!(stage.orders().generation, before.generation);

    stop.store(true, Ordering::Relaxed);
    let connections = load.join().expect("no request failed");
    assert!(connections > 100, "{connections}");

    // An operator's detach is an end that systemd does not mend.
    stage.machine.tool(&["shifterctl", "detach", "--force"]);
    wait_for("shifterd has ended", || stage.is_active() == "inactive");
    assert_eq!(stage.show("Result"), "success");
    let addr = VIP.port(Family::V4, PORT);
    let refused = stage.world.client().run(|| http::get(addr, "/"));
    let kind = refused.map_err(|err| err.kind());
    assert_eq!(
        kind,
        Err(io::ErrorKind::ConnectionRefused),
        "not steered any more"
    );
    // Longer than RestartSec: were it to come back by itself, it would be there by now.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.is_active(), "inactive");
    stage.systemctl("start");
    stage.wait_until_eligible();
    assert_eq!(stage.load(&plan).requests, 2_000);
}

#[test]
fn a_broken_node_file_is_named_and_mending_it_is_enough() {
    let stage = Stage::new();
    let good = fs::read_to_string(stage.machine.path(NODE_FILE)).expect("installed");
    stage.machine.write(
        NODE_FILE,
        &good.replace("hook = \"auto\"", "hook = \"atuo\""),
    );
    let ran = stage.machine.run(&["systemctl", "start", "shifterd"]);
    assert!(!ran.status.success(), "{}", ran.said);
    assert!(
        ran.said.contains("journalctl -xeu shifterd.service"),
        "{}",
        ran.said
    );
    let journal = stage.machine.journal("shifterd");
    let place = format!("{NODE_FILE}:8:8: ");
    for part in [
        "shifterd: the node file has problems",
        &place,
        "atuo",
        "auto",
    ] {
        assert!(journal.contains(part), "no {part:?} in:\n{journal}");
    }
    // For longer than systemd's usual patience, five failures in ten seconds.
    wait_for("it was tried again and again", || {
        stage
            .show("NRestarts")
            .parse()
            .is_ok_and(|count: u32| count > 6)
    });
    stage.machine.write(NODE_FILE, &good);
    wait_for("nobody had to start it", || stage.is_active() == "active");
    stage.wait_until_eligible();
    assert_eq!(stage.ask(VIP.port(Family::V4, PORT)), "a");
}

#[test]
fn enabled_it_comes_back_with_the_machine() {
    let mut stage = Stage::new();
    assert!(
        stage
            .machine
            .run(&["systemctl", "is-enabled", "shifterd"])
            .said
            .contains("disabled")
    );
    stage
        .machine
        .tool(&["systemctl", "enable", "--now", "shifterd"]);
    stage.wait_until_eligible();
    stage.client().set_weight(ORDERS, 2_500).expect("accepted");
    let set = stage.orders().weight_set_unix_ms;

    stage.machine.reboot();
    assert_eq!(stage.is_active(), "active");
    assert_eq!(stage.show("NRestarts"), "0", "it needed one try");
    let status = stage.client().status();
    assert!(!status.daemon.adopted, "nothing is pinned after a boot");
    stage.wait_until_eligible();
    let orders = stage.orders();
    assert_eq!((orders.weight_bp, orders.weight_set_unix_ms), (2_500, set));
    assert_eq!(orders.effective_bp, 2_500);
    for family in Family::ALL {
        let report = stage.load(&Plan::connections(VIP.port(family, PORT), 8, 2_000));
        report.assert_clean();
        let share = report.share("b");
        assert!((0.21..0.29).contains(&share), "{family:?}: {share}");
    }
}

/// systemd's own opinion of the unit, the groups and the directories; and the end of a machine.
#[test]
fn the_packages_files_are_understood() {
    let world = World::pair(Options::default());
    let mut machine = Machine::prepare(world.host());
    machine.boot();
    fs::create_dir(machine.path("/root/packaging")).expect("mkdir");
    let files = fs::read_dir(repository().join("packaging")).expect("packaging/");
    for file in files {
        let file = file.expect("an entry");
        let inside = format!("/root/packaging/{}", file.file_name().to_string_lossy());
        machine.install(&file.path(), &inside, 0o644);
    }
    let said = machine.tool(&["sh", "/root/packaging/check.sh"]);
    assert_eq!(said, "packaging: ok");
    let unit = "/root/packaging/shifterd.service";
    let good = fs::read_to_string(machine.path(unit)).expect("copied");
    machine.write(unit, &good.replace("KillMode=mixed", "KilMode=mixed"));
    let ran = machine.run(&["sh", "/root/packaging/check.sh"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.said);
    assert!(ran.said.contains("KilMode"), "{}", ran.said);

    // The machine goes with its guard, and leaves nothing.
    let (root, pids) = (machine.path("/"), world.host().pids());
    assert!(pids.len() > 3, "{pids:?}");
    let name = root.parent().and_then(Path::file_name).expect("a name");
    let name = name.to_string_lossy().into_owned();
    let groups = || {
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-name", &name])
            .output();
        String::from_utf8_lossy(&found.expect("find").stdout).into_owned()
    };
    drop(machine);
    assert_eq!(world.host().pids(), []);
    assert!(!root.exists() && scratch::mounts_below(&root).is_empty());
    assert_eq!(groups(), "");
    let propagated = Path::new("/run/systemd/nspawn/propagate").join(&name);
    assert!(!propagated.exists(), "{}", propagated.display());
}
