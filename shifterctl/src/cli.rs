//! The command line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use clap_complete::Shell;
use shifter_common::wire::{EstablishedPolicy, Slot, StartStep};

use crate::{interval, percent};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, failed or rolled back
  2  the command line is wrong
  3  shifterd did not answer in time, or --timeout is over
  4  a rollout waits for a person
  5  shifterd is not reachable";

/// Show and change what shifterd steers.
#[derive(Debug, Parser)]
#[command(name = "shifterctl", version, about, after_help = EXIT_CODES, max_term_width = 80)]
pub struct Arguments {
    /// What is printed: a table for people, the control API's JSON, or Markdown
    /// (`history --record` only)
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    #[arg(value_name = "FORMAT")]
    pub output: Output,

    /// Control socket of shifterd
    #[arg(long, global = true, env = "SHIFTER_SOCKET", hide_env_values = true)]
    #[arg(default_value = "/run/shifter/shifter.sock", value_name = "PATH")]
    pub socket: PathBuf,

    /// Time that shifterd has for its answer, such as 500ms or 30s
    #[arg(long, global = true, default_value = "10s", value_parser = interval::parse)]
    #[arg(value_name = "TIME")]
    pub request_timeout: Duration,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Format of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people, 80 columns.
    Table,
    /// The wire types of the control API.
    Json,
    /// A document.
    Markdown,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show services, slots, backends, interfaces and the last events
    ///
    /// The column `share` is a slot's part of all flows selected since its first use; with --watch
    /// it is its part of the flows selected since the last redraw. `resets c/b` are flows reset by
    /// the client and by the backend.
    Status(Status),

    /// Read the service files again and put them in force
    Apply,

    /// Set the canary's share of new flows
    SetWeight {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Percentage, to 0.01: 5, 0.5%, 12.34
        #[arg(value_parser = percent::parse, allow_hyphen_values = true)]
        #[arg(value_name = "PERCENT")]
        weight_bp: u16,
    },

    /// Bring a version to its traffic, by the plan of the service's file
    ///
    /// It goes on by itself; follow it with: shifterctl status --wait SERVICE
    Start(Start),

    /// Go on where a rollout waits for a person
    Promote {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Leave the present step now, whatever its bake and judgement
        #[arg(long)]
        skip_step: bool,
        /// Everything to the new version now
        #[arg(long, conflicts_with_all = ["skip_step", "step"])]
        full: bool,
        /// Only from this step, so that a repeated command goes on once
        #[arg(long, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
        step: Option<u16>,
    },

