//! `cargo xtask bench`: shifter measured beside its peers. The work is done by `shifter-bench` of the
//! tests package, as root.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    build::{self, Profile},
    process::{self, Job},
    screen::{self, Mark},
    setup::{
        packages::{self, Purpose},
        toolchain,
    },
    workspace::Workspace,
};

/// The program that measures.
const PROGRAM: &str = "shifter-bench";
/// A full run takes a quarter of an hour on a quiet machine; asked-for rounds may take longer.
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Measure this part only; may be given again.
    #[arg(long = "part", value_name = "PART", value_enum)]
    parts: Vec<Part>,
    /// Two minutes instead of a quarter of an hour: good for a look.
    #[arg(long)]
    quick: bool,
    /// Rounds of the end-to-end part, and packet batches in proportion.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: Option<u16>,
    /// Packet rows whose name contains this, such as `reply` or `xdp/v4`.
    #[arg(long, value_name = "TEXT")]
    rows: Option<String>,
    /// Another build of shifter.o, such as one from before a change, whose packet rows are measured
    /// beside this build's.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Packets through the programs.
    Packets,
    /// Requests from client to backend and back.
    EndToEnd,
    /// Weights changed under load.
    Change,
}

impl Part {
    const fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::EndToEnd => "end-to-end",
            Self::Change => "change",
        }
    }
}

/// Runs `cargo xtask bench`.
///
/// # Errors
/// Something cannot be installed, built or measured, or there is no root to measure as.
pub fn run(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    screen::heading("What the bench needs");
    packages::ensure(workspace, &[Purpose::Bench])?;
    let toolchain = toolchain::ensure(workspace)?;
    build::kernel(workspace, &toolchain, build::LIMIT)?;
    binaries(workspace)?;
    let out = workspace.target.join("bench");
    let command = command(arguments, workspace)?;
    screen::heading("Measuring");
    let log = workspace.log("bench");
    // The last run's output would stand before this one's.
    let _ = fs::remove_file(&log);
    let took = process::run(Job::new("bench", command, &log, LIMIT))?.success("bench")?;
    screen::line(
        Mark::Good,
        "bench",
        &format!(
            "{} with results.md, results.json and pictures, {}",
            workspace.relative(&out),
            screen::seconds(took)
        ),
    );
    let results = out.join("results.md");
    let text = fs::read_to_string(&results)
        .with_context(|| format!("cannot read {}", results.display()))?;
    println!("\n{text}");
    Ok(ExitCode::SUCCESS)
}

/// Builds shifterd and the program that measures in one go.
fn binaries(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = build::binaries_cargo(workspace, Profile::Release);
    command.args(["--package=shifter-tests", "--bins"]);
    let log = workspace.log("bench-build");
    let _ = fs::remove_file(&log);
    let took = process::run(Job::new("binaries", command, &log, build::LIMIT))?;
    let took = took.success("binaries")?;
    let fact = format!("shifterd and {PROGRAM}, {}", screen::seconds(took));
    screen::line(Mark::Good, "binaries", &fact);
    Ok(())
}

/// The program that measures, as root.
fn command(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<Command> {
    let binaries = workspace.target.join(Profile::Release.directory());
    let shifterd = binaries.join("shifterd");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let variables = [
        ("PATH", path.as_os_str()),
        ("SHIFTERD", shifterd.as_os_str()),
    ];
    let program = binaries.join(PROGRAM);
    let Some(mut command) = workspace.identity.elevate(program.as_os_str(), &variables) else {
        bail!(
            "the bench loads programs and makes network namespaces, which takes root: run it as \
             root, or run `sudo -v` first"
        );
    };
    command.args(words(arguments, workspace));
    Ok(command)
}

/// The arguments of the program that measures.
fn words(arguments: &Arguments, workspace: &Workspace) -> Vec<OsString> {
    let Arguments {
        parts,
        quick,
        rounds,
        rows,
        against,
    } = arguments;
    let target = |name: &str| -> PathBuf { workspace.target.join(name) };
    let object = target("bpf").join(build::BENCH_OBJECT);
    let mut words: Vec<OsString> = vec!["--object".into(), object.into()];
    words.extend(["--out".into(), target("bench").into()]);
    for part in parts {
        words.extend(["--part", part.word()].map(OsString::from));
    }
    if *quick {
        words.push("--quick".into());
    }
    if let Some(rounds) = rounds {
        words.extend([OsStr::new("--rounds").into(), rounds.to_string().into()]);
    }
    if let Some(rows) = rows {
        words.extend(["--rows".into(), rows.into()]);
    }
    if let Some(against) = against {
        words.extend(["--against".into(), against.into()]);
    }
    words
}
