//! What service files may not say together.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
};

use shifter_common::wire::Diagnostic;

use super::{
    place::Lines,
    report::{SHOWN_MAX_COUNT, not_shown, shown},
    service::ServiceFile,
};
use crate::model::{Protocol, ServiceSpec, Services};

/// Checks files against each other. They are taken in the order of their names; one that does not
/// fit the good ones before it is the one that is refused, and disturbs no later one.
///
/// Returns the problems; a file is refused if one of them names it.
pub fn check_all(files: &[ServiceFile]) -> Vec<Diagnostic> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|one, other| one.file.cmp(&other.file));
    let mut claims = Claims::default();
    let mut diagnostics = Vec::new();
    for file in &files {
        let mut found = misnamed(file, &files);
        found.extend(claims.conflicts(file));
        if found.is_empty() {
            claims.add(&file.spec, format!("in {}", file.file));
        }
        diagnostics.append(&mut found);
    }
    diagnostics
}

/// Checks files against services that stay as they are because their own file is refused
/// (`refused`) or gone: what such a service holds is not free for others.
///
/// Returns the problems; a file is refused if one of them names it.
pub fn check_kept<'f>(
    files: impl IntoIterator<Item = &'f ServiceFile>,
    kept: &Services,
    is_refused: impl Fn(&str) -> bool,
) -> Vec<Diagnostic> {
    let mut claims = Claims::default();
    for (name, spec) in kept {
        let why = if is_refused(name) { "refused" } else { "gone" };
        claims.add(spec, format!("in force, its file is {why}"));
    }
    files
        .into_iter()
        .flat_map(|file| claims.conflicts(file))
        .collect()
}

/// The file's name without directory and `.toml`.
pub(super) fn stem(file: &str) -> &str {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.strip_suffix(".toml").unwrap_or(base)
}

fn misnamed(file: &ServiceFile, files: &[&ServiceFile]) -> Vec<Diagnostic> {
    let (name, stem) = (&file.spec.name, stem(&file.file));
    if name == stem {
        return Vec::new();
    }
    let lines = Lines::new(&file.text);
    let mut found = vec![problem(
        file,
        &lines,
        file.name_at,
        format!("service \"{name}\" stands in a file of another name"),
        format!("call the file {name}.toml, or the service {}", shown(stem)),
    )];
    let twin = |other: &&&ServiceFile| other.file != file.file && other.spec.name == *name;
    if let Some(other) = files.iter().find(twin) {
        found.push(problem(
            file,
            &lines,
            file.name_at,
            format!("service \"{name}\" is in {} as well", other.file),
            "a service has one file; remove one of the two",
        ));
    }
    found
}

/// A problem at a byte offset of the file.
fn problem(
    file: &ServiceFile,
    lines: &Lines<'_>,
    at: usize,
    message: String,
    help: impl Into<String>,
) -> Diagnostic {
    let place = lines.place(at);
    Diagnostic {
        file: file.file.clone(),
        line: place.line,
        column: place.column,
        message,
        help: help.into(),
    }
}

/// Addresses that services hold.
#[derive(Debug, Default)]
struct Claims {
    /// By protocol as well: services of two protocols may share an address.
    by_address: BTreeMap<(Protocol, SocketAddr), Claim>,
}

/// Who holds an address.
#[derive(Debug)]
struct Claim {
    role: &'static str,
    service: String,
    /// `in FILE`, or why it holds without a file.
    holds: String,
}

impl Claims {
    fn add(&mut self, spec: &ServiceSpec, holds: String) {
        let vips = spec.vips.iter().map(|&addr| ("VIP", addr));
        let backends = spec
            .slots
            .iter()
            .flat_map(|slot| &slot.backends)
            .map(|b| ("backend", b.addr));
        for (role, addr) in vips.chain(backends) {
            if let Entry::Vacant(free) = self.by_address.entry((spec.protocol, addr)) {
                free.insert(Claim {
                    role,
                    service: spec.name.clone(),
                    holds: holds.clone(),
                });
            }
        }
    }

    /// What the file claims that another service holds.
    fn conflicts(&self, file: &ServiceFile) -> Vec<Diagnostic> {
        let lines = Lines::new(&file.text);
        let vips = file
            .spec
            .vips
            .iter()
            .zip(&file.vips_at)
            .map(|(&vip, &at)| ("VIP", vip, at));
        let slots = file.spec.slots.iter().zip(&file.backends_at);
        let backends = slots
            .flat_map(|(slot, places)| slot.backends.iter().zip(places))
            .map(|(backend, &at)| ("backend", backend.addr, at));
        let claimed: Vec<_> = vips
            .chain(backends)
            .filter_map(|(role, addr, at)| {
                let claim = self.by_address.get(&(file.spec.protocol, addr))?;
                Some((role, addr, at, claim))
            })
            .collect();
        let hidden = claimed.len().saturating_sub(SHOWN_MAX_COUNT);
        claimed
            .into_iter()
            .take(SHOWN_MAX_COUNT)
            .map(|(role, addr, at, claim)| {
                let Claim {
                    role: other_role,
                    service,
                    holds,
                } = claim;
                let help = match (role, *other_role) {
                    ("VIP", "VIP") => "a VIP belongs to one service; remove it from the other",
                    ("backend", "backend") => {
                        "replies of a shared server could not be told apart; let it listen on a \
                         port for each service"
                    }
                    _ => {
                        "a packet is steered once, so one service cannot lead to another; write \
                         the address of a server"
                    }
                };
                let message = format!(
                    "{role} \"{addr}\" is a {other_role} of service \"{service}\" ({holds})"
                );
                problem(file, &lines, at, message, help)
            })
            .chain((hidden > 0).then(|| not_shown(&file.file, hidden)))
            .collect()
    }
}
