//! Tests that look at real interfaces and pins, in namespaces that end with their thread. They need
//! root and `ip`.

use std::{
    fs,
    os::fd::OwnedFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
    unistd::Uid,
};
use tempfile::TempDir;

use super::{
    Status,
    bpf::{self, Insn, MapSpec, map_type, prog_type},
    facts::healthy,
    gather::interface_facts,
    interface::{Interface, Master, inspect},
    judge, pinned_programs,
};
use crate::model::{HookSpec, InterfaceSpec};

/// `BPF_XDP`, the attach type of XDP links.
const XDP_LINK: u32 = 37;

/// `return XDP_PASS`.
fn xdp_program() -> OwnedFd {
    let body = [
        Insn {
            code: 0xb7,
            registers: 0,
            offset: 0,
            immediate: 2,
        },
        Insn {
            code: 0x95,
            registers: 0,
            offset: 0,
            immediate: 0,
        },
    ];
    bpf::load(prog_type::XDP, &body).expect("a program that passes everything loads")
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// Runs `test` in a network namespace of its own, with mounts nobody else sees.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    assert!(
        Uid::effective().is_root(),
        "this test makes namespaces: run it as root"
    );
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A BPF file system on a directory of its own; both go with it.
struct Bpffs(TempDir);

impl Bpffs {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        mount(
            Some("bpf"),
            dir.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("a bpffs");
        Self(dir)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // A directory with something mounted on it cannot be removed.
        let _ = umount(self.0.path());
    }
}

#[test]
fn interfaces_are_told_apart() {
    in_namespace(|| {
        ip("link add v0 mtu 1400 type veth peer name v1");
        ip("link add br0 type bridge");
        ip("link set v1 up master br0");
        let program = xdp_program();
        let v0 = inspect("v0").expect("v0");
        let link = bpf::attach(&program, v0.ifindex, XDP_LINK).expect("a link");
        let (id, name) = bpf::program_info(&program).expect("its id");
        assert_eq!(name, "shifter_doctor");

        let virtual_one = |interface: &str, driver: &str| Interface {
            name: interface.into(),
            driver: Some(driver.into()),
            is_virtual: true,
            native_xdp: Some(driver == "veth"),
            ..Interface::default()
        };
        #[rustfmt::skip]
        let rows = [
            ("v0", Interface {
                mtu_bytes: 1400,
                xdp_prog_id: Some(id),
                xdp_prog_name: Some(name),
                ..virtual_one("v0", "veth")
            }),
            ("v1", Interface {
                mtu_bytes: 1500,
                up: true,
                master: Some(Master { name: "br0".into(), kind: "bridge".into() }),
                ..virtual_one("v1", "veth")
            }),
            ("br0", Interface { mtu_bytes: 1500, ..virtual_one("br0", "bridge") }),
        ];
        for (interface, expected) in rows {
            let found = inspect(interface).map(|found| Interface {
                ifindex: 0,
                ..found
            });
            assert_eq!(found, Ok(expected));
        }
        drop(link);
        // A process that another test is about to start holds a copy of the link until it is exec'ed.
        let end = Instant::now() + Duration::from_secs(10);
        while inspect("v0").is_ok_and(|v0| v0.xdp_prog_id.is_some()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(inspect("v0").map(|v0| v0.xdp_prog_id), Ok(None));
    });
}

/// The kernel takes the stricter of the two settings.
#[test]
fn the_filter_of_all_interfaces_counts() {
    in_namespace(|| {
        for (all, own, expected) in [(0, 1, 1), (1, 0, 1), (2, 1, 2), (0, 0, 0)] {
            for (interface, value) in [("all", all), ("lo", own)] {
                let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
                fs::write(path, value.to_string()).expect("a setting of this namespace");
            }
            let spec = InterfaceSpec {
                name: "lo".into(),
                hook: HookSpec::Auto,
                checksums_complete: false,
            };
            assert_eq!(interface_facts(&spec).rp_filter, Some(expected));
        }
    });
}

/// A program counts as shifter's own when it is pinned, itself or by its link, and only then.
#[test]
fn pins_tell_own_programs_from_foreign_ones() {
    in_namespace(|| {
        let bpffs = Bpffs::mount();
        let dir = bpffs.0.path();
        ip("link add v0 type veth peer name v1");
        let (own, linked, foreign) = (xdp_program(), xdp_program(), xdp_program());
        let pins = dir.join("shifter/v1");
        fs::create_dir_all(&pins).expect("directories");
        bpf::pin(&own, &pins.join("xdp_ingress")).expect("a pinned program");
        let v0 = inspect("v0").expect("v0");
        let link = bpf::attach(&linked, v0.ifindex, XDP_LINK).expect("a link");
        bpf::pin(&link, &pins.join("v0")).expect("a pinned link");
        let spec = MapSpec {
            map_type: map_type::ARRAY,
            key_len_bytes: 4,
            value_len_bytes: 8,
            max_entries: 1,
            flags: 0,
        };
        let map = bpf::create_map(&spec).expect("a map");
        bpf::pin(&map, &pins.join("MAP")).expect("a pinned map");
        bpf::pin(&foreign, &dir.join("foreign")).expect("a foreign pin");

        let id = |program: &OwnedFd| bpf::program_info(program).expect("its id").0;
        let found = pinned_programs(&dir.join("shifter"));
        assert_eq!(found, [id(&own), id(&linked)].into());
        assert!(pinned_programs(&dir.join("nothing")).is_empty());

        // The doctor calls the linked program shifter's own, and foreign without its pin.
        for (own_programs, expected) in [(found, Status::Ok), ([].into(), Status::Warn)] {
            let mut facts = healthy();
            for interface in facts.interfaces.iter_mut().flatten() {
                interface.found = inspect("v0").map(|v0| Interface { up: true, ..v0 });
            }
            facts.own_programs = own_programs;
            assert_eq!(judge(&facts).worst(), expected);
        }
    });
}

/// The kernel tells an MPTCP listener from others, and a map of listeners from none.
#[test]
fn what_cannot_be_steered_to_is_found() {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::{FromRawFd as _, OwnedFd};

    use nix::libc;

    in_namespace(|| {
        ip("link set lo up");
        let plain = TcpListener::bind("127.0.0.1:81").expect("a listener");
        let mptcp = {
            // SAFETY: plain numbers; the descriptor is ours alone.
            let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 262) };
            assert!(fd >= 0, "a kernel with MPTCP");
            // SAFETY: as above.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let at = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 82);
            nix::sys::socket::bind(fd, &at).expect("a free port");
            let backlog = nix::sys::socket::Backlog::new(8).expect("a number");
            nix::sys::socket::listen(&socket, backlog).expect("listens");
            TcpListener::from(socket)
        };
        let before = super::gather::reuseport_maps_count();
        let map = bpf::create_map(&MapSpec {
            map_type: 20,
            key_len_bytes: 4,
            value_len_bytes: 8,
            max_entries: 1,
            flags: 0,
        })
        .expect("a map of listeners");
        assert!(super::gather::reuseport_maps_count() > before);
        let at: SocketAddr = "127.0.0.1:82".parse().expect("an address");
        assert_eq!(super::gather::mptcp_listeners(), [at].into());
        drop((plain, mptcp, map));
    });
}
