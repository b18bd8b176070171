//! The few bpf() calls the doctor needs, without a loader in between: what the kernel answers is
//! what is reported.

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{errno::Errno, libc};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;

/// Map types.
pub(super) mod map_type {
    pub const ARRAY: u32 = 2;
    pub const LRU_HASH: u32 = 9;
}

/// Program types.
pub(super) mod prog_type {
    pub const SCHED_CLS: u32 = 3;
    pub const XDP: u32 = 6;
}

/// `BPF_F_MMAPABLE`.
pub(super) const F_MMAPABLE: u32 = 1 << 10;
/// `BPF_TCX_INGRESS`.
pub(super) const TCX_INGRESS: u32 = 46;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Insn {
    pub code: u8,
    /// Destination register in the low four bits, source register in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// A map to create.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSpec {
    pub map_type: u32,
    pub key_len_bytes: u32,
    pub value_len_bytes: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// Calls bpf(). The kernel takes what lies beyond a short attribute as zero.
///
/// # Safety
/// `attr` must be the attribute that `command` expects, and every address in it must be valid for
/// what the command does with it.
unsafe fn call<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the attribute is valid for its own size; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    Errno::result(result)
}

/// As [`call`], for the commands that return a file descriptor.
///
/// # Safety
/// As [`call`]; and `command` must return a new file descriptor.
unsafe fn call_for_fd<T>(command: libc::c_int, attr: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attr)? };
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: &OwnedFd) -> u32 {
    // A descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn address<T: ?Sized>(thing: *const T) -> u64 {
    thing.cast::<()>() as u64
}

/// Creates a map.
pub(super) fn create_map(spec: &MapSpec) -> Result<OwnedFd, Errno> {
    // SAFETY: MapSpec has the layout of the command's attribute and holds no addresses.
    unsafe { call_for_fd(BPF_MAP_CREATE, &mut spec.clone()) }
}

/// Reads an element of an array whose values are 8 bytes long.
pub(super) fn lookup_u64(map: &OwnedFd, index: u32) -> Result<u64, Errno> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = 0_u64;
    let mut attr = Attr {
        map_fd: raw(map),
        pad: 0,
        key: address(&raw const index),
        value: address(&raw mut value),
        flags: 0,
    };
    // SAFETY: the kernel reads 4 bytes of the key and writes 8 bytes of the value; both outlive
    // the call.
    unsafe { call(BPF_MAP_LOOKUP_ELEM, &mut attr)? };
    Ok(value)
}

/// Loads a program; on failure with the last line of the verifier's log, empty if it said nothing.
pub(super) fn load(prog_type: u32, insns: &[Insn]) -> Result<OwnedFd, (Errno, String)> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_count: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_len_bytes: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    const LICENSE: &CStr = c"Dual MIT/GPL";
    let mut log = vec![0_u8; 64 * 1024];
    let mut attr = Attr {
        prog_type,
        insn_count: u32::try_from(insns.len()).unwrap_or(u32::MAX),
        insns: address(insns.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level: 1,
        log_len_bytes: u32::try_from(log.len()).unwrap_or(0),
        log: address(log.as_mut_ptr()),
        kernel_version: 0,
        flags: 0,
        name: *b"shifter_doctor\0\0",
    };
    // SAFETY: the kernel reads `insn_count` instructions and the license up to its terminator and
    // writes at most `log_len_bytes` to the log; all three outlive the call.
    unsafe { call_for_fd(BPF_PROG_LOAD, &mut attr) }.map_err(|errno| (errno, last_line(&log)))
}

/// The last line that says something; the verifier closes with a summary of its work.
fn last_line(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log)
        .unwrap_or_default()
        .to_string_lossy();
    text.lines()
        .rfind(|line| !line.trim().is_empty() && !line.starts_with("processed "))
        .unwrap_or_default()
        .to_owned()
}

/// Attaches a program to an interface through a link; closing the link detaches it.
pub(super) fn attach(prog: &OwnedFd, ifindex: u32, attach_type: u32) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        pad: u32,
        expected_revision: u64,
    }
    let mut attr = Attr {
        prog_fd: raw(prog),
        ifindex,
        attach_type,
        flags: 0,
        relative: 0,
        pad: 0,
        expected_revision: 0,
    };
    // SAFETY: the attribute holds no addresses.
    unsafe { call_for_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Opens a loaded program by its id; takes CAP_SYS_ADMIN.
pub(super) fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next_id: u32,
        flags: u32,
    }
    // SAFETY: the attribute holds no addresses.
    unsafe {
        call_for_fd(
            BPF_PROG_GET_FD_BY_ID,
            &mut Attr {
                id,
                next_id: 0,
                flags: 0,
            },
        )
    }
}

/// Opens what is pinned at `path`: a map, a program or a link.
pub(super) fn open_pin(path: &Path) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path ends with a terminator and outlives the call.
    unsafe {
        call_for_fd(
            BPF_OBJ_GET,
            &mut Attr {
                path: address(path.as_ptr()),
                fd: 0,
                flags: 0,
            },
        )
    }
}

/// Pins a map, program or link.
#[cfg(test)]
pub(super) fn pin(object: &OwnedFd, path: &Path) -> Result<(), Errno> {
    const BPF_OBJ_PIN: libc::c_int = 6;
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut attr = Attr {
        path: address(path.as_ptr()),
        fd: raw(object),
        flags: 0,
    };
    // SAFETY: the path ends with a terminator and outlives the call.
    unsafe { call(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Fills `info` with what the kernel tells of a program or link.
fn info<const LEN: usize>(object: &OwnedFd) -> Result<[u8; LEN], Errno> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        info_len_bytes: u32,
        info: u64,
    }
    let mut info = [0_u8; LEN];
    let mut attr = Attr {
        fd: raw(object),
        info_len_bytes: u32::try_from(LEN).unwrap_or(0),
        info: address(info.as_mut_ptr()),
    };
    // SAFETY: the kernel reads and writes at most `info_len_bytes` of the zeroed buffer, which
    // outlives the call.
    unsafe { call(BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

fn word(info: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(bytes) = info.get(offset..offset + 4) {
        word.copy_from_slice(bytes);
    }
    u32::from_ne_bytes(word)
}

/// Id and name of a program.
pub(super) fn program_info(program: &OwnedFd) -> Result<(u32, String), Errno> {
    // struct bpf_prog_info up to its name, 16 bytes at offset 64.
    let info: [u8; 80] = info(program)?;
    let name = info[64..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok((word(&info, 4), String::from_utf8_lossy(name).into_owned()))
}

/// Id of the program behind a link.
pub(super) fn link_program_id(link: &OwnedFd) -> Result<u32, Errno> {
    // struct bpf_link_info: type, id, prog_id.
    let info: [u8; 12] = info(link)?;
    Ok(word(&info, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_is_kept() {
        let rows: &[(&str, &str)] = &[
            ("", ""),
            (
                "0: (85) call 160\ninvalid func unknown#160\n",
                "invalid func unknown#160",
            ),
            (
                "R1 !read_ok\nprocessed 1 insns (limit 1000000)\n\n",
                "R1 !read_ok",
            ),
        ];
        for (log, expected) in rows {
            let log = [log.as_bytes(), &[0; 8]].concat();
            assert_eq!(last_line(&log), *expected);
        }
    }
}
