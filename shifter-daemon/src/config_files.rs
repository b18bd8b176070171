//! Reads the configuration files and hands their texts to [`crate::config`].
//!
//! The files say where packets are sent, so they are trusted only if nobody but root can have
//! written them: file, directory and every directory above must belong to root and be writable by
//! nobody else. A daemon that does not run as root has nothing to protect and asks for none of it.

use std::{
    fmt::Display,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use crate::config::LoadedServices;

use nix::{fcntl::OFlag, unistd::geteuid};
use shifter_common::wire::Diagnostic;

use crate::{
    config::{self, FILE_MAX_BYTES, Place},
    model::NodeSpec,
};

/// Bits of a mode that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a directory with this bit, nobody can replace what belongs to somebody else.
const STICKY: u32 = 0o1000;

/// Reads the node file.
///
/// # Errors
/// Why it cannot be read or trusted, or all problems of its text.
pub fn load_node(path: &Path) -> Result<NodeSpec, Vec<Diagnostic>> {
    load_node_of(path, Owner::of_this_process())
}

/// Reads the service files of a directory, in the order of their names: those that end in `.toml`
/// and do not begin with a dot. Whatever is wrong with one affects no other.
pub fn load_services(dir: &Path) -> LoadedServices {
    load_services_of(dir, Owner::of_this_process())
}

fn load_node_of(path: &Path, owner: Owner) -> Result<NodeSpec, Vec<Diagnostic>> {
    let text = read(path, owner).map_err(|problem| {
        let missing =
            matches!(problem, Unreadable::Io(ref e) if e.kind() == io::ErrorKind::NotFound);
        let help = if missing {
            format!(
                "write it, beginning with: cp examples/shifter.toml {}",
                word(path)
            )
        } else {
            problem.help(path)
        };
        vec![problem.diagnostic(path, help)]
    })?;
    config::parse_node(&path.to_string_lossy(), &text)
}

fn load_services_of(dir: &Path, owner: Owner) -> LoadedServices {
    let paths = match list(dir, owner) {
        Ok(paths) => paths,
        Err(problem) => {
            return LoadedServices {
                diagnostics: vec![problem],
                ..LoadedServices::default()
            };
        }
    };
    config::collect(
        paths
            .into_iter()
            .map(|path| {
                let text = read(&path, owner).map_err(|problem| {
                    let help = problem.help(&path);
                    problem.diagnostic(&path, help)
                });
                (path.to_string_lossy().into_owned(), text)
            })
            .collect(),
    )
}

/// Who must own the files; nobody in particular if `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner(Option<u32>);

impl Owner {
    fn of_this_process() -> Self {
        Self(geteuid().is_root().then_some(0))
    }

    /// What would let somebody else decide what is in the file or directory.
    fn distrust(self, path: &Path, metadata: &Metadata, in_between: bool) -> Option<Unreadable> {
        let expected = self.0?;
        if ![expected, 0].contains(&metadata.uid()) {
            return Some(Unreadable::ForeignOwner {
                path: path.to_owned(),
                uid: metadata.uid(),
            });
        }
        let mode = metadata.mode();
        let safe = mode & WRITABLE_BY_OTHERS == 0 || (in_between && mode & STICKY != 0);
        (!safe).then(|| Unreadable::Writable {
            path: path.to_owned(),
            mode: mode & 0o7777,
        })
    }

    /// The same for a directory and all above it. `path` has no symbolic links.
    fn distrust_dirs(self, path: &Path) -> Result<(), Unreadable> {
        if self.0.is_none() {
            return Ok(());
        }
        for dir in path.ancestors() {
            let metadata = fs::metadata(dir)?;
            if let Some(distrust) = self.distrust(dir, &metadata, dir != path) {
                return Err(distrust);
            }
        }
        Ok(())
    }
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a file")]
    NotAFile,
    #[error("has more than {} MiB", FILE_MAX_BYTES >> 20)]
    TooLong,
    #[error("is not UTF-8 text")]
    NotUtf8(Place),
    #[error("belongs to uid {uid}, not to root")]
    ForeignOwner { path: PathBuf, uid: u32 },
    #[error("can be written by others than its owner (mode {mode:04o})")]
    Writable { path: PathBuf, mode: u32 },
}

impl Unreadable {
    fn help(&self, path: &Path) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("see where it leads: ls -l {}", word(path))
            }
            Self::Io(_) => format!("see its rights: namei -l {}", word(path)),
            Self::NotAFile => "move it away, or end its name in something else".to_owned(),
            Self::TooLong => "this is hardly a configuration file; move it away".to_owned(),
            Self::NotUtf8(_) => {
                format!("convert it: iconv -f LATIN1 -t UTF-8 -o NEW {}", word(path))
            }
            Self::ForeignOwner { path, .. } => {
                format!("if you trust what is in it: chown root {}", word(path))
            }
            Self::Writable { path, .. } => {
                format!("if you trust what is in it: chmod go-w {}", word(path))
            }
        }
    }

    fn diagnostic(&self, path: &Path, help: String) -> Diagnostic {
        let place = if let Self::NotUtf8(place) = self {
            *place
        } else {
            Place::default()
        };
        let file = path.to_string_lossy().into_owned();
        let message = match self {
            Self::ForeignOwner { path: dir, .. } | Self::Writable { path: dir, .. }
                if dir != path =>
            {
                format!("directory {} {self}", dir.display())
            }
            _ => self.to_string(),
        };
        Diagnostic {
            file,
            line: place.line,
            column: place.column,
            message,
            help,
        }
    }
}

/// The service files of a directory, by name.
fn list(dir: &Path, owner: Owner) -> Result<Vec<PathBuf>, Diagnostic> {
    let paths = || -> Result<Vec<PathBuf>, Unreadable> {
        owner.distrust_dirs(&fs::canonicalize(dir)?)?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
                paths.push(dir.join(name));
            }
        }
        paths.sort();
        Ok(paths)
    };
    paths().map_err(|problem| match problem {
        Unreadable::Io(error) if error.kind() == io::ErrorKind::NotFound => Diagnostic {
            file: dir.to_string_lossy().into_owned(),
            line: 0,
            column: 0,
            message: "there is no such directory for service files".to_owned(),
            help: format!("make it: mkdir -p -m 0755 {}", word(dir)),
        },
        problem => {
            let help = problem.help(dir);
            problem.diagnostic(dir, help)
        }
    })
}

/// The text of a file that may be trusted. The open file is looked at, not its name, which could
/// lead elsewhere a moment later.
fn read(path: &Path, owner: Owner) -> Result<String, Unreadable> {
    // Without O_NONBLOCK, a FIFO would be waited for.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Unreadable::NotAFile);
    }
    if let Some(distrust) = owner.distrust(path, &metadata, false) {
        return Err(distrust);
    }
    let beside = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    owner.distrust_dirs(&fs::canonicalize(beside)?)?;
    // If the name is a symbolic link, the file lies in another directory.
    let target = fs::canonicalize(path)?;
    owner.distrust_dirs(target.parent().unwrap_or(&target))?;
    let bytes = read_bytes(&mut file)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid_bytes = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..valid_bytes]).into_owned();
        Unreadable::NotUtf8(Place::of(&valid, valid_bytes))
    })
}

fn read_bytes(file: &mut File) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > FILE_MAX_BYTES {
        Err(Unreadable::TooLong)
    } else {
        Ok(bytes)
    }
}

/// A path as a word of a shell command.
fn word(path: &Path) -> impl Display {
    let text = path.to_string_lossy().into_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,".contains(&byte);
    if text.bytes().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
