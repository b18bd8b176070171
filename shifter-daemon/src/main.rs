//! `shifterd`: the daemon's command line and start.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use shifter_daemon::{
    api, config_files,
    dataplane::bpf::{BpfDataplane, CaptureNews, Lease, bypass_pinned, detach_pinned},
    doctor,
    driver::{Driver, DriverHandle, Request},
    metrics,
    model::{NodeSpec, ServiceSpec},
    probe::Prober,
    state::StateFile,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// Requests that may wait for the driver.
const CALLS_WAITING_COUNT: usize = 256;
/// Changes of health that may wait for the driver.
const PROBES_WAITING_COUNT: usize = 1_024;

/// Steers new connections between the two versions of each service, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "shifterd", version, about)]
struct Arguments {
    /// Node file.
    #[arg(long, default_value = "/etc/shifter/shifter.toml", value_name = "FILE")]
    config: PathBuf,
    /// Read all files, report every problem and exit: 0 if there is none, 1 if there are.
    #[arg(long, conflicts_with = "doctor")]
    check: bool,
    /// Look at the host, say what is missing and how to mend it, and exit.
    #[arg(long)]
    doctor: bool,
    /// Without a running shifterd: take all programs off, remove everything that is pinned, and exit.
    #[arg(long, conflicts_with_all = ["check", "doctor"])]
    detach: bool,
    /// Without a running shifterd: send the new connections of all services around it, and exit.
    #[arg(long, conflicts_with_all = ["check", "doctor", "detach"])]
    bypass: bool,
    /// With --detach: leave what --bypass did.
    #[arg(long, requires = "detach")]
    keep_bypass: bool,
    /// With --detach: although connections will break.
    #[arg(long, requires = "detach")]
    force: bool,
    /// With --check or --doctor: print JSON.
    #[arg(long)]
    json: bool,
    /// Let the kernel programs log when they meet tables that contradict each other.
    #[arg(long)]
    kernel_log: bool,
    /// How log lines are written to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.check {
        check(&arguments.config, arguments.json)
    } else if arguments.doctor {
        examine(&arguments.config, arguments.json)
    } else if arguments.detach {
        detach(&arguments)
    } else if arguments.bypass {
        bypass(&arguments.config)
    } else {
        start_log(arguments.log_format);
        steer(&arguments.config, arguments.kernel_log)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("shifterd: {error:#}");
        ExitCode::FAILURE
    })
}

