//! Measures shifter beside its peers. `cargo xtask bench` builds and runs it, as root.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use shifter_tests::bench::{
    change, end_to_end, machine, markdown, packets, pictures, results::Results, way::Way,
};

/// Measures packets through the programs, requests end to end and changes of weight.
///
/// Writes results.json, results.md and pictures into a directory.
#[derive(Debug, Parser)]
#[command(name = "shifter-bench")]
struct Args {
    /// The bench's kernel object
    #[arg(long)]
    object: PathBuf,
    /// Where the results go
    #[arg(long)]
    out: PathBuf,
    /// Measure this part only; may be given again
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// Two minutes instead of a quarter of an hour
    #[arg(long)]
    quick: bool,
    /// Rounds of the end-to-end part, and packet batches in proportion
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: Option<u16>,
    /// Packet rows whose name contains this
    #[arg(long, default_value = "")]
    rows: String,
    /// Another object of shifter, whose packet rows are measured beside the built-in one's
    #[arg(long)]
    against: Option<PathBuf>,
    /// Show results that are there already: read results.json, write the rest
    #[arg(long)]
    render: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Packets through the programs
    Packets,
    /// Requests through the whole way
    EndToEnd,
    /// Weights changed under load
    Change,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effort {
    batches: usize,
    rounds: usize,
    measurement_s: u64,
    changes: usize,
}

impl Effort {
    fn of(quick: bool, rounds: Option<u16>) -> Self {
        let usual = if quick {
            Self {
                batches: 10,
                rounds: 2,
                measurement_s: 1,
                changes: 40,
            }
        } else {
            Self {
                batches: 80,
                rounds: 8,
                measurement_s: 2,
                changes: 600,
            }
        };
        match rounds.map(usize::from) {
            None => usual,
            Some(rounds) => Self {
                batches: (usual.batches * rounds / usual.rounds).max(1),
                rounds,
                ..usual
            },
        }
    }
}

/// Says what goes on, a line at a time.
struct Progress {
    begun: Instant,
}

impl Progress {
    fn tell(&self, what: &str) {
        println!("{:>4} s  {what}", self.begun.elapsed().as_secs());
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let file = args.out.join("results.json");
    let results = if args.render {
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} holds no results of this bench", file.display()))?
    } else {
        let results = measure(&args)?;
        fs::write(&file, serde_json::to_string_pretty(&results)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
        results
    };
    show(&results, &args.out)
}

fn measure(args: &Args) -> anyhow::Result<Results> {
    let asked = |part| args.parts.is_empty() || args.parts.contains(&part);
    let effort = Effort::of(args.quick, args.rounds);
    let progress = Progress {
        begun: Instant::now(),
    };
    let mut results = Results {
        machine: machine::describe(),
        quick: args.quick,
        ..Results::default()
    };
    if asked(Part::Packets) {
        ensure!(
            packets::all()
                .iter()
                .any(|case| case.id().contains(&args.rows)),
            "no packet row has {:?} in its name",
            args.rows
        );
        let read = |file: &PathBuf| {
            let read = fs::read(file);
            read.with_context(|| format!("cannot read the kernel object {}", file.display()))
        };
        let object = read(&args.object)?;
        let against = args.against.as_ref().map(read).transpose()?;
        let tell = |what: &str| progress.tell(what);
        let effort = packets::Effort {
            object: &object,
            against: against.as_deref(),
            rounds: effort.batches,
            only: &args.rows,
        };
        results.packets = Some(packets::measure(effort, tell));
    }
    if asked(Part::EndToEnd) {
        results.end_to_end = Some(end_to_end::measure(
            &Way::MEASURED,
            effort.rounds,
            effort.measurement_s,
            |what| progress.tell(what),
        ));
    }
    if asked(Part::Change) {
        let tell = |what: &str| progress.tell(what);
        results.change = Some(change::measure(&Way::MOVABLE, effort.changes, tell));
    }
    Ok(results)
}

fn show(results: &Results, out: &Path) -> anyhow::Result<()> {
    let mut files = pictures::all(results);
    files.push(("results.md", markdown::render(results)));
    for (name, content) in files {
        let file = out.join(name);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_change_the_effort_in_proportion() {
        let usual = Effort::of(false, None);
        assert_eq!((usual.batches, usual.rounds, usual.changes), (80, 8, 600));
        assert_eq!(Effort::of(false, Some(4)).batches, 40);
        assert_eq!(Effort::of(true, Some(1)).batches, 5);
        assert_eq!(Effort::of(true, Some(1)).rounds, 1);
    }

    #[test]
    fn arguments_name_parts() {
        let parse = |words: &str| {
            let own = "shifter-bench --object o --out d ".to_owned() + words;
            Args::try_parse_from(own.split_whitespace())
        };
        let args = parse("--part packets --part end-to-end").expect("two parts");
        assert_eq!(args.parts, [Part::Packets, Part::EndToEnd]);
        assert!(parse("--part nothing").is_err());
        assert!(parse("--rounds 0").is_err());
    }
}
