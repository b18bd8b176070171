//! Examples and reference say what the code does.

use crate::{
    config::{
        collect, parse_node, parse_service,
        schema::{self, FileKind},
    },
    model::Slot,
};

const REFERENCE: &str = include_str!("../../../../docs/configuration.md");
const EXAMPLE_NODE: &str = include_str!("../../../../examples/shifter.toml");
const EXAMPLE_SERVICES: [(&str, &str); 2] = [
    (
        "orders.toml",
        include_str!("../../../../examples/services.d/orders.toml"),
    ),
    (
        "static.toml",
        include_str!("../../../../examples/services.d/static.toml"),
    ),
];

#[test]
fn the_examples_are_good_together() {
    let node = parse_node("examples/shifter.toml", EXAMPLE_NODE).expect("is good");
    assert_eq!(node.services_dir.to_str(), Some("examples/services.d"));
    let texts = EXAMPLE_SERVICES.map(|(file, text)| (file.to_owned(), Ok(text.to_owned())));
    let loaded = collect(texts.into());
    assert_eq!(loaded.diagnostics, []);
    assert!(loaded.services.keys().eq(["orders", "static"]));
    for family_is_v4 in [true, false] {
        let orders = &loaded.services["orders"];
        assert!(orders.vips.iter().any(|vip| vip.is_ipv4() == family_is_v4));
        for slot in Slot::ALL {
            let mut backends = orders.slot(slot).backends.iter();
            assert!(backends.any(|backend| backend.addr.is_ipv4() == family_is_v4));
        }
    }
}

/// Keys of all tables, as (heading in the reference, key, whether this version supports it).
fn keys(kind: FileKind) -> impl Iterator<Item = (&'static str, &'static schema::Key)> {
    kind.iter()
        .flat_map(|table| table.keys.iter().map(|key| (table.path, key)))
}

/// The part of the reference about a table.
fn section(path: &str) -> &'static str {
    let heading = match path {
        "interface" => "### `[[interface]]`".to_owned(),
        "slot.a" => "### `[slot.a]`, `[slot.b]`".to_owned(),
        "slot.a.backends" => "#### A backend".to_owned(),
        "target" => "### `[[target]]`".to_owned(),
        "rollout.steps" => "#### `steps`".to_owned(),
        "gate" => "### `[[gate]]`".to_owned(),
        "analysis.metric" => "#### `[[analysis.metric]]`".to_owned(),
        "probe.readiness" => "#### `readiness`".to_owned(),
        path => format!("### `[{path}]`"),
    };
    let start = REFERENCE
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("{heading}"));
    let text = &REFERENCE[start + heading.len()..];
    text.find("\n##").map_or(text, |end| &text[..end])
}

#[test]
fn the_reference_has_every_key_in_its_place() {
    for (path, key) in keys(schema::SERVICE_FILE).chain(keys(schema::NODE_FILE)) {
        let row = format!("| `{}` |", key.name);
        match (path, key.is_supported()) {
            ("" | "slot", true) => {}
            (path, true) => assert!(section(path).contains(&row), "{path} lacks {row}"),
            (path, false) => {
                let full = if path.is_empty() {
                    format!("`{}`", key.name)
                } else {
                    format!("`{path}.{}`", key.name)
                };
                assert!(
                    section_of_reserved_keys().contains(&full),
                    "{full} is not reserved"
                );
            }
        }
    }
}

fn section_of_reserved_keys() -> &'static str {
    REFERENCE
        .split("\n## Reserved keys\n")
        .nth(1)
        .expect("the reference has reserved keys")
}

/// The key of an example `key = value`.
fn key_of(example: &str) -> &str {
    example.split(' ').next().unwrap_or_default()
}

