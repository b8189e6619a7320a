//! NAT: what becomes of a packet's addresses and ports on its way between a router's inside and the world, and back.
//!
//! A router translates at one worker, the home of its interface to the world, which has the tracker of all its connections. Each
//! translated connection is tracked: one look-up finds it by the tuple of either direction, with what it was translated to. The
//! first packet decides:
//!
//! - its source, on the way out: the floating IP of its address, or else an endpoint of the SNAT addresses that is the same
//!   towards everybody (RFC 4787, REQ-1), kept in a *binding* for as long as a connection uses it;
//! - its destination, on the way in: what a floating IP or a forwarded port stands for, or the inside endpoint of a binding, as
//!   far as the router's filtering lets it.
//!
//! A packet from inside to an address that NAT gives away is both (hairpin; RFC 4787, REQ-9): it is treated as if it had gone
//! out, and come back as from its sender's outside endpoint. One that is not let in has gone out all the same, so it is tracked
//! as *half* a connection, which lets the other guest's packets in; when one comes, the whole connection takes its place.
//!
//! Entries carry the epoch of the tables that they were decided under. At the first packet after a change an entry is looked at
//! again; it stays if what it says is still true, and its binding stays while the pool has its address.
//!
//! SCTP's ports are under a CRC that NAT cannot bring up to date, so they are left alone: like a protocol without ports it is
//! one inside host's at each SNAT address.
//!
//! ICMP errors are translated by the packet that they quote (RFC 5508, REQ-3 to REQ-5). An unasked-for SYN is dropped in
//! silence (RFC 5382, REQ-4).

pub(super) mod carried;
mod held;
pub mod live;
pub(super) mod opening;

use std::net::Ipv4Addr;

use super::check::{Header, check_v4};
use super::conntrack::binding::{BindingRef, Inside, NoBinding, Outside, Slice};
use super::conntrack::{
    Bindings, Direction, Entry, EntryRef, Guess, Limits, New, Refused, Seen, Settings, Timeouts, Tracker,
    Tuple, V4Probe, V4Tuple, Verdict, Why,
};
use super::fragments::{self, Fragments};
use super::rewrite::{self, Rewrite, Transport};
use crate::stats::DropReason;
use crate::tables::Tables;
use crate::tables::nat::{Nat as Rules, NatFiltering};
use crate::tables::tunnel::v4_key;
use crate::types::{PortIdx, RouterIdx, WorkerIdx};
use crate::wire::protocol;
use carried::{Carried, asked_for, carried, check_error};
use held::Held;

/// The guest of connections whose inside end is none of our ports.
const NOBODY: u16 = u16::MAX;

/// The connections and bindings of the routers that this worker translates for.
pub struct Translator {
    /// Connections.
    pub tracker: Tracker,
    /// Inside endpoints and what the world sees of them.
    pub bindings: Bindings,
    /// Parts of packets that are to be translated, with the interface that each came by.
    pub fragments: Fragments<PortIdx>,
    held: Held,
    /// Routers that have a pool here.
    zones: Vec<RouterIdx>,
}

/// What is to be done with a packet.
pub(super) enum Plan {
    /// Nothing: it goes as it is.
    Plain,
    /// It is for the router itself.
    Local,
    /// Translate it; it is for this address then. What is found out about its way may be kept with its connection.
    Rewrite { rewrite: Rewrite, destination: u32, connection: Option<(EntryRef, Direction)> },
    /// Translate an ICMP error and what it quotes.
    Error { source: Ipv4Addr, destination: Ipv4Addr, quoted: rewrite::Tuple },
}

/// A connection that a packet is of.
pub(super) struct Known<'a> {
    pub(super) at: EntryRef,
    pub(super) direction: Direction,
    entry: &'a Entry,
}

