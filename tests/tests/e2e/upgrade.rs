//! One version takes the place of another, newer or older, under load.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData};
use shifter_common::{
    abi::{FlowEntry, FlowKey, LAYOUT_LEN_BYTES, LayoutText, map},
    tcp::Phase,
    wire::{ServiceStatus, Slot},
};
use shifter_daemon::{dataplane::layout::own_text, model::HookSpec};
use shifter_tests::{
    daemon::{node_toml, rehearsal, shifterd},
    load::{self, Plan, Report, Sources},
    world::{CLIENT_POOL, Family, OTHER},
};

use crate::stage::{Numbers, PORT_A, Stage, slot, vip};

/// Load that goes on until it is told to end.
struct Load {
    stop: Arc<AtomicBool>,
    requests_count: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Report>>,
}

impl Load {
    fn begin(stage: &Stage, plans: Vec<Plan>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let requests_count = Arc::new(AtomicU64::new(0));
        let threads = plans.into_iter().map(|plan| {
            let plan = Plan {
                interval: Duration::from_millis(200),
                time: Plan::LONGEST,
                ..plan
            };
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&requests_count));
            let client = stage.world.client().inside();
            std::thread::spawn(move || {
                let stopped = async move {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let add = |window: Report| {
                    count.fetch_add(window.requests, Ordering::Relaxed);
                };
                client.run(|| load::run_here(&plan, add, stopped))
            })
        });
        let threads = threads.collect();
        Self {
            stop,
            requests_count,
            threads,
        }
    }

    /// New connections and long-lived ones to the VIP, both families.
    fn all(stage: &Stage, rate_per_s: Option<f64>) -> Self {
        let longest = Plan::LONGEST;
        let paced = |plan: Plan| Plan { rate_per_s, ..plan };
        // Idle most of the time: what is known of such a flow stands in the tables alone.
        let idle = |plan: Plan| Plan {
            rate_per_s: Some(40.0),
            ..plan
        };
        // A backend cannot tell a direct connection from one through the VIP on the same client port.
        let direct = |plan: Plan, family: Family| Plan {
            sources: Some(Sources {
                first: CLIENT_POOL.ip(family),
                count: 1,
            }),
            ..idle(plan)
        };
        let own = |family| OTHER.port(family, PORT_A);
        Self::begin(
            stage,
            vec![
                paced(Plan::churn(vip(Family::V4), 8, longest)),
                paced(Plan::churn(vip(Family::V6), 8, longest)),
                paced(Plan::keep_alive(vip(Family::V4), 8, longest)),
                paced(Plan::keep_alive(vip(Family::V6), 8, longest)),
                idle(Plan::keep_alive(vip(Family::V4), 60, longest)),
                idle(Plan::keep_alive(vip(Family::V6), 60, longest)),
                // Not shifter's: a backend's own address.
                direct(Plan::churn(own(Family::V4), 4, longest), Family::V4),
                direct(Plan::keep_alive(own(Family::V6), 4, longest), Family::V6),
            ],
        )
    }

    fn requests_count(&self) -> u64 {
        self.requests_count.load(Ordering::Relaxed)
    }

    /// Ends it, and gives the answers there were. None was wrong, and none was missing.
    #[track_caller]
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut requests_count = 0;
        for thread in self.threads {
            let report = thread.join().expect("the load ran");
            report.assert_clean();
            assert!(report.requests > 10, "{report:?}");
            requests_count += report.requests;
        }
        requests_count
    }
}

/// The directories below `shifter` in the stage's bpffs.
fn pinned(stage: &Stage) -> Vec<String> {
    let root = stage.daemon.bpffs().join("shifter");
    let entries = fs::read_dir(root).expect("the pins");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("a pin")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort_unstable();
    names
}

/// Another program takes over, after the one that runs has ended.
fn replace(stage: &mut Stage, program: PathBuf, environment: &[(&str, &str)]) {
    assert_eq!(stage.daemon.stop(), Some(0));
    stage.daemon.become_program(program, environment);
    stage.daemon.start_again();
    assert!(stage.daemon.status().daemon.adopted);
}

/// Everything a status counts over all time.
fn counted(service: &ServiceStatus) -> BTreeMap<String, Vec<u64>> {
    let mut counted = BTreeMap::new();
    for which in Slot::ALL {
        let slot = slot(service, which);
        let flows = &slot.counters;
        counted.insert(
            format!("slot {which}"),
            vec![
                flows.selected,
                flows.established,
                flows.refused,
                flows.closed,
                flows.reset_by_client,
                flows.reset_by_backend,
                slot.failed_over_count,
                slot.unserved_count,
            ],
        );
        for backend in &slot.backends {
            let flows = &backend.counters;
            counted.insert(
                format!("backend {}", backend.addr),
                vec![
                    flows.selected,
                    flows.established,
                    flows.closed,
                    backend.in_bytes,
                    backend.out_bytes,
                ],
            );
        }
    }
    counted
}

