//! The control socket as a file: made with the right owner, never taken from a living process.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::{Gid, chown},
};
use tokio::net::UnixListener;

use super::{Accounts, GROUP_CHANGE, GROUP_VIEW, SystemAccounts};

/// Bytes of a socket's path (`sun_path` with its final NUL has 108).
const PATH_MAX_BYTES: usize = 107;

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody accepts on it.
    #[error(
        "control socket {}: another process accepts on it; one shifterd a host is right \
         (who it is: ss -xlp src {})", .0.display(), .0.display()
    )]
    InUse(PathBuf),
    /// The path is taken by something else.
    #[error(
        "control socket {}: the path exists and is no socket; \
         remove it or set another [control] socket", .0.display()
    )]
    NotASocket(PathBuf),
    /// The kernel takes no path this long.
    #[error(
        "control socket {}: the path has {} bytes, the kernel takes {PATH_MAX_BYTES}; \
         set a shorter [control] socket", .0.display(), .0.as_os_str().len()
    )]
    PathTooLong(PathBuf),
    /// Its directory's parent is missing too.
    #[error(
        "control socket {}: there is no directory {} to put it in; mkdir -p {}",
        .socket.display(), .directory.display(), .directory.display()
    )]
    NoDirectory {
        /// The socket.
        socket: PathBuf,
        /// The missing directory.
        directory: PathBuf,
    },
    /// A system call failed.
    #[error("control socket {}: cannot {action}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Groups that may connect to the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketGroups {
    /// Owns the socket; `None` leaves it with root.
    pub change: Option<u32>,
    /// Gets an access control entry of its own.
    pub view: Option<u32>,
}

/// Makes the control socket with mode 0660 for root and the groups `shifter` and `shifter-view`,
/// as far as these exist. A socket nobody accepts on is replaced; a missing last directory is made.
///
/// # Errors
/// Each [`ApiError`]; a path that a living process uses stays untouched.
pub fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let accounts = SystemAccounts;
    let groups = SocketGroups {
        change: accounts.gid_of(GROUP_CHANGE),
        view: accounts.gid_of(GROUP_VIEW),
    };
    bind_for(path, groups)
}

/// As [`bind`], for these groups.
///
/// # Errors
/// As [`bind`].
pub fn bind_for(path: &Path, groups: SocketGroups) -> Result<UnixListener, ApiError> {
    if path.as_os_str().len() > PATH_MAX_BYTES {
        return Err(ApiError::PathTooLong(path.into()));
    }
    let failed = |action| {
        move |source| ApiError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    make_directory(path)?;
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ApiError::InUse(path.into()),
        _ => failed("bind it")(source),
    })?;
    // Whoever slips in before the mode is set is judged by SO_PEERCRED like everybody else.
    if let Some(gid) = groups.change {
        chown(path, None, Some(Gid::from_raw(gid)))
            .map_err(|errno| failed("give it to group shifter")(errno.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .map_err(failed("set its mode to 0660"))?;
    if let Some(gid) = groups.view
        && let Err(error) = admit_viewers(path, gid)
    {
        tracing::warn!(
            socket = %path.display(), %error,
            "group {GROUP_VIEW} cannot connect: no access control list can be set here; \
             put the socket on a tmpfs, as /run is"
        );
    }
    Ok(listener)
}

fn make_directory(path: &Path) -> Result<(), ApiError> {
    let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(());
    };
    match fs::create_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ApiError::NoDirectory {
            socket: path.into(),
            directory: directory.into(),
        }),
        Err(source) => Err(ApiError::Io {
            action: "make its directory",
            path: path.into(),
            source,
        }),
    }
}

fn remove_stale(path: &Path) -> Result<(), ApiError> {
    let failed = |action| {
        move |source| ApiError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ApiError::NotASocket(path.into()));
        }
        Ok(_) => {}
    }
    // Without blocking: a listener with a full queue would hold a blocking connect for ever, and
    // says EAGAIN this way.
    let probe = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )
    .and_then(|probe| Ok((probe, UnixAddr::new(path)?)))
    .map_err(|errno| failed("find out whether it is in use")(errno.into()))?;
    match connect(probe.0.as_raw_fd(), &probe.1) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("remove the stale one")),
        Err(Errno::ENOENT) => Ok(()),
        Ok(()) | Err(Errno::EAGAIN) => Err(ApiError::InUse(path.into())),
        Err(errno) => Err(failed("find out whether it is in use")(errno.into())),
    }
}

