//! What can go wrong, as text, next step and exit code.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{User, getuid};
use shifter_common::wire::Refusal;

use crate::render::counted;

/// Why a command was not done. `Display` says what happened, [`Failure::help`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// shifterd said no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// `apply` was done in part: files have problems or changes were refused.
    #[error(
        "{} refused, {} in files",
        counted(*.refused_count as u64, "change"),
        counted(*.problems_count as u64, "problem")
    )]
    NotAllApplied {
        /// Changes refused.
        refused_count: usize,
        /// Problems in files.
        problems_count: usize,
    },
    /// A rollout ended without its version.
    #[error("the rollout of {version} of {service} ended as {detail}")]
    WentBack {
        /// The service.
        service: String,
        /// The version.
        version: String,
        /// Where it ended, and why.
        detail: String,
    },
    /// A rollout waits for somebody's word.
    #[error("the rollout of {service} waits for {waiting_on}")]
    NeedsPerson {
        /// The service.
        service: String,
        /// What it waits for.
        waiting_on: String,
        /// The command that gives it.
        command: String,
    },
    /// A rollout is not over in time.
    #[error("the rollout of {service} is not over within {timeout:?}: it is in {detail}")]
    StillUnderWay {
        /// The service.
        service: String,
        /// Where it is.
        detail: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// There is nothing to wait for.
    #[error("{0} has had no rollout to wait for")]
    NoRollout(String),
    /// There is no socket.
    #[error("shifterd is not reachable: there is no socket {}", .0.display())]
    NoSocket(PathBuf),
    /// This user may not connect.
    #[error("user {user} may not connect to {}", .socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// The user.
        user: String,
    },
    /// The socket is a remnant.
    #[error("shifterd is not reachable: nobody answers on {}", .0.display())]
    NobodyAnswers(PathBuf),
    /// Connecting failed otherwise.
    #[error("shifterd is not reachable: cannot connect to {}: {error}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It ended while it was asked.
    #[error("shifterd closed the connection before it answered")]
    HungUp,
    /// It did not answer.
    #[error("shifterd did not answer within {0:?}")]
    Timeout(Duration),
    /// Something else listens, or a shifterd of another version.
    #[error("the answer on {} is not shifterd's: {what}", .socket.display())]
    Strange {
        /// The socket.
        socket: PathBuf,
        /// What is strange.
        what: String,
    },
    /// The audit is not what was written.
    #[error("the audit is broken: {0}")]
    AuditBroken(String),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// `lint` and `doctor` need the daemon's program.
    #[error("shifterd is neither in {} nor in PATH", .0.display())]
    NoShifterd(PathBuf),
    /// The daemon's program was run and has said what is wrong.
    #[error("shifterd found problems")]
    ShifterdFailed,
    /// The daemon's program did not end by itself.
    #[error("{program} was ended by signal {signal}")]
    ShifterdKilled {
        /// Path of the program.
        program: String,
        /// Number of the signal.
        signal: i32,
    },
    /// A system call of this program failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

impl Failure {
    /// Why connecting to `socket` failed.
    pub fn connecting(socket: &Path, error: io::Error) -> Self {
        let socket = socket.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoSocket(socket),
            io::ErrorKind::ConnectionRefused => Self::NobodyAnswers(socket),
            io::ErrorKind::PermissionDenied => {
                let uid = getuid();
                let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
                Self::Denied {
                    socket,
                    user: user.unwrap_or_else(|| uid.to_string()),
                }
            }
            _ => Self::Unreachable { socket, error },
        }
    }

    /// What to do; several lines if there are several things.
    pub fn help(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.help.clone(),
            Self::NotAllApplied { .. } => "mend what is named above, then: shifterctl apply".into(),
            Self::WentBack { service, .. } => format!(
                "why, step by step: shifterctl status {service}\n\
                 to try the same again: shifterctl retry {service}"
            ),
            Self::NeedsPerson {
                service, command, ..
            } => format!("{command}\nto take the traffic back: shifterctl abort {service}"),
            Self::StillUnderWay { service, .. } => {
                format!("it goes on; wait on: shifterctl status --wait {service}")
            }
            Self::NoRollout(service) => format!("begin one: shifterctl start {service} VERSION"),
            Self::NoSocket(_) => "systemctl start shifterd\n\
                 if it listens elsewhere: --socket PATH or SHIFTER_SOCKET"
                .into(),
            Self::Denied { user, .. } => format!(
                "to read: usermod -aG shifter-view {user}\n\
                 to change: usermod -aG shifter {user}\n\
                 then log in again"
            ),
            Self::NobodyAnswers(_) => "systemctl restart shifterd; traffic stays steered as it \
                                       was\nwhy it ended: journalctl -u shifterd -e"
                .into(),
            Self::Unreachable { .. } => "systemctl status shifterd".into(),
            Self::HungUp => "a change may be in force or not: shifterctl status\n\
                             why it ended: journalctl -u shifterd -e"
                .into(),
            Self::Timeout(_) => "a change may be in force or not: shifterctl status\n\
                                 more time: --request-timeout 60s\n\
                                 what it does: journalctl -u shifterd -e"
                .into(),
            Self::Strange { .. } => {
                "shifterctl and shifterd should have one version: shifterctl --version; \
                 shifterd --version"
                    .into()
            }
            Self::NoShifterd(_) => "install shifterd, or add its directory to PATH".into(),
            Self::AuditBroken(_) => "keep what is there: shifterctl audit export > audit.jsonl\n\
                 what the journal knows of it: journalctl -u shifterd --grep audit_seq"
                .into(),
            Self::NoFile { .. } => String::new(),
            Self::ShifterdFailed => String::new(),
            Self::ShifterdKilled { program, .. } => format!("run it by hand: {program} --help"),
            Self::Io { .. } => String::new(),
        }
    }

    /// 1 refused, failed or rolled back, 3 timeout, 4 waits for a person, 5 not reachable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { error, .. } if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Refused(_)
            | Self::NotAllApplied { .. }
            | Self::WentBack { .. }
            | Self::NoRollout(_)
            | Self::Strange { .. }
            | Self::AuditBroken(_)
            | Self::NoFile { .. }
            | Self::NoShifterd(_)
            | Self::ShifterdFailed
            | Self::ShifterdKilled { .. }
            | Self::Io { .. } => 1,
            Self::Timeout(_) | Self::StillUnderWay { .. } => 3,
            Self::NeedsPerson { .. } => 4,
            Self::NoSocket(_)
            | Self::Denied { .. }
            | Self::NobodyAnswers(_)
            | Self::Unreachable { .. }
            | Self::HungUp => 5,
        }
    }

    /// Whether there is nothing to say: the reader is gone, or somebody else has said it.
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Io { error, .. } => error.kind() == io::ErrorKind::BrokenPipe,
            Self::ShifterdFailed => true,
            _ => false,
        }
    }
}
