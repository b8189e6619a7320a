//! The short way of packets that begin a simple connection, as [`super::look`] is of those that go on with one: see
//! [`crate::dataplane::nat::opening`].
//!
//! Which ports connections get, and which of two packets begins one, hangs on their order. So what comes behind a packet that
//! takes the long way takes that, too.

use arrayvec::ArrayVec;

use super::look::{Packet, Packets, Step, depart, leaves, seen};
use super::{At, Context};
use crate::dataplane::nat::opening::Opening;
use crate::dataplane::tracer::Tracer;
use crate::frame::{BURST, Burst};

/// Goes on with the packets of a burst that have come to [`Step::Begin`].
#[inline(never)]
pub(super) fn begin(
    frames: &mut Burst,
    packets: &Packets,
    steps: &mut ArrayVec<Step, BURST>,
    cx: &mut Context<'_, '_, impl Tracer>,
) {
    let mut openings: ArrayVec<(&Packet, Opening), BURST> = ArrayVec::new();
    let mut end = steps.iter().position(|step| matches!(step, Step::Decide)).unwrap_or(BURST);
    for packet in packets {
        let place = packet.place;
        let (Some(frame), Some(step)) = (frames.get(place), steps.get_mut(place)) else { continue };
        if !matches!(step, Step::Begin) {
            continue;
        }
        if let Some(out) = packet.out()
            && place < end
            && leaves(frame, out, cx).is_some()
            && let Some(seen) = seen(frame, packet)
            && let Some(at) = At::new(packet.interface, cx.tables)
            && let Some(translator) = &mut cx.shard.nat
            && let Some(opening) = translator.choose(&at.router.nat, &packet.probe.tuple, &seen)
        {
            openings.push((packet, opening));
        } else {
            *step = Step::Decide;
            end = end.min(place);
        }
    }
    let now = (cx.epoch(), cx.seconds);
    for (packet, opening) in &openings {
        let (Some(frame), Some(step)) = (frames.get_mut(packet.place), steps.get_mut(packet.place)) else {
            continue;
        };
        *step = Step::Decide;
        if let Some(out) = packet.out()
            && let Some((to, mac)) = leaves(frame, out, cx)
            && let Some(seen) = seen(frame, packet)
            && let Some(translator) = &mut cx.shard.nat
            && let Some(rewrite) = translator.open(opening, (&packet.probe, &seen), out.number(), now)
        {
            *step = depart(frame, packet, &rewrite, to, (out, mac), cx);
        }
    }
}
