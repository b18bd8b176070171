//! Processor time of processes, as the scheduler counts it.

use std::{
    fs,
    io::{self, Read as _},
    mem::MaybeUninit,
    os::unix::process::ExitStatusExt as _,
    process,
};

use nix::{libc, unistd::Pid};

/// Names of the kernel's threads that work off interrupts when there are too many of them.
const SOFTIRQ_THREADS: &str = "ksoftirqd/";

/// Nanoseconds that all threads of a process have run (`sum_exec_runtime`), those that have ended
/// not counted. On a kernel without `CONFIG_IRQ_TIME_ACCOUNTING` this holds the interrupts that came
/// meanwhile; on veth a packet's whole way through the stack is run by whoever sent it.
pub fn of_process(pid: Pid) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let paths = tasks.flatten().map(|task| task.path().join("schedstat"));
    paths
        .filter_map(|path| parse_schedstat(&fs::read_to_string(path).ok()?))
        .sum()
}

/// The same of processes.
pub fn of_processes(pids: &[Pid]) -> u64 {
    pids.iter().map(|pid| of_process(*pid)).sum()
}

/// The process itself and all its descendants: a server and its workers.
pub fn family(pid: Pid) -> Vec<Pid> {
    let mut members = vec![pid];
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{member}/task/{member}/children"));
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace();
        members.extend(pids.filter_map(|word| word.parse().ok().map(Pid::from_raw)));
    }
    members
}

/// The kernel's threads for interrupts, of the whole machine.
pub fn softirq_threads() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_one = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with(SOFTIRQ_THREADS))
    };
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_one)
        .map(Pid::from_raw)
        .collect()
}

/// A command that has run.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: process::ExitStatus,
    /// What it said, on both streams.
    pub said: String,
    /// Nanoseconds that it and what it waited for have run. The kernel scales user and system time
    /// so that their sum is the scheduler's, rounded to µs.
    pub ns: u64,
}

/// Runs a command that says no more than fits into a pipe.
///
/// # Errors
/// If it cannot be started or waited for.
pub fn run(command: &mut process::Command) -> io::Result<Ran> {
    command.stdout(process::Stdio::piped());
    command.stderr(process::Stdio::piped());
    #[allow(
        clippy::zombie_processes,
        reason = "wait4 takes the exit status, and with it the time"
    )]
    let mut child = command.spawn()?;
    let (status, ns) = wait(&child)?;
    let mut said = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut said)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut said)?;
    }
    Ok(Ran { status, said, ns })
}

fn wait(child: &process::Child) -> io::Result<(process::ExitStatus, u64)> {
    let pid = child.id().cast_signed();
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live values of the types the call fills.
        if unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeros are a valid value, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let ns = |time: libc::timeval| {
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_usec.cast_unsigned() * 1_000
    };
    let status = process::ExitStatus::from_raw(status);
    Ok((status, ns(usage.ru_utime) + ns(usage.ru_stime)))
}

/// The first number of a schedstat file: nanoseconds on a processor.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn schedstat_begins_with_the_time_on_a_processor() {
        let rows = [
            ("123456 65758 1\n", Some(123_456)),
            ("0 0 0\n", Some(0)),
            ("", None),
            ("x 1 2", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_schedstat(text), expected, "{text:?}");
        }
    }

    #[test]
    fn work_is_counted_and_sleep_is_not() {
        let own = Pid::this();
        let before = of_process(own);
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(200) {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert_ne!(sum, 0);
        // The running thread's time is brought up to date when it is put to sleep.
        std::thread::sleep(Duration::from_millis(5));
        assert!(of_process(own) > before);
        let mut sleeper = Command::new("sh");
        sleeper.args(["-c", "sleep 0.2; echo said; echo also >&2; exit 3"]);
        let ran = run(&mut sleeper).expect("a shell");
        assert_eq!((ran.status.code(), &*ran.said), (Some(3), "said\nalso\n"));
        assert!(ran.ns > 0 && ran.ns < 200_000_000, "{ran:?}");
    }

    #[test]
    fn a_family_is_everybody_below() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & sleep 60 & wait"]);
        let mut process = crate::process::Process::spawn("family", &mut shell);
        let deadline = Instant::now() + Duration::from_secs(10);
        while family(process.pid()).len() < 3 {
            assert!(Instant::now() < deadline, "{:?}", family(process.pid()));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(family(process.pid())[0], process.pid());
        process.signal(nix::sys::signal::Signal::SIGKILL);
        process.wait(Duration::from_secs(10));
    }

    #[test]
    fn this_machine_has_its_threads_for_interrupts() {
        assert!(!softirq_threads().is_empty());
    }
}