/// `--check`: the same reading that a start and `apply` do.
fn check(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut problems = Vec::new();
    let mut count = 0;
    match config_files::load_node(config) {
        Ok(node) => {
            let loaded = config_files::load_services(&node.services_dir);
            count = loaded.services.len();
            problems.extend(loaded.diagnostics);
        }
        Err(diagnostics) => problems.extend(diagnostics),
    }
    let outcome = if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if json {
        let text = serde_json::to_string_pretty(&problems).context("writing the problems")?;
        writeln!(io::stdout(), "{text}").context("writing the problems")?;
        return Ok(outcome);
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => println!("{}: ok, {count} service{}", config.display(), plural(count)),
        count => eprintln!("{count} problem{}", plural(count)),
    }
    Ok(outcome)
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `--doctor`.
fn examine(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let node = config_files::load_node(config).ok();
    let services = node
        .as_ref()
        .map(|node| config_files::load_services(&node.services_dir).services);
    let services: Option<Vec<&ServiceSpec>> = services
        .as_ref()
        .map(|services| services.values().collect());
    let report = doctor::run_for(node.as_ref(), services.as_deref());
    let text = if json {
        report.to_json().context("writing the report")?
    } else {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if colour {
            report.render_in_colour()
        } else {
            report.render()
        }
    };
    writeln!(io::stdout(), "{}", text.trim_end()).context("writing the report")?;
    Ok(if report.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The bpffs that the node file names. The file may be gone with the package, or bad: what is pinned is
/// found all the same.
fn bpffs(config: &Path) -> PathBuf {
    config_files::load_node(config).map_or_else(|_| PathBuf::from("/sys/fs/bpf"), |node| node.bpffs)
}

/// `--bypass`.
fn bypass(config: &Path) -> anyhow::Result<ExitCode> {
    let names = bypass_pinned(&bpffs(config))?;
    let done = if names.is_empty() {
        "no service has a version that is ready: nothing was changed".to_owned()
    } else {
        format!("new connections go around shifter: {}", names.join(", "))
    };
    writeln!(io::stdout(), "{done}").context("writing what was done")?;
    Ok(ExitCode::SUCCESS)
}

/// `--detach`.
fn detach(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bpffs = bpffs(&arguments.config);
    let done = detach_pinned(&bpffs, arguments.force, arguments.keep_bypass)?;
    writeln!(io::stdout(), "{done}").context("writing what was done")?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("SHIFTER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        // The journal stamps each line itself.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder
                .without_time()
                .with_ansi(false)
                .with_target(false)
                .init();
        }
        LogFormat::Text => builder.with_ansi(false).with_target(false).init(),
    }
}

fn steer(config: &Path, kernel_log: bool) -> anyhow::Result<ExitCode> {
    let node = config_files::load_node(config).map_err(|diagnostics| {
        let problems: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the node file has problems\n{}", problems.join("\n"))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(node, config.to_owned(), kernel_log))
}

async fn serve(node: NodeSpec, node_file: PathBuf, kernel_log: bool) -> anyhow::Result<ExitCode> {
    let (state, problem) = StateFile::open(&node.state_dir)?;
    if let Some(problem) = problem {
        tracing::error!("{problem}");
    }
    // The signals are caught before anything exists that an early one could leave half done.
    let mut hangup = signal(SignalKind::hangup()).context("catching SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;

    let mut dataplane = BpfDataplane::open(&node)?;
    if let Some(log) = dataplane.log_defects(kernel_log)? {
        tokio::spawn(async move {
            if let Err(error) = log.run().await {
                tracing::warn!("the kernel programs' log ended: {error}");
            }
        });
    }
    let listeners = dataplane.watch_listeners()?;
    let listener = api::bind(&node.control_socket)?;
    let metrics_listener = match node.metrics {
        Some(addr) => Some(
            TcpListener::bind(addr)
                .await
                .with_context(|| format!("listening on {addr} for metrics ([metrics] listen)"))?,
        ),
        None => None,
    };
    let (probes_tx, probes) = mpsc::channel(PROBES_WAITING_COUNT);
    let driver = Driver::start(
        node,
        node_file,
        Box::new(dataplane),
        state,
        Prober::new(probes_tx),
    )?;
    let (handle, calls) = DriverHandle::channel(CALLS_WAITING_COUNT);
    if let Some((lease, news)) = listeners {
        tokio::spawn(renew(lease));
        tokio::spawn(watch_listeners(news, handle.clone()));
    }
    let (stop, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };

    let mut driver = tokio::spawn(driver.run(calls, probes));
    let api = tokio::spawn(api::serve(
        listener,
        handle.clone(),
        api::Access::system(),
        until_stopped(stopped.clone()),
    ));
    let metrics = metrics_listener.map(|listener| {
        tokio::spawn(metrics::serve(
            listener,
            handle.clone(),
            until_stopped(stopped.clone()),
        ))
    });
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("steering");

    loop {
        tokio::select! {
            ended = &mut driver => {
                let ended = ended.context("the driver failed")?;
                tracing::info!(?ended, "stopping");
                break;
            }
            _ = hangup.recv() => reload(&handle).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    // Answers that are under way are sent before the process ends.
    let _ = stop.send(true);
    for server in [Some(api), metrics].into_iter().flatten() {
        match tokio::time::timeout(std::time::Duration::from_secs(2), server).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!("a server ended with: {error}"),
            Ok(Err(error)) => tracing::warn!("a server failed: {error}"),
            Err(_) => tracing::warn!("a client kept its connection; it is cut off"),
        }
    }
    tracing::info!("stopped; traffic stays as it is");
    Ok(ExitCode::SUCCESS)
}

/// Tells the kernel that this process is alive.
async fn renew(lease: Arc<Lease>) {
    let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        second.tick().await;
        lease.renew();
    }
}

/// Has listeners looked at whenever the kernel has news of one.
async fn watch_listeners(mut news: CaptureNews, handle: DriverHandle) {
    loop {
        if let Err(error) = news.wait().await {
            return tracing::warn!(
                "news of listeners ended, they are looked at every 10 s: {error}"
            );
        }
        let looked = handle.call(Request::LookAtListeners, None, Instant::now());
        if looked.await.is_err() {
            // The driver has ended, and with it everything.
            return;
        }
    }
}

/// SIGHUP does what `shifterctl apply` does; its report goes to the log.
async fn reload(handle: &DriverHandle) {
    use shifter_daemon::driver::Reply;
    match handle.call(Request::Apply, None, Instant::now()).await {
        Ok(Reply::Applied(report)) => {
            for diagnostic in &report.diagnostics {
                tracing::error!("{diagnostic}");
            }
            for change in &report.changes {
                tracing::info!(
                    service = %change.service, key = %change.key, before = %change.before,
                    after = %change.after, effect = ?change.effect, reason = %change.reason,
                    "configuration"
                );
            }
        }
        Ok(other) => tracing::error!(?other, "an answer that does not belong to the question"),
        Err(refusal) => tracing::error!("{}: {}", refusal.message, refusal.help),
    }
}

/// Tells systemd, if it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd was not told: {error}");
    }
}
