//! A program that must end with 0, run without rights.

use std::{io, process::Stdio, time::Duration};

use nix::{
    sys::{
        prctl,
        signal::{Signal, killpg},
    },
    unistd::{Pid, User, getuid},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};

use super::said;

/// Bytes of each output that are kept.
const OUTPUT_MAX_BYTES: u64 = 16 * 1_024;
/// How long the rest of what it said is waited for, once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a program with its arguments as a user, with an empty environment, in `/`, with no way to gain
/// rights. Its whole process group ends with the question.
///
/// # Errors
/// How it ended and what it said last, or why it could not be run.
pub async fn run(arguments: &[String], user: &str) -> Result<(), String> {
    let Some((program, arguments)) = arguments.split_first() else {
        return Err("it names no program".into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    become_user(&mut command, user)?;
    // SAFETY: between fork and exec only a system call is made; it takes no lock and no memory.
    unsafe {
        command.pre_exec(|| prctl::set_no_new_privs().map_err(io::Error::from));
    }
    let child = command.spawn();
    let mut child = child.map_err(|error| format!("cannot run {program}: {error}"))?;
    let group = Group::of(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let told = tokio::spawn(first_bytes(err));
    let heard = tokio::spawn(first_bytes(out));
    let status = child.wait().await;
    // Whom it has left behind would keep its output open.
    drop(group);
    let told = tokio::time::timeout(LAST_WORDS, told).await;
    heard.abort();
    let err = told.ok().and_then(Result::ok).unwrap_or_default();
    let status = status.map_err(|error| format!("waiting for {program}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let ended = match status.code() {
        Some(code) => format!("{program} ended with {code}"),
        None => format!("{program} was ended: {status}"),
    };
    Err(match said(&err).as_str() {
        "" => ended,
        text => format!("{ended}: {text}"),
    })
}

/// Whoever runs as root gives its rights away; anybody else has no others to give.
fn become_user(command: &mut Command, name: &str) -> Result<(), String> {
    let found =
        User::from_name(name).map_err(|error| format!("looking for user {name}: {error}"))?;
    let user =
        found.ok_or_else(|| format!("there is no user {name}: name one who may run the gate"))?;
    let own = getuid();
    if own.is_root() {
        // The supplementary groups go with it.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        return Ok(());
    }
    if own == user.uid {
        return Ok(());
    }
    Err(format!(
        "shifterd runs as uid {own} and cannot become {name}"
    ))
}

/// Reads to the end and keeps the beginning, so that no program waits for a reader.
async fn first_bytes(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    // What cannot be read was not said.
    let _ = (&mut stream)
        .take(OUTPUT_MAX_BYTES)
        .read_to_end(&mut kept)
        .await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    kept
}

/// The processes of a gate; they end when nobody waits for them any more.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended altogether.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
