//! Packets at XDP: direct access, checksums updated incrementally.
//!
//! XDP sees complete checksums only on real NICs. On veth and virtio a local peer may have left the
//! checksum to its "hardware": the daemon refuses this hook where such a packet would leave again.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
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

/// A packet at XDP.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    /// Wraps the hook's context.
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// The rewrite by direct access. `None`, and nothing is changed, if a header is out of reach.
    #[inline(always)]
    fn rewrite_near(&self, packet: &Packet, rewrite: &Rewrite) -> Option<()> {
        // VERIFIER: the masks keep the offsets bounded when their history is lost on the stack.
        let l3 = (packet.l3_offset & 0x1f) as usize;
        let l4 = (packet.l4_offset & 0x7f) as usize;
        let (old_addr, old_port, v4_offset, v6_offset, port_offset) = ends(packet, rewrite.sender);
        let port = self.at::<u16>(l4 + port_offset)?;
        let check = self.at::<u16>(l4 + packet.check_offset() as usize)?;
        let mut delta = Delta::default().port(old_port, rewrite.port);
        if packet.is_v6 {
            delta = delta.v6(old_addr, &rewrite.addr);
            let addr = self.at::<[u32; 4]>(l3 + v6_offset)?;
            // SAFETY: `at` checked the bounds, here and below.
            unsafe { addr.write_unaligned(rewrite.addr.words) };
        } else {
            let of_addr = Delta::default().v4(old_addr, &rewrite.addr);
            delta = delta.v4(old_addr, &rewrite.addr);
            let addr = self.at::<u32>(l3 + v4_offset)?;
            let ip_check = self.at::<u16>(l3 + 10)?;
            // SAFETY: as above.
            unsafe {
                addr.write_unaligned(rewrite.addr.v4_word());
                ip_check.write_unaligned(of_addr.apply(ip_check.read_unaligned()));
            }
        }
        if rewrite.reset {
            let flags = packet.reset_flags();
            delta = delta.half(packet.offset_and_flags, flags);
            // The checksum stands behind the flags, so they are in reach.
            let target = self.at::<u16>(l4 + 12)?;
            // SAFETY: as above.
            unsafe { target.write_unaligned(flags) };
        }
        // SAFETY: as above.
        unsafe {
            port.write_unaligned(rewrite.port.0);
            let old = check.read_unaligned();
            check.write_unaligned(if packet.is_udp() {
                delta.apply_udp(old)
            } else {
                delta.apply(old)
            });
        }
        Some(())
    }

    /// The same through the kernel's helpers, for headers that lie far from the packet's start or
    /// in another buffer.
    #[inline(never)]
    fn rewrite_far(&self, packet: &Packet, rewrite: &Rewrite) -> Option<()> {
        let (l3, l4) = (packet.l3_offset, packet.l4_offset);
        let (old_addr, old_port, v4_offset, v6_offset, port_offset) = ends(packet, rewrite.sender);
        let check_offset = l4 + packet.check_offset();
        let check: u16 = self.load(check_offset)?;
        let mut delta = Delta::default().port(old_port, rewrite.port);
        if packet.is_v6 {
            delta = delta.v6(old_addr, &rewrite.addr);
            self.put(l3 + v6_offset as u32, &rewrite.addr.words)?;
        } else {
            let of_addr = Delta::default().v4(old_addr, &rewrite.addr);
            delta = delta.v4(old_addr, &rewrite.addr);
            let ip_check: u16 = self.load(l3 + 10)?;
            self.put(l3 + 10, &of_addr.apply(ip_check))?;
            self.put(l3 + v4_offset as u32, &rewrite.addr.v4_word())?;
        }
        if rewrite.reset {
            let flags = packet.reset_flags();
            delta = delta.half(packet.offset_and_flags, flags);
            self.put(l4 + 12, &flags)?;
        }
        self.put(l4 + port_offset as u32, &rewrite.port)?;
        let check = if packet.is_udp() {
            delta.apply_udp(check)
        } else {
            delta.apply(check)
        };
        self.put(check_offset, &check)
    }

    #[inline(always)]
    fn put<T>(&self, offset: u32, value: &T) -> Option<()> {
        // SAFETY: the context is the one this program was called with; the helper checks the
        // offset and copies `size_of::<T>()` bytes from a live value.
        let code = unsafe {
            bpf_xdp_store_bytes(
                self.ctx.ctx,
                offset,
                core::ptr::from_ref(value).cast_mut().cast(),
                size_of::<T>() as u32,
            )
        };
        (code == 0).then_some(())
    }
}

/// What is replaced: the old address and port, and the offsets of the new ones in their headers.
#[inline(always)]
fn ends(packet: &Packet, sender: Sender) -> (&Addr, Be16, usize, usize, usize) {
    match sender {
        Sender::Client => (&packet.destination, packet.destination_port, 16, 24, 2),
        Sender::Backend => (&packet.source, packet.source_port, 12, 8, 0),
    }
}

impl Frame for XdpFrame<'_> {
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
    fn len_bytes(&self, packet: &Packet) -> u64 {
        let linear_bytes = self.end() - self.start();
        if packet.end_offset() as usize <= linear_bytes {
            // All of it lies here, and with it what an Ethernet frame is filled up with.
            return linear_bytes as u64;
        }
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) }
    }

    #[inline(always)]
    fn load<T>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context is the one this program was called with; the helper checks the offset
        // and fills `size_of::<T>()` bytes.
        let code = unsafe {
            bpf_xdp_load_bytes(
                self.ctx.ctx,
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
        self.put(offset, value).ok_or(Refused)
    }

    #[inline(always)]
    fn turn(&self) -> Result<(), Refused> {
        let addresses = self.turned_addresses().ok_or(Refused)?;
        self.put(0, &addresses).ok_or(Refused)
    }

    #[inline(always)]
    fn rewrite_other_end(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        self.rewrite(packet, rewrite)
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let done = if packet.is_far {
            // A copy, so that the fields of a near packet's rewrite stay in registers.
            self.rewrite_far(packet, &{ *rewrite })
        } else {
            self.rewrite_near(packet, rewrite)
        };
        done.ok_or(Refused)
    }
}
