//! Packets at TC: direct reads, writes through the kernel's helpers, which know whether the
//! checksum is complete, left to hardware or already verified.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_PSEUDO_HDR,
    helpers::generated::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use shifter_common::{checksum::Delta, tcp::Sender};

use crate::{
    frame::{Frame, HEADERS_MAX_BYTES, Refused, Rewrite},
    parse::{L3_OFFSET, Packet},
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

    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T) -> Result<(), Refused> {
        // SAFETY: the context is the one this program was called with; the helper checks the
        // offset and copies `size_of::<T>()` bytes from a live value.
        accepted(unsafe {
            bpf_skb_store_bytes(
                self.skb(),
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                0,
            )
        })
    }

    #[inline(always)]
    fn replace_l4(&self, check: usize, from: u64, to: u64, flags: u64) -> Result<(), Refused> {
        // SAFETY: the context is the one this program was called with.
        accepted(unsafe { bpf_l4_csum_replace(self.skb(), check as u32, from, to, flags) })
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
    fn start(&self) -> usize {
        self.ctx.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.ctx.data_end()
    }

    #[inline(always)]
    fn len_bytes(&self) -> u64 {
        u64::from(self.ctx.len())
    }

    #[inline(always)]
    fn pull_headers(&self) {
        let linear = self.end().wrapping_sub(self.start()) as u32;
        let len = self.ctx.len();
        if linear < HEADERS_MAX_BYTES && linear < len {
            let wanted = if len < HEADERS_MAX_BYTES {
                len
            } else {
                HEADERS_MAX_BYTES
            };
            // SAFETY: the context is the one this program was called with. If the helper fails the
            // packet is as readable as before and parsing says what is missing.
            unsafe { bpf_skb_pull_data(self.skb(), wanted) };
        }
    }

    #[inline(always)]
    fn turn(&self) -> Result<(), Refused> {
        let addresses = self.turned_addresses().ok_or(Refused)?;
        self.store(0, &addresses)
    }

    #[inline(always)]
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused> {
        let l4 = (packet.l4_offset & 0x7f) as usize;
        let check = l4 + 16;
        let (old_addr, old_port, v4_offset, v6_offset, port_offset) = match rewrite.sender {
            Sender::Client => (&packet.destination, packet.destination_port, 16, 24, 2),
            Sender::Backend => (&packet.source, packet.source_port, 12, 8, 0),
        };
        let pseudo = u64::from(BPF_F_PSEUDO_HDR);
        if packet.is_v6 {
            let sum = u64::from(Delta::default().v6(old_addr, &rewrite.addr).as_sum());
            self.replace_l4(check, 0, sum, pseudo | CSUM_IPV6)
                // Kernels before 6.16 refuse the flag, unchanged, and do what they did before.
                .or_else(|_| self.replace_l4(check, 0, sum, pseudo))?;
            self.store(L3_OFFSET + v6_offset, &rewrite.addr.words)?;
        } else {
            let (old, new) = (
                u64::from(old_addr.v4_word()),
                u64::from(rewrite.addr.v4_word()),
            );
            // SAFETY: the context is the one this program was called with.
            accepted(unsafe {
                bpf_l3_csum_replace(self.skb(), L3_OFFSET as u32 + 10, old, new, 4)
            })?;
            self.replace_l4(check, old, new, pseudo | 4)?;
            self.store(L3_OFFSET + v4_offset, &rewrite.addr.v4_word())?;
        }
        if rewrite.reset {
            let flags = packet.reset_flags();
            self.replace_l4(
                check,
                u64::from(packet.offset_and_flags),
                u64::from(flags),
                2,
            )?;
            self.store(l4 + 12, &flags)?;
        }
        self.replace_l4(check, u64::from(old_port.0), u64::from(rewrite.port.0), 2)?;
        self.store(l4 + port_offset, &rewrite.port.0)
    }
}
