//! First stage: reads the frame's Ethernet header once, refuses what no switch may carry, takes off the VLAN tag, and
//! finds the network.
//!
//! Untagged frames belong to the port's network or native network. A tag of TPID 0x8100 names a VLAN on trunks and
//! physical networks; with VLAN ID 0 it carries a priority only (IEEE 802.1Q-2018, table 9-2) and is taken off. A tag
//! behind the first is payload; a third is refused, as is a tag of TPID 0x88a8 in front, which belongs to a provider
//! bridge.

use super::fdb::{Fdb, FdbKey, Probe};
use super::tracer::Tracer;
use super::underlay::Notes;
use super::{segment, tunnel};
use crate::frame::{Frame, Offload};
use crate::stats::DropReason;
use crate::tables::tunnel::Underlay;
use crate::tables::{NetEntry, PortEntry, Segments, Tables};
use crate::types::{Mac, NetIdx, PortIdx};
use crate::wire::ethernet::{HEADER, SERVICE_VLAN, TAG, VLAN, is_tag};
use crate::wire::partial::partial_checksum;

/// 01-80-C2-00-00-0x as a little-endian load gives it, and the bits of it that count.
const RESERVED: (u64, u64) = (0x0000_00c2_8001, 0xf0ff_ffff_ffff);
/// Below this the field behind the addresses is a length (IEEE 802.3-2018, 3.2.6).
const FIRST_ETHERTYPE: u16 = 0x0600;

/// What the bridge needs to know of a frame.
pub(super) struct Classified {
    /// The port that it came from: of a frame out of a tunnel the tunnel's.
    pub(super) ingress: PortIdx,
    pub(super) from_tunnel: bool,
    pub(super) network: NetIdx,
    pub(super) source: Probe,
    pub(super) destination: Probe,
    pub(super) is_group: bool,
}

/// Why a frame does not get to the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    Drop(DropReason),
    /// A tunnel port's frame is dropped; it counts there.
    DropInner(PortIdx, NetIdx, DropReason),
    /// Its sender is to be told that packets of this network have at most this many bytes.
    TooBig(NetIdx, u16),
    /// It is for the local VTEP itself.
    Host,
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Stop {
        Stop::Drop(reason)
    }
}

/// The addresses of a frame as integers, and what follows them.
struct Addresses {
    source: u64,
    destination: u64,
    ethertype: u16,
    is_group: bool,
}

#[inline(always)]
fn addresses(frame: &Frame, short: DropReason) -> Result<Addresses, DropReason> {
    let head = frame.head();
    let (Some(low), Some(high)) = (load(head, 0), load(head, 6)) else { return Err(short) };
    let (destination, source) = (low & Mac::MASK, high & Mac::MASK);
    if source & 1 != 0 || source == 0 {
        return Err(if source == 0 { DropReason::SourceZero } else { DropReason::SourceMulticast });
    }
    let is_group = destination & 1 != 0;
    if is_group && destination & RESERVED.1 == RESERVED.0 {
        return Err(DropReason::ReservedMac);
    }
    Ok(Addresses { source, destination, ethertype: ((high >> 48) as u16).swap_bytes(), is_group })
}

