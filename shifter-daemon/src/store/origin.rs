//! Where records come from.

use std::{fs, io};

/// The host, and its present life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its name.
    pub host: String,
    /// Its boot id; another one after each start of the kernel.
    pub boot_id: String,
}

impl Origin {
    /// This host. What the kernel does not tell is empty.
    pub fn here() -> Self {
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        Self {
            host: host.unwrap_or_default(),
            boot_id: line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        }
    }
}

/// A name for a chain that no other has: 16 hexadecimal digits.
pub(super) fn new_name() -> io::Result<String> {
    let uuid = line("/proc/sys/kernel/random/uuid")?;
    let digits = uuid.chars().filter(char::is_ascii_hexdigit);
    Ok(digits.take(16).collect())
}

fn line(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}
