//! Calling `nft`.

use std::{
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use super::{Bypass, rules};
use crate::dataplane::DataplaneError;

/// Puts exactly these ways in force.
///
/// # Errors
/// If there is no nft, or the kernel refuses.
pub fn put(ways: &[Bypass]) -> Result<(), DataplaneError> {
    run(&["-f", "-"], &rules::script(ways)).map(drop)
}

/// Whether the table is there. Without nft nobody could have made it.
pub fn is_there() -> bool {
    let words: Vec<&str> = ["list", "table"]
        .into_iter()
        .chain(rules::TABLE.split(' '))
        .collect();
    run(&words, "").is_ok()
}

/// Removes the table, if it is there.
///
/// # Errors
/// If the kernel refuses.
pub fn remove() -> Result<(), DataplaneError> {
    if is_there() { put(&[]) } else { Ok(()) }
}

fn run(arguments: &[&str], input: &str) -> Result<String, DataplaneError> {
    let output = spawn(arguments, input).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            DataplaneError::Refused(
                "nft is missing; install the package nftables: apt-get install nftables".into(),
            )
        } else {
            DataplaneError::kernel("running nft", error)
        }
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let first = said.lines().next().unwrap_or("it does not say why");
    Err(DataplaneError::Refused(format!(
        "nft refuses the table: {first}"
    )))
}

fn spawn(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended before it has read everything says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}
