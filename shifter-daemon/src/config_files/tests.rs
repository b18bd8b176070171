//! Tests with real files.

use std::{collections::BTreeSet, fs::Permissions, os::unix::fs as unix_fs};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;

const SERVICE: &str = "[service]\nname = \"orders\"\nvip = \"10.0.0.10:443\"\n\
                       [slot.a]\nbackends = [\"10.0.0.11:8443\"]\n";
const NODE: &str = "[[interface]]\nname = \"eth0\"\n";

/// The rules as they are for root, with whoever runs the tests in the place of root.
fn owner() -> Owner {
    Owner(Some(geteuid().as_raw()))
}

fn tempdir() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    set_mode(dir.path(), 0o755);
    dir
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the mode can be set");
}

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).expect("can be written");
    set_mode(&path, 0o644);
    path
}

/// Problems as printed, with `DIR` for the directory.
fn printed(dir: &TempDir, diagnostics: &[Diagnostic]) -> Vec<String> {
    let dir = dir.path().to_str().expect("UTF-8");
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.to_string().replace(dir, "DIR"))
        .collect()
}

#[test]
fn a_node_file_is_read() {
    let dir = tempdir();
    let path = write(&dir, "shifter.toml", NODE);
    for owner in [owner(), Owner(None)] {
        let node = load_node_of(&path, owner).expect("is good");
        assert_eq!(node.services_dir, dir.path().join("services.d"));
    }
    assert!(load_node(&path).is_ok());
    let path = write(&dir, "bad.toml", "[[interface]]\n");
    assert_eq!(
        printed(
            &dir,
            &load_node_of(&path, owner()).expect_err("has no name")
        ),
        ["DIR/bad.toml:1:1: `interface.name` is missing\n    \
          help: add, for example: name = \"eth0\""]
    );
}

#[test]
fn what_is_not_there_gives_the_command_to_make_it() {
    let dir = tempdir();
    assert_eq!(
        printed(
            &dir,
            &load_node(&dir.path().join("it's.toml")).expect_err("is missing")
        ),
        [
            "DIR/it's.toml: cannot be read: No such file or directory (os error 2)\n    \
          help: write it, beginning with: cp examples/shifter.toml 'DIR/it'\\''s.toml'"
        ]
    );
    let loaded = load_services(&dir.path().join("services.d"));
    assert_eq!(
        printed(&dir, &loaded.diagnostics),
        [
            "DIR/services.d: there is no such directory for service files\n    \
          help: make it: mkdir -p -m 0755 DIR/services.d"
        ]
    );
    assert!(!loaded.dir_read && loaded.services.is_empty() && loaded.refused.is_empty());
    let file = write(&dir, "file", "");
    assert_eq!(
        printed(&dir, &load_services(&file).diagnostics),
        [
            "DIR/file: cannot be read: Not a directory (os error 20)\n    \
          help: see its rights: namei -l DIR/file"
        ]
    );
}

#[test]
fn each_service_file_is_read_or_refused_alone() {
    let dir = tempdir();
    write(&dir, "orders.toml", SERVICE);
    for ignored in [
        ".orders.toml",
        "orders.toml~",
        "orders.toml.rpmnew",
        "README",
        "toml",
    ] {
        write(&dir, ignored, "not TOML");
    }
    write(
        &dir,
        "bad.toml",
        "\n x = 1\n[service]\nname = \"bad\"\nvip = \"10.0.0.1:1\"\n\
                             [slot.a]\nbackends = [\"10.0.0.2:1\"]\n",
    );
    write(&dir, "latin.toml", b"# gr\xc3\xbcn\n# gr\xfcn\n");
    write(&dir, "long.toml", vec![b'#'; FILE_MAX_BYTES + 1]);
    write(
        &dir,
        "taken.toml",
        SERVICE.replace("orders", "taken").replace("0.11", "0.12"),
    );
    fs::create_dir(dir.path().join("dir.toml")).expect("a directory");
    mkfifo(
        &dir.path().join("fifo.toml"),
        Mode::from_bits_truncate(0o644),
    )
    .expect("a FIFO");
    unix_fs::symlink("nowhere", dir.path().join("link.toml")).expect("a link");
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket.toml"));

    let loaded = load_services_of(dir.path(), owner());
    assert_eq!(
        printed(&dir, &loaded.diagnostics),
        [
            "DIR/bad.toml:2:2: unknown key \"x\"\n    \
             help: known are `service`, `slot`, `target`, `probe`, `outlier`, `breaker`, `drain`, `rollback`, `rollout`, `analysis`, `gate`",
            "DIR/dir.toml: is not a file\n    \
             help: move it away, or end its name in something else",
            "DIR/fifo.toml: is not a file\n    \
             help: move it away, or end its name in something else",
            "DIR/latin.toml:2:5: is not UTF-8 text\n    \
             help: convert it: iconv -f LATIN1 -t UTF-8 -o NEW DIR/latin.toml",
            "DIR/link.toml: cannot be read: No such file or directory (os error 2)\n    \
             help: see where it leads: ls -l DIR/link.toml",
            "DIR/long.toml: has more than 1 MiB\n    \
             help: this is hardly a configuration file; move it away",
            "DIR/socket.toml: cannot be read: No such device or address (os error 6)\n    \
             help: see its rights: namei -l DIR/socket.toml",
            "DIR/taken.toml:3:7: VIP \"10.0.0.10:443\" is a VIP of service \"orders\" \
             (in DIR/orders.toml)\n    \
             help: a VIP belongs to one service; remove it from the other",
        ]
    );
    assert!(loaded.services.keys().eq(["orders"]) && loaded.dir_read);
    let refused = [
        "bad", "dir", "fifo", "latin", "link", "long", "socket", "taken",
    ];
    assert_eq!(loaded.refused, BTreeSet::from(refused.map(str::to_owned)));
    drop(socket);
    // A file may have exactly the limit.
    let text = format!(
        "{SERVICE}#{}",
        "x".repeat(FILE_MAX_BYTES - SERVICE.len() - 1)
    );
    assert_eq!(text.len(), FILE_MAX_BYTES);
    write(&dir, "orders.toml", text);
    assert!(
        load_services_of(dir.path(), owner())
            .services
            .contains_key("orders")
    );
}

