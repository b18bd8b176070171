//! The calls of bpf(2) that the socket plane needs and aya does not offer: links of any kind, all
//! made and replaced alike, runs on demand, and cookies of sockets in a map.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `union bpf_attr` as far as any of these commands uses it.
#[repr(C, align(8))]
struct Attr {
    words: [u32; 32],
}

impl Attr {
    fn new(words: &[u32]) -> Self {
        let mut attr = Self { words: [0; 32] };
        for (to, from) in attr.words.iter_mut().zip(words) {
            *to = *from;
        }
        attr
    }

    /// The command with this attribute. Gives what the kernel returns.
    ///
    /// # Safety
    /// Every address in the attribute must be of memory that fits the command.
    unsafe fn call(&mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the attribute lives during the call, and the caller vouches for what it points to.
        let code = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                (&raw mut self.words).cast::<libc::c_void>(),
                size_of::<Self>(),
            )
        };
        if code < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(code)
        }
    }

    /// As [`Attr::call`] for a command that gives a descriptor.
    ///
    /// # Safety
    /// As [`Attr::call`].
    unsafe fn open(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: the caller vouches for the attribute; the kernel has just given us the descriptor.
        unsafe {
            let fd = self.call(command)?;
            Ok(OwnedFd::from_raw_fd(fd as RawFd))
        }
    }
}

/// The two halves of an address, low first.
fn halves<T: ?Sized>(pointer: *const T) -> [u32; 2] {
    let address = pointer.cast::<()>() as u64;
    [address as u32, (address >> 32) as u32]
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Attaches a program to a cgroup or a network namespace, beside those of others.
///
/// # Errors
/// The kernel's error.
pub fn link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    // SAFETY: no addresses.
    unsafe { Attr::new(&[number(program), number(target), attach_type]).open(BPF_LINK_CREATE) }
}

/// Puts another program in the place of a link's; nothing runs without one in between.
///
/// # Errors
/// The kernel's error.
pub fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no addresses.
    unsafe { Attr::new(&[number(link), number(program)]).call(BPF_LINK_UPDATE) }.map(drop)
}

/// Pins an object.
///
/// # Errors
/// The kernel's error.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let [low, high] = halves(path.as_ptr());
    // SAFETY: the path lives during the call.
    unsafe { Attr::new(&[low, high, number(object)]).call(BPF_OBJ_PIN) }.map(drop)
}

/// Opens a pinned object.
///
/// # Errors
/// The kernel's error.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let [low, high] = halves(path.as_ptr());
    // SAFETY: the path lives during the call.
    unsafe { Attr::new(&[low, high]).open(BPF_OBJ_GET) }
}

/// Runs a classifier once on a packet. Gives what it returns.
///
/// # Errors
/// The kernel's error.
pub fn run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    let [low, high] = halves(packet.as_ptr());
    // prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat
    let mut attr = Attr::new(&[
        number(program),
        0,
        packet.len() as u32,
        0,
        low,
        high,
        0,
        0,
        1,
    ]);
    // SAFETY: the packet lives during the call, and nothing is written back but the result.
    unsafe { attr.call(BPF_PROG_TEST_RUN) }?;
    Ok(attr.words[1])
}

/// The cookie of the socket in a place of a socket map; `None` if the place is empty.
///
/// # Errors
/// The kernel's error.
pub fn socket_cookie(map: BorrowedFd<'_>, key: u32) -> io::Result<Option<u64>> {
    let mut cookie = 0_u64;
    let [key_low, key_high] = halves(&raw const key);
    let [low, high] = halves(&raw mut cookie);
    let mut attr = Attr::new(&[number(map), 0, key_low, key_high, low, high]);
    // SAFETY: key and value live during the call and have the map's sizes.
    match unsafe { attr.call(BPF_MAP_LOOKUP_ELEM) } {
        Ok(_) => Ok(Some(cookie)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Empties a place of a socket map; one that is empty already is none the worse.
///
/// # Errors
/// The kernel's error.
pub fn forget_socket(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let [low, high] = halves(&raw const key);
    let mut attr = Attr::new(&[number(map), 0, low, high]);
    // SAFETY: the key lives during the call and has the map's size.
    match unsafe { attr.call(BPF_MAP_DELETE_ELEM) } {
        Ok(_) => Ok(()),
        // Without a socket the kernel says EINVAL.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        Err(error) => Err(error),
    }
}