impl Known<'_> {
    /// Whether it is still there, and what it says was decided under these tables.
    #[inline(always)]
    pub(super) fn counts(&self, epoch: u32, now: u32) -> bool {
        (self.entry.epoch() == epoch) & (self.entry.expiry() > now)
    }

    /// What is kept for the packet's direction; 0: nothing.
    #[inline(always)]
    pub(super) fn data(&self) -> u32 {
        self.entry.data(self.direction)
    }

    /// What makes of the packet with these ends what it becomes.
    #[inline(always)]
    pub(super) fn rewrite(&self, tuple: &V4Tuple) -> Rewrite {
        let to = self.entry.becomes(self.direction);
        Rewrite::new(Transport::of(tuple.protocol()), &ends(*tuple), &ends(to))
    }
}

/// What a packet to a NAT address is for: a guest's endpoint, by a floating IP or by this binding.
#[derive(Clone, Copy)]
struct Target {
    inside: (u32, u16),
    binding: Option<BindingRef>,
}

/// A packet as the translator is asked about it.
pub(super) struct Asked<'a> {
    /// From the IP header on.
    pub(super) packet: &'a [u8],
    pub(super) header: &'a Header<Ipv4Addr>,
    pub(super) router: RouterIdx,
    pub(super) rules: &'a Rules,
    /// It came by the interface to the world.
    pub(super) from_world: bool,
    /// Its destination is an address that NAT gives away; else it leads out.
    pub(super) to_nat: bool,
    /// Of a fragment: the ports of its packet, once they are known.
    pub(super) ports: Option<(u16, u16)>,
    /// Its checksum is still to be finished.
    pub(super) is_partial: bool,
    pub(super) epoch: u32,
    pub(super) now: u32,
}

impl Translator {
    /// No connections. `seed` is secret.
    pub fn new(tables: &Tables, seed: u64) -> Translator {
        let (limits, settings) = settings(tables);
        let bindings = Bindings::new(limits.entries, seed.rotate_left(17));
        Translator {
            tracker: Tracker::new(limits, settings, seed),
            bindings,
            fragments: Fragments::new(fragments::Limits::default(), seed.rotate_left(31)),
            held: Held::default(),
            zones: Vec::new(),
        }
    }

    /// Brings pools and bounds in line with newly published tables. Connections of routers that are gone end.
    pub fn configure(&mut self, tables: &Tables, home: WorkerIdx) {
        let (limits, settings) = settings(tables);
        self.tracker.set_limits(limits);
        self.tracker.set_settings(settings);
        let here = routers(tables, home);
        for zone in std::mem::take(&mut self.zones) {
            if !here.iter().any(|(router, _)| *router == zone) {
                self.bindings.set_pool(zone.0, &[], WHOLE);
                self.flush(|entry| entry.tuple(Direction::Original).zone == zone.0);
                self.fragments.clear(zone.0.into());
            }
        }
        let wanted = here.iter().any(|(_, rules)| rules.filtering == NatFiltering::AddressDependent);
        for (router, rules) in here {
            self.bindings.set_pool(router.0, &rules.addresses, WHOLE);
            self.zones.push(router);
        }
        if wanted != self.held.remembers() {
            let Translator { tracker, held, .. } = self;
            held.set_remembers(wanted, tracker);
        }
    }

    /// Ends the connections that `is` names; gives how many.
    pub fn flush(&mut self, is: impl Fn(&Entry) -> bool) -> u32 {
        let Translator { tracker, bindings, held, .. } = self;
        let (mut from, mut count) = (0, 0);
        while let Some(next) = tracker.flush(from, 4096, &is, &mut |entry, _| {
            count += 1;
            held.let_go(entry, bindings);
        }) {
            from = next;
        }
        count
    }

    /// Ends what is over. True: there is more to do.
    pub fn sweep(&mut self, now: u32) -> bool {
        let Translator { tracker, bindings, held, .. } = self;
        tracker.sweep(now, &mut |entry, _| held.let_go(entry, bindings))
    }

