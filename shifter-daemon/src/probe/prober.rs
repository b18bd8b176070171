//! One task per target, started and stopped as the configuration changes.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time,
};

use super::{Answer, Change, Health, ask, now, schedule::Schedule};
use crate::model::{ProbeCheck, ProbeSpec, Slot};

/// Probes under way at once; the others wait for their turn, first come, first served.
pub const PROBES_AT_ONCE_COUNT: usize = 256;

/// Names a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The service.
    pub service: String,
    /// The slot.
    pub slot: Slot,
    /// The backend, which is also the address that is asked, unless the probe names another port.
    pub addr: SocketAddr,
}

/// How a target is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The probe.
    pub spec: ProbeSpec,
    /// What counts until the first verdict: true for a backend that was ready when its state was
    /// taken over. Ignored for a target that is already probed.
    pub initially_ready: bool,
}

/// A target's first verdict, or one that differs from the last: in readiness, or in what is wrong.
///
/// Events of one target arrive in order. Events of a target that was removed may still arrive: the
/// reader ignores keys it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// The target.
    pub key: TargetKey,
    /// Whether new flows may go there.
    pub ready: bool,
    /// Why, in words.
    pub reason: String,
    /// When the answer came that began the streak that decided.
    pub caused_at: Instant,
    /// When the answer came that decided.
    pub decided_at: Instant,
}

type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Ask = Arc<dyn Fn(&ProbeSpec, SocketAddr) -> Asking + Send + Sync>;

/// Owns the probing tasks; dropping it stops them all.
pub struct Prober {
    events: mpsc::Sender<ProbeEvent>,
    permits: Arc<Semaphore>,
    ask: Ask,
    tasks: BTreeMap<TargetKey, Task>,
}

impl Prober {
    /// A prober without targets. Where `events` is full, the tasks that have something to say wait.
    pub fn new(events: mpsc::Sender<ProbeEvent>) -> Self {
        let ask: Ask = Arc::new(|spec, addr| {
            let (check, timeout) = (spec.check.clone(), spec.timeout);
            let addr = spec
                .port
                .map_or(addr, |port| SocketAddr::new(addr.ip(), port));
            Box::pin(async move { ask(&check, addr, timeout).await })
        });
        Self::with_ask(events, ask)
    }

    fn with_ask(events: mpsc::Sender<ProbeEvent>, ask: Ask) -> Self {
        let permits = Arc::new(Semaphore::new(PROBES_AT_ONCE_COUNT));
        Self {
            events,
            permits,
            ask,
            tasks: BTreeMap::new(),
        }
    }

    /// Probes exactly these targets from now on. An unchanged target goes on undisturbed, with the
    /// streak it has. A target whose probe changed starts again from its present readiness, so the
    /// change alone moves no traffic, and sends a first verdict again.
    ///
    /// Must be called within a tokio runtime.
    pub fn update(&mut self, targets: BTreeMap<TargetKey, Target>) {
        let mut before = std::mem::take(&mut self.tasks);
        for (key, target) in targets {
            let task = match before.remove(&key) {
                Some(task) if task.spec == target.spec => task,
                Some(task) => self.start(&key, target.spec, task.ready.load(Ordering::Acquire)),
                None => self.start(&key, target.spec, target.initially_ready),
            };
            self.tasks.insert(key, task);
        }
    }

    /// Begins a target anew, as one that is not ready and asked at once. One that is not known is
    /// left alone.
    ///
    /// Must be called within a tokio runtime.
    pub fn restart(&mut self, key: &TargetKey) {
        if let Some(task) = self.tasks.remove(key) {
            let begun = self.start(key, task.spec.clone(), false);
            self.tasks.insert(key.clone(), begun);
        }
    }

    /// Number of targets.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn start(&self, key: &TargetKey, spec: ProbeSpec, ready: bool) -> Task {
        let ready = Arc::new(AtomicBool::new(ready));
        let worker = Worker {
            key: key.clone(),
            events: self.events.clone(),
            ready: Arc::clone(&ready),
            permits: Arc::clone(&self.permits),
            ask: Arc::clone(&self.ask),
        };
        let handle = tokio::spawn(worker.run(spec.clone()));
        Task {
            spec,
            ready,
            handle,
        }
    }
}