    /// Let a rollout stand still; a bad version is taken back all the same
    Pause {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Let a paused rollout go on
    Resume {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Take a rollout's traffic back, in one store, and end it
    Abort {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Try a rollout again that failed or was rolled back
    Retry {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Give the traffic back to the version before the one that serves
    Undo {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Say yes to a gate that asks a person
    Approve {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Name of the gate
        gate: String,
    },

    /// Say no to a gate that asks a person
    Reject {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Name of the gate
        gate: String,
    },

    /// Take all new flows back to the baseline, in one store
    ///
    /// A rollout that is under way ends with that.
    Rollback {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// What happens to the canary's established flows [default: as the service file says]
        #[arg(long, value_parser = established(), value_name = "POLICY")]
        established: Option<EstablishedPolicy>,
    },

    /// Send no new flows to a slot, until it is undone
    Drain {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// The slot
        #[arg(value_parser = slot())]
        slot: Slot,
        /// Allow new flows again
        #[arg(long)]
        undo: bool,
    },

    /// Let new flows go around shifter, to one version, until it is undone
    Bypass {
        /// Name of the service
        #[arg(value_parser = service, required_unless_present = "all")]
        #[arg(conflicts_with = "all")]
        service: Option<String>,
        /// Every service
        #[arg(long)]
        all: bool,
        /// Steer new flows again
        #[arg(long)]
        undo: bool,
    },

    /// List the flows of a service, newest first
    Flows {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Flows shown at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },

    /// Tell why the kernel took a version out of traffic, or did not
    Explain {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
    },

    /// Show what a rollout to a version would do, and when; nothing is started
    Plan {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// Label of the version, such as 3.2.0
        #[arg(value_parser = version)]
        version: String,
    },

    /// Show the revisions and rollouts of a service, or one rollout
    History {
        /// Name of the service
        #[arg(value_parser = service)]
        service: String,
        /// The record of this rollout, as the audit tells it
        #[arg(long, value_name = "ID")]
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        record: Option<u64>,
    },

    /// Show, verify or export who did what
    #[command(subcommand)]
    Audit(Audit),

    /// Check the files, as shifterd does at its start
    Lint {
        /// Node files [default: the installed one]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },

    /// Take all programs off the interfaces
    Detach {
        /// Do so although live flows will break
        #[arg(long)]
        force: bool,
    },

    /// Look at the host, say what is missing and how to mend it
    Doctor {
        /// Node file [default: the installed one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },

    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// `audit`
#[derive(Clone, Debug, Subcommand)]
pub enum Audit {
    /// Show records, oldest first
    Show {
        /// Only those of this service
        #[arg(value_parser = service)]
        service: Option<String>,
        /// Those that follow this record [default: the newest]
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// Records shown at most
        #[arg(long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },

    /// Follow the chain of hashes, and name the first record that breaks it
    Verify {
        /// Records that were exported; no daemon is asked; - for standard input
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Hold it against the seals in the journal of this host
        #[arg(long)]
        journal: bool,
        /// Hold it against the seals in a log of shifterd
        #[arg(long, value_name = "PATH", conflicts_with = "journal")]
        journal_file: Option<PathBuf>,
    },

    /// Print all records, one a line, as they were written
    Export {
        /// Those that follow this record [default: all]
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
}

/// `status`
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// Show only this service
    #[arg(value_parser = service)]
    pub service: Option<String>,
    /// Show it again and again until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two redraws
    #[arg(long, default_value = "1s", value_parser = interval::parse, requires = "watch")]
    #[arg(value_name = "TIME")]
    pub interval: Duration,
    /// Wait until its rollout is over, or needs a person
    #[arg(long, requires = "service", conflicts_with = "watch")]
    pub wait: bool,
    /// How long to wait at most [default: for ever]
    #[arg(long, value_parser = interval::parse, requires = "wait", value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// `start`
#[derive(Args, Clone, Debug)]
pub struct Start {
    /// Name of the service
    #[arg(value_parser = service)]
    pub service: String,
    /// Label of the version, such as 3.2.0
    #[arg(value_parser = version)]
    pub version: String,
    /// Another strategy than the file's, or a preset such as 5-20-50
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// Other steps than the file's, such as 5:5m,20:10m,pause,50:10m
    #[arg(long, value_parser = steps, value_name = "STEPS")]
    pub steps: Option<Steps>,
    /// How long steps are held that do not say it themselves
    #[arg(long, value_parser = interval::parse, value_name = "TIME")]
    pub bake: Option<Duration>,
}

/// Steps of a rollout; of one argument.
#[derive(Clone, Debug, Default)]
pub struct Steps(pub Vec<StartStep>);

fn steps(text: &str) -> Result<Steps, String> {
    crate::steps::parse(text).map(Steps)
}

impl Arguments {
    /// What clap cannot check.
    ///
    /// # Errors
    /// If a format is asked for that the command has not.
    pub fn checked(self) -> Result<Self, clap::Error> {
        let has_document = matches!(
            self.command,
            Command::History {
                record: Some(_),
                ..
            }
        );
        if self.output == Output::Markdown && !has_document {
            return Err(clap::Error::raw(
                ErrorKind::ArgumentConflict,
                "Markdown is for the record of a rollout\nhelp: shifterctl history SERVICE --record ID \
                 -o markdown",
            ));
        }
        Ok(self)
    }
}

fn service(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a service has a name\nhelp: see which there are: shifterctl status".into());
    }
    Ok(text.to_owned())
}

fn version(text: &str) -> Result<String, String> {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(may) {
        return Err(
            "it cannot name a version\nhelp: use 1 to 64 letters, digits, \".\", \"_\", \"+\" \
                    and \"-\", such as 3.2.0"
                .into(),
        );
    }
    Ok(text.to_owned())
}

fn slot() -> impl TypedValueParser<Value = Slot> {
    PossibleValuesParser::new(["a", "b"]).map(|text| if text == "a" { Slot::A } else { Slot::B })
}

fn established() -> impl TypedValueParser<Value = EstablishedPolicy> {
    PossibleValuesParser::new(["drain", "reset", "reset-idle"]).map(|text| match text.as_str() {
        "reset" => EstablishedPolicy::Reset,
        "reset-idle" => EstablishedPolicy::ResetIdle,
        _ => EstablishedPolicy::Drain,
    })
}

/// Prints what clap found, or the help that was asked for.
pub fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that closed early has seen what it wanted.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            eprintln!("{}", with_help(&error.render().to_string()));
            ExitCode::from(2)
        }
    }
}

/// clap's text with the last line as in all other errors.
fn with_help(text: &str) -> String {
    let text = text
        .trim_end()
        .trim_end_matches("For more information, try '--help'.")
        .trim_end();
    if text.contains("\nhelp: ") {
        return text.to_owned();
    }
    // clap prints the usage of the subcommand that was tried, if it got that far.
    let command = text
        .split_once("Usage: shifterctl ")
        .and_then(|(_, usage)| {
            let word = usage.split_whitespace().next()?;
            word.starts_with(|c: char| c.is_ascii_lowercase())
                .then_some(word)
        });
    match command {
        Some(command) => format!("{text}\nhelp: shifterctl {command} --help"),
        None => format!("{text}\nhelp: shifterctl --help"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_fits_80_columns() {
        let mut command = Arguments::command();
        command.build();
        let mut texts = vec![command.render_long_help().to_string()];
        for subcommand in command.get_subcommands_mut() {
            texts.push(subcommand.render_long_help().to_string());
        }
        assert!(texts.len() > 10);
        for line in texts.iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn markdown_is_for_one_rollout() {
        let rows: &[(&[&str], bool)] = &[
            (&["history", "orders", "--record", "4"], true),
            (&["history", "orders"], false),
            (&["status"], false),
        ];
        for (command, is_right) in rows {
            let row = ["shifterctl", "-o", "markdown"].iter().chain(*command);
            let parsed = Arguments::try_parse_from(row).and_then(Arguments::checked);
            assert_eq!(parsed.is_ok(), *is_right, "{command:?}");
            if let Err(error) = parsed {
                let text = with_help(&error.render().to_string());
                assert!(
                    text.contains(
                        "Markdown is for the record of a rollout\nhelp: shifterctl history SERVICE \
                         --record ID -o markdown"
                    ),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn global_options_go_anywhere() {
        let rows: &[&[&str]] = &[
            &["shifterctl", "-o", "json", "--socket", "/s", "status"],
            &["shifterctl", "status", "-o", "json", "--socket", "/s"],
        ];
        for row in rows {
            let arguments = Arguments::try_parse_from(*row).unwrap();
            assert_eq!(arguments.output, Output::Json);
            assert_eq!(arguments.socket, PathBuf::from("/s"));
            assert_eq!(arguments.request_timeout, Duration::from_secs(10));
        }
    }
}
