//! Offloads in software: what a frame's [`Offload`] note asks for and the exit that it leaves by cannot carry.
//!
//! [`check`] decides once, on ingress, whether a note fits its frame. [`finish`] decides at egress what is left to do:
//! nothing where the device carries the note, else the sum ([`finish_checksum`]) or segmentation ([`segment_into`]).
//!
//! A note that travels is about the frame's own transport checksum and nothing else: whoever writes the sum, here or in a
//! device, writes over nothing that port security, security groups, a router or NAT decided by. A sum elsewhere is the
//! business of a packet that is carried inside, and is finished on ingress, before anyone looks.
//!
//! Invariants: every function here proves what it needs from the bytes again, so a hostile note gives
//! [`DropReason::BadOffload`] and never a panic; a segment is a frame like any other, in small chunks with the usual
//! headroom, and carries either finished checksums or a note that says what is missing.
//!
//! Limits: the headers of a frame lie in its head. A GSO frame is TCP or UDP directly over IPv4 or IPv6, whole (no
//! fragment), its IP length is that of the frame, and it makes at most [`MAX_SEGMENTS`] segments. Pseudo-header sums of
//! segments are taken from the addresses, so IPv6 routing headers with segments left are refused, and a home address
//! option (RFC 6275, 6.3) is not looked at. Sums that are only to be finished take the sum that stands in their field.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::check::least_transport;
use crate::frame::{CHUNK_DATA, Caps, Frame, Offload, Pool};
use crate::stats::DropReason;
use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::{Ipv4, Ipv4Mut};
use crate::wire::ipv6::{self, Ipv6, Ipv6Mut};
use crate::wire::tcp::{self, Tcp, TcpMut};
use crate::wire::udp::{self, Udp, UdpMut};
use crate::wire::{Malformed, protocol};

/// Most segments of one frame. Bounds what a guest can make of 64 KiB, while a full frame may still carry TCP segments
/// of 36 bytes, the least that Linux sends (its smallest MSS, less options).
pub const MAX_SEGMENTS: usize = 2048;

/// Whether a frame's note fits the frame. To be called on ingress when the note is not [`Offload::is_done`]. A sum that is
/// not the transport's own, but that of a packet inside, is finished at once and the note is gone.
///
/// # Errors
/// [`DropReason::BadOffload`] where the field of the checksum is not in the frame's head, or is another field of the
/// headers, or that of a fragment; and where a GSO frame is not what its type says.
#[inline]
pub fn check(frame: &mut Frame) -> Result<(), DropReason> {
    let note = frame.offload;
    if note.gso_type != Offload::GSO_NONE {
        return Plan::new(frame).map(drop);
    }
    if !note.needs_csum() {
        return Ok(());
    }
    let (field, own) = (checksum_field(&note), Fields::new(frame.head())?);
    if field + 2 > frame.head().len() {
        return Err(DropReason::BadOffload);
    }
    if usize::from(note.csum_start) == own.transport && Some(field) == own.checksum {
        return Ok(());
    }
    if usize::from(note.csum_start) < own.transport || field < own.payload {
        return Err(DropReason::BadOffload);
    }
    finish_checksum(frame)
}

/// Where in a frame its transport begins, where its checksum stands, and where begins what nothing is decided by; in bytes
/// from the start of the frame. Of what is not IP all behind the Ethernet header is looked at, or not, by those who come later.
struct Fields {
    transport: usize,
    checksum: Option<usize>,
    payload: usize,
}

impl Fields {
    #[inline]
    fn new(head: &[u8]) -> Result<Fields, DropReason> {
        let ethernet = Ethernet::new_checked(head).map_err(bad)?;
        let l3 = ethernet.header_len();
        let (protocol, offset, is_fragment) = match ethernet.ethertype() {
            ethernet::IPV4 => {
                let header = Ipv4::new_checked(ethernet.payload()).map_err(bad)?;
                (header.protocol(), header.header_len(), header.is_fragment())
            }
            ethernet::IPV6 => {
                let header = Ipv6::new_checked(ethernet.payload()).map_err(bad)?;
                let found = header.transport().map_err(bad)?;
                (found.protocol, found.offset, found.fragment.is_some())
            }
            _ => return Ok(Fields { transport: l3, checksum: None, payload: l3 }),
        };
        if is_fragment {
            return Err(DropReason::BadOffload);
        }
        let transport = l3 + offset;
        let checksum = match protocol {
            protocol::TCP => Some(usize::from(tcp::CHECKSUM)),
            protocol::UDP | protocol::UDP_LITE | protocol::DCCP => Some(usize::from(udp::CHECKSUM)),
            protocol::ICMP | protocol::ICMPV6 => Some(2),
            protocol::SCTP => Some(8),
            _ => None,
        };
        let payload = transport + least_transport(protocol) as usize;
        Ok(Fields { transport, checksum: checksum.map(|at| transport + at), payload })
    }
}