#[test]
fn what_others_can_write_is_not_trusted() {
    // Where the mode is set, the mode, and what is said about the file in DIR/d/services.d.
    let rows: &[(&str, u32, Option<&str>)] = &[
        ("d/services.d/orders.toml", 0o644, None),
        ("d/services.d/orders.toml", 0o400, None),
        (
            "d/services.d/orders.toml",
            0o664,
            Some(
                "DIR/d/services.d/orders.toml: can be written by others than its owner (mode \
                  0664)\n    help: if you trust what is in it: chmod go-w \
                  DIR/d/services.d/orders.toml",
            ),
        ),
        (
            "d/services.d/orders.toml",
            0o602,
            Some(
                "DIR/d/services.d/orders.toml: can be written by others than its owner (mode \
                  0602)\n    help: if you trust what is in it: chmod go-w \
                  DIR/d/services.d/orders.toml",
            ),
        ),
        (
            "d/services.d",
            0o1777,
            Some(
                "DIR/d/services.d: can be written by others than its owner (mode 1777)\n    \
                  help: if you trust what is in it: chmod go-w DIR/d/services.d",
            ),
        ),
        (
            "d",
            0o775,
            Some(
                "DIR/d/services.d: directory DIR/d can be written by others than its owner \
                  (mode 0775)\n    help: if you trust what is in it: chmod go-w DIR/d",
            ),
        ),
        // In a sticky directory, as /tmp is, nobody else can replace services.d.
        ("d", 0o1777, None),
    ];
    for (path, mode, problem) in rows {
        let dir = tempdir();
        let services_dir = dir.path().join("d/services.d");
        fs::create_dir_all(&services_dir).expect("directories");
        set_mode(&dir.path().join("d"), 0o755);
        set_mode(&services_dir, 0o755);
        write(&dir, "d/services.d/orders.toml", SERVICE);
        set_mode(&dir.path().join(path), *mode);

        let loaded = load_services_of(&services_dir, owner());
        let problems: Vec<_> = problem.iter().copied().collect();
        assert_eq!(
            printed(&dir, &loaded.diagnostics),
            problems,
            "{path} {mode:o}"
        );
        assert_eq!(
            loaded.services.contains_key("orders"),
            problem.is_none(),
            "{path} {mode:o}"
        );
        // A daemon that is not root reads it all the same.
        assert!(
            load_services_of(&services_dir, Owner(None))
                .services
                .contains_key("orders")
        );
    }
}

#[test]
fn what_belongs_to_others_is_not_trusted() {
    let dir = tempdir();
    write(&dir, "orders.toml", SERVICE);
    let node = write(&dir, "shifter.toml", NODE);
    // Root gives the file away; others expect another owner.
    let owner = if geteuid().is_root() {
        unix_fs::chown(&node, Some(65_534), None).expect("root can");
        Owner(Some(0))
    } else {
        Owner(Some(geteuid().as_raw() + 1))
    };
    let uid = fs::metadata(&node).expect("is there").uid();
    assert_eq!(
        printed(&dir, &load_node_of(&node, owner).expect_err("is foreign")),
        [format!(
            "DIR/shifter.toml: belongs to uid {uid}, not to root\n    \
             help: if you trust what is in it: chown root DIR/shifter.toml"
        )]
    );
    assert!(load_node_of(&node, Owner(None)).is_ok());
    if geteuid().is_root() {
        unix_fs::chown(dir.path(), Some(65_534), None).expect("root can");
    }
    assert_eq!(
        printed(&dir, &load_services_of(dir.path(), owner).diagnostics),
        [format!(
            "DIR: belongs to uid {uid}, not to root\n    \
             help: if you trust what is in it: chown root DIR"
        )]
    );
}

/// A link is followed, but where it leads must be as trustworthy as where it lies.
#[test]
fn a_link_does_not_lead_around_the_rules() {
    let dir = tempdir();
    for name in ["here", "there"] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
        set_mode(&dir.path().join(name), 0o755);
    }
    write(&dir, "there/orders.toml", SERVICE);
    let link = dir.path().join("here/orders.toml");
    unix_fs::symlink("../there/orders.toml", &link).expect("a link");
    let services_dir = dir.path().join("here");
    assert!(
        load_services_of(&services_dir, owner())
            .services
            .contains_key("orders")
    );

    set_mode(&dir.path().join("there"), 0o777);
    assert_eq!(
        printed(&dir, &load_services_of(&services_dir, owner()).diagnostics),
        [
            "DIR/here/orders.toml: directory DIR/there can be written by others than its owner \
          (mode 0777)\n    help: if you trust what is in it: chmod go-w DIR/there"
        ]
    );
    set_mode(&dir.path().join("there"), 0o755);
    set_mode(&services_dir, 0o777);
    let problem = load_node_of(&link, owner()).expect_err("anybody can turn the link");
    assert_eq!(
        printed(&dir, &problem),
        [
            "DIR/here/orders.toml: directory DIR/here can be written by others than its owner \
          (mode 0777)\n    help: if you trust what is in it: chmod go-w DIR/here"
        ]
    );
}
