//! The short way: packets of connections that are known, and were decided under the policies in force.
//!
//! A burst is looked at as a whole before its first packet passes the bridge: hashes first, then what they lead to, so that the
//! entries are near when they are read. What was found is used once, for the frame that it was found of.

use arrayvec::ArrayVec;

use super::packet::flow;
use super::{Ends, Security, seconds};
use crate::dataplane::conntrack::{Guess, Hash, Seen, Tracker, Tuple, V4Probe, V4Tuple, Verdict};
use crate::dataplane::egress::Exit;
use crate::dataplane::ingress::{Classified, Stop};
use crate::dataplane::nat::carried;
use crate::frame::{BURST, Frame};
use crate::stats::DropReason;
use crate::tables::{PortEntry, Tables};
use crate::types::{Instant, NetIdx};
use crate::wire::ethernet::{HEADER, IPV4, IPV6};
use crate::wire::{ipv4, ipv6, protocol};

/// Headers of Ethernet and IP, and ports.
const V4: usize = HEADER + ipv4::HEADER + 4;
const V6: usize = HEADER + ipv6::HEADER + 4;

/// By the places of frames in their burst.
pub(super) type Looks = ArrayVec<Look, BURST>;

/// What a first look at a frame found, and the length that its IP header tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// No packet that goes the short way.
    Nothing,
    V4(V4Probe, Option<Guess>, u16),
    /// Its tuple is read once more: that is less than to keep it.
    V6(Hash, Option<Guess>, u16),
}

impl Look {
    /// A packet of IPv4 or IPv6 for one station, whole, with nothing between its headers, and not ICMP.
    #[inline(always)]
    fn at(frame: &Frame, zone: NetIdx, tracker: &Tracker) -> Look {
        let Some(head) = frame.head().first_chunk::<V4>() else { return Look::Nothing };
        let &[_, _, _, _, _, _, _, _, _, _, _, _, k0, k1, ..] = head;
        match u16::from_be_bytes([k0, k1]) {
            IPV4 => Look::v4(head, frame, zone, tracker),
            IPV6 => Look::v6(frame, zone, tracker),
            _ => Look::Nothing,
        }
    }

    #[inline(always)]
    fn v4(head: &[u8; V4], frame: &Frame, zone: NetIdx, tracker: &Tracker) -> Look {
        let &[.., vihl, _, t0, t1, _, _, f0, f1, _, kind, _, _, s0, s1, s2, s3, d0, d1, d2, d3, _, _, _, _] =
            head;
        let total = u16::from_be_bytes([t0, t1]);
        let is_plain = (vihl == 0x45)
            & (u16::from_be_bytes([f0, f1]) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) == 0)
            & (usize::from(total) + HEADER <= frame.len())
            & (usize::from(total) >= ipv4::HEADER + 4)
            & (kind != protocol::ICMP);
        let ports = head.get(HEADER + ipv4::HEADER..).and_then(|ports| flow(ports, kind));
        let (true, Some(ports)) = (is_plain, ports) else { return Look::Nothing };
        let addresses = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([d0, d1, d2, d3]));
        Look::V4(tracker.probe_v4(V4Tuple::new(zone.0, kind, addresses, ports)), None, total)
    }

    #[inline(always)]
    fn v6(frame: &Frame, zone: NetIdx, tracker: &Tracker) -> Look {
        let Some(head) = frame.head().first_chunk::<V6>() else { return Look::Nothing };
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, version, _, _, _, l0, l1, kind, ..] = *head;
        let len = u16::from_be_bytes([l0, l1]);
        let is_plain = (version >> 4 == 6)
            & (HEADER + ipv6::HEADER + usize::from(len) <= frame.len())
            & (len >= 4)
            & ((kind == protocol::TCP) | (kind == protocol::UDP));
        if !is_plain {
            return Look::Nothing;
        }
        tuple_v6(head, zone).map_or(Look::Nothing, |tuple| Look::V6(tracker.hash(&tuple), None, len))
    }

    /// The second look: at what may be its connection.
    #[inline(always)]
    fn approach(&mut self, tracker: &Tracker) {
        match self {
            Look::Nothing => {}
            Look::V4(probe, guess, _) => *guess = tracker.approach_v4(probe),
            Look::V6(hash, guess, _) => *guess = tracker.approach_v6(*hash),
        }
    }

    /// The verdict of the connection, if it is known and was decided under policies with this epoch.
    #[inline(always)]
    fn settle(
        &self,
        frame: &Frame,
        ends: &Ends<'_>,
        tracker: &mut Tracker,
        now: u32,
    ) -> Option<Result<(), DropReason>> {
        let (found, kind, transport, len, bytes) = match self {
            Look::Nothing => return None,
            Look::V4(probe, guess, total) => {
                let len = u32::from(*total) - 20;
                let found = tracker.find_v4(probe, *guess)?;
                (found, probe.tuple.protocol(), HEADER + ipv4::HEADER, len, u32::from(*total))
            }
            Look::V6(hash, guess, len) => {
                let tuple = tuple_v6(frame.head().first_chunk()?, ends.zone)?;
                let len = u32::from(*len);
                let found = tracker.find_v6(&tuple, *hash, *guess)?;
                (found, tuple.protocol, HEADER + ipv6::HEADER, len, len + 40)
            }
        };
        let (at, direction, entry) = found;
        if (entry.epoch() != ends.epoch(direction)) | (entry.expiry() <= now) {
            return None;
        }
        let mut seen = Seen { bytes, tcp: None };
        if kind == protocol::TCP {
            seen.tcp = Some(carried::segment(frame.head().get(transport..)?, len)?);
        }
        settled(tracker.update(at, direction, &seen, now))
    }
}

