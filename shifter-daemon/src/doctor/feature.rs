//! Features of the kernel, found by using them: a version says little about a kernel with patches,
//! and nothing about one with a security module.

use std::{num::NonZeroUsize, os::fd::OwnedFd, ptr::NonNull, thread};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
};

use super::bpf::{self, Insn, MapSpec, map_type, prog_type};

/// Something the dataplane needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// A program of type XDP loads.
    Xdp,
    /// A classifier loads.
    Classifier,
    /// Hash maps that evict their least recently used entry.
    LruHash,
    /// Arrays that user space maps into its memory.
    MappedArray,
    /// The clock that costs no hardware access.
    CoarseClock,
    /// Compare-and-exchange.
    AtomicExchange,
    /// Classifiers attach through TCX links.
    Tcx,
}

impl Feature {
    /// All features, in the order they are shown.
    pub const ALL: [Self; 7] = [
        Self::Xdp,
        Self::Classifier,
        Self::LruHash,
        Self::MappedArray,
        Self::CoarseClock,
        Self::AtomicExchange,
        Self::Tcx,
    ];

    /// Uses the feature once. Leaves nothing behind.
    ///
    /// # Errors
    /// What the kernel said instead.
    pub fn probe(self) -> Result<(), Lack> {
        match self {
            Self::Xdp => load(prog_type::XDP, &[]).map(drop),
            Self::Classifier => load(prog_type::SCHED_CLS, &[]).map(drop),
            Self::LruHash => lru_hash(),
            Self::MappedArray => mapped_array(),
            Self::CoarseClock => load(prog_type::SCHED_CLS, &[CALL_COARSE_CLOCK]).map(drop),
            Self::AtomicExchange => load(prog_type::SCHED_CLS, &EXCHANGE).map(drop),
            Self::Tcx => tcx(),
        }
    }
}

/// A feature that is not there: the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {errno}{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
pub struct Lack {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel returned.
    pub errno: Errno,
    /// The verifier's last line, if it said something.
    pub detail: String,
}

impl Lack {
    fn at(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self {
            step,
            errno,
            detail: String::new(),
        }
    }
}

const CALL_COARSE_CLOCK: Insn = Insn {
    code: 0x85,
    registers: 0,
    offset: 0,
    immediate: 160,
};

/// Stores a zero below the frame pointer and exchanges it for itself if it equals r0.
const EXCHANGE: [Insn; 4] = [
    // *(u64 *)(r10 - 8) = 0
    Insn {
        code: 0x7a,
        registers: 10,
        offset: -8,
        immediate: 0,
    },
    // r0 = 0
    Insn {
        code: 0xb7,
        registers: 0,
        offset: 0,
        immediate: 0,
    },
    // r1 = 0
    Insn {
        code: 0xb7,
        registers: 1,
        offset: 0,
        immediate: 0,
    },
    // r0 = atomic cmpxchg(*(u64 *)(r10 - 8), r0, r1)
    Insn {
        code: 0xdb,
        registers: 10 | 1 << 4,
        offset: -8,
        immediate: 0xf1,
    },
];

/// `return 0`, the end of every program here.
const RETURN_ZERO: [Insn; 2] = [
    Insn {
        code: 0xb7,
        registers: 0,
        offset: 0,
        immediate: 0,
    },
    Insn {
        code: 0x95,
        registers: 0,
        offset: 0,
        immediate: 0,
    },
];

fn load(prog_type: u32, body: &[Insn]) -> Result<OwnedFd, Lack> {
    bpf::load(prog_type, &[body, &RETURN_ZERO].concat()).map_err(|(errno, detail)| Lack {
        step: "loading a program",
        errno,
        detail,
    })
}

fn lru_hash() -> Result<(), Lack> {
    let spec = MapSpec {
        map_type: map_type::LRU_HASH,
        key_len_bytes: 8,
        value_len_bytes: 8,
        max_entries: 64,
        flags: 0,
    };
    bpf::create_map(&spec)
        .map(drop)
        .map_err(Lack::at("creating the map"))
}

