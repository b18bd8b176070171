//! What the kernel keeps inside a socket and shows to no program. Where it is, the daemon has found in
//! the kernel's own description.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use shifter_common::socket::host;

use super::maps::host_number;

/// The 32 bits of a socket at an offset that the host is told of; `None` if it is not, or if they
/// cannot be read.
#[inline(always)]
pub fn word(socket: *mut c_void, offset_index: u32) -> Option<u32> {
    let offset = host_number(offset_index);
    if offset == 0 {
        return None;
    }
    let (mut address, mut word) = (0_u64, 0_u32);
    // VERIFIER: no arithmetic is allowed on a socket's pointer; as a number, read back from the stack,
    // it is one like any other.
    // SAFETY: the helper reads memory of the kernel and fails where there is none; both places are
    // live and as long as it is told.
    let is_read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut address).cast(),
            size_of::<u64>() as u32,
            (&raw const socket).cast(),
        ) == 0
            && bpf_probe_read_kernel(
                (&raw mut word).cast(),
                size_of::<u32>() as u32,
                address.wrapping_add(offset) as *const c_void,
            ) == 0
    };
    is_read.then_some(word)
}

/// Whether a listener takes no further connection until its application accepts one
/// (`sk_acceptq_is_full`, include/net/sock.h).
#[inline(always)]
pub fn is_queue_full(listener: *mut c_void) -> bool {
    match (
        word(listener, host::QUEUE_OFFSET),
        word(listener, host::QUEUE_MAX_OFFSET),
    ) {
        (Some(count), Some(most)) => count > most,
        _ => false,
    }
}
