//! `audit`: the records, whether their chain holds, and all of them for somebody else.

use std::{io::Read as _, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shifter_common::{
    audit::{Chain, Link},
    wire::AuditRecord,
};
use tokio::process::Command;

use crate::{
    cli::{Audit, Output},
    client::{Client, segment},
    failure::Failure,
    journal::{self, Seal},
    render,
    run::put,
    screen,
};

/// Records that are asked for at once.
const PAGE_COUNT: u32 = 1_000;

/// Records as the daemon sends them; their text is what is hashed.
#[derive(Debug, Deserialize)]
struct Page {
    records: Vec<Box<RawValue>>,
    last_seq: u64,
    unwritten_count: u64,
    #[serde(default)]
    trouble: String,
}

/// What came of following a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records whose chain holds.
    pub records_count: u64,
    /// Hash of the last of them; 64 zeros if there is none.
    pub last_hash: String,
    /// Of these, records that the journal has as well; `null` if it was not asked.
    pub journal_count: Option<usize>,
    /// Records that the daemon could not write yet.
    pub unwritten_count: u64,
    /// The first thing that is wrong; `null` if nothing is.
    pub broken: Option<String>,
}

/// Does what `audit` says.
///
/// # Errors
/// Why it was not done, or what is broken.
pub async fn audit(client: &Client, output: Output, command: Audit) -> Result<(), Failure> {
    match command {
        Audit::Show {
            service,
            after,
            limit,
        } => {
            let mut path = format!("/v1/audit?limit={limit}");
            if let Some(after) = after {
                path += &format!("&after={after}");
            }
            if let Some(service) = service {
                path += &format!("&service={}", segment(&service));
            }
            show(client, output, &path).await
        }
        Audit::Verify {
            file,
            journal,
            journal_file,
        } => {
            // First the log: what is sealed while the records are read is then not missed among them.
            let log = match (journal, &journal_file) {
                (_, Some(file)) => Some(read(file)?),
                (true, None) => Some(journalctl().await?),
                (false, None) => None,
            };
            let mut verified = match &file {
                Some(file) => Follower::default().lines(&read(file)?),
                None => from_daemon(client).await?,
            };
            if let Some(log) = log {
                verified.hold_against(&journal::seals(&log));
            }
            let verified = verified.into_verified();
            put(output, &verified, |view| render::verified(view, &verified))?;
            match verified.broken {
                Some(broken) => Err(Failure::AuditBroken(broken)),
                None => Ok(()),
            }
        }
        Audit::Export { after } => export(client, after.unwrap_or(0)).await,
    }
}

async fn show(client: &Client, output: Output, path: &str) -> Result<(), Failure> {
    let text = client.get_text(path).await?;
    if output == Output::Json {
        // As it was sent, byte by byte.
        return screen::print(&(text + "\n"));
    }
    let page = page_of(client, &text)?;
    let records: Vec<AuditRecord> = page
        .records
        .iter()
        .map(|record| client.read_record(record.get()))
        .collect();
    screen::print(&render::audit(
        &screen::view(),
        &records,
        page.last_seq,
        page.unwritten_count,
        &page.trouble,
    ))
}

async fn page_after(client: &Client, after: u64) -> Result<Page, Failure> {
    let path = format!("/v1/audit?after={after}&limit={PAGE_COUNT}");
    let text = client.get_text(&path).await?;
    page_of(client, &text)
}

fn page_of(client: &Client, text: &str) -> Result<Page, Failure> {
    serde_json::from_str(text).map_err(|error| client.strange(error.to_string()))
}