/// Half a million requests while the programs are replaced again and again: by others with the same
/// maps, by a newer version's with other maps, and by the older version's again. Nothing fails, no
/// connection changes its backend, and no flow is left behind in the tables as if it were alive.
fn replaced_under_load(hook: HookSpec, least_count: u64) {
    let mut stage = Stage::new(hook);
    // The load takes what this machine has.
    stage.daemon.be_patient(Duration::from_secs(90));
    stage.set_weight(5_000);
    let load = Load::all(&stage, None);
    let mut rounds_count = 0;
    while load.requests_count() < least_count || rounds_count < 2 {
        assert!(rounds_count < 40, "{} requests", load.requests_count());
        assert_eq!(pinned(&stage), ["v1"]);
        let before = stage.service().generation;
        replace(&mut stage, rehearsal(), &[]);
        assert_eq!(pinned(&stage), ["v2"]);
        assert_eq!(stage.daemon.status().daemon.abi_version, 2);
        let tag = tags(&stage);
        replace(&mut stage, rehearsal(), &[("SHIFTER_REHEARSE_CODE", "77")]);
        assert_eq!(pinned(&stage), ["v2"]);
        assert_ne!(tags(&stage), tag, "other programs at the same links");
        replace(&mut stage, shifterd(), &[]);
        assert_eq!(pinned(&stage), ["v1"]);
        let service = stage.service();
        assert_eq!(service.generation, before, "nothing was decided");
        assert_eq!(service.effective_bp, 5_000);
        rounds_count += 1;
    }
    let requests_count = load.end();
    eprintln!(
        "{requests_count} requests, {} replacements",
        rounds_count * 3
    );
    assert!(requests_count >= least_count);
    stage.wait("no flow is alive any more", |service| {
        service.slots.iter().all(|slot| slot.live_flows_count == 0)
    });
    let verdicts = stage.daemon.status().daemon.verdicts;
    let drops: Vec<_> = verdicts
        .iter()
        .filter(|(name, count)| name.starts_with("drop_") && *count > 0)
        .collect();
    assert!(drops.is_empty(), "{drops:?}");
}

/// Tags of the programs that shifter has loaded, by name.
fn tags(stage: &Stage) -> BTreeMap<String, u64> {
    stage.world.host().inside().run(|| {
        let mut tags = BTreeMap::new();
        let links = stage.daemon.bpffs().join("shifter");
        for version in pinned(stage) {
            for entry in fs::read_dir(links.join(version).join("links")).expect("links") {
                let path = entry.expect("a pin").path();
                let link = aya::programs::links::PinnedLink::from_pin(&path).expect("a link");
                let link = aya::programs::links::FdLink::from(link);
                let id = link.info().expect("a link").program_id();
                let program = aya::programs::loaded_programs()
                    .filter_map(Result::ok)
                    .find(|program| program.id() == id)
                    .expect("its program");
                tags.insert(path.display().to_string(), program.tag());
            }
        }
        tags
    })
}

#[test]
fn half_a_million_requests_at_tc() {
    replaced_under_load(HookSpec::Tc, 500_000);
}

#[test]
fn a_hundred_thousand_requests_at_xdp() {
    replaced_under_load(HookSpec::Xdp, 100_000);
}

/// The new version is killed at each of its steps. Traffic goes on by what there is at that moment; then
/// the one or the other version is started, and has everything.
#[test]
fn killed_at_every_step() {
    const STEPS: [&str; 12] = [
        "built",
        "renamed",
        "committed",
        "replacing-0",
        "replacing-1",
        "turned",
        "copying",
        "copied",
        "settled",
        "counted",
        "alone",
        "forgotten",
    ];
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(5_000);
    let load = Load::all(&stage, Some(300.0));
    for (round, step) in STEPS.into_iter().enumerate() {
        assert_eq!(stage.daemon.stop(), Some(0));
        stage
            .daemon
            .become_program(rehearsal(), &[("SHIFTER_REHEARSE_KILL", step)]);
        stage.daemon.spawn();
        assert_eq!(stage.daemon.wait(), None, "{step}: killed by a signal");
        // Connections come and go meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        if round % 3 == 0 {
            stage.daemon.become_program(rehearsal(), &[]);
            stage.daemon.start_again();
            assert_eq!(pinned(&stage), ["v2"], "{step}");
        }
        if stage.daemon.is_running() {
            assert_eq!(stage.daemon.stop(), Some(0));
        }
        stage.daemon.become_program(shifterd(), &[]);
        stage.daemon.start_again();
        assert_eq!(pinned(&stage), ["v1"], "{step}");
        let service = stage.service();
        assert_eq!(service.effective_bp, 5_000, "{step}");
    }
    load.end();
    stage.wait("no flow is alive any more", |service| {
        service.slots.iter().all(|slot| slot.live_flows_count == 0)
    });
}

