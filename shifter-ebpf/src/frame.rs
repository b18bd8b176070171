//! What the pipeline needs of a packet, whichever hook it came from.

use shifter_common::{
    addr::{Addr, Be16},
    tcp::Sender,
};

use crate::parse::Packet;

/// A packet at a hook. There are two ways to its bytes: directly (`at`), which is fast and ends with
/// the linear part of the buffer; and by the kernel's helpers (`load`, `store`), which reach all of
/// it.
pub trait Frame {
    /// The hook's context, for helpers that ask for it.
    fn context(&self) -> *mut core::ffi::c_void;

    /// First byte.
    fn start(&self) -> usize;

    /// One past the last byte that can be read directly.
    fn end(&self) -> usize;

    /// Length on the wire of the frame that `packet` was read from.
    fn len_bytes(&self, packet: &Packet) -> u64;

    /// Reads what stands at an offset; `None` if the packet ends before.
    fn load<T>(&self, offset: u32) -> Option<T>;

    /// Replaces what stands at an offset. Checksums in the packet are the caller's affair, the sum that
    /// hardware may have made of it is kept right.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn store<T>(&self, offset: u32, value: &T) -> Result<(), Refused>;

    /// Carries out a rewrite, checksums included.
    ///
    /// # Errors
    /// If the kernel refuses; the packet may then be half changed and must be dropped.
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused>;

    /// Carries out the rewrite of a packet whose other end was rewritten before: of that one `packet`
    /// tells what it was.
    ///
    /// # Errors
    /// As [`Frame::rewrite`].
    fn rewrite_other_end(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused>;

    /// Exchanges the link layer's addresses, so that the packet goes back where it came from.
    ///
    /// # Errors
    /// If the kernel refuses; the packet must then be dropped.
    fn turn(&self) -> Result<(), Refused>;

    /// The link layer's addresses, exchanged.
    #[inline(always)]
    fn turned_addresses(&self) -> Option<[u16; 6]> {
        let addresses = self.at::<[u16; 6]>(0)?;
        // SAFETY: `at` checked the bounds; a packet may begin at an odd address.
        let [a, b, c, d, e, f] = unsafe { addresses.read_unaligned() };
        Some([d, e, f, a, b, c])
    }

    /// A pointer to a `T` at this offset, if it lies inside the directly readable part.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.start();
        // VERIFIER: the comparison must be of packet pointer plus offset against the end.
        if start + offset + size_of::<T>() > self.end() {
            None
        } else {
            Some((start + offset) as *mut T)
        }
    }
}

/// The kernel would not change the packet.
pub struct Refused;

/// A change of one end of a packet.
#[derive(Clone, Copy)]
pub struct Rewrite {
    /// A client's packet gets a new destination, a backend's packet a new source.
    pub sender: Sender,
    /// The new address, of the packet's family.
    pub addr: Addr,
    /// The new port.
    pub port: Be16,
    /// The packet becomes a RST for its receiver.
    pub reset: bool,
}
