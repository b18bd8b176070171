//! Commands that the daemon's program does itself: `lint` and `doctor`.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use tokio::process::Command;

use crate::{cli::Output, failure::Failure};

/// Where the daemon's program is installed; not in the PATH of every user.
const INSTALLED: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];

/// `shifterd --check`, for each node file; all are checked even if one has problems.
///
/// # Errors
/// No program, or its verdict.
pub async fn lint(paths: &[PathBuf], output: Output) -> Result<(), Failure> {
    if paths.is_empty() {
        return run(&arguments("--check", None, output)).await;
    }
    let mut verdict = Ok(());
    for path in paths {
        match run(&arguments("--check", Some(path), output)).await {
            Err(Failure::ShifterdFailed) => verdict = Err(Failure::ShifterdFailed),
            other => other?,
        }
    }
    verdict
}

/// `shifterd --doctor`.
///
/// # Errors
/// No program, or its verdict.
pub async fn doctor(config: Option<&Path>, output: Output) -> Result<(), Failure> {
    run(&arguments("--doctor", config, output)).await
}

fn arguments(what: &str, config: Option<&Path>, output: Output) -> Vec<OsString> {
    let mut arguments = vec![what.into()];
    if let Some(config) = config {
        arguments.extend(["--config".into(), config.into()]);
    }
    if output == Output::Json {
        arguments.push("--json".into());
    }
    arguments
}

async fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
    let search = env::var_os("PATH").unwrap_or_default();
    let program = find(&beside, &search, &INSTALLED)?;
    let status = Command::new(&program).args(arguments).status().await;
    let status = status.map_err(|error| Failure::Io {
        what: "run shifterd",
        error,
    })?;
    verdict(&program, status)
}

fn verdict(program: &Path, status: ExitStatus) -> Result<(), Failure> {
    match (status.success(), status.signal()) {
        (true, _) => Ok(()),
        (false, Some(signal)) => Err(Failure::ShifterdKilled {
            program: program.display().to_string(),
            signal,
        }),
        (false, None) => Err(Failure::ShifterdFailed),
    }
}

/// The program beside this one, so that a build tests its own; else the first in PATH; else the
/// installed one.
fn find(beside: &Path, search: &OsStr, installed: &[&str]) -> Result<PathBuf, Failure> {
    [beside.to_owned()]
        .into_iter()
        .chain(env::split_paths(search).filter(|directory| directory.is_absolute()))
        .chain(installed.iter().map(PathBuf::from))
        .map(|directory| directory.join("shifterd"))
        .find(|path| {
            path.metadata()
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Failure::NoShifterd(beside.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::fs;

    use super::*;

    fn program(directory: &Path, mode: u32) -> PathBuf {
        fs::create_dir_all(directory).unwrap();
        let path = directory.join("shifterd");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_program_beside_comes_first_then_path_then_the_installed_one() {
        let root = tempfile::tempdir().unwrap();
        let [beside, first, second, sbin] =
            ["beside", "first", "second", "sbin"].map(|d| root.path().join(d));
        let search = env::join_paths([Path::new("."), &first, &second]).unwrap();
        let look = || find(&beside, &search, &[sbin.to_str().unwrap()]);

        let failure = look().unwrap_err();
        let shown = beside.display();
        assert_eq!(
            failure.to_string(),
            format!("shifterd is neither in {shown} nor in PATH")
        );
        assert_eq!(
            failure.help(),
            "install shifterd, or add its directory to PATH"
        );
        assert_eq!(failure.exit_code(), 1);

        let installed = program(&sbin, 0o755);
        assert_eq!(look().unwrap(), installed);
        let in_second = program(&second, 0o755);
        assert_eq!(look().unwrap(), in_second);
        // Not executable, and a directory: neither is a program.
        program(&first, 0o644);
        fs::create_dir_all(beside.join("shifterd")).unwrap();
        assert_eq!(look().unwrap(), in_second);
        let in_first = program(&first, 0o700);
        assert_eq!(look().unwrap(), in_first);
        fs::remove_dir(beside.join("shifterd")).unwrap();
        let in_beside = program(&beside, 0o755);
        assert_eq!(look().unwrap(), in_beside);
    }
}
