//! Every problem a single file can have, and its text.

use std::time::Duration;

use proptest::prelude::*;

use super::{NODE, SERVICE, printed};
use crate::config::{
    BACKENDS_PER_SLOT_MAX_COUNT, parse_node, parse_service,
    syntax::{LOCAL, STRUCTURAL},
};

/// A block of a `*_problems.txt`: the changed file, and its problems as printed.
struct Block {
    text: String,
    problems: String,
}

/// What only one of the planes can steer to is refused for the other.
#[test]
fn each_plane_has_backends_it_cannot_have() {
    const ALSO: &str = "write the one address of the server, also if it listens on all of its host, \
                        or plane = \"socket\"";
    const HERE: &str = "let the server listen on an address of this host and write that one, or plane \
                        = \"socket\"";
    const V4: &str = "10.0.0.10:443";
    const V6: &str = "[2001:db8::10]:443";
    // VIP, plane, backend, what is wrong, what would be right; "" if nothing is wrong
    type Row = (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );
    const ROWS: &[Row] = &[
        (
            V4,
            "nat",
            "0.0.0.0:1",
            "backend \"0.0.0.0:1\" is no address packets can be sent to",
            ALSO,
        ),
        (
            V6,
            "nat",
            "[::]:1",
            "backend \"[::]:1\" is no address packets can be sent to",
            ALSO,
        ),
        (
            V4,
            "nat",
            "127.7.7.7:1",
            "backend \"127.7.7.7:1\" is loopback: it needs route_localnet, which shifter never sets",
            HERE,
        ),
        (
            V6,
            "nat",
            "[::1]:1",
            "backend \"[::1]:1\" is loopback: the kernel drops what is sent there from outside",
            HERE,
        ),
        (V4, "socket", "0.0.0.0:1", "", ""),
        (V4, "socket", "[::]:1", "", ""),
        (V6, "socket", "[::]:1", "", ""),
        (V6, "socket", "[::1]:1", "", ""),
        (V4, "auto", "127.0.0.1:1", "", ""),
        (V4, "auto", "[::]:1", "", ""),
        (
            V4,
            "socket",
            "[2001:db8::20]:1",
            "backend \"[2001:db8::20]:1\" is IPv6, but no VIP is",
            "a listener takes clients of its own family; add an IPv6 VIP or remove it",
        ),
        (
            "10.0.0.10:443\", \"[2001:db8::10]:443",
            "socket",
            "0.0.0.0:1",
            "slot a has no IPv6 backend for VIP \"[2001:db8::10]:443\"",
            "a listener takes clients of its own family; add an IPv6 listener, or write \
             \"[::]:PORT\"",
        ),
    ];
    for (vip, plane, backend, message, help) in ROWS {
        let text = format!(
            "[service]\nname = \"orders\"\nvip = [\"{vip}\"]\nplane = \"{plane}\"\n[slot.a]\nbackends \
             = [\"{backend}\"]\n"
        );
        match parse_service("f", &text) {
            Ok(_) => assert_eq!(*message, "", "{text}"),
            Err(found) => {
                assert_eq!(found.len(), 1, "{found:?} of {text}");
                assert_eq!(
                    (found[0].message.as_str(), found[0].help.as_str()),
                    (*message, *help)
                );
            }
        }
    }
}

/// Blocks are parted by empty lines; a block of nothing but `#` lines is a remark.
fn blocks(good: &str, table: &str) -> Vec<Block> {
    table
        .split("\n\n")
        .filter_map(|block| read_block(good, block))
        .collect()
}

fn read_block(good: &str, block: &str) -> Option<Block> {
    let (mut old, mut new, mut problems) = (String::new(), String::new(), String::new());
    for line in block.lines().filter(|line| !line.starts_with('#')) {
        match line.split_at_checked(2) {
            Some(("- ", line)) => old.extend([line, "\n"]),
            Some(("+ ", line)) => new.extend([line, "\n"]),
            _ => problems.extend([line, "\n"]),
        }
    }
    if problems.is_empty() {
        assert!(
            old.is_empty() && new.is_empty(),
            "no problems are given in:\n{block}"
        );
        return None;
    }
    assert!(good.contains(&old), "the good file does not have:\n{old}");
    let text = if old.is_empty() {
        format!("{good}{new}")
    } else {
        good.replacen(&old, &new, 1)
    };
    Some(Block { text, problems })
}

