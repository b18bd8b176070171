//! The licences and origins of everything that is linked in, held against `deny.toml`.
//!
//! cargo-deny reads the same file and looks deeper, but takes minutes to compile.

use std::fs;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

/// The registry that every dependency comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// What `cargo metadata` says about a package.
#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Reads the dependency tree and the allow list; returns how many packages were judged, and one
/// complaint for each that is not allowed.
///
/// # Errors
/// `cargo metadata` or `deny.toml` cannot be read.
pub fn check(workspace: &Workspace) -> anyhow::Result<(usize, Vec<String>)> {
    let path = workspace.root.join("deny.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed = allow_list(&text)?;
    let mut command = workspace.cargo();
    command.args(["metadata", "--format-version=1", "--filter-platform"]);
    command.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let metadata: Metadata = serde_json::from_str(&process::output(command)?)
        .context("`cargo metadata` gave no package list")?;
    let complaints = metadata
        .packages
        .iter()
        .filter_map(|package| complaint(package, &allowed))
        .collect();
    Ok((metadata.packages.len(), complaints))
}

/// What is wrong with a package.
fn complaint(package: &Package, allowed: &[String]) -> Option<String> {
    let Package {
        name,
        version,
        license,
        source,
    } = package;
    if let Some(source) = source
        && source != REGISTRY
    {
        return Some(format!(
            "{name} {version} comes from {source}, not from crates.io"
        ));
    }
    let Some(license) = license else {
        return Some(format!("{name} {version} names no licence"));
    };
    match is_allowed(license, allowed) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{name} {version} is under \"{license}\", which deny.toml does not allow"
        )),
        Err(error) => Some(format!("{name} {version}: {error:#}")),
    }
}

/// The strings of `allow = [ … ]` in the `[licenses]` table.
fn allow_list(deny: &str) -> anyhow::Result<Vec<String>> {
    let mut lines = deny
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    if !lines.any(|line| line == "[licenses]") {
        bail!("deny.toml has no table [licenses]");
    }
    let table = lines
        .take_while(|line| !line.starts_with('['))
        .collect::<Vec<_>>()
        .join(" ");
    let list = table
        .split_once("allow")
        .and_then(|(_, rest)| rest.trim_start().strip_prefix('='))
        .and_then(|rest| rest.trim_start().strip_prefix('['))
        .and_then(|rest| rest.split_once(']'))
        .map(|(list, _)| list)
        .context("deny.toml has no list `allow` in [licenses]")?;
    let names: Vec<String> = list
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        bail!("deny.toml allows no licence at all");
    }
    Ok(names)
}

/// Whether an SPDX expression can be satisfied with allowed licences alone.
fn is_allowed(expression: &str, allowed: &[String]) -> anyhow::Result<bool> {
    // Old manifests write `MIT/Apache-2.0` for OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = alternatives(&mut words, allowed);
    match (verdict, words.next()) {
        (Some(verdict), None) => Ok(verdict),
        _ => bail!("\"{expression}\" is no licence expression"),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// One or more conjunctions between `OR`.
fn alternatives(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut verdict = conjunction(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        verdict |= conjunction(words, allowed)?;
    }
    Some(verdict)
}

/// One or more licences between `AND`.
fn conjunction(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut verdict = licence(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        verdict &= licence(words, allowed)?;
    }
    Some(verdict)
}

/// A licence, with its exception if it has one, or an expression in parentheses.
fn licence(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let verdict = alternatives(words, allowed)?;
        return words.next_if_eq(&")").map(|_| verdict);
    }
    if ["OR", "AND", "WITH", ")"].contains(&word) {
        return None;
    }
    let mut name = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next()?);
    }
    Some(allowed.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "# text\n[advisories]\nallow = [\"no\"]\n[licenses]\nconfidence = 0.9\n\
                        allow = [\n  \"MIT\", # the usual\n  \"Apache-2.0\",\n  \
                        \"Apache-2.0 WITH LLVM-exception\",\n]\n[bans]\n";

    fn allowed() -> Vec<String> {
        allow_list(DENY).expect("a list")
    }

    #[test]
    fn the_allow_list_is_read() {
        assert_eq!(
            allowed(),
            ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        );
        let rows = [
            ("", "deny.toml has no table [licenses]"),
            (
                "[licenses]\n[bans]\nallow = [\"MIT\"]",
                "deny.toml has no list `allow` in [licenses]",
            ),
            (
                "[licenses]\nallow = []",
                "deny.toml allows no licence at all",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(allow_list(text).expect_err("no list").to_string(), expected);
        }
    }

    #[test]
    fn expressions_are_weighed() {
        let rows = [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("(MIT OR GPL-2.0-only) AND Apache-2.0", true),
            ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", false),
            ("GPL-2.0-only OR MIT AND Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
        ];
        for (expression, expected) in rows {
            let verdict = is_allowed(expression, &allowed()).expect("an expression");
            assert_eq!(verdict, expected, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for expression in [
            "", "MIT OR", "(MIT", "MIT)", "OR MIT", "MIT MIT", "MIT WITH",
        ] {
            let error = is_allowed(expression, &allowed()).expect_err("no expression");
            assert_eq!(
                error.to_string(),
                format!("\"{expression}\" is no licence expression")
            );
        }
    }

    #[test]
    fn packages_that_break_the_rules_are_named() {
        let package = |license: Option<&str>, source: Option<&str>| Package {
            name: "thing".to_owned(),
            version: "1.2.3".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
        };
        let git = "git+https://example.org/thing";
        let rows = [
            (package(Some("MIT"), None), None),
            (package(Some("MIT"), Some(REGISTRY)), None),
            (
                package(None, Some(REGISTRY)),
                Some("thing 1.2.3 names no licence"),
            ),
            (
                package(Some("AGPL-3.0-only"), Some(REGISTRY)),
                Some("thing 1.2.3 is under \"AGPL-3.0-only\", which deny.toml does not allow"),
            ),
            (
                package(Some("MIT"), Some(git)),
                Some("thing 1.2.3 comes from git+https://example.org/thing, not from crates.io"),
            ),
            (
                package(Some("MIT OR"), Some(REGISTRY)),
                Some("thing 1.2.3: \"MIT OR\" is no licence expression"),
            ),
        ];
        for (package, expected) in rows {
            assert_eq!(
                complaint(&package, &allowed()).as_deref(),
                expected,
                "{package:?}"
            );
        }
    }
}
