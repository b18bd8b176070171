//! bpf(2) on objects whose types this version need not know: pinned maps as bytes, links and programs
//! as descriptors (include/uapi/linux/bpf.h).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// Types of maps with a value for each CPU.
const PER_CPU_MAP_TYPES: [u32; 4] = [5, 6, 10, 21];

/// Flag of an update: only if the key is new.
pub const NOEXIST: u64 = 1;
/// Flag of an update: only if the key is there.
pub const EXIST: u64 = 2;

/// `union bpf_attr` as far as the calls here fill it.
#[repr(C)]
#[derive(Default)]
struct Attr([u64; 8]);

/// Two numbers of 32 bits side by side, as the kernel's structures have them.
const fn pair(low: u32, high: u32) -> u64 {
    let (low, high) = if cfg!(target_endian = "little") {
        (low, high)
    } else {
        (high, low)
    };
    ((high as u64) << 32) | low as u64
}

fn call(command: libc::c_long, attr: &mut Attr) -> io::Result<libc::c_long> {
    loop {
        // SAFETY: the attribute is live and larger than what any of these commands reads; all pointers
        // in it are to live buffers of the lengths that the command works with (see the callers).
        let code =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<Attr>()) };
        if code >= 0 {
            return Ok(code);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

fn descriptor(command: libc::c_long, attr: &mut Attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel has just given us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Opens a pin, whatever it is.
///
/// # Errors
/// The kernel's error.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr::default();
    attr.0[0] = path.as_ptr() as u64;
    descriptor(BPF_OBJ_GET, &mut attr)
}

/// The first `N` bytes of what the kernel says about an object.
fn info<const N: usize>(fd: BorrowedFd<'_>) -> io::Result<[u8; N]> {
    let mut info = [0_u8; N];
    let mut attr = Attr::default();
    attr.0[0] = pair(fd.as_raw_fd() as u32, N as u32);
    attr.0[1] = info.as_mut_ptr() as u64;
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

fn word(info: &[u8], offset_bytes: usize) -> u32 {
    let bytes = info.get(offset_bytes..offset_bytes + 4);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    u32::from_ne_bytes(bytes.unwrap_or_default())
}

/// The id of the program that a link runs.
///
/// # Errors
/// The kernel's error.
pub fn program_of_link(link: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(word(&info::<16>(link)?, 8))
}

/// What the kernel says about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Digest of its instructions, without the maps they use.
    pub tag: u64,
    /// Its name.
    pub name: String,
}

/// Opens a program that is loaded.
///
/// # Errors
/// The kernel's error.
pub fn program(id: u32) -> io::Result<(OwnedFd, ProgramInfo)> {
    let mut attr = Attr::default();
    attr.0[0] = pair(id, 0);
    let fd = descriptor(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    let info = info::<80>(fd.as_fd())?;
    let (mut tag, name) = ([0; 8], &info[64..80]);
    tag.copy_from_slice(&info[8..16]);
    let len_bytes = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    let name = String::from_utf8_lossy(&name[..len_bytes]).into_owned();
    Ok((
        fd,
        ProgramInfo {
            // The order in which aya reads it.
            tag: u64::from_be_bytes(tag),
            name,
        },
    ))
}

/// Puts a program in the place of the one that a link runs; no packet sees neither.
///
/// # Errors
/// The kernel's error; ENOLINK if what it was attached to is gone.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::default();
    attr.0[0] = pair(link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    call(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// A map as bytes.
pub struct RawMap {
    fd: OwnedFd,
    key_len_bytes: usize,
    /// Of all CPUs together, where there is one for each.
    value_len_bytes: usize,
    /// Places it has.
    pub capacity_count: u32,
    /// Values an element has: one, or one for each CPU.
    pub copies_count: usize,
}

impl RawMap {
    /// Opens a pinned map.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let fd = open_pin(pin)?;
        let info = info::<24>(fd.as_fd())?;
        let (kind, value_len_bytes) = (word(&info, 0), word(&info, 12) as usize);
        let copies_count = if PER_CPU_MAP_TYPES.contains(&kind) {
            aya::util::nr_cpus().map_err(|(_, error)| error)?
        } else {
            1
        };
        Ok(Self {
            key_len_bytes: word(&info, 8) as usize,
            value_len_bytes: if copies_count == 1 {
                value_len_bytes
            } else {
                value_len_bytes.next_multiple_of(8) * copies_count
            },
            capacity_count: word(&info, 16),
            copies_count,
            fd,
        })
    }

    /// An attribute for one element; the buffers must outlive the call.
    fn attr(&self, key: &[u8], value: *const u8, flags: u64) -> io::Result<Attr> {
        if key.len() != self.key_len_bytes {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = Attr::default();
        attr.0[0] = pair(self.fd.as_raw_fd() as u32, 0);
        attr.0[1] = key.as_ptr() as u64;
        attr.0[2] = value as u64;
        attr.0[3] = flags;
        Ok(attr)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_len_bytes];
        let mut attr = self.attr(key, value.as_mut_ptr(), 0)?;
        match call(BPF_MAP_LOOKUP_ELEM, &mut attr) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn set(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        if value.len() != self.value_len_bytes {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut attr = self.attr(key, value.as_ptr(), flags)?;
        call(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
    }

    /// Sets a value; says whether the map's flag let it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn try_set(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<bool> {
        match self.set(key, value, flags) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        let mut attr = self.attr(key, std::ptr::null(), 0)?;
        match call(BPF_MAP_DELETE_ELEM, &mut attr) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// All elements, some thousand at a time. Those that are added or removed meanwhile may or may not
    /// be seen.
    ///
    /// # Errors
    /// The kernel's error, or that of `visit`.
    pub fn for_each<E: From<io::Error>>(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // A batch must hold the longest hash chain, else the kernel says ENOSPC and more is tried.
        let mut capacity = 4_096_usize.min(self.capacity_count.max(1) as usize);
        // The kernel's cursor is as long as a key, or four bytes in a hash map.
        let cursor_len_bytes = self.key_len_bytes.max(16);
        let (mut cursor, mut next) = (vec![0_u8; cursor_len_bytes], vec![0_u8; cursor_len_bytes]);
        let mut is_first = true;
        loop {
            let mut keys = vec![0_u8; capacity * self.key_len_bytes];
            let mut values = vec![0_u8; capacity * self.value_len_bytes];
            let mut attr = Attr([
                if is_first {
                    0
                } else {
                    cursor.as_mut_ptr() as u64
                },
                next.as_mut_ptr() as u64,
                keys.as_mut_ptr() as u64,
                values.as_mut_ptr() as u64,
                pair(capacity as u32, self.fd.as_raw_fd() as u32),
                0,
                0,
                0,
            ]);
            let is_end = match call(BPF_MAP_LOOKUP_BATCH, &mut attr) {
                Ok(_) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    Some(libc::ENOSPC) if capacity < 1 << 22 => {
                        capacity *= 4;
                        continue;
                    }
                    _ => return Err(error.into()),
                },
            };
            let count = word(&attr.0[4].to_ne_bytes(), 0) as usize;
            let keys = keys.chunks_exact(self.key_len_bytes);
            let values = values.chunks_exact(self.value_len_bytes);
            for (key, value) in keys.zip(values).take(count) {
                visit(key, value)?;
            }
            if is_end {
                return Ok(());
            }
            std::mem::swap(&mut cursor, &mut next);
            is_first = false;
        }
    }
}

impl AsFd for RawMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