#[test]
fn every_problem_of_a_service_file_has_its_text() {
    let blocks = blocks(SERVICE, include_str!("service_problems.txt"));
    assert!(blocks.len() > 150, "only {} blocks", blocks.len());
    for Block { text, problems } in blocks {
        let found = parse_service("f", &text).expect_err(&text);
        assert_eq!(printed(&found), problems, "\nof the file:\n{text}");
    }
}

#[test]
fn every_problem_of_a_node_file_has_its_text() {
    let blocks = blocks(NODE, include_str!("node_problems.txt"));
    assert!(blocks.len() > 40, "only {} blocks", blocks.len());
    for Block { text, problems } in blocks {
        let found = parse_node("f", &text).expect_err(&text);
        assert_eq!(printed(&found), problems, "\nof the file:\n{text}");
    }
}

/// The remedies go by how the TOML parser words its problems, which it may change.
#[test]
fn every_remedy_for_broken_toml_is_for_a_problem_the_parser_has() {
    let table = include_str!("service_problems.txt");
    for (problem, help) in LOCAL.into_iter().chain(STRUCTURAL) {
        let problem = problem.split(", expected").next().unwrap_or_default();
        let shown = table
            .lines()
            .zip(table.lines().skip(1))
            .any(|(line, next)| {
                line.contains(&format!(": not TOML: {problem}"))
                    && next == format!("    help: {help}")
            });
        assert!(shown, "no block shows {problem:?} with {help:?}");
    }
}

#[test]
fn a_slot_has_no_more_backends_than_a_table_can_share_out() {
    let with_backends = |count: usize| {
        let backend = |i: usize| format!("\"10.1.{}.{}:80\"", i / 250, i % 250);
        let backends: Vec<_> = (0..count).map(backend).collect();
        SERVICE.replace("\"10.0.0.11:8443\"", &backends.join(", "))
    };
    let largest_table = shifter_common::maglev::table_size(1 << 30);
    let per_backend = shifter_common::maglev::ENTRIES_PER_BACKEND;
    assert_eq!(
        BACKENDS_PER_SLOT_MAX_COUNT,
        (largest_table / per_backend) as usize
    );
    assert!(parse_service("f", &with_backends(BACKENDS_PER_SLOT_MAX_COUNT)).is_ok());
    let found = parse_service("f", &with_backends(BACKENDS_PER_SLOT_MAX_COUNT + 1));
    assert_eq!(
        printed(&found.expect_err("one too many")),
        "f:5:12: slot a must have at most 2621 backends, found 2622\n    \
         help: a lookup table cannot share flows evenly among more; split the service\n"
    );
}

#[test]
fn problems_are_shown_in_the_order_of_the_file_and_not_without_end() {
    let mut text = SERVICE.to_owned();
    for key in 0..150 {
        text.push_str(&format!("key-{key} = 1\n"));
    }
    let found = parse_service("f", &text).expect_err("150 unknown keys");
    assert_eq!(found.len(), 101);
    for (key, diagnostic) in found[..100].iter().enumerate() {
        assert_eq!(
            diagnostic.message,
            format!("unknown key \"key-{key}\" in slot.a")
        );
    }
    assert_eq!(
        found[100].to_string(),
        "f: 50 more problems are not shown\n    help: mend those above first"
    );
}

#[test]
fn places_are_in_characters_whatever_stands_before() {
    for (text, problem) in [
        ("\u{feff}x = 1\n", "f:1:1: unknown key \"x\""),
        ("# größe\r\nx = 1\r\n", "f:2:1: unknown key \"x\""),
        ("\"größe\" = { x = 1 }\n", "f:1:1: unknown key \"größe\""),
        (
            "[probe]\nreadiness = { http = \"/日本\", x = 1 }\n",
            "f:2:29: unknown key \"x\" in",
        ),
        (
            "a = \"\u{1}\"\n",
            "f:1:6: not TOML: invalid basic string, expected non-double-quote",
        ),
        (
            "[probe]\n\treadiness = 1\n",
            "f:2:14: `probe.readiness` must be a table",
        ),
    ] {
        let found = printed(&parse_service("f", text).expect_err(text));
        assert!(found.contains(problem), "{problem:?} is not in:\n{found}");
    }
}

