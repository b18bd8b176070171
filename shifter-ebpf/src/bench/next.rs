//! The next packet, by the recipe in the frame.

use shifter_common::recipe::{CLIENT_IS_DESTINATION, Recipe};

const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
/// Where the payload of a TCP segment without options begins.
const PAYLOAD_V4: usize = 14 + 20 + 20;
const PAYLOAD_V6: usize = 14 + 40 + 20;

/// Writes the next packet's headers; `None` if the frame is too short.
#[inline(always)]
pub fn make(start: usize, end: usize) -> Option<()> {
    let ethertype = at::<u16>(start, end, 12)?;
    // SAFETY: `at` checked the bounds, here and below; packet memory is accessed unaligned.
    let is_v6 = unsafe { ethertype.read_unaligned() } == ETHERTYPE_IPV6;
    let recipe = at::<Recipe>(start, end, if is_v6 { PAYLOAD_V6 } else { PAYLOAD_V4 })?;
    // SAFETY: as above.
    let Recipe {
        turn,
        flows_count,
        flags,
        addr,
        port,
        ..
    } = unsafe { recipe.read_unaligned() };
    // SAFETY: as above.
    unsafe { (&raw mut (*recipe).turn).write_unaligned(turn.wrapping_add(1)) };
    let index = Recipe::flow_index(turn, flows_count);
    let client = Recipe::client_word(index, is_v6).to_be();
    let client_port = Recipe::client_port(index).to_be();
    let to_client = flags & CLIENT_IS_DESTINATION != 0;
    if is_v6 {
        // The last word of the client's address changes; the other end's is written whole.
        let addrs = at::<[u32; 8]>(start, end, 22)?;
        // SAFETY: as above.
        let mut words = unsafe { addrs.read_unaligned() };
        if to_client {
            words = [
                addr[0], addr[1], addr[2], addr[3], words[4], words[5], words[6], client,
            ];
        } else {
            words = [
                words[0], words[1], words[2], client, addr[0], addr[1], addr[2], addr[3],
            ];
        }
        // SAFETY: as above.
        unsafe { addrs.write_unaligned(words) };
    } else {
        let addrs = at::<[u32; 2]>(start, end, 26)?;
        let words = if to_client {
            [addr[3], client]
        } else {
            [client, addr[3]]
        };
        // SAFETY: as above.
        unsafe { addrs.write_unaligned(words) };
    }
    let l4 = if is_v6 { 54 } else { 34 };
    let ports = at::<[u16; 2]>(start, end, l4)?;
    let words = if to_client {
        [port, client_port]
    } else {
        [client_port, port]
    };
    // SAFETY: as above.
    unsafe { ports.write_unaligned(words) };
    let seq = at::<u32>(start, end, l4 + 4)?;
    // Every packet brings new data, so that the entry of its flow is written to.
    // SAFETY: as above.
    unsafe { seq.write_unaligned((turn as u32).wrapping_add(1).to_be()) };
    Some(())
}

/// A pointer to a `T` at this offset, if it lies inside the packet.
#[inline(always)]
pub fn at<T>(start: usize, end: usize, offset: usize) -> Option<*mut T> {
    // VERIFIER: the comparison must be of packet pointer plus offset against the end.
    if start + offset + size_of::<T>() > end {
        None
    } else {
        Some((start + offset) as *mut T)
    }
}