async fn export(client: &Client, mut after: u64) -> Result<(), Failure> {
    loop {
        let page = page_after(client, after).await?;
        let lines: String = page
            .records
            .iter()
            .map(|record| format!("{}\n", record.get()))
            .collect();
        screen::print(&lines)?;
        match next_after(&page, after) {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// Where the next page begins. A record that is none any more is passed by as if its number were the next
/// one.
fn next_after(page: &Page, after: u64) -> Option<u64> {
    let count = page.records.len() as u64;
    let last = page.records.last()?;
    let next = Link::of(last.get()).map_or(after + count, |link| link.seq);
    (count == u64::from(PAGE_COUNT) && next > after).then_some(next)
}

async fn from_daemon(client: &Client) -> Result<Follower, Failure> {
    let mut follower = Follower::default();
    let mut after = 0;
    loop {
        let page = page_after(client, after).await?;
        for record in &page.records {
            follower.follow(record.get());
        }
        follower.unwritten_count = page.unwritten_count;
        match next_after(&page, after) {
            Some(next) if follower.broken.is_none() => after = next,
            _ => return Ok(follower),
        }
    }
}

/// A chain on its way to its end.
#[derive(Debug, Default)]
struct Follower {
    chain: Chain,
    /// Name of the chain.
    name: String,
    hashes: Vec<String>,
    journal_count: Option<usize>,
    unwritten_count: u64,
    broken: Option<String>,
}

impl Follower {
    fn follow(&mut self, line: &str) {
        if self.broken.is_some() {
            return;
        }
        if let Err(broken) = self.chain.follow(line) {
            self.broken = Some(broken.to_string());
            return;
        }
        if self.name.is_empty()
            && let Ok(record) = serde_json::from_str::<AuditRecord>(line)
        {
            journal::chain(&record.id).clone_into(&mut self.name);
        }
        self.hashes.push(self.chain.hash().to_owned());
    }

    fn lines(mut self, text: &str) -> Self {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.follow(line);
        }
        self
    }

    /// A chain that is broken in itself needs no journal to be.
    fn hold_against(&mut self, seals: &[Seal]) {
        if self.broken.is_some() {
            return;
        }
        match journal::compare(seals, &self.name, &self.hashes) {
            Ok(count) => self.journal_count = Some(count),
            Err(broken) => self.broken = Some(broken),
        }
    }

    fn into_verified(self) -> Verified {
        Verified {
            records_count: self.chain.seq(),
            last_hash: self.chain.hash().to_owned(),
            journal_count: self.journal_count,
            unwritten_count: self.unwritten_count,
            broken: self.broken,
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::NoFile {
        path: file.to_owned(),
        error,
    })?;
    Ok(text)
}

async fn journalctl() -> Result<String, Failure> {
    let asked = Command::new("journalctl")
        .args([
            "--unit=shifterd.service",
            "--output=cat",
            "--no-pager",
            "--quiet",
        ])
        .output()
        .await;
    let failed = |error| Failure::Io {
        what: "ask journalctl",
        error,
    };
    let output = asked.map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(std::io::Error::other(said.trim().to_owned())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use shifter_common::audit::{NOTHING_BEFORE, seal};

    use super::*;

    fn chain(count: u64) -> Vec<String> {
        let mut prev = NOTHING_BEFORE.to_owned();
        (1..=count)
            .map(|seq| {
                let body = format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"id\":\"0f-{seq}\"}}");
                let (line, hash) = seal(&body);
                prev = hash;
                line
            })
            .collect()
    }

    #[test]
    fn a_file_is_verified_without_a_daemon() {
        let lines = chain(3);
        let verified = Follower::default()
            .lines(&format!("{}\n\n", lines.join("\n")))
            .into_verified();
        assert_eq!((verified.records_count, &verified.broken), (3, &None));
        let broken = Follower::default()
            .lines(&[lines[0].clone(), lines[2].clone()].join("\n"))
            .into_verified();
        assert_eq!(broken.records_count, 1);
        assert_eq!(broken.broken.as_deref(), Some("record 2 is missing"));
    }

    #[test]
    fn the_journal_knows_of_an_end_that_was_cut_off() {
        let lines = chain(3);
        let seals: Vec<Seal> = lines
            .iter()
            .zip(1..)
            .map(|(line, seq)| Seal {
                seq,
                hash: Link::of(line).unwrap().hash.to_owned(),
                id: format!("0f-{seq}"),
            })
            .collect();
        let rows = [
            (3, Some(3), None),
            (
                2,
                None,
                Some("the journal has record 3, the audit ends with record 2"),
            ),
        ];
        for (kept, count, told) in rows {
            let mut follower = Follower::default().lines(&lines[..kept].join("\n"));
            follower.hold_against(&seals);
            let verified = follower.into_verified();
            assert_eq!(verified.journal_count, count);
            assert_eq!(verified.broken.as_deref(), told);
        }
    }
}