/// Where no problem is found, a good file has been read; so the two cannot be confused.
#[test]
fn a_refusal_is_never_empty() {
    for text in [
        "",
        "\0",
        "[",
        "=",
        "[service]",
        "\u{feff}",
        "a",
        "'",
        "[[[",
        "x=[{",
    ] {
        assert!(!parse_service("f", text).expect_err(text).is_empty());
        assert!(!parse_node("f", text).expect_err(text).is_empty());
    }
}

#[test]
fn a_hostile_file_is_refused_in_bounded_depth() {
    for (open, close) in [("[", "]"), ("{ a = ", "}"), ("a.", "a = 1")] {
        let deep = format!("x = {}{}", open.repeat(50_000), close.repeat(50_000));
        for text in [deep.as_str(), &deep["x = ".len()..]] {
            let found = parse_service("f", text).expect_err("is refused");
            assert!(found.len() <= 101, "{} problems", found.len());
            let longest = found.iter().map(|d| d.to_string().len()).max();
            assert!(longest < Some(1_000), "a problem of {longest:?} bytes");
        }
    }
}

/// Pieces of files, so that random texts get past the parser.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "[service]\n", "[slot.a]\n", "[slot.b]\n", "[probe]\n", "[drain]\n", "[rollback]\n",
            "[[interface]]\n", "[metrics]\n", "[tables]\n", "[gate]\n", "name = ", "vip = ",
            "backends = ", "readiness = ", "timeout = ", "interval = ", "listen = ", "flows = ",
            "default_slot = ", "host = ", "http = ", "tcp = ", "addr = ", "weight = ",
            "\"orders\"", "\"10.0.0.10:443\"", "\"[::1]:80\"", "\"[2001:db8::1]:80\"", "\"a\"",
            "\"1s\"", "\"/\"", "true", "false", "-1", "0x", "1e9", "[", "]", "{", "}", ", ", "\n",
            "= ", "\"", "'", "\"\"\"", "\\", ".", "#", "é", "\u{feff}", "\0", "\r",
        ]).prop_map(str::to_owned),
        1 => ".{0,8}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any text gives a specification or problems in it, in order, never a panic.
    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![pieces(), ".*", "(?s).*"]) {
        let line_count = text.split('\n').count();
        for found in [parse_service("f", &text).err(), parse_node("f", &text).err()] {
            let places: Vec<_> = found.iter().flatten().map(|d| (d.line, d.column)).collect();
            prop_assert!(found.is_none() || !places.is_empty());
            let placed: Vec<_> = places.iter().copied().filter(|&(line, _)| line > 0).collect();
            prop_assert!(placed.is_sorted() && places.starts_with(&placed), "{:?}", places);
            for (line, column) in placed {
                prop_assert!(line as usize <= line_count && column > 0, "{}:{}", line, column);
            }
        }
    }

    /// A good file of any addresses comes out as it went in.
    #[test]
    fn what_is_written_is_what_is_read(
        port in 1_u16.., weight in 0_u16..=1_000, host in 1_u8..=254,
        timeout_s in 1_u64..=2_592_000,
    ) {
        let text = format!(
            "{}[slot.b]\nbackends = [\"10.2.0.1:{port}\", \
             {{ addr = \"10.2.1.{host}:{port}\", weight = {weight} }}]\n\
             [drain]\ntimeout = \"{timeout_s}s\"\n",
            SERVICE.replace("10.0.0.11:8443", &format!("10.1.0.{host}:{port}")),
        );
        let spec = parse_service("f", &text);
        prop_assert!(spec.is_ok(), "{:?}", spec);
        if let Ok(spec) = spec {
            let addr = |slot: usize, i: usize| spec.slots[slot].backends[i].addr.to_string();
            prop_assert_eq!(addr(0, 0), format!("10.1.0.{host}:{port}"));
            prop_assert_eq!(addr(1, 1), format!("10.2.1.{host}:{port}"));
            prop_assert_eq!(spec.slots[1].backends[0].weight, 100);
            prop_assert_eq!(spec.slots[1].backends[1].weight, weight);
            prop_assert_eq!(spec.drain_timeout, Duration::from_secs(timeout_s));
        }
    }
}
