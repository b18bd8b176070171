//! Programs on the root cgroup, ours and others'.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr,
        cgroup_sock_addr::CgroupSockAddrLink,
        links::{FdLink, PinnedLink},
    },
};
use nix::libc;
use shifter_common::abi::program;

/// `BPF_CGROUP_INET4_CONNECT` and its fellows (include/uapi/linux/bpf.h): connect4, connect6,
/// sendmsg4, sendmsg6, recvmsg4, recvmsg6, getpeername4, getpeername6.
const ATTACH_TYPES: [u32; 8] = [10, 11, 14, 15, 19, 20, 29, 30];

/// The mount point of cgroup v2.
pub fn root() -> PathBuf {
    shifter_daemon::doctor::cgroup2()
        .expect("cgroup v2 is mounted")
        .into()
}

/// Ids of all programs on the root cgroup at the hooks that shifter uses.
pub fn programs() -> BTreeSet<u32> {
    const BPF_PROG_QUERY: libc::c_long = 16;
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        pad: u32,
        attach_flags_of_each: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let cgroup = File::open(root()).expect("the root cgroup");
    let mut found = BTreeSet::new();
    for attach_type in ATTACH_TYPES {
        let mut ids = [0_u32; 64];
        let mut attr = Attr {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_type,
            query_flags: 0,
            attach_flags: 0,
            prog_ids: ids.as_mut_ptr() as u64,
            count: ids.len() as u32,
            pad: 0,
            attach_flags_of_each: 0,
            link_ids: 0,
            link_attach_flags: 0,
            revision: 0,
        };
        // SAFETY: the kernel writes at most `count` ids to the array, which outlives the call.
        let code = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_QUERY,
                &raw mut attr,
                size_of::<Attr>(),
            )
        };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        found.extend(ids.iter().take(attr.count as usize));
    }
    found
}

/// Program id of each pinned link on a cgroup, by the pin's name.
pub fn pinned(bpffs: &Path) -> BTreeMap<String, u32> {
    let links = bpffs.join("shifter").join("v1").join("links");
    let entries = std::fs::read_dir(links).expect("the links");
    entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .filter(|(name, _)| name.starts_with("local-"))
        .map(|(name, path)| {
            let link = FdLink::from(PinnedLink::from_pin(path).expect("the pin"));
            (name, link.info().expect("a link").program_id())
        })
        .collect()
}

/// Somebody else's program on the root cgroup: it looks at each connect(2) and lets it pass. It leaves
/// with this guard.
pub struct Foreign {
    _link: CgroupSockAddrLink,
    id: u32,
    _object: Ebpf,
}

impl Foreign {
    /// One of shifter's own programs over maps of its own, which steer nobody.
    pub fn attach() -> Self {
        let mut object =
            Ebpf::load(shifter_daemon::dataplane::bpf::object()).expect("the object loads");
        let connect: &mut CgroupSockAddr = object
            .program_mut(program::LOCAL_CONNECT4)
            .expect("the program")
            .try_into()
            .expect("a cgroup program");
        connect.load().expect("loads");
        let id = connect.info().expect("loaded").id();
        let cgroup = File::open(root()).expect("the root cgroup");
        let link = connect
            .attach(cgroup.as_fd(), CgroupAttachMode::Single)
            .expect("attaches");
        let link = connect.take_link(link).expect("the link");
        Self {
            _link: link,
            id,
            _object: object,
        }
    }

    pub const fn id(&self) -> u32 {
        self.id
    }
}
