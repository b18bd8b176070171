//! The least that destination NAT of TCP over IPv4 can do: one lookup by the 5-tuple, one rewrite. No
//! new flows, no phases, no sequence numbers, no time, no counters, no IPv6, no options.

use aya_ebpf::{macros::map, maps::LruHashMap};
use shifter_common::{
    addr::{Addr, Be16},
    checksum::Delta,
    recipe::{FLOOR_FLOWS_COUNT, FloorKey, FloorTarget},
};

use crate::next::at;

/// Where flows go.
#[map]
pub static FLOOR_FLOWS: LruHashMap<FloorKey, FloorTarget> =
    LruHashMap::with_max_entries(FLOOR_FLOWS_COUNT, 0);

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// Version 4 and a header of five words.
const PLAIN_V4: u8 = 0x45;
const TCP: u8 = 6;

/// Rewrites the destination of a packet whose flow is known.
#[inline(always)]
pub fn steer(start: usize, end: usize) -> Option<()> {
    // SAFETY: `at` checked the bounds, here and below; packet memory is accessed unaligned.
    let ethertype = unsafe { at::<u16>(start, end, 12)?.read_unaligned() };
    // SAFETY: as above.
    let version = unsafe { at::<u8>(start, end, 14)?.read_unaligned() };
    // SAFETY: as above.
    let protocol = unsafe { at::<u8>(start, end, 23)?.read_unaligned() };
    if ethertype != ETHERTYPE_IPV4 || version != PLAIN_V4 || protocol != TCP {
        return None;
    }
    let addrs = at::<[u32; 2]>(start, end, 26)?;
    // SAFETY: as above.
    let [client, vip] = unsafe { addrs.read_unaligned() };
    let tcp = at::<[u8; 20]>(start, end, 34)?;
    // SAFETY: as above.
    let [client_port, vip_port] = unsafe { tcp.cast::<[u16; 2]>().read_unaligned() };
    let key = FloorKey {
        client,
        vip,
        client_port,
        vip_port,
    };
    // SAFETY: the value is copied at once.
    let target = unsafe { *FLOOR_FLOWS.get(key)? };
    let (old, new) = (Addr::from_v4_word(vip), Addr::from_v4_word(target.addr));
    let of_addr = Delta::default().v4(&old, &new);
    let of_both = of_addr.port(Be16(vip_port), Be16(target.port));
    let ip_check = at::<u16>(start, end, 24)?;
    let tcp_check = at::<u16>(start, end, 50)?;
    // SAFETY: as above.
    unsafe {
        ip_check.write_unaligned(of_addr.apply(ip_check.read_unaligned()));
        tcp_check.write_unaligned(of_both.apply(tcp_check.read_unaligned()));
        addrs.write_unaligned([client, target.addr]);
        tcp.cast::<[u16; 2]>()
            .write_unaligned([client_port, target.port]);
    }
    Some(())
}