/// Of a packet without extension headers.
#[inline(always)]
fn tuple_v6(head: &[u8; V6], zone: NetIdx) -> Option<Tuple> {
    let &[.., p0, p1, p2, p3] = head;
    let (source, rest) = head.get(HEADER + 8..)?.split_first_chunk::<16>()?;
    Some(Tuple {
        zone: zone.0,
        protocol: *head.get(HEADER + 6)?,
        source: u128::from_be_bytes(*source),
        destination: u128::from_be_bytes(*rest.first_chunk()?),
        source_port: u16::from_be_bytes([p0, p1]),
        destination_port: u16::from_be_bytes([p2, p3]),
    })
}

/// A verdict; nothing: it is to be decided anew.
#[inline(always)]
pub(super) fn settled(verdict: Verdict) -> Option<Result<(), DropReason>> {
    match verdict {
        Verdict::Pass | Verdict::Restarted => Some(Ok(())),
        Verdict::Invalid(_) => Some(Err(DropReason::ConntrackInvalid)),
        Verdict::Renew => None,
    }
}

impl Security {
    /// Looks at a burst that has passed ingress.
    #[inline(never)]
    pub(in crate::dataplane) fn look(&mut self, burst: &[Frame], classified: &[Result<Classified, Stop>]) {
        let Security { looks, tracker, .. } = self;
        looks.clear();
        for (frame, classified) in burst.iter().zip(classified).take(BURST) {
            looks.push(match classified {
                Ok(classified) if !classified.is_group => Look::at(frame, classified.network, tracker),
                _ => Look::Nothing,
            });
        }
        for look in looks.iter_mut() {
            look.approach(tracker);
        }
    }

    /// The verdict on a frame that is to leave by a port. Nothing: it is to be decided.
    #[inline(always)]
    pub(in crate::dataplane) fn known(
        &mut self,
        frame: &Frame,
        exit: &Exit<'_>,
        port: &PortEntry,
        at: (&Tables, Instant),
    ) -> Option<Result<(), DropReason>> {
        let from = at.0.port(exit.ingress).and_then(PortEntry::policy);
        let to = port.policy().filter(|_| port.worker == self.home);
        let ends = Ends { from, to, ports: (exit.ingress, exit.to), guest: exit.to, zone: exit.index };
        if ends.is_empty() {
            return Some(Ok(()));
        }
        let Some(look) = self.looks.get_mut(exit.look) else { return self.known_alone(frame, &ends, at) };
        // Good for this frame alone.
        let look = std::mem::replace(look, Look::Nothing);
        self.settle(frame, look, &ends, at)
    }

    /// As [`Security::known`], of a frame that was in no burst that was looked at.
    #[inline(never)]
    pub(super) fn known_alone(
        &mut self,
        frame: &Frame,
        ends: &Ends<'_>,
        at: (&Tables, Instant),
    ) -> Option<Result<(), DropReason>> {
        let look = Look::at(frame, ends.zone, &self.tracker);
        self.settle(frame, look, ends, at)
    }

    #[inline(always)]
    fn settle(
        &mut self,
        frame: &Frame,
        look: Look,
        ends: &Ends<'_>,
        at: (&Tables, Instant),
    ) -> Option<Result<(), DropReason>> {
        match look.settle(frame, ends, &mut self.tracker, seconds(at.1))? {
            Ok(()) => Some(Ok(())),
            Err(reason) => Some(Err(self.unlike(frame, ends, reason, at))),
        }
    }
}
