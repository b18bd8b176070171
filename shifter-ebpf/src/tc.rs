//! Packets at TC: direct reads, writes through the kernel's helpers, which know whether the
//! checksum is complete, left to hardware or already verified.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use shifter_common::{
    addr::{Addr, Be16},
    checksum::Delta,
    tcp::Sender,
};

use crate::{
    frame::{Frame, Refused, Rewrite},
    parse::Packet,
};

/// `BPF_F_IPV6` of Linux 6.16: the sum of an IPv6 packet that hardware has added up does not change
/// with its addresses, because the TCP checksum makes up for them.
const CSUM_IPV6: u64 = 1 << 7;

/// A packet at TC.
pub struct TcFrame<'a> {
    ctx: &'a TcContext,
}

impl<'a> TcFrame<'a> {
    /// Wraps the hook's context.
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    /// Stores a value. `flags` says whether the sum that hardware has made of the packet follows.
    #[inline(always)]
    fn put<T>(&self, offset: u32, value: &T, flags: u64) -> Result<(), Refused> {
        // SAFETY: the context is the one this program was called with; the helper checks the
        // offset and copies `size_of::<T>()` bytes from a live value.
        accepted(unsafe {
            bpf_skb_store_bytes(
                self.skb(),
                offset,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        })
    }

    #[inline(always)]
    fn replace_l4(&self, check: u32, from: u64, to: u64, flags: u64) -> Result<(), Refused> {
        // SAFETY: the context is the one this program was called with.
        accepted(unsafe { bpf_l4_csum_replace(self.skb(), check, from, to, flags) })
    }

    #[inline(always)]
    fn skb(&self) -> *mut aya_ebpf::bindings::__sk_buff {
        self.ctx.as_ptr().cast()
    }
}

#[inline(always)]
fn accepted(code: i64) -> Result<(), Refused> {
    if code == 0 { Ok(()) } else { Err(Refused) }
}

impl Frame for TcFrame<'_> {
    #[inline(always)]
    fn context(&self) -> *mut core::ffi::c_void {
        self.ctx.as_ptr()
    }

    #[inline(always)]
    fn start(&self) -> usize {
        self.ctx.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.ctx.data_end()
    }

    #[inline(always)]
    fn len_bytes(&self, _packet: &Packet) -> u64 {
        u64::from(self.ctx.len())
    }

