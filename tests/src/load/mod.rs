//! A load client that checks every answer: all answers of one connection must come from one backend
//! and, there, from one connection.

mod histogram;
mod plan;
mod tally;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::LocalSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::tally::Tally;
pub use self::{
    histogram::{Histogram, Quantiles},
    plan::{Plan, Sources},
    tally::{BackendTally, ErrorKind, Failure, Line, Report},
};
use crate::{http::Head, netns::Inside};

/// Pause of a worker after a failure, so that a dead service is not asked 100,000 times a second.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// How far the pace may be behind before it gives up catching up.
const MOST_BEHIND: Duration = Duration::from_millis(100);

/// Makes load inside a namespace and waits for its end.
///
/// # Panics
/// If the runtime cannot be made.
pub fn run(netns: &Inside, plan: &Plan) -> Report {
    netns.run(|| run_here(plan, |_| {}, std::future::pending()))
}

/// Makes load from where the caller is; `on_interval` gets what happened in each interval. Ends before
/// its time when `stop` does.
///
/// # Panics
/// If the runtime cannot be made.
pub fn run_here(
    plan: &Plan,
    on_interval: impl FnMut(Report),
    stop: impl Future<Output = ()>,
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime needs an epoll descriptor");
    LocalSet::new().block_on(&runtime, drive(plan, on_interval, stop))
}

/// What all workers share; they run on one thread.
struct Shared {
    plan: Plan,
    keep_alive: Vec<u8>,
    close: Vec<u8>,
    window: RefCell<Tally>,
    begun: Cell<u64>,
    next_slot: Cell<Instant>,
    stopping: watch::Receiver<bool>,
}

async fn drive(
    plan: &Plan,
    mut on_interval: impl FnMut(Report),
    stop: impl Future<Output = ()>,
) -> Report {
    let start = Instant::now();
    let (stopper, stopping) = watch::channel(false);
    let request = |connection| {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{connection}\r\n",
            plan.path, plan.target
        )
        .into_bytes()
    };
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        keep_alive: request(""),
        close: request("Connection: close\r\n"),
        window: RefCell::default(),
        begun: Cell::new(0),
        next_slot: Cell::new(start),
        stopping,
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..plan.concurrency {
        workers.spawn_local(worker(Rc::clone(&shared)));
    }
    let mut total = Tally::default();
    let mut window_start = start;
    let mut tick = tokio::time::interval_at(start + plan.interval, plan.interval);
    let end = sleep(plan.time);
    tokio::pin!(stop, end);
    let mut running = true;
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                None => break,
                Some(Ok(())) => {}
                Some(Err(err)) => std::panic::resume_unwind(err.into_panic()),
            },
            _ = tick.tick() => {
                let window = shared.window.take();
                total.merge(&window);
                on_interval(window.report(start.elapsed(), window_start.elapsed()));
                window_start = Instant::now();
            }
            () = &mut end, if running => {
                running = false;
                let _ = stopper.send(true);
            }
            () = &mut stop, if running => {
                running = false;
                let _ = stopper.send(true);
            }
        }
    }
    total.merge(&shared.window.take());
    total.report(start.elapsed(), start.elapsed())
}

