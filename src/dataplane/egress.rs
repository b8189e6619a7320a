//! Last stage: makes the frame fit the port that it leaves by (MTU, checksum, segments, VLAN tag, tunnel) and puts it into
//! that port's queue.

use super::out::Out;
use super::tracer::Tracer;
use super::{Sent, Shard, segment, serve, tunnel};
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::tunnel::Tunnel;
use crate::tables::{NetEntry, PortEntry, Segments, Tables};
use crate::types::{NetIdx, PortIdx, VlanId};
use crate::wire::ethernet::{HEADER, TAG, VLAN, is_tag};

/// Where a frame is to leave.
pub(super) struct Exit<'t> {
    pub(super) to: PortIdx,
    /// The port that it came from.
    pub(super) ingress: PortIdx,
    /// The network that it stands in.
    pub(super) index: NetIdx,
    pub(super) network: &'t NetEntry,
    pub(super) from_tunnel: bool,
    /// Its place in the burst that was looked at, or [`NO_LOOK`].
    pub(super) look: usize,
}

/// It came in no burst that security groups have looked at, or is one of several copies.
pub(super) const NO_LOOK: usize = usize::MAX;

/// Why it may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    Drop(DropReason),
    /// Packets that go this way have at most this many bytes.
    TooBig(u16),
}

/// Whether the frame may leave there; gives the port.
#[inline(always)]
pub(super) fn admit<'t>(
    frame: &Frame,
    exit: &Exit<'_>,
    tables: &'t Tables,
) -> Result<&'t PortEntry, Refused> {
    let port = match tables.port(exit.to) {
        Some(port) if port.up => port,
        _ => return Err(Refused::Drop(DropReason::PortDown)),
    };
    if let Segments::Tunnel(tunnel) = &port.segments {
        if exit.from_tunnel {
            return Err(Refused::Drop(DropReason::SplitHorizon));
        }
        if is_tagged(frame) {
            // RFC 7348, section 6.1: none goes in. It is one that was hidden behind a priority tag.
            return Err(Refused::Drop(DropReason::InnerTag));
        }
        let longest = port.plain_len.min(tunnel.longest_inner());
        if frame.len() > longest && segment::segment_len(frame) > longest {
            return Err(Refused::TooBig(u16::try_from(longest.saturating_sub(HEADER)).unwrap_or(u16::MAX)));
        }
    } else if frame.len() > port.plain_len {
        check_mtu(frame, port).map_err(Refused::Drop)?;
    }
    Ok(port)
}

/// Sends a frame by a port that admitted it.
#[inline(always)]
pub(super) fn send(
    mut frame: Frame,
    exit: &Exit<'_>,
    port: &PortEntry,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    match &port.segments {
        Segments::Tunnel(tunnel) => {
            send_tunnel(frame, exit, (port, tunnel), (tables, shard), out, tracer)?;
            return Ok(Sent::Forwarded);
        }
        Segments::Router(_) => {
            shard.delivered.push(frame, exit.to, exit.ingress)?;
            return Ok(Sent::Forwarded);
        }
        Segments::Service => {
            return serve::receive(frame, (exit.ingress, exit.index), (tables, shard), out, tracer);
        }
        _ => {}
    }
    let tag = port.segments.egress_tag(exit.index, exit.network);
    match tag {
        Some(id) => push_tag(&mut frame, id).ok_or(DropReason::NoBuffer)?,
        None if matches!(port.segments, Segments::Trunk { .. }) && is_tagged(&frame) => {
            return Err(DropReason::VlanHop);
        }
        None => {}
    }
    tracer.say("egress", || match tag {
        Some(id) => format!("leaves by port {} with the tag of VLAN {id}", port.name),
        None => format!("leaves by port {} untagged", port.name),
    });
    if frame.offload.is_done() {
        out.push(exit.to, frame);
    } else {
        finish(frame, port, shard, |frame| out.push(exit.to, frame), tracer)?;
    }
    Ok(Sent::Forwarded)
}

