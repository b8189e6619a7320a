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
        let may = packet.out.filter(|out| place < end && leaves(frame, *out, cx).is_some());
        let seen = may.and_then(|_| seen(frame, packet));
        let opening = seen.and_then(|seen| {
            let at = At::new(packet.interface, cx.tables)?;
            cx.shard.nat.as_mut()?.choose(&at.router.nat, &packet.probe, seen)
        });
        match opening {
            Some(opening) => openings.push((packet, opening)),
            None => {
                *step = Step::Decide;
                end = end.min(place);
            }
        }
    }
    let (epoch, now) = (cx.epoch(), cx.seconds);
    for (packet, opening) in &openings {
        let (Some(frame), Some(step)) = (frames.get_mut(packet.place), steps.get_mut(packet.place)) else {
            continue;
        };
        *step = Step::Decide;
        let Some(out) = packet.out else { continue };
        let Some((to, mac)) = leaves(frame, out, cx) else { continue };
        let Some(translator) = &mut cx.shard.nat else { continue };
        if let Some(rewrite) = translator.open(opening, out.number(), epoch, now) {
            *step = depart(frame, packet, &rewrite, to, (out, mac), cx);
        }
    }
}
