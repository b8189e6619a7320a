//! Last stage: makes the frame fit the port that it leaves by (MTU, checksum, segments, VLAN tag) and puts it into that
//! port's queue.

use super::Shard;
use super::out::Out;
use super::segment;
use super::tracer::Tracer;
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::{NetEntry, PortEntry, Tables, Segments};
use crate::types::{NetIdx, PortIdx, VlanId};
use crate::wire::ethernet::{TAG, VLAN, is_tag};

/// Sends a frame of `network` by port `to`.
#[inline(always)]
pub(super) fn send(
    mut frame: Frame,
    (index, network): (NetIdx, &NetEntry),
    to: PortIdx,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let port = match tables.port(to) {
        Some(port) if port.up => port,
        _ => return Err(DropReason::PortDown),
    };
    if frame.len() > port.plain_len {
        check_mtu(&frame, port)?;
    }
    let tag = port.segments.egress_tag(index, network);
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
        out.push(to, frame);
        Ok(())
    } else {
        finish(frame, to, port, shard, out, tracer)
    }
}

/// Does in software what the device cannot do.
fn finish(
    frame: Frame,
    to: PortIdx,
    port: &PortEntry,
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let mut frames = 0;
    let (gso, partial) = (frame.offload.gso() != 0, frame.offload.needs_csum());
    segment::finish(frame, &mut shard.pool, &port.caps, |frame| {
        frames += 1;
        out.push(to, frame);
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