    /// The connection of a packet.
    #[inline(always)]
    pub(super) fn seek(&self, probe: &V4Probe, guess: Option<Guess>) -> Option<Known<'_>> {
        let (at, direction, entry) = self.tracker.find_v4(probe, guess)?;
        Some(Known { at, direction, entry })
    }

    /// Brings near what is needed first for a packet of no known connection.
    #[inline(never)]
    pub(super) fn expect(&self, router: RouterIdx, tuple: &V4Tuple) {
        let (address, port) = (tuple.addresses().0, tuple.ports().0);
        self.bindings.approach(&Inside { zone: router.0, protocol: tuple.protocol(), address, port });
    }

    /// Decides on a packet.
    pub(super) fn plan(&mut self, asked: &Asked<'_>) -> Result<Plan, DropReason> {
        let (ports, tcp) = match asked_for(asked)? {
            Carried::Error(quoted) => {
                check_error(asked)?;
                return self.plan_error(asked, quoted);
            }
            Carried::Flow { ports, tcp } => (ports, tcp),
        };
        if asked.rules.is_shared(asked.header.source) {
            // Only the router has the addresses that all share.
            return Err(DropReason::MartianSource);
        }
        let tuple = tuple(asked.header, asked.router, ports);
        let seen = Seen { bytes: asked.header.len, tcp };
        let probe = self.tracker.probe(&tuple);
        let mut half = None;
        if let Some((at, direction)) = self.tracker.find(&probe, asked.now) {
            if self.holds(at, asked) {
                match self.tracker.update(at, direction, &seen, asked.now) {
                    Verdict::Pass | Verdict::Restarted if self.is_half(at, direction, asked) => {
                        half = Some(at)
                    }
                    Verdict::Pass | Verdict::Restarted => return Ok(self.rewrite(at, direction, &tuple)),
                    Verdict::Invalid(_) => return Err(DropReason::ConntrackInvalid),
                    Verdict::Renew => {}
                }
            }
            if half.is_none() {
                self.remove(at);
            }
        }
        self.begin(asked, &tuple, &seen, half)
    }

    /// Whether a packet's connection is a half one: nothing had let the first packet in where it was sent to, so nothing stands
    /// for its destination.
    fn is_half(&self, at: EntryRef, direction: Direction, asked: &Asked<'_>) -> bool {
        let is_sent_in = asked.to_nat && !asked.from_world && direction == Direction::Original;
        self.tracker.entry(at).filter(|_| is_sent_in).is_some_and(|entry| {
            entry.tuple(direction).destination == entry.translated(direction).destination
        })
    }

    fn remove(&mut self, at: EntryRef) {
        let Translator { tracker, bindings, held, .. } = self;
        tracker.remove(at, &mut |entry: &Entry, _: Why| held.let_go(entry, bindings));
    }

    /// Whether what an entry says is still what the tables want; if it was decided under older ones, that is found out.
    fn holds(&mut self, at: EntryRef, asked: &Asked<'_>) -> bool {
        let Some(entry) = self.tracker.entry(at) else { return false };
        if entry.epoch() == asked.epoch {
            return true;
        }
        let (before, after) = (entry.tuple(Direction::Original), entry.translated(Direction::Original));
        let binding = entry.binding();
        let lasts = binding.is_none_or(|binding| self.bindings.is_current(binding));
        let source = before.source == after.source
            || asked.rules.outside.get(low(before.source)) == Some(low(after.source))
            || (lasts && binding.is_some());
        let leads_in =
            |(address, port)| (v4_key(address), port) == (after.destination, after.destination_port);
        let destination = before.destination == after.destination
            || (asked.rules)
                .forwarded(before.protocol, low(before.destination), before.destination_port)
                .is_some_and(leads_in)
            || self.leads_to_binding(&before, &after);
        let holds = source && destination && lasts;
        if holds {
            // Which neighbours they lead to is to be found out again.
            self.tracker.decide(at, asked.epoch, [0; 2]);
        }
        holds
    }

    fn leads_to_binding(&self, before: &Tuple, after: &Tuple) -> bool {
        let outside = Outside { address: low(before.destination), port: before.destination_port };
        let found = self.bindings.find_outside(before.zone, before.protocol, outside);
        let inside = found.and_then(|binding| self.bindings.get(binding)).map(|binding| binding.inside);
        inside.is_some_and(|inside| {
            (v4_key(inside.address), inside.port) == (after.destination, after.destination_port)
        })
    }

    #[inline(always)]
    fn rewrite(&self, at: EntryRef, direction: Direction, tuple: &Tuple) -> Plan {
        let Some(entry) = self.tracker.entry(at) else { return Plan::Plain };
        let to = entry.translated(direction);
        let rewrite = Rewrite::new(Transport::of(tuple.protocol), &ends(tuple), &ends(&to));
        Plan::Rewrite { rewrite, destination: low(to.destination), connection: Some((at, direction)) }
    }

    /// The first packet of a connection, or one more of `half` a connection.
    fn begin(
        &mut self,
        asked: &Asked<'_>,
        tuple: &Tuple,
        seen: &Seen,
        half: Option<EntryRef>,
    ) -> Result<Plan, DropReason> {
        let is_query = tuple.protocol == protocol::ICMP;
        let target = if asked.to_nat { self.target(asked, tuple) } else { None };
        if asked.to_nat && target.is_none() && is_query {
            return Ok(Plan::Local);
        }
        let (outside, binding) = if asked.from_world { (*tuple, None) } else { self.go_out(asked, tuple)? };
        let (mut to, mut other) = (outside, None);
        if asked.to_nat {
            let Some((address, port)) = self.come_in(target, binding, &outside, asked) else {
                return self.stay_out(asked, (tuple, &outside), seen, binding, half);
            };
            (to.destination, to.destination_port) = (v4_key(address), port);
            other = target.and_then(|target| target.binding);
        }
        if is_query {
            // A query has one identifier, whichever way it goes.
            let id = if asked.from_world { to.destination_port } else { to.source_port };
            (to.source_port, to.destination_port) = (id, id);
        }
        if to == *tuple {
            return Ok(Plan::Plain);
        }
        let rewrite = Rewrite::new(Transport::of(tuple.protocol), &ends(tuple), &ends(&to));
        let destination = low(to.destination);
        if to.reversed() == *tuple {
            // A guest that pings its own floating IP, or sends to its own endpoint outside, which another connection of its
            // holds: its answer looks like its question, and is translated alike.
            self.give_back(binding);
            return Ok(Plan::Rewrite { rewrite, destination, connection: None });
        }
        if let Some(other) = other {
            self.bindings.hold(other);
        }
        let is_hairpin = other.is_some() && !asked.from_world;
        self.make_way(half, is_hairpin.then_some(&outside), asked);
        // What came from the world by a binding holds that one.
        let (binding, other) = if is_hairpin { (binding, other) } else { (binding.or(other), None) };
        let at = self.track(asked, (tuple, &to), seen, (binding, other))?;
        Ok(Plan::Rewrite { rewrite, destination, connection: Some((at, Direction::Original)) })
    }

    /// What a packet from inside becomes where the router's addresses stand for its source, and the binding for that, which is
    /// to be given back or to go to a connection.
    fn go_out(
        &mut self,
        asked: &Asked<'_>,
        tuple: &Tuple,
    ) -> Result<(Tuple, Option<BindingRef>), DropReason> {
        let (mut to, address) = (*tuple, low(tuple.source));
        if let Some(floating) = asked.rules.outside.get(address) {
            to.source = v4_key(floating);
            return Ok((to, None));
        }
        if asked.rules.addresses.is_empty() {
            return Ok((to, None));
        }
        let own = Inside { zone: tuple.zone, protocol: tuple.protocol, address, port: tuple.source_port };
        let got = self.bindings.acquire(&own).map_err(|none| match none {
            NoBinding::NoPool => DropReason::NatUnmatched,
            _ => DropReason::NatExhausted,
        })?;
        let Some(outside) = self.bindings.outside(got) else { return Err(DropReason::NatExhausted) };
        (to.source, to.source_port) = (v4_key(outside.address), outside.port);
        Ok((to, Some(got)))
    }

    /// What a packet to a NAT address is for.
    fn target(&self, asked: &Asked<'_>, tuple: &Tuple) -> Option<Target> {
        let (address, port) = (low(tuple.destination), tuple.destination_port);
        if let Some(inside) = asked.rules.forwarded(tuple.protocol, address, port) {
            return Some(Target { inside, binding: None });
        }
        let binding = self.bindings.find_outside(tuple.zone, tuple.protocol, Outside { address, port })?;
        let Inside { address, port, .. } = self.bindings.get(binding)?.inside;
        Some(Target { inside: (address, port), binding: Some(binding) })
    }

    /// The inside endpoint that a packet may have which comes in from where `outside` says; `own` is the binding that it left by.
    fn come_in(
        &self,
        target: Option<Target>,
        own: Option<BindingRef>,
        outside: &Tuple,
        asked: &Asked<'_>,
    ) -> Option<(u32, u16)> {
        let Target { inside, binding } = target?;
        let Some(binding) = binding else { return Some(inside) };
        let is_open = match asked.rules.filtering {
            NatFiltering::EndpointIndependent => true,
            // It has just sent to itself.
            _ if own == Some(binding) && outside.protocol != protocol::ICMP => true,
            NatFiltering::AddressDependent => self.held.has_sent_to(binding, low(outside.source)),
            // From the world, the answers to what was sent have been found as such.
            NatFiltering::AddressAndPortDependent => {
                !asked.from_world && {
                    let found = self.tracker.find(&self.tracker.probe(outside), asked.now);
                    found.and_then(|(at, _)| self.tracker.entry(at)?.binding()) == Some(binding)
                }
            }
        };
        is_open.then_some(inside)
    }

    /// A packet to a NAT address that is not let in. One to an address that all share has gone out.
    fn stay_out(
        &mut self,
        asked: &Asked<'_>,
        (tuple, outside): (&Tuple, &Tuple),
        seen: &Seen,
        binding: Option<BindingRef>,
        half: Option<EntryRef>,
    ) -> Result<Plan, DropReason> {
        if tuple.protocol == protocol::ICMP {
            self.give_back(binding);
            return Ok(Plan::Local);
        }
        if binding.is_some() && half.is_none() && asked.rules.is_shared(asked.header.destination) {
            self.track(asked, (tuple, outside), seen, (binding, None))?;
        } else {
            self.give_back(binding);
        }
        Err(DropReason::NatUnmatched)
    }

    /// Takes out the halves of a connection that is about to begin: the sender's, and the other guest's, whose answers have the
    /// tuple `outside`.
    fn make_way(&mut self, half: Option<EntryRef>, outside: Option<&Tuple>, asked: &Asked<'_>) {
        if let Some(half) = half {
            self.remove(half);
        }
        if let Some(outside) = outside
            && let Some((other, _)) = self.tracker.find(&self.tracker.probe(outside), asked.now)
        {
            self.remove(other);
        }
    }

    /// Tracks a connection whose first packet becomes `to`. It holds the bindings then; if it is refused they are given back.
    fn track(
        &mut self,
        asked: &Asked<'_>,
        (tuple, to): (&Tuple, &Tuple),
        seen: &Seen,
        (binding, other): (Option<BindingRef>, Option<BindingRef>),
    ) -> Result<EntryRef, DropReason> {
        let inside = if asked.from_world { to.destination } else { tuple.source };
        let guest = asked.rules.guests.get(low(inside)).map_or(NOBODY, |port| port.0);
        let new = New { guest, inbound: asked.from_world, epoch: asked.epoch, data: [0; 2], binding };
        let Translator { tracker, bindings, held, .. } = self;
        let probe = tracker.probe(tuple);
        let gone = &mut |entry: &Entry, _: Why| held.let_go(entry, bindings);
        match tracker.insert(&probe, &to.reversed(), &new, seen, asked.now, gone) {
            Ok(at) => {
                if let Some(entry) = tracker.entry(at) {
                    held.note(entry, other);
                }
                Ok(at)
            }
            Err(refused) => {
                self.give_back(binding);
                self.give_back(other);
                Err(match refused {
                    Refused::Invalid(_) => DropReason::ConntrackInvalid,
                    _ => DropReason::NatExhausted,
                })
            }
        }
    }

    fn give_back(&mut self, binding: Option<BindingRef>) {
        if let Some(binding) = binding {
            self.bindings.release(binding);
        }
    }

    /// Makes a packet that was translated, and could not leave, what it was when it came. Nothing is done to others.
    pub(super) fn restore(&mut self, packet: &mut [u8], router: RouterIdx, now: u32) {
        let Ok(header) = check_v4(packet, packet.len()) else { return };
        let Ok(Carried::Flow { ports, .. }) = carried(packet, &header, router) else { return };
        let sent = tuple(&header, router, ports);
        let probe = self.tracker.probe(&sent.reversed());
        let found = self
            .tracker
            .find(&probe, now)
            .and_then(|(at, direction)| Some((self.tracker.entry(at)?, direction)));
        let Some((entry, direction)) = found else { return };
        let was = entry.translated(direction).reversed();
        let rewrite = Rewrite::new(Transport::of(sent.protocol), &ends(&sent), &ends(&was));
        let _ = rewrite.apply(packet, usize::from(header.transport), false);
    }

    /// An ICMP error goes the way of the packets that answer the one that it quotes.
    fn plan_error(&mut self, asked: &Asked<'_>, quoted: Tuple) -> Result<Plan, DropReason> {
        let probe = self.tracker.probe(&quoted.reversed());
        let found = self.tracker.find(&probe, asked.now);
        let Some((at, direction)) = found else { return Err(DropReason::NatUnmatched) };
        if !self.holds(at, asked) {
            return Err(DropReason::NatUnmatched);
        }
        let Some(entry) = self.tracker.entry(at) else { return Err(DropReason::NatUnmatched) };
        let to = entry.translated(direction);
        let sender = asked.header.source;
        // An inside host's own address is not shown to the world, nor that of a router in front of it.
        let is_end = v4_key(sender.to_bits()) == quoted.destination;
        let source = if is_end || !asked.from_world { Ipv4Addr::from_bits(low(to.source)) } else { sender };
        let destination = Ipv4Addr::from_bits(low(to.destination));
        Ok(Plan::Error { source, destination, quoted: ends(&to.reversed()) })
    }
}

