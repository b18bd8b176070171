//! Which room may name what: data.

/// Something a room may not name.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// A path and everything below it, a method as `.name()`, or a macro as `name!`.
    pub what: &'static str,
    /// What right below it is allowed nevertheless.
    pub except: &'static [&'static str],
    /// What to do instead.
    pub instead: &'static str,
}

const fn rule(what: &'static str, instead: &'static str) -> Rule {
    Rule {
        what,
        except: &[],
        instead,
    }
}

/// A part of a crate and its rules.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The crate's root file.
    pub root: &'static str,
    /// Its modules and all below them; empty for the whole crate.
    pub modules: &'static [&'static str],
    /// Modules below that have rules of their own.
    pub except: &'static [&'static str],
    /// Modules that need not be there yet; their rules are in force as soon as they are.
    pub planned: &'static [&'static str],
    /// What it may not name.
    pub rules: &'static [&'static [Rule]],
    /// The crates it may name, apart from std; `None` for all.
    pub crates: Option<&'static [&'static str]>,
}

const TIME: &str = "time is an argument: take `now` from the caller";
const FILES: &str = "files belong to the shell: take what they say";
const SOCKETS: &str = "sockets belong to the shell; addresses are values and allowed";
const EFFECTS: &str = "effects are values: return what is to be done";
const RANDOM: &str = "randomness is an argument: take it from the caller";
const AYA: &str = "the kernel's maps belong to dataplane::bpf, its probing to doctor";

/// No files, sockets, processes, threads, clock, randomness.
pub const PURE: &[Rule] = &[
    rule("tokio", EFFECTS),
    rule("nix", EFFECTS),
    rule("libc", EFFECTS),
    rule("rand", RANDOM),
    rule("getrandom", RANDOM),
    rule("std::fs", FILES),
    rule("std::env", "what the environment says is an argument"),
    rule("std::process", EFFECTS),
    rule("std::thread", EFFECTS),
    rule("std::os", EFFECTS),
    rule("std::io::stdin", FILES),
    rule("std::io::stdout", EFFECTS),
    rule("std::io::stderr", EFFECTS),
    rule("std::time::SystemTime", TIME),
    rule("std::time::UNIX_EPOCH", TIME),
    rule("std::time::Instant::now", TIME),
    rule("std::hash::RandomState", RANDOM),
    rule("std::collections::hash_map::RandomState", RANDOM),
    Rule {
        what: "std::net",
        except: &[
            "AddrParseError",
            "IpAddr",
            "Ipv4Addr",
            "Ipv6Addr",
            "SocketAddr",
            "SocketAddrV4",
            "SocketAddrV6",
        ],
        instead: SOCKETS,
    },
    rule("<>::now", TIME),
    rule(".elapsed()", TIME),
    rule(".to_socket_addrs()", SOCKETS),
    rule(".exists()", FILES),
    rule(".try_exists()", FILES),
    rule(".is_file()", FILES),
    rule(".is_dir()", FILES),
    rule(".is_symlink()", FILES),
    rule(".metadata()", FILES),
    rule(".symlink_metadata()", FILES),
    rule(".canonicalize()", FILES),
    rule(".read_dir()", FILES),
    rule(".read_link()", FILES),
    rule("print!", EFFECTS),
    rule("println!", EFFECTS),
    rule("eprint!", EFFECTS),
    rule("eprintln!", EFFECTS),
    rule("dbg!", EFFECTS),
];

/// No kernel maps.
pub const NO_AYA: &[Rule] = &[rule("aya", AYA), rule("aya_obj", AYA), rule("aya_log", AYA)];

/// Of aya, the marker for types that may be copied to the kernel alone.
const AYA_POD: &[Rule] = &[
    Rule {
        what: "aya",
        except: &["Pod"],
        instead: AYA,
    },
    rule("aya_obj", AYA),
    rule("aya_log", AYA),
];

/// Nothing to the right of a pure room in the flow of data.
const LEFT_OF_THE_SHELL: &[Rule] = &[
    rule("crate::api", EFFECTS),
    rule("crate::config_files", FILES),
    rule("crate::dataplane", EFFECTS),
    rule("crate::driver", EFFECTS),
    rule("crate::metrics", EFFECTS),
    rule("crate::probe", EFFECTS),
    rule("crate::store", FILES),
];

/// No other member of this workspace than the shared types.
const WIRE_ONLY: &[Rule] = &[
    rule(
        "shifter_daemon",
        "what the daemon knows comes over the control API, as wire types",
    ),
    rule(
        "shifter_ebpf",
        "what the kernel knows comes over the control API, as wire types",
    ),
    rule(
        "shifter_tests",
        "tests may use the program, not the other way round",
    ),
    rule(
        "xtask",
        "the build may use the program, not the other way round",
    ),
];

/// All rooms with rules.
pub const ROOMS: &[Room] = &[
    Room {
        root: "shifter-daemon/src/lib.rs",
        modules: &[
            "model",
            "config",
            "control",
            "hook",
            "rollout",
            "observe",
            "analysis",
            "deployment",
        ],
        except: &[],
        planned: &["observe", "analysis"],
        rules: &[PURE, NO_AYA, LEFT_OF_THE_SHELL],
        crates: Some(&[
            "serde",
            "serde_json",
            "sha2",
            "shifter_common",
            "strsim",
            "thiserror",
            "toml",
        ]),
    },
    Room {
        root: "shifter-common/src/lib.rs",
        modules: &[""],
        except: &["wire"],
        planned: &[],
        rules: &[PURE, AYA_POD],
        crates: Some(&["aya", "serde", "sha2"]),
    },
    Room {
        root: "shifter-daemon/src/lib.rs",
        modules: &[""],
        except: &["dataplane::bpf", "doctor"],
        planned: &[],
        rules: &[NO_AYA],
        crates: None,
    },
    Room {
        root: "shifter-daemon/src/main.rs",
        modules: &[""],
        except: &[],
        planned: &[],
        rules: &[NO_AYA],
        crates: None,
    },
    Room {
        root: "shifterctl/src/main.rs",
        modules: &[""],
        except: &[],
        planned: &[],
        rules: &[NO_AYA, WIRE_ONLY],
        crates: None,
    },
];
