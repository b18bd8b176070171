//! Pure rooms name nothing they may not: no runtime, no kernel, no files, no sockets, no clock, no
//! randomness. Sources are read as the compiler reads them, imports are followed, and tests inside
//! the sources are left out.

mod krate;
mod names;
mod rules;

use std::path::{Path, PathBuf};

use krate::{Crate, ModulePath};
use names::Named;
use rules::{NO_AYA, PURE, ROOMS, Room, Rule};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a member lies in the workspace")
        .into()
}

fn module_path(name: &str) -> ModulePath {
    name.split("::")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Why a name breaks a rule; `None` if it does not.
fn broken<'r>(rules: &[&'r [Rule]], named: &Named) -> Option<&'r Rule> {
    let what = named.what.as_str();
    let glob = what.strip_suffix("::*");
    rules.iter().copied().flatten().find(|rule| {
        let below = |path: &str, of: &str| {
            path.strip_prefix(of)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if let Some(glob) = glob {
            // It brings everything below it, the forbidden among it.
            return below(glob, rule.what) || below(rule.what, glob);
        }
        let Some(rest) = what.strip_prefix(rule.what) else {
            return false;
        };
        match rest.strip_prefix("::") {
            None if rest.is_empty() => rule.except.is_empty() || !named.is_import,
            None => false,
            Some(rest) => !rule.except.iter().any(|except| below(rest, except)),
        }
    })
}

/// The crate a path begins with, if it begins with one.
fn crate_of(named: &Named) -> Option<&str> {
    const PRIMITIVES: &[&str] = &[
        "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32",
        "i64", "i128", "isize", "f32", "f64",
    ];
    let (first, _) = named.what.split_once("::")?;
    let is_crate = first.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !["crate", "std"].contains(&first)
        && !PRIMITIVES.contains(&first);
    is_crate.then_some(first)
}

/// Everything in a room's modules that breaks its rules, as `FILE:LINE: …`.
fn violations(room: &Room, krate: &Crate) -> Vec<String> {
    let inside = |module: &ModulePath, names: &[&str]| {
        names
            .iter()
            .any(|name| module.starts_with(&module_path(name)))
    };
    let mut found = Vec::new();
    for (module, list) in names::all(krate) {
        if !inside(&module, room.modules) || inside(&module, room.except) {
            continue;
        }
        let file = &krate.modules[&module].file;
        let file = file.strip_prefix(workspace()).unwrap_or(file).display();
        for named in list {
            let Named { what, line, .. } = &named;
            if let Some(rule) = broken(room.rules, &named) {
                found.push(format!("{file}:{line}: {what}: {}", rule.instead));
            } else if let (Some(allowed), Some(name)) = (room.crates, crate_of(&named))
                && !allowed.contains(&name)
            {
                found.push(format!(
                    "{file}:{line}: {what}: no room like this has used {name}; if it is pure, \
                     allow it in tests/tests/rooms/rules.rs"
                ));
            }
        }
    }
    found
}