/// Length in bytes of the longest frame that segmentation gives; a frame that is not GSO is its own only segment. For a
/// note that passed [`check`]; for others the frame's length or less.
#[inline]
pub fn segment_len(frame: &Frame) -> usize {
    let note = &frame.offload;
    let l4 = usize::from(note.csum_start);
    let header = match note.gso() {
        Offload::GSO_NONE => return frame.len(),
        Offload::GSO_UDP_L4 => udp::HEADER,
        _ => frame
            .head()
            .get(l4..)
            .and_then(|segment| Tcp::new_checked(segment).ok())
            .map_or(frame.len(), |segment| segment.header_len()),
    };
    frame.len().min(l4 + header + usize::from(note.gso_size))
}

/// Does exactly what an exit with these `caps` cannot: segments, sums, or nothing. `out` takes what is to be sent, in
/// order; their number comes back. The length of what is sent is not judged here (see [`segment_len`]).
///
/// # Errors
/// [`DropReason::BadOffload`] for a note that does not fit the frame, and nothing was sent;
/// [`DropReason::NoBuffer`] where buffers ran out: the segments before that were sent, the rest is lost.
#[inline]
pub fn finish(
    mut frame: Frame,
    pool: &mut Pool,
    caps: &Caps,
    mut out: impl FnMut(Frame),
) -> Result<usize, DropReason> {
    if !frame.offload.is_done() {
        let carried = match frame.offload.gso() {
            Offload::GSO_NONE => true,
            Offload::GSO_UDP_L4 => caps.uso && caps.checksum,
            _ => caps.tso && caps.checksum,
        };
        if !carried {
            return segment_into(frame, pool, !caps.checksum, out);
        }
        if !caps.checksum {
            finish_checksum(&mut frame)?;
        }
    }
    out(frame);
    Ok(1)
}

/// Sums what the note of a frame that is not GSO asks for, seeded by what the field holds, and clears the note.
///
/// # Errors
/// [`DropReason::BadOffload`] for a GSO frame, and where the field is not in the frame's head; the frame is unchanged.
pub fn finish_checksum(frame: &mut Frame) -> Result<(), DropReason> {
    let note = frame.offload;
    if note.gso_type != Offload::GSO_NONE {
        return Err(DropReason::BadOffload);
    }
    if note.needs_csum() {
        let checksum = sum_from(frame, usize::from(note.csum_start)).checksum();
        let checksum = if note.csum_offset == udp::CHECKSUM { udp::never_zero(checksum) } else { checksum };
        let field = frame.head_mut().get_mut(checksum_field(&note)..).and_then(<[u8]>::first_chunk_mut);
        *field.ok_or(DropReason::BadOffload)? = checksum.to_be_bytes();
    }
    frame.offload = Offload::NONE;
    Ok(())
}

/// Cuts a GSO frame into segments in fresh small chunks and hands them to `out` in order; their number comes back. With
/// `finish` their checksums are complete, without it they are left to the device, as their note says.
///
/// # Errors
/// As [`finish`]'s; [`DropReason::BadOffload`] also for a frame that is not GSO.
pub fn segment_into(
    frame: Frame,
    pool: &mut Pool,
    finish: bool,
    mut out: impl FnMut(Frame),
) -> Result<usize, DropReason> {
    let plan = Plan::new(&frame)?;
    let (mut at, mut index) = (plan.payload, 0u16);
    while at < frame.len() {
        let end = frame.len().min(at + plan.size);
        let mut segment = plan.cut(&frame, at..end, pool).ok_or(DropReason::NoBuffer)?;
        plan.write(&mut segment, at, index, end == frame.len(), finish).map_err(bad)?;
        out(segment);
        (at, index) = (end, index + 1);
    }
    Ok(usize::from(index))
}

fn bad(_: Malformed) -> DropReason {
    DropReason::BadOffload
}

/// Where the sum of a note goes, in bytes from the start of the frame.
fn checksum_field(note: &Offload) -> usize {
    usize::from(note.csum_start) + usize::from(note.csum_offset)
}

/// The sum of a frame's bytes from `offset` on, over all its pieces.
#[inline]
fn sum_from(frame: &Frame, offset: usize) -> Sum {
    let (mut skip, mut len, mut sum) = (offset, 0, Sum::ZERO);
    for piece in frame.segments() {
        let Some(piece) = piece.get(skip..) else {
            skip -= piece.len();
            continue;
        };
        skip = 0;
        sum = sum.combine(len, Sum::of(piece));
        len += piece.len();
    }
    sum
}

