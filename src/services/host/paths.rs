//! Path MTUs that were heard of: bounded, and forgotten after ten minutes (RFC 1191, 6.3; RFC 8201, 4), so that a path
//! that became wider is used again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{Event, Net};
use crate::types::Instant;

/// How long an MTU is believed.
const LIFETIME: Duration = Duration::from_secs(600);
/// Most paths that are remembered; the one that was heard of longest ago goes first.
const CAPACITY: usize = 1024;

/// Paths that carry less than their first link.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: BTreeMap<IpAddr, (u16, Instant)>,
    timers: BTreeSet<(Instant, IpAddr)>,
}

impl Paths {
    /// Notes an MTU when it is lower than what is known, `link` bytes at first. False when it is not.
    pub(super) fn lower(
        &mut self,
        to: IpAddr,
        mtu: u16,
        link: u16,
        now: Instant,
        net: &mut impl Net,
    ) -> bool {
        if mtu >= self.known.get(&to).map_or(link, |&(known, _)| known) {
            return false;
        }
        let full = !self.known.contains_key(&to) && self.known.len() >= CAPACITY;
        if let Some((_, oldest)) = full.then(|| self.timers.pop_first()).flatten() {
            self.known.remove(&oldest);
            net.event(Event::PathMtu { destination: oldest, mtu: link });
        }
        let until = now.after(LIFETIME);
        if let Some((_, before)) = self.known.insert(to, (mtu, until)) {
            self.timers.remove(&(before, to));
        }
        self.timers.insert((until, to));
        net.event(Event::PathMtu { destination: to, mtu });
        true
    }

    /// Forgets what is old: the path is as wide as its `link` again, until someone says otherwise.
    pub(super) fn poll(&mut self, link: u16, now: Instant, net: &mut impl Net) {
        while let Some(&(until, to)) = self.timers.first().filter(|(until, _)| *until <= now) {
            self.timers.remove(&(until, to));
            self.known.remove(&to);
            net.event(Event::PathMtu { destination: to, mtu: link });
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(until, _)| until)
    }

    /// All paths, with their MTUs in bytes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.known.iter().map(|(&to, &(mtu, _))| (to, mtu))
    }
}