/// One worker has all ports of a router's pool.
const WHOLE: Slice = Slice::WHOLE;

/// Routers that this worker translates for.
fn routers(tables: &Tables, home: WorkerIdx) -> Vec<(RouterIdx, &Rules)> {
    let of = |slot: usize| {
        let rules = &tables.routers.get(slot)?.as_ref()?.nat;
        let is_here = tables.port(rules.gateway?)?.worker == home;
        Some((RouterIdx(u16::try_from(slot).ok()?), rules)).filter(|_| is_here)
    };
    (0..tables.routers.len()).filter_map(of).collect()
}

/// Whether this worker translates for any router.
pub(super) fn is_wanted(tables: &Tables, home: WorkerIdx) -> bool {
    !routers(tables, home).is_empty()
}

fn settings(tables: &Tables) -> (Limits, Settings) {
    let wanted = &tables.conntrack;
    let of = &wanted.timeouts;
    let timeouts = Timeouts {
        tcp_transitory: of.tcp_transitory,
        tcp_established: of.tcp_established,
        tcp_closing: of.tcp_closing,
        udp: of.udp,
        icmp: of.icmp,
        other: of.other,
    };
    let limits = Limits { entries: wanted.max_entries, per_guest: wanted.max_entries_per_guest };
    (limits, Settings { timeouts, pick_up: true, inbound_refresh: false })
}

/// What tells a packet's connection from others.
#[inline(always)]
pub(super) fn tuple(header: &Header<Ipv4Addr>, router: RouterIdx, ports: (u16, u16)) -> Tuple {
    Tuple {
        zone: router.0,
        protocol: header.protocol,
        source: v4_key(header.source.to_bits()),
        destination: v4_key(header.destination.to_bits()),
        source_port: ports.0,
        destination_port: ports.1,
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the IPv4 part of a key
fn low(key: u128) -> u32 {
    key as u32
}

#[inline(always)]
fn ends(tuple: impl Into<V4Tuple>) -> rewrite::Tuple {
    let tuple = tuple.into();
    let ((source, destination), (source_port, destination_port)) = (tuple.addresses(), tuple.ports());
    rewrite::Tuple {
        source: Ipv4Addr::from_bits(source),
        destination: Ipv4Addr::from_bits(destination),
        source_port,
        destination_port,
    }
}
