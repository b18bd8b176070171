//! The system that machines start from: built once, kept beside the other tools, never changed.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{process::Process, scratch};

/// What is in it, beside what every Debian has. A part of the name under which it is kept: another
/// list gives another system.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,nginx,procps,kmod";
/// Counts up when it is built in another way.
const EDITION: u32 = 1;
/// How long it may take to build; most of it is waiting for packages.
const LIMIT: Duration = Duration::from_secs(600);
/// Lines of debootstrap's output that are shown if it fails.
const EXCERPT_LINES: usize = 20;

/// The directory of the system, which is built if it is not there yet.
///
/// # Panics
/// If it cannot be built, with the reason.
pub fn ensure() -> PathBuf {
    let release = Release::of_this_machine();
    let dir = cache().join("machine");
    make(&dir);
    // Setuid programs that nobody updates are for nobody else.
    let private = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
    private.unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
    let image = dir.join(format!(
        "{}-{EDITION}-{}",
        release.codename,
        PACKAGES.replace(',', "+")
    ));
    let lock = dir.join("lock");
    let lock = File::create(&lock).unwrap_or_else(|err| panic!("{}: {err}", lock.display()));
    lock.lock().expect("wait for whoever builds it");
    // A directory of this name is complete: it gets it when all is done.
    if !image.exists() {
        let unfinished = dir.join("unfinished");
        scratch::remove_dir(&unfinished);
        build(&release, &unfinished, &dir.join("debootstrap.log"));
        fs::rename(&unfinished, &image).expect("give it its name");
    }
    image
}

/// Which system it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    codename: String,
    mirror: Option<String>,
}

impl Release {
    /// What was compiled here needs the C library of here: the same release, from the same mirror.
    fn of_this_machine() -> Self {
        let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = codename(&text).unwrap_or_else(|| {
            panic!("/etc/os-release has no VERSION_CODENAME: only Debian and its kin can be built")
        });
        let format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
        let targets = Command::new("apt-get")
            .args(["indextargets", "--format", format, "Created-By: Packages"])
            .output();
        let targets = targets.map(|output| output.stdout).unwrap_or_default();
        let mirror = mirror(&String::from_utf8_lossy(&targets), &codename);
        Self { codename, mirror }
    }
}

fn codename(os_release: &str) -> Option<String> {
    let mut lines = os_release.lines();
    let value = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
}

/// Where apt has this release from, if debootstrap can go there too.
fn mirror(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let is_it = words.next()? == codename && words.next()? == "main";
        let uri = words.next()?;
        let is_plain = ["http://", "https://", "file:/"]
            .iter()
            .any(|scheme| uri.starts_with(scheme));
        (is_it && is_plain).then(|| uri.to_owned())
    })
}

fn build(release: &Release, dir: &Path, log: &Path) {
    let _ = fs::remove_file(log);
    eprintln!(
        "building a {} to boot in {}, once",
        release.codename,
        dir.display()
    );
    let mut command = Command::new("debootstrap");
    command
        .arg("--variant=minbase")
        .arg(format!("--include={PACKAGES}"))
        .arg(&release.codename)
        .arg(dir)
        .args(&release.mirror);
    // It calls what a user's PATH does not reach.
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8");
    let mut process = Process::spawn_logged("debootstrap", &mut command, log);
    let ended = process.wait(LIMIT);
    let said = process.log();
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(EXCERPT_LINES)..].join("\n");
    assert!(
        ended.success(),
        "debootstrap: {ended}; it needs the network, or a mirror in apt's sources:\n{last}"
    );
    let mounted = scratch::mounts_below(dir);
    assert!(mounted.is_empty(), "debootstrap left mounted: {mounted:?}");
    // Downloaded files are of no more use.
    for (within, suffix) in [
        ("var/cache/apt/archives", ".deb"),
        ("var/lib/apt/lists", ""),
    ] {
        for entry in fs::read_dir(dir.join(within))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().ends_with(suffix) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Where `cargo xtask` caches: it says so when it runs the tests; otherwise the user's own.
fn cache() -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("SHIFTER_CACHE") {
        return std::path::absolute(cache).expect("SHIFTER_CACHE is a path");
    }
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")));
    base.expect("no home directory to cache in: set SHIFTER_CACHE=DIRECTORY")
        .join("shifter")
}

/// Makes a directory with those above it. They belong to whoever owns the last one that was there:
/// the cache of a user who came through sudo stays theirs.
fn make(dir: &Path) {
    let made = |dir: &Path| -> io::Result<()> {
        let above = dir.parent().unwrap_or(Path::new("/"));
        let owner = fs::metadata(above)?;
        fs::create_dir(dir)?;
        chown(dir, Some(owner.uid()), Some(owner.gid()))
    };
    if dir.is_dir() {
        return;
    }
    if let Some(above) = dir.parent() {
        make(above);
    }
    match made(dir) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            panic!("{}: {err}", dir.display())
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_the_system() {
        let rows = [
            ("ID=debian\nVERSION_CODENAME=bookworm\n", Some("bookworm")),
            ("VERSION_CODENAME=\"noble\"\n", Some("noble")),
            ("ID=arch\n", None),
            ("VERSION_CODENAME=\n", None),
        ];
        for (text, expected) in rows {
            assert_eq!(codename(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_mirror_is_the_one_apt_uses() {
        let targets = "\
bookworm-updates main http://mirror.example/updates/
bookworm contrib http://mirror.example/contrib/
bookworm main cdrom:[disc]/
bookworm main http://mirror.example/debian/
";
        let rows = [
            ("bookworm", Some("http://mirror.example/debian/")),
            ("trixie", None),
        ];
        for (codename, expected) in rows {
            assert_eq!(mirror(targets, codename).as_deref(), expected, "{codename}");
        }
        assert_eq!(
            mirror("noble main mirror+file:/etc/apt/list\n", "noble"),
            None
        );
    }

    #[test]
    fn directories_belong_to_the_owner_of_the_one_above() {
        let scratch = scratch::Scratch::new("cache");
        chown(scratch.path(), Some(4_711), Some(4_712)).expect("root may");
        let dir = scratch.path().join("home/.cache/shifter");
        make(&dir);
        make(&dir);
        for dir in dir.ancestors().take(3) {
            let found = fs::metadata(dir).expect("made");
            assert_eq!(
                (found.uid(), found.gid()),
                (4_711, 4_712),
                "{}",
                dir.display()
            );
        }
    }
}