/// A running task as its owner sees it.
struct Task {
    spec: ProbeSpec,
    ready: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// What runs inside a task.
struct Worker {
    key: TargetKey,
    events: mpsc::Sender<ProbeEvent>,
    ready: Arc<AtomicBool>,
    permits: Arc<Semaphore>,
    ask: Ask,
}

impl Worker {
    /// Asks until it is aborted or nobody listens to the events.
    async fn run(self, spec: ProbeSpec) {
        let begin = now();
        if spec.check == ProbeCheck::None {
            let reason = "no probe is configured".to_owned();
            let change = Change {
                ready: true,
                reason,
                caused_at: begin,
                decided_at: begin,
            };
            self.tell(change).await;
            return;
        }
        let mut health = Health::new(&spec, self.ready.load(Ordering::Acquire));
        let schedule = Schedule::new(begin, spec.interval, self.hash());
        let mut start = schedule.first();
        loop {
            time::sleep_until(start.into()).await;
            // The semaphore is never closed.
            let Ok(_permit) = self.permits.acquire().await else {
                return;
            };
            let mut answer = (self.ask)(&spec, self.key.addr).await;
            let result = std::mem::replace(&mut answer.result, Ok(()));
            let change = health.observe(result, answer.at);
            let told = async {
                match change {
                    Some(change) => self.tell(change).await,
                    None => true,
                }
            };
            let (told, ()) = tokio::join!(told, answer.finish());
            if !told {
                return;
            }
            start = schedule.next(health.decided(), now());
        }
    }

    /// Whether somebody still listens.
    async fn tell(&self, change: Change) -> bool {
        let Change {
            ready,
            reason,
            caused_at,
            decided_at,
        } = change;
        self.ready.store(ready, Ordering::Release);
        let event = ProbeEvent {
            key: self.key.clone(),
            ready,
            reason,
            caused_at,
            decided_at,
        };
        self.events.send(event).await.is_ok()
    }