async fn worker(shared: Rc<Shared>) {
    while let Some(turn) = shared.next_connection() {
        let mut connection = Connection::default();
        if let Err(failure) = connection.run(&shared, turn).await {
            let backend = connection
                .identity
                .as_ref()
                .map(|identity| identity.backend.as_str());
            let client = connection
                .client
                .map_or("no address".to_owned(), |addr| addr.to_string());
            shared
                .window
                .borrow_mut()
                .failed(backend, &client, &failure);
            shared.pause(sleep(AFTER_FAILURE)).await;
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The number of the next connection, if there is to be one.
    fn next_connection(&self) -> Option<u64> {
        let turn = self.begun.get();
        let enough = self.plan.connections.is_some_and(|most| turn >= most);
        (!enough && !self.is_stopping()).then(|| {
            self.begun.set(turn + 1);
            turn
        })
    }

    /// Waits for the next request's time; false if the load ends before.
    async fn pace(&self) -> bool {
        if let Some(rate_per_s) = self.plan.rate_per_s {
            let earliest = Instant::now()
                .checked_sub(MOST_BEHIND)
                .unwrap_or_else(Instant::now);
            let slot = self.next_slot.get().max(earliest);
            self.next_slot
                .set(slot + Duration::from_secs_f64(1.0 / rate_per_s));
            self.pause(sleep_until(slot)).await;
        }
        !self.is_stopping()
    }

    /// Waits, but not longer than the load lasts.
    async fn pause(&self, wait: impl Future<Output = ()>) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = wait => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// Who answers a connection.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    backend: String,
    connection: String,
}

#[derive(Debug, Default)]
struct Connection {
    client: Option<SocketAddr>,
    identity: Option<Identity>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn run(&mut self, shared: &Shared, turn: u64) -> Result<(), Failure> {
        // The pace of the first request is that of its connection.
        if !shared.pace().await {
            return Ok(());
        }
        shared.window.borrow_mut().attempt();
        let started = Instant::now();
        let connecting = timeout(shared.plan.connect_timeout, connect(&shared.plan, turn)).await;
        let mut stream = connecting.map_err(|_| {
            let patience = shared.plan.connect_timeout;
            Failure::new(
                ErrorKind::ConnectTimeout,
                format!("no handshake in {patience:?}"),
            )
        })??;
        shared.window.borrow_mut().connected(started.elapsed());
        self.client = stream.local_addr().ok();
        let mut sent = 0;
        loop {
            sent += 1;
            let last = shared.plan.requests_per_connection == Some(sent);
            let started = Instant::now();
            timeout(
                shared.plan.timeout,
                self.exchange(&mut stream, shared, last, started),
            )
            .await
            .unwrap_or_else(|_| {
                let patience = shared.plan.timeout;
                Err(Failure::new(
                    ErrorKind::Timeout,
                    format!("request {sent}: no complete answer in {patience:?}"),
                ))
            })?;
            if last || !shared.pace().await {
                return Ok(());
            }
        }
    }

    async fn exchange(
        &mut self,
        stream: &mut TcpStream,
        shared: &Shared,
        last: bool,
        started: Instant,
    ) -> Result<(), Failure> {
        stream
            .write_all(if last {
                &shared.close
            } else {
                &shared.keep_alive
            })
            .await?;
        self.buffer.clear();
        loop {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Failure::new(
                    ErrorKind::Closed,
                    "closed instead of an answer",
                ));
            }
            let bad = |text| Failure::new(ErrorKind::BadResponse, text);
            let Some(head) = Head::parse(&self.buffer).map_err(bad)? else {
                continue;
            };
            if self.buffer.len() < head.total_bytes() {
                continue;
            }
            if self.buffer.len() > head.total_bytes() {
                return Err(bad("something behind the answer".into()));
            }
            let first = check(&mut self.identity, &head)?;
            let backend = &self.identity.as_ref().expect("checked").backend;
            shared
                .window
                .borrow_mut()
                .answered(backend, first, started.elapsed());
            break;
        }
        if last {
            // The server closes: its FIN is part of the answer.
            match stream.read_buf(&mut self.buffer).await? {
                0 => {}
                _ => {
                    return Err(Failure::new(
                        ErrorKind::BadResponse,
                        "something behind the last answer",
                    ));
                }
            }
        }
        Ok(())
    }
}

async fn connect(plan: &Plan, turn: u64) -> io::Result<TcpStream> {
    let socket = if plan.target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(sources) = plan.sources {
        // The port is chosen when the target is known: the same one may serve many targets.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(sources.nth(turn), 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(plan.target).await
}

/// Compares an answer with those before it; true if it is the connection's first.
fn check(identity: &mut Option<Identity>, head: &Head<'_>) -> Result<bool, Failure> {
    let field = |name| {
        let missing = || Failure::new(ErrorKind::BadResponse, format!("no {name}"));
        head.field(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(missing)
    };
    if head.status != 200 {
        return Err(Failure::new(
            ErrorKind::BadStatus,
            format!("status {}", head.status),
        ));
    }
    let (backend, connection) = (field("X-Backend")?, field("X-Connection")?);
    let Some(known) = identity else {
        *identity = Some(Identity {
            backend: backend.to_owned(),
            connection: connection.to_owned(),
        });
        return Ok(true);
    };
    if known.backend != backend {
        let detail = format!("{backend} answers on a connection of {}", known.backend);
        return Err(Failure::new(ErrorKind::BackendChanged, detail));
    }
    if known.connection != connection {
        let detail = format!("connection {connection} answers on {}", known.connection);
        return Err(Failure::new(ErrorKind::ConnectionChanged, detail));
    }
    Ok(false)
}