/// Killed at any instant, by chance, on the way back to the older version.
#[test]
fn killed_by_chance() {
    let mut stage = Stage::new(HookSpec::Tc);
    let mut numbers = Numbers::new(0x11f3);
    stage.set_weight(5_000);
    let load = Load::all(&stage, Some(300.0));
    replace(&mut stage, rehearsal(), &[]);
    assert_eq!(stage.daemon.stop(), Some(0));
    stage.daemon.become_program(shifterd(), &[]);
    for _ in 0..6 {
        stage.daemon.spawn();
        std::thread::sleep(Duration::from_millis(500 + numbers.below(3_000)));
        stage.daemon.kill9();
    }
    stage.daemon.start_again();
    assert_eq!(pinned(&stage), ["v1"]);
    load.end();
}

/// What is counted and what is open is the same before and after, to the last connection.
#[test]
fn everything_is_there_afterwards() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(5_000);
    stage
        .load(&Plan::connections(vip(Family::V4), 8, 500))
        .assert_clean();
    let flows_of = |stage: &Stage| {
        let flows = stage.daemon.flows("orders", 10_000).expect("flows");
        let mut flows: Vec<String> = flows
            .flows
            .iter()
            .map(|flow| {
                format!(
                    "{} {} {} {} {} {:?}",
                    flow.client, flow.vip, flow.backend, flow.slot, flow.cohort, flow.phase
                )
            })
            .collect();
        flows.sort_unstable();
        flows
    };
    let open: Vec<_> = (0..40)
        .map(|index| {
            let family = if index % 2 == 0 {
                Family::V4
            } else {
                Family::V6
            };
            let client = stage.world.client().inside();
            client
                .run(|| std::net::TcpStream::connect(vip(family)))
                .expect("a connection")
        })
        .collect();
    let (before, flows) = (counted(&stage.service()), flows_of(&stage));
    assert!(flows.len() >= 540, "{}", flows.len());
    replace(&mut stage, rehearsal(), &[]);
    assert_eq!(counted(&stage.service()), before);
    assert_eq!(flows_of(&stage), flows);
    replace(&mut stage, shifterd(), &[]);
    assert_eq!(counted(&stage.service()), before);
    assert_eq!(flows_of(&stage), flows);
    drop(open);
    stage.wait("they have closed", |service| {
        service.slots.iter().all(|slot| slot.live_flows_count == 0)
    });
}

/// A connection ends just after its flow was read in the old tables and before it stands in the new ones:
/// it ends in the new ones as well.
#[test]
fn what_happens_while_a_flow_is_copied() {
    let mut stage = Stage::new(HookSpec::Tc);
    let client = stage.world.client().inside();
    let open = client.run(|| std::net::TcpStream::connect(vip(Family::V4)));
    let open = open.expect("a connection");
    stage.wait("it is open", |service| {
        slot(service, Slot::A).live_flows_count == 1
    });
    let file = stage.daemon.state_dir().join("waiting");
    assert_eq!(stage.daemon.stop(), Some(0));
    let name = file.display().to_string();
    let variables = [
        ("SHIFTER_REHEARSE_WAIT", "read"),
        ("SHIFTER_REHEARSE_FILE", name.as_str()),
    ];
    stage.daemon.become_program(rehearsal(), &variables);
    stage.daemon.spawn();
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < end, "never saw that {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait("it reads", &|| file.exists());
    drop(open);
    let pins = stage.daemon.bpffs().join("shifter/old-1-v1/maps/FLOWS");
    let flows = MapData::from_pin(&pins).expect("the old flows");
    let flows: aya::maps::HashMap<_, FlowKey, FlowEntry> =
        aya::maps::Map::LruHashMap(flows).try_into().expect("FLOWS");
    wait("the old programs saw both ends", &|| {
        let entry = flows.iter().next().expect("a flow").expect("read");
        entry.1.phase == Phase::Closed as u32
    });
    fs::remove_file(&file).expect("it waits there");
    wait("it answers", &|| {
        stage.daemon.client().ask("GET", "/v1/status", None).is_ok()
    });
    let flows = stage.daemon.flows("orders", 10).expect("flows");
    let phases: Vec<Phase> = flows.flows.iter().map(|flow| flow.phase).collect();
    assert_eq!(phases, [Phase::Closed]);
}

