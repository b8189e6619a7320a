//! How simple connections begin: from inside, by the router's own addresses or a floating IP, where nothing has to go for them.
//! It takes two steps, each for a whole burst before the next begins. The first one chooses the outside endpoint and so knows
//! both tuples; by the time of the second, which puts the entry in its place, the index's line of the reply is near. One at a
//! time, as [`Translator::plan`] does it for all others, each connection would wait for that.
//!
//! What the two steps do is what `plan` would have done. What they cannot do they leave as it was, for `plan`.

use super::{BindingRef, Inside, NOBODY, New, Rules, Seen, Translator, V4Probe, V4Tuple, ends};
use crate::dataplane::conntrack::Entry;
use crate::dataplane::conntrack::Why;
use crate::dataplane::rewrite::{Rewrite, Transport};
use crate::frame::BURST;
use crate::wire::protocol;

/// Entries that a burst may begin.
#[allow(clippy::cast_possible_truncation)] // 32
const MOST: u32 = BURST as u32;

/// A connection between the two steps. It holds its binding.
pub(in crate::dataplane) struct Opening {
    reply: V4Probe,
    binding: Option<BindingRef>,
    guest: u16,
}

impl Translator {
    /// The first step, for a packet from inside that leads to the world, and whose tuple no entry has.
    #[inline(always)]
    pub(in crate::dataplane) fn choose(
        &mut self,
        rules: &Rules,
        tuple: &V4Tuple,
        seen: &Seen,
    ) -> Option<Opening> {
        let ((source, destination), (source_port, destination_port)) = (tuple.addresses(), tuple.ports());
        let guest = rules.guests.get(source).map_or(NOBODY, |port| port.0);
        let (zone, protocol) = (tuple.zone(), tuple.protocol());
        if protocol == protocol::ICMP
            || rules.is_shared(source.into())
            || !self.tracker.has_room(guest, MOST)
            || !self.tracker.may_begin(protocol, seen)
        {
            return None;
        }
        let ((address, port), binding) = match rules.outside.get(source) {
            Some(floating) => ((floating, source_port), None),
            None => {
                let inside = Inside { zone, protocol, address: source, port: source_port };
                let (binding, outside) = self.bindings.try_acquire(&inside)?;
                ((outside.address, outside.port), Some(binding))
            }
        };
        let reply = V4Tuple::new(zone, protocol, (destination, address), (destination_port, port));
        let reply = self.tracker.probe_v4(reply);
        Some(Opening { reply, binding, guest })
    }

    /// The second step: tracks the connection, and gives what its packets become. `data` is what is kept for them. Nothing: an
    /// earlier packet of the burst has begun it, or what is rarer.
    #[inline(always)]
    pub(in crate::dataplane) fn open(
        &mut self,
        Opening { reply, binding, guest }: &Opening,
        (original, seen): (&V4Probe, &Seen),
        data: u32,
        (epoch, now): (u32, u32),
    ) -> Option<Rewrite> {
        let new = New { guest: *guest, inbound: false, epoch, data: [data, 0], binding: *binding };
        let Translator { tracker, bindings, held, .. } = self;
        let gone = &mut |entry: &Entry, _: Why| held.let_go(entry, bindings);
        let Ok(at) = tracker.insert_v4(original, reply, &new, seen, now, gone) else {
            self.give_back(*binding);
            return None;
        };
        if let Some(entry) = tracker.entry(at) {
            held.note(entry, None);
        }
        let kind = Transport::of(original.tuple.protocol());
        Some(Rewrite::new(kind, &ends(original.tuple), &ends(reply.tuple.reversed())))
    }
}
