//! The few calls of bpf(2) and membarrier(2) that aya does not offer.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The part of `union bpf_attr` that batched lookups use (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}
const _: () = assert!(size_of::<BatchAttr>() == 56);

/// Calls `visit` with all elements of a hash map, a batch at a time. Elements that are added or
/// removed meanwhile may or may not be seen.
///
/// # Errors
/// The kernel's error.
pub fn for_each_batch<K: Copy + Default, V: Copy + Default>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&[K], &[V]),
) -> io::Result<()> {
    // A batch must hold the longest hash chain, else the kernel says ENOSPC and more is tried.
    let mut capacity = 4_096_usize;
    let (mut cursor, mut next) = ([0_u32; 4], [0_u32; 4]);
    let mut first = true;
    let mut keys = vec![K::default(); capacity];
    let mut values = vec![V::default(); capacity];
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { (&raw mut cursor) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map_fd: map.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        // SAFETY: all pointers are to live buffers of `capacity` elements of the map's own types,
        // and to 16 bytes for the cursor, of which the kernel uses 4.
        let code = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let error = (code < 0).then(io::Error::last_os_error);
        let end = match error.as_ref().and_then(io::Error::raw_os_error) {
            None => false,
            Some(libc::ENOENT) => true,
            Some(libc::EINTR) => continue,
            Some(libc::ENOSPC) if capacity < 1 << 22 => {
                capacity *= 4;
                keys.resize(capacity, K::default());
                values.resize(capacity, V::default());
                continue;
            }
            Some(code) => return Err(io::Error::from_raw_os_error(code)),
        };
        let count = (attr.count as usize).min(capacity);
        visit(&keys[..count], &values[..count]);
        if end {
            return Ok(());
        }
        cursor = next;
        first = false;
    }
}

/// Opens what is pinned at a path.
///
/// # Errors
/// The kernel's error.
pub fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_long = 7;
    /// The part of `union bpf_attr` that the command uses.
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = Attr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the attribute and the path it points to live during the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const attr,
            size_of::<Attr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes a pinned link's program off its interface before this returns. Removing the pin alone does
/// it too, but some time after the last descriptor was closed.
///
/// # Errors
/// The kernel's error.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    const BPF_LINK_DETACH: libc::c_long = 34;
    let link = open_pin(pin)?;
    let link_fd = link.as_raw_fd() as u32;
    // SAFETY: the attribute is one live 32-bit number.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_DETACH,
            &raw const link_fd,
            size_of::<u32>(),
        )
    };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What a link is attached to: the index of an interface, or the id of a cgroup; 0 if that is gone.
///
/// # Errors
/// The kernel's error.
pub fn link_target(link: BorrowedFd<'_>) -> io::Result<u64> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    /// The part of `struct bpf_link_info` that XDP, TCX and cgroup links share
    /// (include/uapi/linux/bpf.h).
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        pad: u32,
        /// `ifindex` in the first half, or `cgroup_id`.
        target: [u32; 2],
    }
    #[repr(C)]
    struct Attr {
        fd: u32,
        info_len_bytes: u32,
        info: u64,
    }
    let mut info = Info::default();
    let attr = Attr {
        fd: link.as_raw_fd() as u32,
        info_len_bytes: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len_bytes` to `info`, which outlives the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attr,
            size_of::<Attr>(),
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    let [first, second] = info.target;
    Ok(if info.kind == BPF_LINK_TYPE_CGROUP {
        // The id is one 64-bit number in the machine's order.
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&first.to_ne_bytes());
        bytes[4..].copy_from_slice(&second.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    } else {
        u64::from(first)
    })
}

/// The cookie of the caller's network namespace, as programs see it; never reused until a reboot.
///
/// # Errors
/// The kernel's error.
pub fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes 8 bytes to the cookie, which outlives the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if code == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Waits until every program run that was under way has ended: programs run inside RCU read-side
/// sections, and this command waits for a grace period (membarrier(2)).
///
/// # Errors
/// If the kernel has no membarrier.
pub fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes plain integers.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if code == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Kernels with nohz_full CPUs refuse the command. A program runs for microseconds with
        // bottom halves off, so a pause of this length outlives it.
        error if error.raw_os_error() == Some(libc::EINVAL) => {
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok(())
        }
        error => Err(error),
    }
}

/// The boot clock in nanoseconds, as the programs' coarse clock reads it.
pub fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map(|t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
        .unwrap_or(0)
}

/// A secret number.
///
/// # Errors
/// If the kernel has no randomness.
pub fn random_u64() -> io::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
