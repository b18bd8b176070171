//! Ethernet, with up to two VLAN tags in the frame (IEEE 802.1Q, 802.1ad). A tag that the NIC or the
//! kernel has taken out of the frame is not there to be seen, and need not be.

use shifter_common::verdict::Verdict;

use super::{Packet, Stop, reader::Reader};

const TYPE_OFFSET: u32 = 12;
const HEADER_LEN_BYTES: u32 = 14;
const TAG_LEN_BYTES: u32 = 4;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const TPID_CUSTOMER: u16 = 0x8100_u16.to_be();
const TPID_SERVICE: u16 = 0x88a8_u16.to_be();

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == TPID_CUSTOMER || ethertype == TPID_SERVICE
}

/// Finds the IP header. Says whether it is IPv6.
///
/// # Errors
/// If there is none, or too many tags.
#[inline(always)]
pub fn read<R: Reader>(reader: &R, packet: &mut Packet) -> Result<bool, Stop> {
    let mut ethertype: u16 = reader.get(TYPE_OFFSET)?;
    packet.l3_offset = HEADER_LEN_BYTES;
    if is_tag(ethertype) {
        ethertype = reader.get(TYPE_OFFSET + TAG_LEN_BYTES)?;
        packet.l3_offset = HEADER_LEN_BYTES + TAG_LEN_BYTES;
        if is_tag(ethertype) {
            ethertype = reader.get(TYPE_OFFSET + 2 * TAG_LEN_BYTES)?;
            packet.l3_offset = HEADER_LEN_BYTES + 2 * TAG_LEN_BYTES;
            if is_tag(ethertype) {
                return Err(Verdict::PassTags.into());
            }
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok(false),
        ETHERTYPE_IPV6 => Ok(true),
        _ => Err(Verdict::PassNotIp.into()),
    }
}