/// Lets a second group connect to a socket of mode 0660. File modes know one group only, so this
/// takes an access control list.
fn admit_viewers(path: &Path, gid: u32) -> io::Result<()> {
    let list = access_list(gid);
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both strings end in NUL, `list` has the length given, and nothing is kept.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"system.posix_acl_access".as_ptr(),
            list.as_ptr().cast(),
            list.len(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The list `u::rw-, g::rw-, g:GID:rw-, m::rw-, o::---` as the kernel reads it
/// (linux/posix_acl_xattr.h): a version, then tag, permissions and id of each entry.
fn access_list(gid: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    const READ_WRITE: u16 = 6;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, READ_WRITE, NO_ID),
        (0x04, READ_WRITE, NO_ID),
        (0x08, READ_WRITE, gid),
        (0x10, READ_WRITE, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::os::unix::{fs::MetadataExt, net::UnixStream};

    use nix::unistd::getegid;

    use super::*;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shifter.sock");
        (dir, path)
    }

    fn refused(path: &Path) -> String {
        bind_for(path, SocketGroups::default())
            .unwrap_err()
            .to_string()
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_group_and_accepts() {
        let (_dir, path) = fresh();
        let change = getegid().as_raw();
        let listener = bind_for(
            &path,
            SocketGroups {
                change: Some(change),
                view: None,
            },
        )
        .unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o660);
        assert_eq!(found.gid(), change);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().await.unwrap();
    }

    #[tokio::test]
    async fn viewers_get_an_entry_and_the_mode_stays() {
        let (_dir, path) = fresh();
        let gid = getegid().as_raw();
        let _listener = bind_for(
            &path,
            SocketGroups {
                change: None,
                view: Some(gid),
            },
        )
        .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut list = [0_u8; 128];
        // SAFETY: the strings end in NUL and `list` has the length given.
        let len = unsafe {
            libc::getxattr(
                name.as_ptr(),
                c"system.posix_acl_access".as_ptr(),
                list.as_mut_ptr().cast(),
                list.len(),
            )
        };
        assert_eq!(&list[..usize::try_from(len).unwrap()], access_list(gid));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_dir, path) = fresh();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind_for(&path, SocketGroups::default()).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_made_but_not_its_parent() {
        let (dir, _) = fresh();
        let path = dir.path().join("shifter/shifter.sock");
        let _listener = bind_for(&path, SocketGroups::default()).unwrap();
        let deep = dir.path().join("no/such/shifter.sock");
        let shown = deep.display();
        let directory = dir.path().join("no/such");
        let directory = directory.display();
        assert_eq!(
            refused(&deep),
            format!(
                "control socket {shown}: there is no directory {directory} to put it in; \
                 mkdir -p {directory}"
            )
        );
    }

    #[tokio::test]
    async fn a_living_socket_is_left_alone() {
        let (_dir, path) = fresh();
        let shown = path.display();
        let message = format!(
            "control socket {shown}: another process accepts on it; one shifterd a host is right \
             (who it is: ss -xlp src {shown})"
        );
        let owner = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(refused(&path), message);
        // The queue of waiting connections may be full: that is a living socket as well.
        // SAFETY: plain system call on an open descriptor.
        assert_eq!(unsafe { libc::listen(owner.as_raw_fd(), 0) }, 0);
        let mut waiting = Vec::new();
        loop {
            let probe = socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_NONBLOCK,
                None,
            )
            .unwrap();
            let full = connect(probe.as_raw_fd(), &UnixAddr::new(&path).unwrap());
            waiting.push(probe);
            if full == Err(Errno::EAGAIN) {
                break;
            }
            assert!(waiting.len() < 100, "the queue never fills");
        }
        assert_eq!(refused(&path), message);
        owner.accept().unwrap();
    }

    #[tokio::test]
    async fn other_paths_are_refused_with_what_to_do() {
        let (dir, path) = fresh();
        fs::write(&path, "precious").unwrap();
        let shown = path.display();
        assert_eq!(
            refused(&path),
            format!(
                "control socket {shown}: the path exists and is no socket; \
                 remove it or set another [control] socket"
            )
        );
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let long = dir.path().join("x".repeat(100));
        assert_eq!(
            refused(&long),
            format!(
                "control socket {}: the path has {} bytes, the kernel takes 107; \
                 set a shorter [control] socket",
                long.display(),
                long.as_os_str().len()
            )
        );

        let below_file = path.join("shifter.sock");
        assert_eq!(
            refused(&below_file),
            format!(
                "control socket {}: cannot look at it: Not a directory (os error 20)",
                below_file.display()
            )
        );
    }
}