fn load(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Reads one frame; on success it is untagged (but for a payload tag) and stands in its network.
#[inline(always)]
pub(super) fn classify(
    frame: &mut Frame,
    (ingress, port): (PortIdx, &PortEntry),
    tables: &Tables,
    fdb: &Fdb,
    tracer: &mut impl Tracer,
) -> Result<Classified, Stop> {
    let Addresses { source, destination, mut ethertype, is_group } = addresses(frame, DropReason::Runt)?;
    if !frame.offload.is_done() {
        segment::check(frame)?;
    }
    let network = if is_tag(ethertype) {
        let (network, inner) = untag(frame, port, tracer)?;
        ethertype = inner;
        network
    } else {
        let native = match &port.segments {
            Segments::Access(network) => Some(*network),
            Segments::Trunk { native, .. } => *native,
            _ => None,
        };
        native.ok_or(DropReason::UntaggedNotAllowed)?
    };
    if ethertype < FIRST_ETHERTYPE {
        check_length(frame, ethertype)?;
    }
    let entry = tables.network(network).ok_or(DropReason::VlanNotAllowed)?;
    if frame.len() > entry.plain_len {
        check_mtu(frame, ethertype, (network, entry))?;
    }
    tracer.say("ingress", || format!("from port {} into network {}", port.name, entry.name));
    Ok(Classified {
        ingress,
        from_tunnel: false,
        network,
        source: fdb.probe(FdbKey::from_bits(network, source)),
        destination: fdb.probe(FdbKey::from_bits(network, destination)),
        is_group,
    })
}

/// As [`classify`], for a frame of the underlay: on success it is the inner one.
#[inline(always)]
pub(super) fn classify_tunnel(
    frame: &mut Frame,
    underlay: &Underlay,
    tables: &Tables,
    (fdb, notes): (&Fdb, &mut Notes),
    tracer: &mut impl Tracer,
) -> Result<Classified, Stop> {
    tracer.say("ingress", || match tunnel::peek::peek(frame.head(), underlay.udp_port) {
        Some(packet) => format!("a tunnel packet from {} to {}, VNI {}", packet.from, packet.to, packet.vni),
        None => "a packet of the underlay".to_owned(),
    });
    let (ingress, network) = tunnel::enter(frame, underlay, tables, notes)?;
    let inner = |reason| Stop::DropInner(ingress, network, reason);
    let found = addresses(frame, DropReason::InnerRunt).map_err(inner)?;
    let Addresses { source, destination, ethertype, is_group } = found;
    let ours = underlay.mac.to_bits();
    if source == ours || destination == ours {
        return Err(inner(DropReason::NestedTunnel));
    }
    if is_tag(ethertype) {
        // RFC 7348, section 6.1.
        return Err(inner(DropReason::InnerTag));
    }
    if ethertype < FIRST_ETHERTYPE {
        check_length(frame, ethertype).map_err(inner)?;
    }
    if frame.offload.is_done() {
        // Its sender may have left the checksum to a device that is none, as a veth is.
        if let Some((csum_start, csum_offset)) = partial_checksum(frame.head()) {
            frame.offload = Offload { flags: Offload::NEEDS_CSUM, csum_start, csum_offset, ..Offload::NONE };
        }
    } else {
        segment::check(frame).map_err(inner)?;
    }
    let entry = tables.network(network).ok_or(DropReason::UnknownVni)?;
    if frame.len() > entry.plain_len && segment::segment_len(frame) > entry.plain_len {
        return Err(inner(DropReason::Giant));
    }
    tracer.say("ingress", || {
        let name = tables.port(ingress).map_or("?", |port| &port.name);
        format!("out of the tunnel from {name} into network {}", entry.name)
    });
    Ok(Classified {
        ingress,
        from_tunnel: true,
        network,
        source: fdb.probe(FdbKey::from_bits(network, source)),
        destination: fdb.probe(FdbKey::from_bits(network, destination)),
        is_group,
    })
}

/// Takes the tag off and gives the network it names and the EtherType behind it.
fn untag(frame: &mut Frame, port: &PortEntry, tracer: &mut impl Tracer) -> Result<(NetIdx, u16), DropReason> {
    let head = frame.head();
    let field = |at: usize| head.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field));
    let (Some(tpid), Some(tci), Some(inner)) = (field(12), field(14), field(16)) else {
        return Err(DropReason::TruncatedTag);
    };
    if is_tag(inner) {
        match field(20) {
            None => return Err(DropReason::TruncatedTag),
            Some(inner) if is_tag(inner) => return Err(DropReason::ThirdTag),
            Some(_) => {}
        }
    }
    let id = tci & 0x0fff;
    let network = match &port.segments {
        Segments::Access(network) if id == 0 && tpid == VLAN => *network,
        Segments::Access(_) => return Err(DropReason::TagNotAllowed),
        Segments::Trunk { .. } if tpid == SERVICE_VLAN => return Err(DropReason::VlanNotAllowed),
        Segments::Trunk { native, .. } if id == 0 => native.ok_or(DropReason::UntaggedNotAllowed)?,
        Segments::Trunk { by_id, .. } => {
            by_id.get(usize::from(id)).copied().flatten().ok_or(DropReason::VlanNotAllowed)?
        }
        _ => return Err(DropReason::VlanNotAllowed),
    };
    tracer.say("ingress", || match id {
        0 => "takes off a priority tag".to_owned(),
        id => format!("takes off the tag of VLAN {id}"),
    });
    let front = frame.head_mut().first_chunk_mut::<{ TAG + 12 }>().ok_or(DropReason::TruncatedTag)?;
    let macs: [u8; 12] = *front.first_chunk().ok_or(DropReason::TruncatedTag)?;
    *front.last_chunk_mut().ok_or(DropReason::TruncatedTag)? = macs;
    frame.trim_front(TAG).ok_or(DropReason::TruncatedTag)?;
    Ok((network, inner))
}

/// An IEEE 802.3 length must fit what follows it.
#[cold]
fn check_length(frame: &Frame, length: u16) -> Result<(), DropReason> {
    let payload = frame.len().saturating_sub(HEADER);
    if length > 1500 || usize::from(length) > payload { Err(DropReason::BadLength) } else { Ok(()) }
}

/// The exact look at a frame that is longer than its network's MTU at first sight: GSO frames count by their segments, and
/// a payload tag does not count. Where tunnels made the MTU, the sender is told.
#[cold]
fn check_mtu(frame: &Frame, ethertype: u16, (index, network): (NetIdx, &NetEntry)) -> Result<(), Stop> {
    let tag = if is_tag(ethertype) { TAG } else { 0 };
    if segment::segment_len(frame) <= network.plain_len + tag {
        Ok(())
    } else if network.tunnels.is_some() {
        Err(Stop::TooBig(index, network.mtu))
    } else {
        Err(DropReason::Giant.into())
    }
}