/// Sends a frame into a tunnel: segments first, as no device that we know of cuts what is inside.
#[inline(always)]
fn send_tunnel(
    mut frame: Frame,
    exit: &Exit<'_>,
    (port, tunnel): (&PortEntry, &Tunnel),
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let (Some(underlay), Some(tunnels)) = (&tables.underlay, &exit.network.tunnels) else {
        return Err(DropReason::PortDown);
    };
    tracer.say("egress", || {
        format!("leaves by the underlay in a tunnel to {}, VNI {}", port.name, tunnels.vni)
    });
    if frame.offload.is_done() {
        shard.tally.count_tx(exit.to, 1, frame.len() as u64);
        shard.tally.count_tunnel_tx(exit.index, frame.len() as u64);
        let to = tunnel::leave(&mut frame, tunnels.vni, tunnel, underlay)?;
        out.push(to, frame);
        say_if_unresolved(to == underlay.resolver, port, tracer);
        return Ok(());
    }
    let (mut lost, mut waits) = (None, false);
    let mut tally = std::mem::take(&mut shard.tally);
    let finished = finish(
        frame,
        port,
        shard,
        |mut frame| {
            tally.count_tx(exit.to, 1, frame.len() as u64);
            tally.count_tunnel_tx(exit.index, frame.len() as u64);
            match tunnel::leave(&mut frame, tunnels.vni, tunnel, underlay) {
                Ok(to) => {
                    waits = to == underlay.resolver;
                    out.push(to, frame);
                }
                Err(reason) => lost = Some(reason),
            }
        },
        tracer,
    );
    shard.tally = tally;
    finished?;
    say_if_unresolved(waits, port, tracer);
    lost.map_or(Ok(()), Err)
}

#[inline(always)]
fn say_if_unresolved(waits: bool, port: &PortEntry, tracer: &mut impl Tracer) {
    if waits {
        tracer.say("egress", || format!("the next hop to {} is not resolved: it waits for that", port.name));
    }
}

/// Does in software what the device cannot do.
fn finish(
    frame: Frame,
    port: &PortEntry,
    shard: &mut Shard,
    mut push: impl FnMut(Frame),
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let mut frames = 0;
    let (gso, partial) = (frame.offload.gso() != 0, frame.offload.needs_csum());
    segment::finish(frame, &mut shard.pool, &port.caps, |frame| {
        frames += 1;
        push(frame);
    })?;
    tracer.say("egress", || match (gso, partial, frames) {
        (true, _, 1) => format!("port {} takes the GSO frame whole", port.name),
        (true, _, count) => format!("segmented into {count} frames, as port {} cannot do it", port.name),
        (_, true, _) if port.caps.checksum => format!("port {} finishes the checksum", port.name),
        _ => format!("checksum finished in software, as port {} cannot do it", port.name),
    });
    Ok(())
}

/// Inserts a tag behind the addresses (IEEE 802.1Q-2018, 9.3). Nothing changes where the headroom is too small.
#[inline(always)]
fn push_tag(frame: &mut Frame, id: VlanId) -> Option<()> {
    frame.prepend(TAG)?;
    let front = frame.head_mut().first_chunk_mut::<{ TAG + 12 }>()?;
    let macs: [u8; 12] = *front.last_chunk()?;
    *front.first_chunk_mut()? = macs;
    let [t0, t1] = VLAN.to_be_bytes();
    let [i0, i1] = id.get().to_be_bytes();
    front[12..].copy_from_slice(&[t0, t1, i0, i1]);
    Some(())
}

#[inline(always)]
fn is_tagged(frame: &Frame) -> bool {
    let ethertype = frame.head().get(12..).and_then(|rest| rest.first_chunk());
    ethertype.is_some_and(|bytes| is_tag(u16::from_be_bytes(*bytes)))
}

/// The exact look at a frame that is longer than the port's MTU at first sight.
#[cold]
fn check_mtu(frame: &Frame, port: &PortEntry) -> Result<(), DropReason> {
    let tag = if is_tagged(frame) { TAG } else { 0 };
    if segment::segment_len(frame) > port.plain_len + tag { Err(DropReason::MtuExceeded) } else { Ok(()) }
}