/// What all segments share.
struct Plan {
    network: Network,
    transport: Transport,
    /// Where the IP header begins, in bytes from the start of the frame, as are the next two.
    l3: usize,
    /// Where the transport header begins.
    l4: usize,
    /// Where the payload begins.
    payload: usize,
    /// Bytes of payload of every segment but the last.
    size: usize,
}

enum Network {
    V4 { source: Ipv4Addr, destination: Ipv4Addr, id: u16 },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

enum Transport {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl Transport {
    fn protocol(&self) -> u8 {
        match self {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp => protocol::UDP,
        }
    }

    fn checksum_offset(&self) -> u16 {
        match self {
            Transport::Tcp { .. } => tcp::CHECKSUM,
            Transport::Udp => udp::CHECKSUM,
        }
    }
}

impl Plan {
    /// Reads the headers of a GSO frame and holds them against its note.
    #[inline]
    fn new(frame: &Frame) -> Result<Plan, DropReason> {
        let note = frame.offload;
        let head = frame.head();
        let ethernet = Ethernet::new_checked(head).map_err(bad)?;
        let l3 = ethernet.header_len();
        let packet_len = frame.len() - l3;
        let (network, protocol, l4) = match ethernet.ethertype() {
            ethernet::IPV4 => network_v4(ethernet.payload(), packet_len)?,
            ethernet::IPV6 => network_v6(ethernet.payload(), packet_len)?,
            _ => return Err(DropReason::BadOffload),
        };
        let l4 = l3 + l4;
        let is_v4 = matches!(network, Network::V4 { .. });
        let expected = match note.gso_type {
            Offload::GSO_UDP_L4 => protocol::UDP,
            // The flag may stand beside a TCP type only (VIRTIO 1.2, 5.1.6.2).
            _ if note.gso() == Offload::GSO_TCPV4 && is_v4 => protocol::TCP,
            _ if note.gso() == Offload::GSO_TCPV6 && !is_v4 => protocol::TCP,
            _ => return Err(DropReason::BadOffload),
        };
        if protocol != expected {
            return Err(DropReason::BadOffload);
        }
        let segment = head.get(l4..).ok_or(DropReason::BadOffload)?;
        let (transport, header_len) = transport(segment, protocol, frame.len() - l4)?;
        let plan =
            Plan { network, transport, l3, l4, payload: l4 + header_len, size: usize::from(note.gso_size) };
        let payload = frame.len() - plan.payload;
        // A GSO frame leaves its checksum unfinished (VIRTIO 1.2, 5.1.6.2), and nowhere else than where it belongs.
        let sums = note.needs_csum()
            && usize::from(note.csum_start) == l4
            && note.csum_offset == plan.transport.checksum_offset();
        let cuts = payload > 0 && plan.size > 0 && payload.div_ceil(plan.size) <= MAX_SEGMENTS;
        if sums && cuts && plan.payload <= CHUNK_DATA { Ok(plan) } else { Err(DropReason::BadOffload) }
    }

    /// The pseudo-header's sum for a segment; `len` is that of its transport header and payload.
    #[inline]
    fn pseudo(&self, len: u16) -> Sum {
        let protocol = self.transport.protocol();
        match self.network {
            Network::V4 { source, destination, .. } => pseudo_v4(source, destination, protocol, len),
            Network::V6 { source, destination } => pseudo_v6(source, destination, protocol, u32::from(len)),
        }
    }

    /// A frame with the headers as they are in `frame` and the part `range` of it as payload; nothing when no chunk is
    /// free.
    #[inline]
    fn cut(&self, frame: &Frame, range: std::ops::Range<usize>, pool: &mut Pool) -> Option<Frame> {
        let mut segment = pool.alloc()?;
        segment.append(frame.head().get(..self.payload)?)?;
        let mut at = fill(&mut segment, frame, range.clone(), CHUNK_DATA - self.payload)?;
        while at < range.end {
            let mut link = pool.alloc()?;
            at = fill(&mut link, frame, at..range.end, CHUNK_DATA)?;
            segment.chain(link)?;
        }
        Some(segment)
    }

