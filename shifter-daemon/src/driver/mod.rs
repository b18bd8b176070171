//! The one loop that turns the outside world into events and effects into calls.

mod adoption;
mod apply;
mod breaker;
mod bypass;
mod commands;
mod detach;
mod drain;
mod events;
mod handle;
mod history;
mod idle;
mod inbox;
mod listeners;
mod observed;
mod outliers;
mod plan;
mod publication;
mod readiness;
mod refusal;
mod rollback;
mod rollout;
mod status;
mod sweep;
#[cfg(test)]
mod tests;
mod version;
mod vips;
mod weight;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use shifter_common::{steering::SteeringWord, wire::Refusal};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use self::handle::*;
use self::{
    events::Events,
    inbox::{Inbox, Input},
};
use crate::{
    config_files,
    control::ServiceControl,
    dataplane::{Dataplane, DataplaneError, FlowTable},
    model::NodeSpec,
    probe::{ProbeEvent, Prober, TargetKey},
    store::Store,
};

/// Time between two sweeps of the flow tables, and between two attempts at what failed.
const TICK_INTERVAL: Duration = Duration::from_secs(10);

/// Time between two looks at what became of backends' flows.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Who acts when nobody asked.
const SHIFTERD: &str = "shifterd";

/// Where an answer goes.
type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The handles are gone.
    Closed,
    /// An operator detached the packet path: there is nothing left to do.
    Detached,
}

/// All services and everything that acts on them.
pub struct Driver {
    node: NodeSpec,
    node_file: PathBuf,
    dataplane: Box<dyn Dataplane>,
    services: BTreeMap<String, ServiceControl>,
    state: Store,
    prober: Prober,
    events: Events,
    /// Who asked for what is being done, if somebody did.
    acting: Option<Actor>,
    /// Digest of the programs' tags.
    program_tag: String,
    /// SHA-256 of the file in force, by service.
    file_hashes: BTreeMap<String, String>,
    /// Services whose last publication failed, and why; tried again at each tick.
    unpublished: BTreeMap<String, String>,
    /// Steering word in force by service.
    words: BTreeMap<String, SteeringWord>,
    /// Services whose trip is known.
    tripped: std::collections::BTreeSet<String>,
    /// The last rollout of each service.
    rollouts: rollout::Rollouts,
    /// Services whose canary's connections are reset as they fall silent.
    silencing: BTreeMap<String, idle::Silencing>,
    /// Why the addresses of VIPs are not as asked for.
    vip_trouble: Option<String>,
    /// Ways around shifter that are in force.
    ways: Vec<crate::bypass::Bypass>,
    /// When the probing of a backend was begun anew: what was answered before does not count.
    restarted: BTreeMap<TargetKey, std::time::Instant>,
    /// The last number that a version was given.
    last_version_id: u32,
    /// Attempts to publish so far.
    publications_count: u64,
    /// Whether a sweep of the flow tables is under way.
    is_sweeping: Arc<AtomicBool>,
    started_unix_ms: u64,
    is_detached: bool,
}

impl Driver {
    /// Takes over what the packet path holds, reads the service files and puts them in force.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the packet path does not answer.
    pub fn start(
        node: NodeSpec,
        node_file: PathBuf,
        dataplane: Box<dyn Dataplane>,
        state: Store,
        prober: Prober,
    ) -> Result<Self, DataplaneError> {
        let mut this = Self {
            node,
            node_file,
            dataplane,
            services: BTreeMap::new(),
            state,
            prober,
            events: Events::default(),
            acting: None,
            program_tag: String::new(),
            file_hashes: BTreeMap::new(),
            unpublished: BTreeMap::new(),
            words: BTreeMap::new(),
            tripped: std::collections::BTreeSet::new(),
            rollouts: rollout::Rollouts::new(),
            silencing: BTreeMap::new(),
            vip_trouble: None,
            ways: Vec::new(),
            restarted: BTreeMap::new(),
            last_version_id: 0,
            publications_count: 0,
            is_sweeping: Arc::default(),
            started_unix_ms: unix_ms(),
            is_detached: false,
        };
        this.record_start();
        let loaded = config_files::load_services(&this.node.services_dir);
        this.adopt(loaded)?;
        this.resume_rollouts();
        if let Err(error) = this.refresh_bypass() {
            tracing::error!("the ways around shifter are not as decided: {error}");
        }
        this.update_probes();
        this.hold_vips();
        this.write_audit();
        Ok(this)
    }

    /// Runs until the handles are gone or an operator detaches.
    pub async fn run(
        mut self,
        calls: mpsc::Receiver<Call>,
        probes: mpsc::Receiver<ProbeEvent>,
    ) -> Ended {
        let (swept_tx, swept) = mpsc::channel(1);
        let news = self.rollouts.heard();
        let mut inbox = Inbox::new(calls, probes, swept, news, [TICK_INTERVAL, LOOK_INTERVAL]);
        loop {
            match inbox.next().await {
                Input::Probes(events) => self.handle_probes(events),
                Input::Call(call) => self.handle_call(call),
                Input::Closed => return Ended::Closed,
                Input::Swept(swept) => self.handle_swept(swept),
                Input::Rollout(news) => self.hear_news(news),
                Input::Look => {
                    self.look_for_trips(breaker::LearntFrom::Look);
                    self.look_at_evidence();
                    self.count_for_rollouts(&swept_tx);
                    self.reset_silent();
                    self.look_for_outliers(Instant::now().into_std());
                }
                Input::Tick => {
                    self.retry_audit();
                    self.tend();
                    self.look_at_listeners();
                    self.retry();
                    self.hold_vips();
                    self.begin_sweep(swept_tx.clone());
                }
            }
            self.follow_rollouts();
            self.write_audit();
            if self.is_detached {
                return Ended::Detached;
            }
        }
    }

    fn flow_table(&self) -> Arc<dyn FlowTable> {
        self.dataplane.flow_table()
    }
}

/// An answer nobody waits for any more is dropped; what was done stays done.
fn send(reply: Answer, answer: Result<Reply, Refusal>) {
    let _ = reply.send(answer);
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
