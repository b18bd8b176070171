//! `lint` and `doctor` run the daemon's program.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::support::{Ran, copy_to, program, short_dir};

/// A program that prints its arguments and ends with `last`.
fn fake_shifterd(dir: &Path, last: &str) {
    let path = dir.join("shifterd");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\"\n{last}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_daemons_program_gets_the_arguments_and_its_verdict_counts() {
    let rows: &[(&[&str], &str, &str, i32)] = &[
        (&["lint"], "true", "--check\n", 0),
        (&["lint"], "exit 1", "--check\n", 1),
        (&["lint"], "exit 2", "--check\n", 1),
        (
            &["lint", "a.toml", "b c.toml"],
            "exit 1",
            "--check --config a.toml\n--check --config b c.toml\n",
            1,
        ),
        (&["lint", "-o", "json"], "true", "--check --json\n", 0),
        (&["doctor"], "true", "--doctor\n", 0),
        (&["doctor"], "exit 1", "--doctor\n", 1),
        (
            &["doctor", "--config", "n.toml", "-o", "json"],
            "true",
            "--doctor --config n.toml --json\n",
            0,
        ),
    ];
    for (args, last, out, code) in rows {
        let dir = short_dir();
        let copy = copy_to(dir.path());
        fake_shifterd(dir.path(), last);
        let ran = Ran::of(program(&copy).args(*args));
        assert_eq!(
            (ran.out.as_str(), ran.err.as_str(), ran.code),
            (*out, "", Some(*code))
        );
    }
}

#[test]
fn path_is_searched_after_the_own_directory() {
    let (own, other) = (short_dir(), short_dir());
    let copy = copy_to(own.path());
    fake_shifterd(other.path(), "true");
    let path = format!("{}:/usr/bin:/bin", other.path().display());
    let ran = Ran::of(program(&copy).env("PATH", &path).arg("lint"));
    assert_eq!(ran.done().out, "--check\n");
}

#[test]
fn a_program_that_is_killed_is_named() {
    let dir = short_dir();
    let copy = copy_to(dir.path());
    fake_shifterd(dir.path(), "kill -KILL $$");
    let program_path = dir.path().join("shifterd");
    let shown = program_path.display();
    Ran::of(program(&copy).arg("lint")).failed(
        1,
        &format!("error: {shown} was ended by signal 9\nhelp: run it by hand: {shown} --help"),
    );
}

#[test]
fn a_program_that_cannot_run_is_an_error() {
    let dir = short_dir();
    let copy = copy_to(dir.path());
    fs::write(dir.path().join("shifterd"), "#!/no/such/interpreter\n").unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path().join("shifterd"), executable).unwrap();
    Ran::of(program(&copy).arg("lint")).failed(
        1,
        "error: cannot run shifterd: No such file or directory (os error 2)",
    );
}