    /// Writes the header fields in which the segment that began at `at` in the frame differs from the others.
    #[inline]
    fn write(
        &self,
        segment: &mut Frame,
        at: usize,
        index: u16,
        last: bool,
        finish: bool,
    ) -> Result<(), Malformed> {
        let header_end = segment.len();
        let length = |from: usize| u16::try_from(header_end - from).map_err(|_| Malformed::HeaderLength);
        let (packet_len, l4_len) = (length(self.l3)?, length(self.l4)?);
        let seed = self.pseudo(l4_len);
        let head = segment.head_mut();
        let (before, l4_bytes) = head.split_at_mut_checked(self.l4).ok_or(Malformed::Truncated)?;
        let l3_bytes = before.get_mut(self.l3..).ok_or(Malformed::Truncated)?;
        match self.network {
            Network::V4 { id, .. } => {
                let mut header = Ipv4Mut::new_checked(l3_bytes)?;
                header.set_total_len(packet_len);
                header.set_id(id.wrapping_add(index));
                header.fill_checksum();
            }
            Network::V6 { .. } => {
                Ipv6Mut::new_checked(l3_bytes)?.set_payload_len(length(self.l3 + ipv6::HEADER)?);
            }
        }
        match self.transport {
            Transport::Tcp { sequence, flags } => {
                let mut header = TcpMut::new_checked(l4_bytes)?;
                let sent = u32::try_from(at - self.payload).map_err(|_| Malformed::HeaderLength)?;
                header.set_sequence(sequence.wrapping_add(sent));
                header.set_flags(segment_flags(flags, index == 0, last));
                header.set_checksum(seed.fold());
            }
            Transport::Udp => {
                let mut header = UdpMut::new_checked(l4_bytes)?;
                header.set_len(l4_len);
                header.set_checksum(seed.fold());
            }
        }
        segment.offload = Offload {
            flags: Offload::NEEDS_CSUM,
            csum_start: u16::try_from(self.l4).map_err(|_| Malformed::HeaderLength)?,
            csum_offset: self.transport.checksum_offset(),
            ..Offload::NONE
        };
        if finish {
            finish_checksum(segment).map_err(|_| Malformed::Truncated)?;
        }
        Ok(())
    }
}

/// Which of a large segment's flags each part carries: the last alone says that the data end (FIN, PSH), the first alone
/// that the window was reduced (RFC 3168, 6.1.2).
fn segment_flags(flags: u8, first: bool, last: bool) -> u8 {
    let mut kept = flags;
    if !first {
        kept &= !tcp::CWR;
    }
    if !last {
        kept &= !(tcp::FIN | tcp::PSH);
    }
    kept
}

/// Adds up to `room` bytes of the part `range` of `source` to `target`; where it stopped in `source`.
#[inline]
fn fill(target: &mut Frame, source: &Frame, range: std::ops::Range<usize>, room: usize) -> Option<usize> {
    let (old, count) = (target.len(), range.len().min(room));
    if source.is_linear() {
        target.append(source.head().get(range.start..range.start + count)?)?;
    } else {
        target.extend(count)?;
        source.copy_to(range.start, target.head_mut().get_mut(old..)?);
    }
    Some(range.start + count)
}

/// Network, transport protocol and the transport header's offset of a whole IPv4 packet of `len` bytes.
#[inline]
fn network_v4(bytes: &[u8], len: usize) -> Result<(Network, u8, usize), DropReason> {
    let header = Ipv4::new_checked(bytes).map_err(bad)?;
    if header.is_fragment() || usize::from(header.total_len()) != len {
        return Err(DropReason::BadOffload);
    }
    let network = Network::V4 { source: header.source(), destination: header.destination(), id: header.id() };
    Ok((network, header.protocol(), header.header_len()))
}

/// As [`network_v4`], for IPv6.
#[inline]
fn network_v6(bytes: &[u8], len: usize) -> Result<(Network, u8, usize), DropReason> {
    let header = Ipv6::new_checked(bytes).map_err(bad)?;
    let transport = header.transport().map_err(bad)?;
    if transport.fragment.is_some()
        || transport.en_route
        || usize::from(header.payload_len()) + ipv6::HEADER != len
    {
        return Err(DropReason::BadOffload);
    }
    let network = Network::V6 { source: header.source(), destination: header.destination() };
    Ok((network, transport.protocol, transport.offset))
}

/// The transport header and its length, `len` being that of header and payload.
#[inline]
fn transport(bytes: &[u8], protocol: u8, len: usize) -> Result<(Transport, usize), DropReason> {
    if protocol == protocol::TCP {
        let header = Tcp::new_checked(bytes).map_err(bad)?;
        let transport = Transport::Tcp { sequence: header.sequence(), flags: header.flags() };
        return Ok((transport, header.header_len()));
    }
    let header = Udp::new_checked(bytes).map_err(bad)?;
    if usize::from(header.len()) != len {
        return Err(DropReason::BadOffload);
    }
    Ok((Transport::Udp, udp::HEADER))
}

#[cfg(test)]
mod tests;