/// Starts a program that must refuse, and gives what it says.
fn refusal(stage: &Stage, program: PathBuf, environment: &[(&str, &str)]) -> String {
    let mut command = stage.world.host().command(program);
    command.arg("--config").arg(stage.daemon.node_file());
    command.envs(environment.iter().copied());
    let Output { status, stderr, .. } = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

/// A replacement that cannot be done changes nothing, and says why.
#[test]
fn what_cannot_be_replaced_stays() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(5_000);
    let load = Load::all(&stage, Some(200.0));
    assert_eq!(stage.daemon.stop(), Some(0));
    let path = stage.daemon.bpffs().join("shifter/v1");
    let old_tags = tags(&stage);

    // One link has its new program, the other does not get it.
    let text = refusal(
        &stage,
        rehearsal(),
        &[("SHIFTER_REHEARSE_FAIL", "replacing-1")],
    );
    let said =
        "shifterd: rehearsed failure at replacing-1; every link runs the program it ran before";
    assert!(text.contains(said), "{text}");
    assert_eq!(pinned(&stage), ["v1"]);
    assert_eq!(tags(&stage), old_tags);

    // Tables that are too small for what there is.
    let node = fs::read_to_string(stage.daemon.node_file()).expect("the node file");
    let mut spec = stage.daemon.node_spec();
    spec.sizes.backends_count = 2;
    stage.daemon.write_node(&node_toml(&spec));
    let text = refusal(&stage, rehearsal(), &[]);
    let whole = format!(
        "{} was left by another version of shifterd and cannot be taken over: BACKENDS: the node \
         file's [tables] give it 2 places, which are too few; it goes on steering: start the version \
         that made it again, or end it and its connections with: shifterd --detach --force",
        path.display()
    );
    assert!(text.contains(&whole), "{text}");
    assert_eq!(pinned(&stage), ["v1"]);
    stage.daemon.write_node(&node);

    // Descriptions that are not understood, or lead nowhere.
    let pin = path.join("maps").join(map::LAYOUT);
    let map = MapData::from_pin(&pin).expect("the pin");
    let mut layout: Array<_, LayoutText> = aya::maps::Map::Array(map).try_into().expect("LAYOUT");
    for (text, said) in [
        (
            "nothing known".to_owned(),
            "its description does not begin with `shifter layouts 1`",
        ),
        (
            own_text().replace("value backend_index 16 4 required\n", ""),
            "PENDING: backend_index is missing there",
        ),
        (
            own_text().replace("value cohort", "value tribe"),
            "PENDING: cohort is missing there",
        ),
        (
            own_text().replace("key vip_ordinal", "key colour"),
            "PENDING: vip_ordinal is missing there",
        ),
        (
            own_text() + "value later 900 4 perhaps\n",
            "its description has the line `value later 900 4 perhaps`",
        ),
    ] {
        let mut bytes = [0; LAYOUT_LEN_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        layout.set(0, LayoutText(bytes), 0).expect("written");
        let refused = refusal(&stage, rehearsal(), &[]);
        let said = format!(
            "{} was left by another version of shifterd and cannot be taken over: {said}; it goes on steering",
            path.display()
        );
        assert!(refused.contains(&said), "{refused}");
        assert_eq!(pinned(&stage), ["v1"]);
        assert_eq!(tags(&stage), old_tags);
    }
    let mut bytes = [0; LAYOUT_LEN_BYTES];
    let text = own_text();
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    layout.set(0, LayoutText(bytes), 0).expect("written");

    // With the right one it goes on.
    stage.daemon.become_program(rehearsal(), &[]);
    stage.daemon.start_again();
    assert_eq!(pinned(&stage), ["v2"]);

    // Programs with the same maps: the same refusal, the same nothing.
    let old_tags = tags(&stage);
    assert_eq!(stage.daemon.stop(), Some(0));
    let variables = [
        ("SHIFTER_REHEARSE_FAIL", "replacing-1"),
        ("SHIFTER_REHEARSE_CODE", "5"),
    ];
    let text = refusal(&stage, rehearsal(), &variables);
    assert!(
        text.contains("every link runs the program it ran before"),
        "{text}"
    );
    assert_eq!(tags(&stage), old_tags);
    load.end();
}
