//! Scripts of commands, each with what must come of it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use rusqlite::Connection;
use shifter_common::{
    audit::Chain,
    steering::Slot,
    wire::{
        ApplyReport, AuditRecord, Bypass, Changed, Detach, Drain, Effect, EstablishedPolicy, Event,
        Refusal, Rollback, RolloutCommand, RolloutStatus, ServiceStatus, SetWeight, StartRollout,
        StartStep, Status,
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    config_files,
    dataplane::memory::{MemoryDataplane, OnPublish},
    driver::{Actor, Driver, DriverHandle, Ended, Reply, Request},
    probe::{ProbeEvent, Prober, TargetKey},
    store::{AuditQuery, FILE, Origin, Store},
};

/// A service with a backend in each slot.
pub const ORDERS: &str = "[service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\n\
     [slot.a]\nbackends = [\"10.1.0.1:80\"]\n[slot.b]\nbackends = [\"10.2.0.1:80\"]\n";

/// A service without a second version.
pub const SEARCH: &str = "[service]\nname = \"search\"\nvip = \"10.0.0.20:80\"\n\
     [slot.a]\nbackends = [\"10.1.0.9:80\"]\n";

/// A driver at work, and the world around it.
pub struct Session {
    pub dir: TempDir,
    pub dataplane: MemoryDataplane,
    pub handle: DriverHandle,
    /// What the driver hears from probes.
    pub probes: mpsc::Sender<ProbeEvent>,
    /// What the prober says of the targets it was given. The driver does not hear it: every
    /// backend is ready without being probed, and what changes later comes from the script.
    pub probed: mpsc::Receiver<ProbeEvent>,
    pub driver: JoinHandle<Ended>,
    pub lock: Lock,
}

/// Somebody else who holds the store, so that every write fails, for root too.
#[derive(Clone, Default)]
pub struct Lock(Arc<Mutex<Option<Connection>>>);

impl Lock {
    pub fn take(&self, state_dir: &Path) {
        let connection = Connection::open(state_dir.join(FILE)).expect("a database");
        connection.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        *self.0.lock().expect("nobody panicked") = Some(connection);
    }

    fn release(&self) {
        self.0
            .lock()
            .expect("nobody panicked")
            .take()
            .expect("a lock");
    }
}

impl Session {
    /// Starts a driver with these service files, by name.
    pub fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("services.d")).expect("a writable directory");
        let node = format!(
            "[[interface]]\nname = \"eth0\"\n[state]\ndir = \"{}\"\n",
            dir.path().join("state").display()
        );
        fs::write(dir.path().join("shifter.toml"), node).expect("a writable directory");
        for (name, text) in files {
            write(&dir, name, text);
        }
        Self::start_in(dir, MemoryDataplane::default())
    }

    /// Starts a driver where there may have been one before.
    pub fn start_in(dir: TempDir, dataplane: MemoryDataplane) -> Self {
        dataplane.with(|state| state.was_adopted = !state.plans.is_empty());
        let (handle, calls) = DriverHandle::channel(16);
        let (probes, events) = mpsc::channel(16_384);
        let (prober, probed) = mpsc::channel(1_024);
        let driver = driver(&dir, &dataplane, prober);
        let driver = tokio::spawn(driver.run(calls, events));
        Self {
            dir,
            dataplane,
            handle,
            probes,
            probed,
            driver,
            lock: Lock::default(),
        }
    }

    /// Kills the driver, between two inputs, and starts another one.
    pub async fn restart(self) -> Self {
        let (dir, dataplane) = self.kill().await;
        Self::start_in(dir, dataplane)
    }

    /// Kills the driver and leaves what outlives it.
    pub async fn kill(self) -> (TempDir, MemoryDataplane) {
        self.driver.abort();
        let ended = self.driver.await;
        assert!(
            ended.is_err_and(|error| error.is_cancelled()),
            "the driver was at work"
        );
        (self.dir, self.dataplane)
    }

    /// Carries out a script: a command, and what comes of it; see [`Self::act`].
    pub async fn run(&mut self, script: &[(&str, &str)]) {
        for (line, (command, expected)) in (1..).zip(script) {
            let found = self.act(command).await;
            assert_eq!(found, *expected, "line {line}: {command}");
        }
    }

    /// Carries out one command and puts what came of it into words.
    ///
    /// Requests: see [`request`]; `hangup` is what SIGHUP does.
    /// The world: `ready SERVICE SLOT ADDR`, `fails SERVICE SLOT ADDR WHY`, `write NAME TEXT`,
    /// `remove NAME`, `live SERVICE SLOT ADDR COUNT`, `silent SERVICE SLOT ADDR COUNT`,
    /// `ends SERVICE SLOT ADDR OK REFUSED RESET` (flows that end), `pass SECONDS`, `refuse [WHY]`, `lock`, `unlock`.
    /// `trip SERVICE` (the kernel takes the canary out of traffic), `told` (and says so).
    /// Looking: `plan SERVICE`, `record SERVICE`, `event`, `rollout SERVICE`, `phase SERVICE`, `audit` (since the
    /// last time).
    pub async fn act(&mut self, command: &str) -> String {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let (name, argument) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(request) = request(verb, name, argument) {
            let root = Actor {
                uid: 0,
                name: "root".into(),
                loginuid: Some(1000),
            };
            return words(self.handle.call(request, Some(root), Instant::now()).await);
        }
        match verb {
            "hangup" => {
                return words(self.handle.call(Request::Apply, None, Instant::now()).await);
            }
            "plan" => return self.plan(name),
            "record" => return self.record(name),
            "event" => {
                return self
                    .status()
                    .await
                    .events
                    .last()
                    .map_or("none".into(), event);
            }
            "rollout" => {
                let service = self.service(name).await;
                let versions: Vec<String> = service
                    .slots
                    .iter()
                    .map(|slot| slot.version.clone().unwrap_or("?".into()))
                    .collect();
                let rollout = service.rollout.map_or("none".into(), |of| rollout(&of));
                return format!("{rollout}; slots {}", versions.join(" "));
            }
            "phase" => {
                let service = self.service(name).await;
                return service.rollout.map_or("none".into(), |of| of.detail);
            }
            "ready" => self.probe(name, argument, None).await,
            "fails" => {
                let mut parts = argument.splitn(3, ' ');
                let backend: Vec<&str> = parts.by_ref().take(2).collect();
                self.probe(name, &backend.join(" "), parts.next()).await;
            }
            "write" => write(&self.dir, name, argument),
            "remove" => fs::remove_file(self.dir.path().join("services.d").join(name))
                .expect("a file that is there"),
            "live" => {
                let (backend, count) = argument.rsplit_once(' ').expect("a count");
                let (slot, addr) = place(backend);
                let key = (name.to_owned(), slot, addr);
                let count = count.parse().expect("a count");
                self.dataplane.with(|state| state.live.insert(key, count));
            }
            "silent" => {
                let (backend, count) = argument.rsplit_once(' ').expect("a count");
                let (slot, addr) = place(backend);
                let key = (name.to_owned(), slot, addr);
                let count = count.parse().expect("a count");
                self.dataplane.with(|state| state.silent.insert(key, count));
            }
            "ends" => {
                let words: Vec<&str> = argument.split(' ').collect();
                let (slot, addr) = place(&words[..2].join(" "));
                let count = |index: usize| words[index].parse::<u64>().expect("a count");
                self.dataplane.with(|state| {
                    let counters = state
                        .counters
                        .entry((name.to_owned(), slot, addr))
                        .or_default();
                    counters.flows.closed += count(2);
                    counters.flows.refused += count(3);
                    counters.flows.reset_by_backend += count(4);
                });
            }
            "trip" => self.dataplane.with(|state| {
                let word = state.words.get_mut(name).expect("a service");
                *word = word.after_trip();
            }),
            "told" => {
                let told = self
                    .handle
                    .call(Request::LookForTrips, None, Instant::now());
                assert!(matches!(told.await, Ok(Reply::Looked)));
            }
            "pass" => {
                let seconds = rest.parse().expect("seconds");
                tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                self.status().await;
            }
            "refuse" => {
                let why = rest.to_owned();
                let on_publish: OnPublish = Box::new(move |_| Err(why.clone()));
                let on_publish = (!rest.is_empty()).then_some(on_publish);
                self.dataplane.with(|state| state.on_publish = on_publish);
            }
            "lock" => self.lock.take(&self.dir.path().join("state")),
            "unlock" => self.lock.release(),
            "audit" => return self.audit(),
            _ => panic!("no such command: {command}"),
        }
        String::new()
    }

    /// Sends what a probe found, and waits until the driver has dealt with it.
    async fn probe(&self, service: &str, backend: &str, failure: Option<&str>) {
        let (slot, addr) = place(backend);
        let now = Instant::now();
        let event = ProbeEvent {
            key: TargetKey {
                service: service.into(),
                slot,
                addr,
            },
            ready: failure.is_none(),
            reason: failure.unwrap_or("answered").into(),
            caused_at: now,
            decided_at: now,
        };
        self.probes.send(event).await.expect("a driver");
        // The driver takes what probes find before what anybody asks.
        self.status().await;
    }

    /// Everything that `status` shows.
    pub async fn status(&self) -> Status {
        match self
            .handle
            .call(Request::Status, None, Instant::now())
            .await
        {
            Ok(Reply::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// One service as `status` shows it.
    pub async fn service(&self, name: &str) -> ServiceStatus {
        match self
            .handle
            .call(Request::Service(name.into()), None, Instant::now())
            .await
        {
            Ok(Reply::Service(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// What the dataplane holds: weight, eligible slots and their ready backends, and how many
    /// plans were published.
    fn plan(&self, service: &str) -> String {
        self.dataplane.with(|state| {
            let Some(plan) = state.plans.get(service) else {
                return "none".into();
            };
            let slots = Slot::ALL.map(|slot| {
                let part = plan.slot(slot);
                let ready: Vec<String> = part
                    .backends
                    .iter()
                    .filter(|backend| backend.ready)
                    .map(|backend| backend.addr.to_string())
                    .collect();
                let open = if part.eligible { "open" } else { "shut" };
                format!("{slot} {open} [{}]", ready.join(" "))
            });
            let published_count = state.history.iter().filter(|p| p.name == service).count();
            format!(
                "{} bp, {}, published {published_count}",
                plan.weight_bp,
                slots.join(", ")
            )
        })
    }

    /// What a crash at this instant would leave on disk.
    pub fn on_disk(&self) -> (TempDir, Store) {
        let copy = tempfile::tempdir().expect("a temporary directory");
        let state = self.dir.path().join("state");
        // The log is gone when the driver has ended.
        for name in [FILE, "shifter.db-wal"].map(|name| state.join(name)) {
            if name.exists() {
                let to = copy.path().join(name.file_name().expect("a name"));
                fs::copy(&name, to).expect("a copy");
            }
        }
        let (store, told) = Store::open(copy.path(), Origin::default());
        assert_eq!(told, Vec::<String>::new());
        (copy, store)
    }

    /// The audit on disk, one line a record, without its beginning and those of daemons.
    fn audit(&self) -> String {
        let all = AuditQuery {
            after: Some(0),
            limit: 1_000,
            ..AuditQuery::default()
        };
        let lines = self.on_disk().1.audit(&all).expect("a readable disk").lines;
        let mut chain = Chain::default();
        let mut told = Vec::new();
        for line in &lines {
            chain.follow(line).expect("a sound chain");
            let record: AuditRecord = serde_json::from_str(line).expect("a record");
            if !["chain", "started"].contains(&record.verb.as_str()) {
                told.push(audited(&record));
            }
        }
        told.join("\n")
    }

    /// What is on disk.
    fn record(&self, service: &str) -> String {
        let (_copy, state) = self.on_disk();
        state.service(service).map_or("none".into(), |record| {
            let drained: Vec<String> = record
                .drained
                .iter()
                .map(|(slot, by)| format!(", {slot} by {}", by.by))
                .collect();
            format!(
                "{} bp by {}{}",
                record.weight_bp,
                record.weight_by,
                drained.concat()
            )
        })
    }
}

/// A driver that has started but does not run yet.
pub fn driver(
    dir: &TempDir,
    dataplane: &MemoryDataplane,
    prober: mpsc::Sender<ProbeEvent>,
) -> Driver {
    let node_file = dir.path().join("shifter.toml");
    let node = config_files::load_node(&node_file).expect("a good node file");
    let state = store(&node.state_dir);
    let dataplane = Box::new(dataplane.clone());
    Driver::start(node, node_file, dataplane, state, Prober::new(prober)).expect("starts")
}

/// A store in which nothing is amiss.
pub fn store(state_dir: &Path) -> Store {
    let origin = Origin {
        host: "web-1".into(),
        boot_id: "boot-1".into(),
    };
    let (store, told) = Store::open(state_dir, origin);
    assert_eq!(told, Vec::<String>::new());
    store
}

/// A record of the audit in words.
fn audited(record: &AuditRecord) -> String {
    let AuditRecord {
        service,
        actor,
        verb,
        slot,
        reason,
        weight_before_bp,
        weight_after_bp,
        generation,
        ..
    } = record;
    let slot = slot.map_or(String::new(), |slot| format!(" {slot}"));
    let login = actor
        .loginuid
        .map_or(String::new(), |uid| format!(" for uid {uid}"));
    format!(
        "{} by {}{login}: {service} {verb}{slot}: {weight_before_bp} -> {weight_after_bp}, generation \
         {generation}: {reason}",
        actor.user, actor.how
    )
}

pub fn write(dir: &TempDir, name: &str, text: &str) {
    fs::write(dir.path().join("services.d").join(name), text).expect("a writable directory");
}

/// `weight SERVICE BP`, `rollback SERVICE [drain|reset|reset-idle]`, `drain SERVICE SLOT`,
/// `undrain SERVICE SLOT`, `apply`, `detach [force]`, `status`, `show SERVICE`, `flows SERVICE`.
fn request(verb: &str, name: &str, argument: &str) -> Option<Request> {
    let service = name.to_owned();
    Some(match verb {
        "weight" => {
            let weight_bp = argument.parse().expect("basis points");
            Request::SetWeight(service, SetWeight { weight_bp })
        }
        "rollback" => {
            let established = match argument {
                "drain" => Some(EstablishedPolicy::Drain),
                "reset" => Some(EstablishedPolicy::Reset),
                "reset-idle" => Some(EstablishedPolicy::ResetIdle),
                _ => None,
            };
            Request::Rollback(service, Rollback { established })
        }
        "drain" | "undrain" => Request::Drain(
            service,
            Drain {
                slot: slot(argument),
                undo: verb == "undrain",
            },
        ),
        "start" => Request::Start(service, start(argument)),
        "promote" => command(
            service,
            RolloutCommand::Promote {
                step: argument.parse().ok(),
            },
        ),
        "skip" => command(
            service,
            RolloutCommand::SkipStep {
                step: argument.parse().ok(),
            },
        ),
        "full" => command(service, RolloutCommand::PromoteFull),
        "pause" => command(service, RolloutCommand::Pause),
        "resume" => command(service, RolloutCommand::Resume),
        "abort" => command(service, RolloutCommand::Abort),
        "retry" => command(service, RolloutCommand::Retry),
        "undo" => command(service, RolloutCommand::Undo),
        "approve" => command(
            service,
            RolloutCommand::Approve {
                gate: argument.into(),
            },
        ),
        "reject" => command(
            service,
            RolloutCommand::Reject {
                gate: argument.into(),
            },
        ),
        "apply" => Request::Apply,
        "bypass" => Request::Bypass(name.into(), Bypass { undo: false }),
        "unbypass" => Request::Bypass(name.into(), Bypass { undo: true }),
        "detach" => Request::Detach(Detach {
            force: name == "force",
        }),
        "status" => Request::Status,
        "show" => Request::Service(service),
        "forecast" => Request::Plan(service, argument.parse().expect("a label")),
        "flows" => Request::Flows(service, 2),
        "history" => Request::History(service),
        "deployment" => Request::Deployment(service, argument.parse().expect("a number")),
        _ => return None,
    })
}

fn command(service: String, command: RolloutCommand) -> Request {
    Request::Command(service, command)
}

/// `VERSION [STRATEGY] [PERCENT:SECONDS ...]`
fn start(text: &str) -> StartRollout {
    let mut words = text.split(' ');
    let mut start = StartRollout {
        version: words.next().unwrap_or_default().into(),
        ..StartRollout::default()
    };
    for word in words {
        match word.split_once(':') {
            Some((percent, seconds)) => start.steps.push(StartStep {
                weight_bp: percent.parse::<u16>().expect("a percentage") * 100,
                bake_ms: Some(seconds.parse::<u64>().expect("seconds") * 1_000),
                pause: false,
            }),
            None => start.strategy = Some(word.into()),
        }
    }
    start
}

fn slot(text: &str) -> Slot {
    match text {
        "a" => Slot::A,
        "b" => Slot::B,
        _ => panic!("no such slot: {text}"),
    }
}

fn place(text: &str) -> (Slot, SocketAddr) {
    let (of, addr) = text.split_once(' ').expect("slot and address");
    (slot(of), addr.parse().expect("an address"))
}

/// A reply in words.
fn words(reply: Result<Reply, Refusal>) -> String {
    match reply {
        Err(refusal) => {
            format!("{}: {} / {}", refusal.code, refusal.message, refusal.help)
        }
        Ok(Reply::Changed(changed)) => change(&changed),
        Ok(Reply::Applied(report)) => applied(&report),
        Ok(Reply::Rollout(done)) => match done.already {
            Some(why) => format!("already: {why}"),
            None => rollout(&done.rollout),
        },
        Ok(Reply::Looked) => "looked".into(),
        Ok(Reply::Detached(detached)) => format!(
            "detached {}, {} flows broken",
            detached.interfaces.join(" "),
            detached.flows_broken_count
        ),
        Ok(Reply::Service(status)) => service(&status),
        Ok(Reply::Flows(flows)) => {
            let clients: Vec<String> = flows.flows.into_iter().map(|flow| flow.client).collect();
            format!(
                "{} of {}: {}",
                clients.len(),
                flows.total_count,
                clients.join(" ")
            )
        }
        Ok(Reply::Planned(plan)) => {
            let steps = plan.steps.iter().map(|step| step.what.as_str());
            format!(
                "{} of {} to slot {} for {} ms: {}; notes: {}",
                plan.strategy,
                plan.version,
                plan.slot,
                plan.lasts_ms,
                steps.collect::<Vec<_>>().join(", "),
                plan.notes.join(", ")
            )
        }
        Ok(Reply::Audit(found)) => format!("{} records of {}", found.lines.len(), found.last_seq),
        Ok(Reply::History(history)) => format!(
            "{} revisions, {} rollouts",
            history.revisions.len(),
            history.rollouts.len()
        ),
        Ok(Reply::Deployment(record)) => format!(
            "{} of {} records: {}",
            record.version,
            record.steps.len(),
            record.outcome
        ),
        Ok(Reply::Status(_)) => "a status".into(),
    }
}

/// Where a rollout stands, in words.
fn rollout(of: &RolloutStatus) -> String {
    let mut text = format!(
        "{} {} in {}, {:?}",
        of.id, of.version, of.detail, of.outcome
    );
    if let (Some(on), Some(next)) = (&of.waiting_on, &of.next_command) {
        text += &format!(", waits for {on} ({next})");
    }
    if let Some(next) = &of.next_version {
        text += &format!(", then {next}");
    }
    text
}

fn change(changed: &Changed) -> String {
    let is_idle = changed
        .notes
        .iter()
        .any(|note| note == "nothing had to change");
    assert_eq!(
        changed.took_ns == 0,
        is_idle,
        "a store takes time: {changed:?}"
    );
    let mut text = format!(
        "{} -> {}, generation {}",
        changed.weight_before_bp, changed.weight_bp, changed.generation
    );
    if changed.flows_reset_count > 0 {
        text += &format!(", {} flows reset", changed.flows_reset_count);
    }
    for note in &changed.notes {
        text += &format!("; {note}");
    }
    text
}

fn applied(report: &ApplyReport) -> String {
    let mut lines = Vec::new();
    for diagnostic in &report.diagnostics {
        let file = diagnostic.file.rsplit('/').next().unwrap_or_default();
        lines.push(format!(
            "{file}:{}: {}",
            diagnostic.line, diagnostic.message
        ));
    }
    for change in &report.changes {
        let effect = match change.effect {
            Effect::Now => String::new(),
            Effect::NextRollout => " with the next rollout".into(),
            Effect::Refused => format!(" refused: {}", change.reason),
        };
        lines.push(format!(
            "{} {}: {} -> {}{effect}",
            change.service, change.key, change.before, change.after
        ));
    }
    for name in &report.orphaned {
        lines.push(format!("orphaned: {name}"));
    }
    lines.join("\n")
}

fn service(status: &ServiceStatus) -> String {
    let mut text = format!(
        "{} bp by {}, effective {}, generation {}",
        status.weight_bp, status.weight_by, status.effective_bp, status.generation
    );
    if status.orphaned {
        text += ", orphaned";
    }
    for slot in &status.slots {
        let backends: BTreeMap<_, _> = slot
            .backends
            .iter()
            .map(|b| (b.addr.as_str(), b.live_flows_count))
            .collect();
        text += &format!(
            "\n{}: {} live of {backends:?}",
            slot.slot, slot.live_flows_count
        );
        if !slot.eligible {
            text += &format!(", out: {}", slot.reason);
        }
    }
    for note in &status.notes {
        text += &format!("\nnote: {note}");
    }
    text
}

/// An event in words, without its number and time.
pub fn event(event: &Event) -> String {
    let slot = event.slot.map_or(String::new(), |slot| format!(" {slot}"));
    let took = if event.took_ns > 0 {
        "stored"
    } else {
        "nothing stored"
    };
    format!(
        "{}: {}{slot}: {} -> {}, {took}: {}",
        event.by, event.what, event.effective_before_bp, event.effective_after_bp, event.detail
    )
}