    /// The same for the same key in every run.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Mutex,
            atomic::{AtomicU64, AtomicUsize},
        },
        time::Duration,
    };

    use super::*;
    use crate::probe::{ProbeFailure, schedule::FIRST_WITHIN};

    const SECOND: Duration = Duration::from_secs(1);

    /// Backends that exist only here: each answers after `delay`, well unless it is listed as bad.
    #[derive(Default)]
    struct World {
        bad: Mutex<BTreeSet<SocketAddr>>,
        asked: Mutex<Vec<(SocketAddr, Instant)>>,
        delay_ms: AtomicU64,
        under_way: AtomicUsize,
        most_under_way: AtomicUsize,
    }

    impl World {
        fn ask(self: &Arc<Self>) -> Ask {
            let world = Arc::clone(self);
            Arc::new(move |_, addr| {
                let world = Arc::clone(&world);
                Box::pin(async move {
                    world.asked.lock().unwrap().push((addr, now()));
                    let count = world.under_way.fetch_add(1, Ordering::Relaxed) + 1;
                    world.most_under_way.fetch_max(count, Ordering::Relaxed);
                    let delay_ms = world.delay_ms.load(Ordering::Relaxed);
                    time::sleep(Duration::from_millis(delay_ms)).await;
                    world.under_way.fetch_sub(1, Ordering::Relaxed);
                    let bad = world.bad.lock().unwrap().contains(&addr);
                    let result = if bad {
                        Err(ProbeFailure::Refused)
                    } else {
                        Ok(())
                    };
                    Answer::new(result, now())
                })
            })
        }

        fn set_bad(&self, addr: SocketAddr, bad: bool) {
            let mut all = self.bad.lock().unwrap();
            if bad {
                all.insert(addr);
            } else {
                all.remove(&addr);
            }
        }

        /// Times at which the target was asked since the last call, from `origin`.
        fn take_asked(&self, key: &TargetKey, origin: Instant) -> Vec<Duration> {
            let mut asked = self.asked.lock().unwrap();
            let times = asked
                .iter()
                .filter(|(addr, _)| *addr == key.addr)
                .map(|(_, at)| at.duration_since(origin))
                .collect();
            asked.clear();
            times
        }
    }

    fn key(service: &str, port: u16) -> TargetKey {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        TargetKey {
            service: service.into(),
            slot: Slot::A,
            addr,
        }
    }

    fn spec() -> ProbeSpec {
        ProbeSpec {
            port: None,
            check: ProbeCheck::Tcp,
            interval: SECOND,
            timeout: Duration::from_millis(500),
            success_threshold: 3,
            failure_threshold: 3,
        }
    }

    fn targets(list: &[(&TargetKey, &ProbeSpec, bool)]) -> BTreeMap<TargetKey, Target> {
        list.iter()
            .map(|(key, spec, initially_ready)| {
                let target = Target {
                    spec: (*spec).clone(),
                    initially_ready: *initially_ready,
                };
                ((*key).clone(), target)
            })
            .collect()
    }

    fn start(world: &Arc<World>) -> (Prober, mpsc::Receiver<ProbeEvent>) {
        let (events, queue) = mpsc::channel(16);
        (Prober::with_ask(events, world.ask()), queue)
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_target_is_asked_quickly_until_its_first_verdict() {
        let world = Arc::new(World::default());
        let (mut prober, mut queue) = start(&world);
        let (key, origin) = (key("a", 1), now());
        prober.update(targets(&[(&key, &spec(), false)]));

        let event = queue.recv().await.unwrap();
        let asked = world.take_asked(&key, origin);
        assert!(asked[0] < FIRST_WITHIN, "{asked:?}");
        let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps, [Duration::from_millis(200); 2]);
        assert_eq!((&event.key, event.ready), (&key, true));
        assert_eq!(event.reason, "answered; 3 successes in a row");
        assert_eq!(event.caused_at.duration_since(origin), asked[0]);
        assert_eq!(event.decided_at.duration_since(origin), asked[2]);

        time::sleep(10 * SECOND).await;
        let asked = world.take_asked(&key, origin);
        assert!(
            asked.windows(2).all(|pair| pair[1] - pair[0] == SECOND),
            "{asked:?}"
        );
        assert!((9..=10).contains(&asked.len()), "{asked:?}");
        assert!(
            queue.try_recv().is_err(),
            "what does not change is not told"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_and_its_end_too() {
        let world = Arc::new(World::default());
        let (mut prober, mut queue) = start(&world);
        let key = key("a", 1);
        prober.update(targets(&[(&key, &spec(), false)]));
        assert!(queue.recv().await.unwrap().ready);

        world.set_bad(key.addr, true);
        let event = queue.recv().await.unwrap();
        assert!(!event.ready);
        assert_eq!(
            event.reason,
            "connection refused: nobody listens there; 3 failures in a row"
        );
        assert_eq!(event.decided_at - event.caused_at, 2 * SECOND);
        time::sleep(10 * SECOND).await;
        assert!(queue.try_recv().is_err());

        world.set_bad(key.addr, false);
        assert!(queue.recv().await.unwrap().ready);
    }

    #[tokio::test(start_paused = true)]
    async fn an_adopted_target_is_confirmed_or_refuted() {
        for bad in [false, true] {
            let world = Arc::new(World::default());
            let (mut prober, mut queue) = start(&world);
            let key = key("a", 1);
            world.set_bad(key.addr, bad);
            prober.update(targets(&[(&key, &spec(), true)]));
            assert_eq!(queue.recv().await.unwrap().ready, !bad);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_target_keeps_its_streak() {
        let world = Arc::new(World::default());
        let (mut prober, mut queue) = start(&world);
        let (kept, other, origin) = (key("a", 1), key("a", 2), now());
        let patient = ProbeSpec {
            success_threshold: 10,
            ..spec()
        };
        prober.update(targets(&[(&kept, &patient, false)]));
        time::sleep(SECOND).await;
        prober.update(targets(&[
            (&kept, &patient, true),
            (&other, &patient, false),
        ]));
        assert_eq!(prober.len(), 2);
        let event = queue.recv().await.unwrap();
        assert_eq!(event.key, kept);
        let took = event.decided_at - origin;
        assert!(
            took < 2 * SECOND,
            "ten successes at 200 ms, not begun again: {took:?}"
        );
        assert_eq!(queue.recv().await.unwrap().key, other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_target_is_asked_no_more() {
        let world = Arc::new(World::default());
        let (mut prober, mut queue) = start(&world);
        let (gone, kept, origin) = (key("a", 1), key("b", 2), now());
        prober.update(targets(&[(&gone, &spec(), false), (&kept, &spec(), false)]));
        queue.recv().await.unwrap();
        queue.recv().await.unwrap();
        prober.update(targets(&[(&kept, &spec(), false)]));
        world.take_asked(&gone, origin);
        time::sleep(5 * SECOND).await;
        assert_eq!(prober.len(), 1);
        assert!(
            world
                .asked
                .lock()
                .unwrap()
                .iter()
                .all(|(addr, _)| *addr == kept.addr)
        );
        assert_eq!(world.take_asked(&kept, origin).len(), 5);

        drop(prober);
        time::sleep(5 * SECOND).await;
        assert!(
            world.asked.lock().unwrap().is_empty(),
            "a dropped prober asks nothing"
        );
        assert_eq!(queue.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_probe_starts_from_the_present_readiness() {
        for bad in [false, true] {
            let world = Arc::new(World::default());
            let (mut prober, mut queue) = start(&world);
            let key = key("a", 1);
            world.set_bad(key.addr, bad);
            prober.update(targets(&[(&key, &spec(), bad)]));
            assert_eq!(queue.recv().await.unwrap().ready, !bad);
            let changed = ProbeSpec {
                interval: 5 * SECOND,
                ..spec()
            };
            // What the caller says of readiness does not count for a target that is known.
            prober.update(targets(&[(&key, &changed, bad)]));
            let task = prober.tasks.get(&key).unwrap();
            assert_eq!(task.ready.load(Ordering::Acquire), !bad);
            assert_eq!(
                queue.recv().await.unwrap().ready,
                !bad,
                "a first verdict again"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_probe_a_target_is_ready_at_once() {
        let world = Arc::new(World::default());
        let (mut prober, mut queue) = start(&world);
        let (key, origin) = (key("a", 1), now());
        let none = ProbeSpec {
            check: ProbeCheck::None,
            ..spec()
        };
        prober.update(targets(&[(&key, &none, false)]));
        let event = queue.recv().await.unwrap();
        assert!(event.ready);
        assert_eq!(event.reason, "no probe is configured");
        assert_eq!(event.decided_at, origin);
        assert!(world.asked.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn starts_missed_by_a_slow_probe_are_skipped() {
        let world = Arc::new(World::default());
        world.delay_ms.store(2_500, Ordering::Relaxed);
        let (mut prober, mut queue) = start(&world);
        let (key, origin) = (key("a", 1), now());
        let once = ProbeSpec {
            success_threshold: 1,
            ..spec()
        };
        prober.update(targets(&[(&key, &once, false)]));
        queue.recv().await.unwrap();
        world.take_asked(&key, origin);
        time::sleep(12 * SECOND).await;
        let asked = world.take_asked(&key, origin);
        assert!(
            asked.windows(2).all(|pair| pair[1] - pair[0] == 3 * SECOND),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_targets_take_turns() {
        let world = Arc::new(World::default());
        world.delay_ms.store(5, Ordering::Relaxed);
        let (mut prober, mut queue) = start(&world);
        let all: Vec<_> = (0..1_000_u16)
            .flat_map(|service| (0..10).map(move |n| key(&format!("s{service}"), service * 10 + n)))
            .collect();
        let spec = spec();
        let list: Vec<_> = all.iter().map(|key| (key, &spec, false)).collect();
        let origin = now();
        prober.update(targets(&list));
        let mut decided = BTreeSet::new();
        for _ in 0..all.len() {
            let event = queue.recv().await.unwrap();
            assert!(event.ready && decided.insert(event.key));
        }
        assert_eq!(
            world.most_under_way.load(Ordering::Relaxed),
            PROBES_AT_ONCE_COUNT
        );
        // 30,000 probes of 5 ms, 256 at once, take 0.6 s of this stopped clock.
        assert!(now() - origin < 2 * SECOND, "{:?}", now() - origin);

        // Once the queue is empty they are spread over the interval, as much in each tenth.
        time::sleep(SECOND).await;
        world.asked.lock().unwrap().clear();
        time::sleep(SECOND).await;
        let mut tenths = [0_u32; 10];
        for (_, at) in world.asked.lock().unwrap().iter() {
            tenths[(at.duration_since(origin).subsec_millis() / 100) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (800..1_200).contains(count)),
            "{tenths:?}"
        );
    }

    #[tokio::test]
    async fn a_real_backend_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (events, mut queue) = mpsc::channel(1);
        let mut prober = Prober::new(events);
        assert!(prober.is_empty());
        let addr = listener.local_addr().unwrap();
        let key = TargetKey {
            addr,
            ..key("a", 1)
        };
        let quick = ProbeSpec {
            interval: Duration::from_millis(20),
            success_threshold: 2,
            failure_threshold: 2,
            ..spec()
        };
        prober.update(targets(&[(&key, &quick, false)]));
        assert!(queue.recv().await.unwrap().ready);
        drop(listener);
        let event = queue.recv().await.unwrap();
        assert_eq!(
            event.reason,
            "connection refused: nobody listens there; 2 failures in a row"
        );
    }
}