#[test]
fn rooms_keep_their_rules() {
    let mut found = Vec::new();
    for room in ROOMS {
        let krate = Crate::read(&workspace().join(room.root));
        for name in room.modules.iter().chain(room.except) {
            let path = module_path(name);
            let files = krate
                .modules
                .iter()
                .filter(|(module, _)| module.starts_with(&path));
            let is_there = files.clone().any(|(_, module)| !module.items.is_empty());
            assert!(
                is_there || room.planned.contains(name),
                "{} has no module {name} with code in it; mend the list of rooms",
                room.root
            );
        }
        found.extend(violations(room, &krate));
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// A snippet, and what is found in it under the rules of pure rooms.
const BAD: &[(&str, &[&str])] = &[
    ("use tokio::sync::mpsc;", &["tokio::sync::mpsc"]),
    ("use tokio;", &["tokio"]),
    ("extern crate tokio;", &["tokio"]),
    ("fn f() { tokio::spawn(async {}); }", &["tokio::spawn"]),
    ("fn f() { ::tokio::spawn(async {}); }", &["tokio::spawn"]),
    ("#[tokio::main] async fn main() {}", &["tokio::main"]),
    ("struct S(aya::Ebpf);", &["aya::Ebpf"]),
    ("use std::fs;", &["std::fs"]),
    ("use std::{fs as files, fmt};", &["std::fs"]),
    (
        "use std::fs as files; fn f() { files::read(\"x\"); }",
        &["std::fs", "std::fs::read"],
    ),
    (
        "use std::{collections::BTreeMap, net::{SocketAddr, TcpStream}};",
        &["std::net::TcpStream"],
    ),
    (
        "use core::net::IpAddr; use std::net::ToSocketAddrs;",
        &["std::net::ToSocketAddrs"],
    ),
    (
        "use std::net; fn f() { net::TcpListener::bind(1); }",
        &["std::net::TcpListener::bind"],
    ),
    ("use std::net::*;", &["std::net::*"]),
    ("use std::*;", &["std::*"]),
    ("use std::time::*;", &["std::time::*"]),
    (
        "fn f() { std::time::Instant::now(); }",
        &["std::time::Instant::now"],
    ),
    (
        "use std::time::Instant; fn f() { Instant::now(); }",
        &["std::time::Instant::now"],
    ),
    (
        "use std::time::Instant as I; fn f() { g(I::now) }",
        &["std::time::Instant::now"],
    ),
    (
        "use std::time; fn f() { time::Instant::now(); }",
        &["std::time::Instant::now"],
    ),
    (
        "use std::time::Instant; fn f() { <Instant>::now(); }",
        &["<>::now"],
    ),
    ("fn f(at: Instant) { at.elapsed(); }", &[".elapsed()"]),
    (
        "fn f() { use std::time::SystemTime; }",
        &["std::time::SystemTime"],
    ),
    (
        "fn f() { g!(\"{}\", std::env::args().len()); }",
        &["std::env::args"],
    ),
    (
        "macro_rules! m { () => { std::process::exit(1) } }",
        &["std::process::exit"],
    ),
    (
        "fn f() { let x = std::thread::sleep; }",
        &["std::thread::sleep"],
    ),
    (
        "fn f(a: u8) -> bool { a != std::env::vars().count() }",
        &["std::env::vars"],
    ),
    ("fn f<'a>(x: &'a std::fs::File) {}", &["std::fs::File"]),
    (
        "fn f() { for _ in 0..std::env::args().len() {} }",
        &["std::env::args"],
    ),
    ("const X: Vec::<std::fs::File> = 1;", &["std::fs::File"]),
    ("fn f(p: &Path) -> bool { p.exists() }", &[".exists()"]),
    ("fn f() { println!(\"x\"); }", &["println!"]),
    (
        "fn f() { let r = rand::random::<u64>(); }",
        &["rand::random"],
    ),
    ("use std::hash::RandomState;", &["std::hash::RandomState"]),
    ("use nix::unistd::getpid;", &["nix::unistd::getpid"]),
    // Around a corner.
    (
        "mod a { pub use std::time::Instant as Clock; } fn f() { a::Clock::now(); }",
        &["std::time::Instant::now"],
    ),
    (
        "mod a { use std::time::Instant; mod b { use super::*; fn f() { Instant::now(); } } }",
        &["std::time::Instant::now"],
    ),
    (
        "mod a { pub mod b { pub use tokio::spawn as go; } } mod c { use crate::a::b; fn f() { b::go(); } }",
        &["tokio::spawn", "tokio::spawn"],
    ),
    (
        "mod a { use std::time::Instant; mod b { fn f() { super::Instant::now(); } } }",
        &["std::time::Instant::now"],
    ),
    // Not only in tests.
    ("#[cfg(not(test))] use std::fs;", &["std::fs"]),
    ("#[cfg(any(test, unix))] use std::fs;", &["std::fs"]),
    (
        "#[cfg(feature = \"x\")] mod m { use std::fs; }",
        &["std::fs"],
    ),
    (
        "#[test_thing] fn f() { std::fs::read(\"x\"); }",
        &["std::fs::read"],
    ),
    (
        "impl S { #[cfg(unix)] fn f() { std::fs::read(\"x\"); } }",
        &["std::fs::read"],
    ),
];

/// Snippets without anything forbidden.
const GOOD: &[&str] = &[
    "",
    "// std::fs::read\n/* tokio::spawn */ /// std::env\nfn f() {}",
    "const TEXT: &str = \"std::fs::read(tokio::spawn)\";",
    "const TEXT: &str = r#\"use std::fs;\"#;",
    "use std::net::{IpAddr, SocketAddr, Ipv6Addr}; fn f(a: std::net::SocketAddrV4) {}",
    "use std::net; fn f(a: net::IpAddr) { net::IpAddr::from(1); }",
    "use std::time::{Duration, Instant}; fn f(now: Instant) -> Instant { now + Duration::ZERO }",
    "#[cfg(test)] mod tests { use std::fs; fn f() { tokio::spawn(); } }",
    "#[cfg(test)] mod tests;",
    "#[cfg(all(test, unix))] use std::fs;",
    "impl S { #[cfg(test)] fn f() { std::fs::read(\"x\"); } }",
    "fn f(env: u8, fs: u8, tokio: S) -> u8 { env + fs + tokio.process }",
    "struct S { env: u8 } fn f(s: S) -> u8 { s.env }",
    "mod nix { pub fn f() {} } fn f() { nix::f(); }",
    "enum Clock { Instant } impl Clock { fn now() {} } fn f() { Clock::now(); }",
    "fn f(a: u8) -> bool { a != 1 && !g(a) }",
];

fn pure_violations(text: &str) -> Vec<String> {
    let room = Room {
        root: "",
        modules: &[""],
        except: &[],
        planned: &[],
        rules: &[PURE, NO_AYA],
        crates: None,
    };
    let what = |line: String| line.split(": ").nth(1).unwrap_or_default().to_owned();
    violations(&room, &Crate::of_text(text))
        .into_iter()
        .map(what)
        .collect()
}

#[test]
fn forbidden_names_are_found_however_they_are_written() {
    for (text, expected) in BAD {
        assert_eq!(pure_violations(text), *expected, "{text}");
    }
    for text in GOOD {
        assert_eq!(pure_violations(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn every_rule_finds_what_it_forbids() {
    for Rule { what, .. } in PURE.iter().chain(NO_AYA) {
        let (text, expected) = match what.strip_suffix('!') {
            Some(_) => (format!("fn f() {{ {what}(1); }}"), (*what).to_owned()),
            None if what.starts_with('.') => {
                (format!("fn f(a: A) {{ a{what}; }}"), (*what).to_owned())
            }
            None if what.starts_with('<') => (
                format!("fn f() {{ <A{}(); }}", &what[1..]),
                (*what).to_owned(),
            ),
            None => (
                format!("fn f() {{ {what}::thing(); }}"),
                format!("{what}::thing"),
            ),
        };
        assert_eq!(pure_violations(&text), [expected], "{text}");
    }
}

#[test]
fn a_room_may_keep_an_exception_and_a_list_of_crates() {
    let room = |rules, crates, except| Room {
        root: "",
        modules: &["pure"],
        except,
        planned: &[],
        rules,
        crates,
    };
    let text = "mod pure {
        use aya::Pod;
        use serde::Serialize;
        mod shell { use aya::Ebpf; }
    }
    mod other { use aya::Ebpf; }";
    let pod: &[&[Rule]] = &[&[Rule {
        what: "aya",
        except: &["Pod"],
        instead: "do not",
    }]];
    // Rules, crates, exceptions, and what is found.
    let rows: [(Room, &[&str]); 5] = [
        (room(pod, None, &[]), &["snippet.rs:4: aya::Ebpf: do not"]),
        (room(pod, None, &["pure::shell"]), &[]),
        (
            room(&[NO_AYA], None, &["pure::shell"]),
            &["snippet.rs:2: aya::Pod: the kernel's"],
        ),
        (
            room(pod, Some(&["aya"]), &["pure::shell"]),
            &["snippet.rs:3: serde::Serialize: no room"],
        ),
        (room(pod, Some(&["aya", "serde"]), &["pure::shell"]), &[]),
    ];
    for (room, expected) in rows {
        let found = violations(&room, &Crate::of_text(text));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
