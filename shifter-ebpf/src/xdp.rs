//! Packets at XDP: direct access, checksums updated incrementally.
//!
//! XDP sees complete checksums only on real NICs. On veth and virtio a local peer may have left the
//! checksum to its "hardware": the daemon refuses this hook where such a packet would leave again.

use aya_ebpf::{helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use shifter_common::{checksum::Delta, tcp::Sender};

use crate::{
    frame::{Frame, Refused, Rewrite},
    parse::{L3_OFFSET, Packet},
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

    /// Replaces what stands at an offset. `None` if it lies outside the packet.
    #[inline(always)]
    fn put<T>(&self, offset: usize, value: T) -> Option<()> {
        let target = self.at::<T>(offset)?;
        // SAFETY: `at` checked the bounds.
        unsafe { target.write_unaligned(value) };
        Some(())
    }

    #[inline(always)]
    fn update_check(&self, offset: usize, delta: Delta) -> Option<()> {
        let check = self.at::<u16>(offset)?;
        // SAFETY: `at` checked the bounds.
        unsafe { check.write_unaligned(delta.apply(check.read_unaligned())) };
        Some(())
    }

    #[inline(always)]
    fn try_rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Option<()> {
        // VERIFIER: the mask keeps the offset bounded when its history is lost on the stack.
        let l4 = (packet.l4_offset & 0x7f) as usize;
        let (old_addr, old_port, v4_offset, v6_offset, port_offset) = match rewrite.sender {
            Sender::Client => (&packet.destination, packet.destination_port, 16, 24, 2),
            Sender::Backend => (&packet.source, packet.source_port, 12, 8, 0),
        };
        let mut delta = Delta::default().port(old_port, rewrite.port);
        if packet.is_v6 {
            delta = delta.v6(old_addr, &rewrite.addr);
            self.put(L3_OFFSET + v6_offset, rewrite.addr.words)?;
        } else {
            let of_addr = Delta::default().v4(old_addr, &rewrite.addr);
            self.update_check(L3_OFFSET + 10, of_addr)?;
            delta = delta.v4(old_addr, &rewrite.addr);
            self.put(L3_OFFSET + v4_offset, rewrite.addr.v4_word())?;
        }
        if rewrite.reset {
            let flags = packet.reset_flags();
            delta = delta.half(packet.offset_and_flags, flags);
            self.put(l4 + 12, flags)?;
        }
        self.put(l4 + port_offset, rewrite.port.0)?;
        self.update_check(l4 + 16, delta)
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn start(&self) -> usize {
        self.ctx.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.ctx.data_end()
    }

    #[inline(always)]
    fn len_bytes(&self) -> u64 {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) }
    }

    #[inline(always)]
    fn pull_headers(&self) {
        // Drivers put the headers into the linear part.
    }

    #[inline(always)]
    fn turn(&self) -> Result<(), Refused> {
        let addresses = self.turned_addresses().ok_or(Refused)?;
        self.put(0, addresses).ok_or(Refused)
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        self.try_rewrite(packet, rewrite).ok_or(Refused)
    }
}
