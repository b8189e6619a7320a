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
//! A packet from inside to an address that NAT gives away is both (hairpin; RFC 4787, REQ-9).
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
pub mod live;

use std::collections::HashMap;
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
    /// Whom a binding has sent to, where a router's filtering asks for that.
    heard_of: HashMap<(BindingRef, u32), u32>,
    remembers: bool,
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
    /// What is kept for the packet's direction; 0: nothing.
    #[inline(always)]
    pub(super) fn data(&self) -> u32 {
        self.entry.data(self.direction)
    }

    /// What makes of the packet with these ends what it becomes.
    #[inline(always)]
    pub(super) fn rewrite(&self, tuple: &V4Tuple) -> Rewrite {
        let ends = |tuple: &V4Tuple| {
            let ((source, destination), (source_port, destination_port)) = (tuple.addresses(), tuple.ports());
            let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            rewrite::Tuple { source, destination, source_port, destination_port }
        };
        let to = self.entry.becomes(self.direction);
        Rewrite::new(Transport::of(tuple.protocol()), &ends(tuple), &ends(&to))
    }
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
            heard_of: HashMap::new(),
            remembers: false,
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
                self.fragments.clear(zone.0);
            }
        }
        for (router, rules) in here {
            self.bindings.set_pool(router.0, &rules.addresses, WHOLE);
            self.zones.push(router);
        }
        let asks = |rules: &Rules| rules.filtering == NatFiltering::AddressDependent;
        let wanted = routers(tables, home).iter().any(|(_, rules)| asks(rules));
        if wanted != self.remembers {
            self.remembers = wanted;
            self.remember_all();
        }
    }

    /// Notes whom the bindings of all connections have sent to, or forgets it.
    fn remember_all(&mut self) {
        let Translator { tracker, heard_of, remembers, .. } = self;
        heard_of.clear();
        let mut from = 0;
        while let Some(next) = tracker.walk(from, 4096, |_, entry| {
            if let Some(pair) = remote(entry).filter(|_| *remembers) {
                *heard_of.entry(pair).or_default() += 1;
            }
        }) {
            from = next;
        }
    }

    /// Ends the connections that `is` names; gives how many.
    pub fn flush(&mut self, is: impl Fn(&Entry) -> bool) -> u32 {
        let Translator { tracker, bindings, heard_of, .. } = self;
        let (mut from, mut count) = (0, 0);
        while let Some(next) = tracker.flush(from, 4096, &is, &mut |entry, _| {
            count += 1;
            let_go(entry, bindings, heard_of);
        }) {
            from = next;
        }
        count
    }

    /// Ends what is over. True: there is more to do.
    pub fn sweep(&mut self, now: u32) -> bool {
        let Translator { tracker, bindings, heard_of, .. } = self;
        tracker.sweep(now, &mut |entry, _| let_go(entry, bindings, heard_of))
    }

    /// The connection of a packet, if what it says was decided under these tables, and what is kept for the packet's
    /// direction.
    #[inline(always)]
    pub(super) fn seek(
        &self,
        probe: &V4Probe,
        guess: Option<Guess>,
        epoch: u32,
        now: u32,
    ) -> Option<Known<'_>> {
        let (at, direction, entry) = self.tracker.find_v4(probe, guess, now)?;
        if entry.epoch() != epoch {
            return None;
        }
        Some(Known { at, direction, entry })
    }

    /// Brings near what [`Translator::plan`] needs for a packet of no known connection.
    #[inline(never)]
    pub(super) fn expect(&self, router: RouterIdx, tuple: &V4Tuple) {
        let (address, port) = (tuple.addresses().0, tuple.ports().0);
        self.bindings.approach(&Inside { zone: router.0, protocol: tuple.protocol(), address, port });
    }

    /// Decides on a packet.
    pub(super) fn plan(&mut self, asked: &Asked<'_>) -> Result<Plan, DropReason> {
        let (ports, tcp, is_echo) = match asked_for(asked)? {
            Carried::Error(quoted) => {
                check_error(asked)?;
                return self.plan_error(asked, quoted);
            }
            Carried::Flow { ports, tcp, is_echo } => (ports, tcp, is_echo),
        };
        let tuple = tuple(asked.header, asked.router, ports);
        let seen = Seen { bytes: asked.header.len, tcp };
        let probe = self.tracker.probe(&tuple);
        if let Some((at, direction)) = self.tracker.find(&probe, asked.now) {
            if self.holds(at, asked) {
                match self.tracker.update(at, direction, &seen, asked.now) {
                    Verdict::Pass | Verdict::Restarted => return Ok(self.rewrite(at, direction, &tuple)),
                    Verdict::Invalid(_) => return Err(DropReason::ConntrackInvalid),
                    Verdict::Renew => {}
                }
            }
            let Translator { tracker, bindings, heard_of, .. } = self;
            tracker.remove(at, &mut |entry: &Entry, _: Why| let_go(entry, bindings, heard_of));
        }
        self.begin(asked, &tuple, &seen, is_echo)
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

    /// The first packet of a connection.
    fn begin(
        &mut self,
        asked: &Asked<'_>,
        tuple: &Tuple,
        seen: &Seen,
        is_echo: bool,
    ) -> Result<Plan, DropReason> {
        let rules = asked.rules;
        let mut to = *tuple;
        if asked.to_nat {
            let Some((address, port)) = self.leads_in(asked, tuple) else {
                return if is_echo || tuple.protocol == protocol::ICMP {
                    Ok(Plan::Local)
                } else {
                    Err(DropReason::NatUnmatched)
                };
            };
            (to.destination, to.destination_port) = (v4_key(address), port);
        }
        let (mut binding, mut inside) = (None, low(to.destination));
        if !asked.from_world {
            inside = low(tuple.source);
            if rules.addresses.contains(&inside) {
                // As one of the addresses that all share: the router's own.
                return Err(DropReason::MartianSource);
            }
            if let Some(floating) = rules.outside.get(inside) {
                to.source = v4_key(floating);
            } else if !rules.addresses.is_empty() {
                let own = Inside {
                    zone: tuple.zone,
                    protocol: tuple.protocol,
                    address: inside,
                    port: tuple.source_port,
                };
                let got = self.bindings.acquire(&own).map_err(|none| match none {
                    NoBinding::NoPool => DropReason::NatUnmatched,
                    _ => DropReason::NatExhausted,
                })?;
                let Some(outside) = self.bindings.outside(got) else { return Err(DropReason::NatExhausted) };
                (to.source, to.source_port) = (v4_key(outside.address), outside.port);
                binding = Some(got);
            }
        }
        if tuple.protocol == protocol::ICMP {
            // A query has one identifier, whichever way it goes.
            let id = if asked.from_world { to.destination_port } else { to.source_port };
            (to.source_port, to.destination_port) = (id, id);
        }
        if to == *tuple {
            return Ok(Plan::Plain);
        }
        if to.reversed() == *tuple {
            // A guest that pings its own floating IP, or sends to its own endpoint outside, which another connection of its
            // holds: its answer looks like its question, and is translated alike.
            if let Some(binding) = binding {
                self.bindings.release(binding);
            }
            let rewrite = Rewrite::new(Transport::of(tuple.protocol), &ends(tuple), &ends(&to));
            return Ok(Plan::Rewrite { rewrite, destination: low(to.destination), connection: None });
        }
        let guest = rules.guests.get(inside).map_or(NOBODY, |port| port.0);
        let new = New { guest, inbound: asked.from_world, epoch: asked.epoch, data: [0; 2], binding };
        let Translator { tracker, bindings, heard_of, remembers, .. } = self;
        let probe = tracker.probe(tuple);
        let gone = &mut |entry: &Entry, _: Why| let_go(entry, bindings, heard_of);
        match tracker.insert(&probe, &to.reversed(), &new, seen, asked.now, gone) {
            Ok(at) => {
                if *remembers && let Some(pair) = tracker.entry(at).and_then(remote) {
                    *heard_of.entry(pair).or_default() += 1;
                }
                let rewrite = Rewrite::new(Transport::of(tuple.protocol), &ends(tuple), &ends(&to));
                let connection = Some((at, Direction::Original));
                Ok(Plan::Rewrite { rewrite, destination: low(to.destination), connection })
            }
            Err(refused) => {
                if let Some(binding) = binding {
                    bindings.release(binding);
                }
                Err(match refused {
                    Refused::Invalid(_) => DropReason::ConntrackInvalid,
                    _ => DropReason::NatExhausted,
                })
            }
        }
    }

    /// The inside endpoint that a packet to a NAT address may have, if any.
    fn leads_in(&self, asked: &Asked<'_>, tuple: &Tuple) -> Option<(u32, u16)> {
        let (address, port) = (low(tuple.destination), tuple.destination_port);
        if let Some(inside) = asked.rules.forwarded(tuple.protocol, address, port) {
            return Some(inside);
        }
        let filtering = asked.rules.filtering;
        if filtering == NatFiltering::AddressAndPortDependent {
            return None;
        }
        let binding = self.bindings.find_outside(tuple.zone, tuple.protocol, Outside { address, port })?;
        let is_known = || self.heard_of.contains_key(&(binding, low(tuple.source)));
        if filtering == NatFiltering::AddressDependent && !is_known() {
            return None;
        }
        let Inside { address, port, .. } = self.bindings.get(binding)?.inside;
        Some((address, port))
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

fn let_go(entry: &Entry, bindings: &mut Bindings, heard_of: &mut HashMap<(BindingRef, u32), u32>) {
    if let Some(pair) = remote(entry)
        && let Some(count) = heard_of.get_mut(&pair)
    {
        *count -= 1;
        if *count == 0 {
            heard_of.remove(&pair);
        }
    }
    if let Some(binding) = entry.binding() {
        bindings.release(binding);
    }
}

/// The binding of a connection, and whom it sends to.
fn remote(entry: &Entry) -> Option<(BindingRef, u32)> {
    Some((entry.binding()?, low(entry.tuple(Direction::Original).destination)))
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
fn ends(tuple: &Tuple) -> rewrite::Tuple {
    rewrite::Tuple {
        source: Ipv4Addr::from_bits(low(tuple.source)),
        destination: Ipv4Addr::from_bits(low(tuple.destination)),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    }
}