/// Each example of a key, as shown in a message, is right where it belongs.
#[test]
fn the_examples_in_messages_are_good() {
    let service_file = |path: &str, example: &str| {
        let good = |name: &str, line: &str| {
            if example.starts_with(&format!("{name} ")) {
                example.to_owned()
            } else {
                line.into()
            }
        };
        let is_required = example.starts_with("name ") || example.starts_with("vip ");
        let extra = if path == "service" && !is_required {
            example
        } else {
            ""
        };
        let mut text = format!(
            "[service]\n{}\n{}\n{extra}\n[slot.a]\n",
            good("name", "name = \"orders\""),
            good("vip", "vip = \"10.0.0.10:443\""),
        );
        match path {
            "slot.a" if example.starts_with("backends") => text.push_str(example),
            "slot.a" => text.push_str(&format!("backends = [\"10.0.0.11:8443\"]\n{example}")),
            "slot.a.backends" => text.push_str(&format!("backends = [{example}]")),
            _ => text.push_str("backends = [\"10.0.0.11:8443\"]"),
        }
        match path {
            "probe.readiness" if example.starts_with("http") || example.starts_with("tcp") => {
                text.push_str(&format!("\n[probe.readiness]\n{example}"));
            }
            "probe.readiness" => {
                text.push_str(&format!("\n[probe.readiness]\nhttp = \"/\"\n{example}"));
            }
            "target" => {
                let line = |name: &str, line: &str| good(name, line);
                text.push_str(&format!(
                    "\n[[target]]\n{}\n{}",
                    line("from", "from = \"10.0.0.0/8\""),
                    line("to", "to = \"baseline\"")
                ));
            }
            "rollout" => {
                let strategy = match key_of(example) {
                    "add" => "linear",
                    "max_surge" | "max_unavailable" => "rolling",
                    "downtime" => "recreate",
                    "weight" => "ab",
                    _ => "canary",
                };
                text = text.replace("[slot.a]", "affinity = \"client\"\n[slot.a]");
                let strategy = good("strategy", &format!("strategy = \"{strategy}\""));
                text.push_str(&format!("\n[rollout]\n{strategy}"));
                if !example.starts_with("strategy") {
                    text.push_str(&format!("\n{example}"));
                }
            }
            "rollout.steps" => {
                text.push_str(&format!(
                    "\n[rollout]\nsteps = [{{ weight = 1 }}, {example}]"
                ));
            }
            "gate" => {
                let asks = ["http", "exec", "file", "manual"].contains(&key_of(example));
                let other = if asks {
                    "at = \"each-step\""
                } else {
                    "manual = true"
                };
                let at = good("at", if asks { "" } else { "at = \"each-step\"" });
                let other = match key_of(example) {
                    "user" => "exec = [\"/usr/local/bin/smoke\"]",
                    _ => other,
                };
                text.push_str(&format!("\n[[gate]]\n{at}\n{other}"));
                if !example.starts_with("at ") {
                    text.push_str(&format!("\n{example}"));
                }
            }
            "analysis" if example.starts_with('[') => text.push_str(&format!(
                "\n{example}\nname = \"errors\"\nmax_increase = 0.01"
            )),
            "analysis.metric" => {
                let line = |name: &str, line: &str| good(name, line);
                text.push_str(&format!(
                    "\n[[analysis.metric]]\n{}\n{}",
                    line("name", "name = \"errors\""),
                    line("max_increase", "max_increase = 0.005")
                ));
            }
            "analysis" | "probe" | "outlier" | "breaker" | "drain" | "rollback" => {
                text.push_str(&format!("\n[{path}]\n{example}"))
            }
            _ => {}
        }
        text + "\n"
    };
    for (path, key) in keys(schema::SERVICE_FILE) {
        if key.is_supported() && !matches!(path, "" | "slot") {
            let text = service_file(path, key.example);
            assert!(
                text.contains(key.example),
                "{} is not in:\n{text}",
                key.example
            );
            let parsed = parse_service("f", &text);
            assert!(parsed.is_ok(), "{parsed:?} of\n{text}");
        }
    }
    for (path, key) in keys(schema::NODE_FILE) {
        let text = match path {
            "" => continue,
            "interface" if key.name == "name" => format!("[[interface]]\n{}\n", key.example),
            "interface" => format!("[[interface]]\nname = \"eth0\"\n{}\n", key.example),
            path => format!(
                "[[interface]]\nname = \"eth0\"\n[{path}]\n{}\n",
                key.example
            ),
        };
        let parsed = parse_node("f", &text);
        assert!(parsed.is_ok(), "{parsed:?} of\n{text}");
    }
}

/// Code blocks of the reference are whole files and good.
#[test]
fn the_reference_shows_good_files() {
    let blocks: Vec<_> = REFERENCE
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(blocks.len() >= 2, "{} blocks", blocks.len());
    for block in blocks {
        let problems = if block.contains("[service]") {
            parse_service("f", block).err()
        } else {
            parse_node("f", block).err()
        };
        assert_eq!(problems, None, "{block}");
    }
}