fn mapped_array() -> Result<(), Lack> {
    const WORD: u64 = 0x5a5a_0123_4567_89ab;
    let spec = MapSpec {
        map_type: map_type::ARRAY,
        key_len_bytes: 4,
        value_len_bytes: 8,
        max_entries: 1,
        flags: bpf::F_MMAPABLE,
    };
    let map = bpf::create_map(&spec).map_err(Lack::at("creating the map"))?;
    let memory = Mapping::new(&map).map_err(Lack::at("mapping it"))?;
    memory.store(WORD);
    match bpf::lookup_u64(&map, 0).map_err(Lack::at("reading it"))? {
        WORD => Ok(()),
        _ => Err(Lack::at("the kernel does not see what was stored")(
            Errno::EIO,
        )),
    }
}

/// The first page of a map in our memory.
struct Mapping {
    start: NonNull<libc::c_void>,
    len_bytes: NonZeroUsize,
}

impl Mapping {
    fn new(map: &OwnedFd) -> Result<Self, Errno> {
        use std::os::fd::AsRawFd as _;
        // The kernel rounds the length up to a page.
        let len_bytes = NonZeroUsize::new(size_of::<u64>()).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes.get(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self {
            start: NonNull::new(start).ok_or(Errno::EFAULT)?,
            len_bytes,
        })
    }

    fn store(&self, word: u64) {
        // SAFETY: the mapping is writable, aligned to a page and at least 8 bytes long.
        unsafe { self.start.cast::<u64>().write_volatile(word) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.len_bytes.get()) };
    }
}

/// Attaches to the loopback interface of a network namespace that belongs to one thread and ends
/// with it.
fn tcx() -> Result<(), Lack> {
    const LOOPBACK_IFINDEX: u32 = 1;
    let program = load(prog_type::SCHED_CLS, &[])?;
    let attempt = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Lack::at("making a network namespace"))?;
        bpf::attach(&program, LOOPBACK_IFINDEX, bpf::TCX_INGRESS)
            .map(drop)
            .map_err(Lack::at("attaching to lo"))
    });
    // A thread that panics is no answer of the kernel, but it is no feature either.
    attempt
        .join()
        .unwrap_or_else(|_| Err(Lack::at("asking the kernel")(Errno::UnknownErrno)))
}

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::*;

    /// The kernel that runs the tests has everything, so a probe that fails is wrong itself; only
    /// who may not ask is told so.
    #[test]
    fn this_kernel_has_every_feature() {
        let root = Uid::effective().is_root();
        for feature in Feature::ALL {
            let outcome = feature.probe().map_err(|lack| lack.errno);
            let forbidden = !root && outcome == Err(Errno::EPERM);
            assert!(forbidden || outcome == Ok(()), "{feature:?}: {outcome:?}");
        }
    }

    /// The probes can fail: an unknown helper and an unknown atomic are refused with words.
    #[test]
    fn what_is_not_there_is_refused() {
        let unknown_call = Insn {
            immediate: 9_999,
            ..CALL_COARSE_CLOCK
        };
        let mut unknown_atomic = EXCHANGE;
        unknown_atomic[3].immediate = 0x72;
        let root = Uid::effective().is_root();
        for body in [&[unknown_call][..], &unknown_atomic] {
            let lack = load(prog_type::SCHED_CLS, body).err();
            let lack = lack.map(|lack| (lack.errno, lack.detail.is_empty()));
            let expected = if root {
                (Errno::EINVAL, false)
            } else {
                (Errno::EPERM, true)
            };
            assert_eq!(lack, Some(expected));
        }
    }

    #[test]
    fn a_lack_says_what_was_tried() {
        let mut lack = Lack::at("creating the map")(Errno::EINVAL);
        assert_eq!(
            lack.to_string(),
            "creating the map: EINVAL: Invalid argument"
        );
        lack.detail = "invalid func unknown#160".into();
        let expected = "creating the map: EINVAL: Invalid argument: invalid func unknown#160";
        assert_eq!(lack.to_string(), expected);
    }
}
