//! What the pipeline needs of a packet, whichever hook it came from.

use shifter_common::{
    addr::{Addr, Be16},
    tcp::Sender,
};

use crate::parse::Packet;

/// Bytes that parsing may look at: Ethernet, the longest IPv4 header, TCP without options.
pub const HEADERS_MAX_BYTES: u32 = 14 + 60 + 20;

/// A packet at a hook.
pub trait Frame {
    /// First byte.
    fn start(&self) -> usize;

    /// One past the last byte that can be read directly.
    fn end(&self) -> usize;

    /// Length on the wire.
    fn len_bytes(&self) -> u64;

    /// Makes the first [`HEADERS_MAX_BYTES`] directly readable, as far as the packet has them.
    fn pull_headers(&self);

    /// Carries out a rewrite, checksums included.
    ///
    /// # Errors
    /// If the kernel refuses; the packet may then be half changed and must be dropped.
    fn rewrite(&self, packet: &Packet, rewrite: &Rewrite) -> Result<(), Refused>;

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