    #[inline(always)]
    fn load<T>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context is the one this program was called with; the helper checks the offset
        // and fills `size_of::<T>()` bytes.
        let code = unsafe {
            bpf_skb_load_bytes(
                self.skb().cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: the helper has filled all bytes; parsing reads integers only.
        (code == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T>(&self, offset: u32, value: &T) -> Result<(), Refused> {
        self.put(offset, value, u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    #[inline(always)]
    fn turn(&self) -> Result<(), Refused> {
        let addresses = self.turned_addresses().ok_or(Refused)?;
        self.store(0, &addresses)
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let header_len_bytes = packet.l4_offset.wrapping_sub(packet.l3_offset);
        match (packet.is_v6, header_len_bytes) {
            _ if packet.is_far || rewrite.reset => self.rewrite_parts(packet, rewrite),
            (false, 20) => self.rewrite_plain_v4(packet, rewrite),
            (true, 40) => self.rewrite_plain_v6(packet, rewrite),
            _ => self.rewrite_parts(packet, rewrite),
        }
    }

    /// One store of both ends would turn the other one back.
    #[inline(always)]
    fn rewrite_other_end(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        self.rewrite_parts(packet, rewrite)
    }
}

impl TcFrame<'_> {
    /// The rewrite of an IPv4 packet without options. Its checksum, both addresses and both ports stand
    /// in a row: one call stores them all.
    #[inline(always)]
    fn rewrite_plain_v4(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let l3 = packet.l3_offset;
        let check = self.at::<u16>((l3 as usize & 0x1f) + 10).ok_or(Refused)?;
        // SAFETY: `at` checked the bounds.
        let old_check = unsafe { check.read_unaligned() };
        let (old_addr, old_port) = match rewrite.sender {
            Sender::Client => (&packet.destination, packet.destination_port),
            Sender::Backend => (&packet.source, packet.source_port),
        };
        let (old, new) = (old_addr.v4_word(), rewrite.addr.v4_word());
        let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled_zero(packet);
        let l4_check = packet.l4_offset + packet.check_offset();
        self.replace_l4(l4_check, u64::from(old), u64::from(new), pseudo | 4)?;
        self.replace_port(packet, old_port, rewrite.port)?;
        let new_check = Delta::default()
            .v4(old_addr, &rewrite.addr)
            .apply(old_check);
        let [low, high] = halves(new);
        let row: [u16; 7] = match rewrite.sender {
            Sender::Client => {
                let [source_low, source_high] = halves(packet.source.v4_word());
                [
                    new_check,
                    source_low,
                    source_high,
                    low,
                    high,
                    packet.source_port.0,
                    rewrite.port.0,
                ]
            }
            Sender::Backend => {
                let [destination_low, destination_high] = halves(packet.destination.v4_word());
                [
                    new_check,
                    low,
                    high,
                    destination_low,
                    destination_high,
                    rewrite.port.0,
                    packet.destination_port.0,
                ]
            }
        };
        self.put(l3 + 10, &row, 0)
    }

    /// The same of an IPv6 packet without extension headers, which has no header checksum.
    #[inline(never)]
    fn rewrite_plain_v6(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let l3 = packet.l3_offset;
        let (old_addr, old_port) = match rewrite.sender {
            Sender::Client => (&packet.destination, packet.destination_port),
            Sender::Backend => (&packet.source, packet.source_port),
        };
        self.replace_v6(packet, old_addr, &rewrite.addr)?;
        self.replace_port(packet, old_port, rewrite.port)?;
        match rewrite.sender {
            Sender::Client => {
                let row = ClientRow {
                    destination: rewrite.addr,
                    source_port: packet.source_port,
                    destination_port: rewrite.port,
                };
                self.put(l3 + 24, &row, 0)
            }
            Sender::Backend => {
                let row = BackendRow {
                    source: rewrite.addr,
                    destination: packet.destination,
                    source_port: rewrite.port,
                    destination_port: packet.destination_port,
                };
                self.put(l3 + 8, &row, 0)
            }
        }
    }

    /// Replaces an IPv6 address in the transport checksum.
    #[inline(always)]
    fn replace_v6(&self, packet: &Packet, old: &Addr, new: &Addr) -> Result<(), Refused> {
        let check = packet.l4_offset + packet.check_offset();
        let sum = u64::from(Delta::default().v6(old, new).as_sum());
        let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled_zero(packet);
        self.replace_l4(check, 0, sum, pseudo | CSUM_IPV6)
            // Kernels before 6.16 refuse the flag, unchanged, and do what they did before.
            .or_else(|_| self.replace_l4(check, 0, sum, pseudo))
    }

    /// Replaces a port in the transport checksum. Often a backend listens on the VIP's port.
    #[inline(always)]
    fn replace_port(&self, packet: &Packet, old: Be16, new: Be16) -> Result<(), Refused> {
        if old == new {
            return Ok(());
        }
        let check = packet.l4_offset + packet.check_offset();
        let flags = mangled_zero(packet) | 2;
        self.replace_l4(check, u64::from(old.0), u64::from(new.0), flags)
    }

    /// The rewrite of any packet, part by part. Out of line: rare.
    #[inline(never)]
    fn rewrite_parts(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let (l3, l4) = (packet.l3_offset, packet.l4_offset);
        let check = l4 + packet.check_offset();
        let (old_addr, old_port, v4_offset, v6_offset, port_offset) = match rewrite.sender {
            Sender::Client => (&packet.destination, packet.destination_port, 16, 24, 2),
            Sender::Backend => (&packet.source, packet.source_port, 12, 8, 0),
        };
        if packet.is_v6 {
            self.replace_v6(packet, old_addr, &rewrite.addr)?;
            self.put(l3 + v6_offset, &rewrite.addr.words, 0)?;
        } else {
            let (old, new) = (
                u64::from(old_addr.v4_word()),
                u64::from(rewrite.addr.v4_word()),
            );
            // SAFETY: the context is the one this program was called with.
            accepted(unsafe { bpf_l3_csum_replace(self.skb(), l3 + 10, old, new, 4) })?;
            let pseudo = u64::from(BPF_F_PSEUDO_HDR) | mangled_zero(packet);
            self.replace_l4(check, old, new, pseudo | 4)?;
            self.put(l3 + v4_offset, &rewrite.addr.v4_word(), 0)?;
        }
        if rewrite.reset {
            let flags = packet.reset_flags();
            self.replace_l4(
                check,
                u64::from(packet.offset_and_flags),
                u64::from(flags),
                2,
            )?;
            self.put(l4 + 12, &flags, 0)?;
        }
        self.replace_port(packet, old_port, rewrite.port)?;
        self.put(l4 + port_offset, &rewrite.port.0, 0)
    }
}

/// A word as two halves in the order in which they stand in memory.
#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "little") {
        [word as u16, (word >> 16) as u16]
    } else {
        [(word >> 16) as u16, word as u16]
    }
}

/// A UDP checksum of 0 says that there is none, and none is computed as 0.
#[inline(always)]
fn mangled_zero(packet: &Packet) -> u64 {
    if packet.is_udp() {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    }
}

/// From the destination address of an IPv6 header to the ports behind it.
#[repr(C)]
struct ClientRow {
    destination: Addr,
    source_port: Be16,
    destination_port: Be16,
}
const _: () = assert!(size_of::<ClientRow>() == 20);

/// From the source address of an IPv6 header to the ports behind it.
#[repr(C)]
struct BackendRow {
    source: Addr,
    destination: Addr,
    source_port: Be16,
    destination_port: Be16,
}
const _: () = assert!(size_of::<BackendRow>() == 36);
