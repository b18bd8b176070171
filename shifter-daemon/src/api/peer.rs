//! Who is at the other end of a Unix socket, as the kernel says.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::libc;
use tokio::net::UnixStream;

/// Groups a process can be in (`NGROUPS_MAX` of the kernel).
const GROUPS_MAX_COUNT: usize = 65_536;

/// Credentials of the process that connected, from when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id and supplementary groups.
    pub gids: Vec<u32>,
    /// User id of the login of the process, if the kernel keeps it and the process is still there.
    pub loginuid: Option<u32>,
}

impl Peer {
    /// The peer of a connection (SO_PEERCRED and SO_PEERGROUPS).
    ///
    /// # Errors
    /// What the kernel says if it does not tell.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut gids = supplementary_groups(stream.as_fd())?;
        gids.push(credentials.gid());
        Ok(Self {
            uid: credentials.uid(),
            gids,
            loginuid: credentials.pid().and_then(loginuid),
        })
    }
}

/// What nobody can change after a login (`pam_loginuid`): who used sudo is root by then.
fn loginuid(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    // All bits are set if there was no login.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

fn supplementary_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut gids: Vec<u32> = vec![0; 64];
    loop {
        let mut len_bytes = size_of_val(gids.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len_bytes` bytes to `gids`, which has that many.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                &raw mut len_bytes,
            )
        };
        if result == 0 {
            gids.truncate(len_bytes as usize / size_of::<u32>());
            return Ok(gids);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || gids.len() >= GROUPS_MAX_COUNT {
            return Err(error);
        }
        gids.resize(GROUPS_MAX_COUNT, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    #[tokio::test]
    async fn the_kernel_names_this_process() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&stream).unwrap();
        assert_eq!(peer.uid, geteuid().as_raw());
        let mut expected: Vec<u32> = getgroups()
            .unwrap()
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        expected.push(getegid().as_raw());
        assert_eq!(peer.gids, expected);
    }
}
