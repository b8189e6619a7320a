use crate::stats::DropReason;
use crate::wire::ethernet::HEADER;

pub(super) struct V4 {
    pub(super) destination: u32,
    pub(super) ttl: u8,
}

#[inline(always)]
pub(super) fn v4(head: &[u8]) -> Result<V4, DropReason> {
    let fixed: &[u8; 20] = head.get(HEADER..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Runt)?;
    let [.., d0, d1, d2, d3] = *fixed;
    Ok(V4 { destination: u32::from_be_bytes([d0, d1, d2, d3]), ttl: fixed[8] })
}

pub(super) struct V6 {
    pub(super) destination: u128,
    pub(super) hop_limit: u8,
    pub(super) is_link_local: bool,
}

#[inline(always)]
pub(super) fn v6(head: &[u8]) -> Result<V6, DropReason> {
    let fixed: &[u8; 40] = head.get(HEADER..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Runt)?;
    let (_, to) = fixed.split_last_chunk::<16>().ok_or(DropReason::Runt)?;
    let destination = u128::from_be_bytes(*to);
    Ok(V6 { destination, hop_limit: fixed[7], is_link_local: destination >> 118 == 0xfe80 >> 6 })
}
