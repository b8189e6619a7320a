//! Security groups: whether a packet may leave the guest that sent it, and enter the guest that it is for.
//!
//! Stands between bridge and egress, where both ends are known: the port that the frame came from and the one that it is to
//! leave by. A guest's rules are applied at its port's *home*, the worker of the port: there frames from it arrive, and there
//! frames for it are sent, those that another worker decided on as well ([`enter`]). So a guest's connections are all in one
//! worker's [`Tracker`], and one between two guests of one worker is tracked once, with the say of both.
//!
//! ```text
//! known: known connection, decided under these policies ─▶ on                                    (nearly all packets)
//!        └─ decide: exempt ─▶ on
//!             ├ fragment ─▶ the ports of its first part, or it waits for that
//!             ├ group, ICMP message, stateless groups ─▶ judged by the rules, each packet by itself
//!             ├ ICMP error ─▶ on, if it quotes a packet of a known connection
//!             └ connection: known under older policies ─▶ judged again; none ─▶ judged, and tracked
//! ```
//!
//! Connections are told apart by network (the zone), whose addresses may overlap, as in Neutron. An entry's epoch is made of
//! the epochs of the policies that let it in, that of its first packet's sender and that of its receiver, each in its place: what
//! one guest may send is nothing that another one lets in, though both have the same policy. When one of them changes, or a packet
//! comes by another way (a router on the same network), the next packet finds another epoch, and its connection is judged again by
//! its first packet's tuple: it stays if rules still let it in, else it ends. Where an address changes hands, what was
//! connected to it ends ([`moved`]).
//!
//! What no rule keeps out: ARP, neighbour and router discovery and group membership (RFC 4890, 4.4.1), a guest's DHCP requests and
//! the answers to it, and what it asks the switch's own service. Port security has seen before that a guest claims nothing
//! there that is another's. As nothing else bounds how much of that a guest sends to another, a bucket of the sender's does.
//!
//! Limits: later fragments of packets to a group have no ports, so only rules without ports let them pass.

mod hits;
mod known;
pub mod live;
pub mod logbook;
mod moved;
mod packet;

use super::Shard;
use super::conntrack::{
    Direction, Entry, EntryRef, Limits, New, Refused, Seen, Settings, Timeouts, Tracker, Tuple, Verdict,
};
use super::egress::{self, Exit};
use super::fragments::{self, Fragments, Outcome};
use super::out::Out;
use super::tracer::{Look, Silent, Tracer};
use crate::frame::Frame;
use crate::services::icmp::Bucket;
use crate::stats::DropReason;
use crate::tables::policy::Packet;
use crate::tables::security::{Policy, RuleEntry};
use crate::tables::tunnel::key_address;
use crate::tables::{PortEntry, Segments, Tables};
use crate::types::{Instant, Mac, NetIdx, PortIdx, WorkerIdx};
use crate::wire::protocol;
pub use hits::Hits;
use known::Looks;
use logbook::{Log, Scene};
use moved::Moved;
use packet::{Facts, Quoted, Read, What};

/// What a worker remembers of the connections of guests whose ports it owns.
pub struct Security {
    /// Connections.
    pub tracker: Tracker,
    /// How often each rule let something begin.
    pub hits: Hits,
    /// What groups log.
    pub log: Log,
    fragments: Fragments<Held>,
    openings: Openings,
    moved: Moved,
    home: WorkerIdx,
    /// Of the burst that is being decided on.
    looks: Looks,
}

/// Where a fragment that waits is to go.
#[derive(Clone, Copy, Debug)]
struct Held {
    to: PortIdx,
    ingress: PortIdx,
    network: NetIdx,
    from_tunnel: bool,
    /// It has passed the bridge of another worker.
    enters: bool,
}

/// Who has a say about a packet: the policies of its sender and of its receiver, where they are guests.
#[derive(Clone, Copy)]
pub(super) struct Ends<'t> {
    from: Option<&'t Policy>,
    to: Option<&'t Policy>,
    /// Theirs; that of one who has no say may be any.
    ports: (PortIdx, PortIdx),
    /// On whose account its connection goes.
    guest: PortIdx,
    zone: NetIdx,
}

impl<'t> Ends<'t> {
    /// What an entry must have been decided under whose packet in `direction` this is.
    #[inline(always)]
    fn epoch(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Original => epoch(self.from, self.to),
            Direction::Reply => epoch(self.to, self.from),
        }
    }

    fn swapped(self) -> Ends<'t> {
        Ends { from: self.to, to: self.from, ports: (self.ports.1, self.ports.0), ..self }
    }

    /// Without those whose packets are all judged, each by itself.
    fn stateful(self) -> Ends<'t> {
        let keep = |policy: &&Policy| policy.is_stateful;
        Ends { from: self.from.filter(keep), to: self.to.filter(keep), ..self }
    }

    fn stateless(self) -> Ends<'t> {
        let keep = |policy: &&Policy| !policy.is_stateful;
        Ends { from: self.from.filter(keep), to: self.to.filter(keep), ..self }
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// What an entry was decided under: the policies of its first packet's sender and receiver.
#[inline(always)]
fn epoch(sender: Option<&Policy>, receiver: Option<&Policy>) -> u32 {
    let epoch = |policy: Option<&Policy>| policy.map_or(0, |policy| policy.epoch);
    epoch(sender).wrapping_add(epoch(receiver).rotate_left(16))
}

/// One of the two ways that a packet passes a guest's rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// It leaves its sender.
    Egress,
    /// It enters its receiver.
    Ingress,
}

impl Side {
    fn rule(self, policy: &Policy, number: u32) -> Option<&RuleEntry> {
        match self {
            Side::Egress => policy.egress_rule(number),
            Side::Ingress => policy.ingress_rule(number),
        }
    }
}

/// How many connections each guest may still begin: one that floods is held before its rules are asked, so that it costs little
/// but itself. What is begun from outside is on nobody's account here: a guest could be robbed of its own by strangers.
#[derive(Default)]
struct Openings {
    rate: u32,
    ports: Vec<Bucket>,
}

impl Openings {
    fn configure(&mut self, tables: &Tables) {
        let rate = tables.conntrack.max_new_per_guest;
        if rate != self.rate {
            self.ports.clear();
        }
        self.rate = rate;
        self.ports.resize(tables.ports.len(), Bucket::new(rate, rate, Instant(0)));
    }

    fn take(&mut self, guest: PortIdx, at: Instant) -> bool {
        self.ports.get_mut(guest.index()).is_some_and(|bucket| bucket.take(at))
    }
}

/// What becomes of a packet.
enum Judged {
    Pass,
    /// It is of a packet whose ports are not yet known.
    Part(fragments::Key, fragments::Piece),
}

impl Security {
    /// No connections. `seed` is secret.
    pub fn new(tables: &Tables, home: WorkerIdx, seed: u64) -> Security {
        let (limits, settings) = settings(tables);
        let tracker = Tracker::new(limits, settings, seed.rotate_left(7));
        let fragments = Fragments::new(fragments::Limits::default(), seed.rotate_left(43));
        let (hits, log) = (Hits::default(), Log::default());
        let (openings, moved) = (Openings::default(), Moved::default());
        Security { tracker, hits, log, fragments, openings, moved, home, looks: Looks::new() }
    }

    /// Brings bounds in line with newly published tables. Connections of addresses that are no longer whose they were will end.
    pub fn configure(&mut self, tables: &Tables) {
        self.hits.configure(tables, self.home);
        self.openings.configure(tables);
        self.moved.configure(tables);
        let (limits, settings) = settings(tables);
        self.tracker.set_limits(limits);
        self.tracker.set_settings(settings);
    }

    /// The connection of a tuple.
    pub fn connection(&self, tuple: &Tuple, now: u32) -> Option<Entry> {
        let (at, _) = self.tracker.find(&self.tracker.probe(tuple), now)?;
        self.tracker.entry(at).copied()
    }

    fn judge<'a, 't, T>(
        &'a mut self,
        ends: Ends<'t>,
        (tables, at): (&'t Tables, Instant),
        tracer: &'a mut T,
    ) -> Judge<'a, 't, T> {
        let Security { tracker, hits, log, openings, .. } = self;
        Judge { ends, tables, tracker, hits, log, openings, at, now: seconds(at), tracer }
    }

    /// Ends what is over. Fragments that wait no longer are to be released then.
    fn sweep(&mut self, now: Instant) {
        self.tracker.sweep(seconds(now), &mut |_, _| {});
        self.moved.step(&mut self.tracker);
        if self.fragments.deadline().is_some_and(|deadline| deadline <= now) {
            self.fragments.expire(now);
        }
    }
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
    // What comes back keeps a connection alive as what goes out does: nobody's port is held open by it.
    (limits, Settings { timeouts, pick_up: true, inbound_refresh: true })
}

/// Whether a worker owns a port that rules apply to.
pub fn is_wanted(tables: &Tables, home: WorkerIdx) -> bool {
    tables.ports.iter().flatten().any(|port| port.worker == home && port.policy().is_some())
}

/// A frame that is to leave by a port, and is of no connection that [`Security::known`] knows: gives it back if it may.
/// Nothing: it waits for other parts of its packet.
///
/// # Errors
/// Why it may not.
#[inline(never)]
pub(super) fn pass(
    frame: Frame,
    exit: &Exit<'_>,
    port: &PortEntry,
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) -> Result<Option<Frame>, DropReason> {
    let from = tables.port(exit.ingress).and_then(PortEntry::policy);
    let Some(security) = &mut shard.security else { return Ok(Some(frame)) };
    let to = port.policy().filter(|_| port.worker == security.home);
    if from.is_none() && to.is_none() || matches!(port.segments, Segments::Service) {
        return Ok(Some(frame));
    }
    let guest = if from.is_some() { exit.ingress } else { exit.to };
    let ends = Ends { from, to, ports: (exit.ingress, exit.to), guest, zone: exit.index };
    let place = Held {
        to: exit.to,
        ingress: exit.ingress,
        network: exit.index,
        from_tunnel: exit.from_tunnel,
        enters: false,
    };
    decide(frame, ends, place, (tables, shard), tracer)
}

fn tuple(facts: &Facts, zone: NetIdx, (source_port, destination_port): (u16, u16)) -> Tuple {
    let Facts { source, destination, protocol, .. } = *facts;
    Tuple { zone: zone.0, protocol, source, destination, source_port, destination_port }
}

/// Decides on any packet.
#[inline(never)]
fn decide(
    frame: Frame,
    ends: Ends<'_>,
    place: Held,
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) -> Result<Option<Frame>, DropReason> {
    let at = (tables, shard.now);
    let read = match packet::read(frame.head(), frame.len(), &ends) {
        Ok(read) => read,
        Err(reason) => {
            let Some(security) = &mut shard.security else { return Err(reason) };
            return Err(security.refused(&ends, None, reason, at));
        }
    };
    let is_exempt = match &read {
        Read::Exempt(_) => true,
        Read::Unicast(facts) | Read::Group(facts) => facts.exempt.egress,
    };
    if is_exempt && ends.from.is_some() && !shard.may_ask(ends.guest) {
        return Err(DropReason::FloodLimit);
    }
    let Some(security) = &mut shard.security else { return Ok(Some(frame)) };
    let (key, piece) = match security.judge(ends, at, tracer).judge(&read, None) {
        Ok(Judged::Pass) => return Ok(Some(frame)),
        Ok(Judged::Part(key, piece)) => (key, piece),
        Err(reason) => return Err(security.refused(&ends, Some(&read), reason, at)),
    };
    match security.fragments.track(key, piece, (frame, place), at.1) {
        Outcome::Pass(frame, ports) => {
            match security.judge(ends, at, tracer).judge(&read, Some(ports.unwrap_or_default())) {
                Ok(_) => Ok(Some(frame)),
                Err(reason) => Err(security.refused(&ends, Some(&read), reason, at)),
            }
        }
        Outcome::Held => {
            tracer.say("security", || "a fragment that waits for the first one of its packet".to_owned());
            Ok(None)
        }
        Outcome::Drop(_, reason) => Err(security.refused(&ends, Some(&read), reason, at)),
    }
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.secs()).unwrap_or(u32::MAX)
}

/// All that it takes to decide.
struct Judge<'a, 't, T> {
    ends: Ends<'t>,
    tables: &'t Tables,
    tracker: &'a mut Tracker,
    hits: &'a mut Hits,
    log: &'a mut Log,
    openings: &'a mut Openings,
    at: Instant,
    now: u32,
    tracer: &'a mut T,
}

impl<'t, T: Tracer> Judge<'_, 't, T> {
    /// `known`: the ports of a fragment's packet.
    fn judge(&mut self, read: &Read, known: Option<(u16, u16)>) -> Result<Judged, DropReason> {
        let (facts, is_group) = match read {
            Read::Exempt(why) => {
                self.tracer.say("security", || (*why).to_owned());
                return Ok(Judged::Pass);
            }
            Read::Unicast(facts) => (facts, false),
            Read::Group(facts) => (facts, true),
        };
        // The service is ours, and a router's way leads there; what a router brings is from elsewhere, and no answer to a guest's
        // broadcast.
        let [source, goal] = [self.ends.ports.0, self.ends.ports.1]
            .map(|port| self.tables.port(port).is_some_and(|port| port.interface().is_some()));
        let is_free = facts.exempt.egress && (goal || !facts.exempt.is_service);
        self.ends.from = self.ends.from.filter(|_| !is_free);
        self.ends.to = self.ends.to.filter(|_| source || !facts.exempt.ingress);
        if self.ends.is_empty() {
            self.tracer
                .say("security", || "what a guest needs to get its configuration is let through".to_owned());
            return Ok(Judged::Pass);
        }
        let (ports, port, tcp) = match (facts.what, known) {
            (What::Flow { ports, tcp }, _) => (ports, ports.1, tcp),
            (What::Query { id, kind }, _) => ((id, id), kind, None),
            (What::Message { kind }, _) => return self.alone(facts, self.ends, kind),
            (What::Error { kind, quoted }, _) => return self.error(facts, kind, &quoted),
            (What::Part { port, .. }, _) if is_group => {
                return self.alone(facts, self.ends, port.unwrap_or(0));
            }
            // Of an ICMP query, identifier and type.
            (What::Part { .. }, Some((id, kind))) if is_icmp(facts.protocol) => ((id, id), kind, None),
            (What::Part { port, .. }, Some(ports)) => (ports, port.unwrap_or(ports.1), None),
            (What::Part { key, piece, .. }, None) => return Ok(Judged::Part(key, piece)),
        };
        if is_group {
            return self.alone(facts, self.ends, port);
        }
        self.alone(facts, self.ends.stateless(), port)?;
        let seen = Seen { bytes: facts.bytes, tcp };
        self.connection(facts, &tuple(facts, self.ends.zone, ports), port, &seen)
    }

    /// By the rules alone: nothing is remembered.
    fn alone(&mut self, facts: &Facts, ends: Ends<'_>, port: u16) -> Result<Judged, DropReason> {
        let numbers = self.rules(ends, (facts.source, facts.destination), facts.protocol, port)?;
        self.begin(ends, numbers, facts);
        Ok(Judged::Pass)
    }

    /// Asks the rules of both ends; gives the numbers of those that say yes.
    fn rules(
        &mut self,
        ends: Ends<'_>,
        (source, destination): (u128, u128),
        protocol: u8,
        port: u16,
    ) -> Result<[u32; 2], DropReason> {
        let mut numbers = [0; 2];
        let members = &self.tables.members;
        let sides = [
            (ends.from, Side::Egress, destination, DropReason::SecurityEgress),
            (ends.to, Side::Ingress, source, DropReason::SecurityIngress),
        ];
        for (number, (policy, side, remote, reason)) in numbers.iter_mut().zip(sides) {
            let Some(policy) = policy else { continue };
            let (rules, verb) = match side {
                Side::Egress => (&policy.egress, "leaves its sender"),
                Side::Ingress => (&policy.ingress, "enters its receiver"),
            };
            let packet = Packet { remote: key_address(remote), protocol, port };
            let Some(found) = rules.admits(&packet, members) else {
                self.tracer.say("security", || {
                    format!("by no rule it {verb}; its security groups: {}", names(policy))
                });
                return Err(reason);
            };
            *number = found + 1;
            if let Some(entry) = side.rule(policy, found) {
                self.tracer.say("security", || {
                    format!("{verb} by a rule of security group {}: {}", entry.group, entry.text)
                });
            }
        }
        Ok(numbers)
    }

    /// Something begins by the rules with these numbers: it is counted with them, and logged where they say so.
    #[inline]
    fn begin(&mut self, ends: Ends<'_>, [egress, ingress]: [u32; 2], facts: &Facts) {
        let sides = [
            (ends.from, ends.ports.0, Side::Egress, egress),
            (ends.to, ends.ports.1, Side::Ingress, ingress),
        ];
        for (policy, port, side, number) in sides {
            let number = number.checked_sub(1);
            let Some(rule) = policy.zip(number).and_then(|(policy, number)| side.rule(policy, number)) else {
                continue;
            };
            self.hits.count(port, rule);
            if rule.is_logged {
                let scene = Scene { tables: self.tables, network: ends.zone, at: self.at };
                self.log.accepted((port, side), rule, facts, scene);
            }
        }
    }

    /// An ICMP error passes with the connection that it is about (RFC 4890, 4.3.1), else by the rules.
    fn error(&mut self, facts: &Facts, kind: u16, quoted: &Quoted) -> Result<Judged, DropReason> {
        let (source_port, destination_port) = quoted.ports;
        let about = Tuple {
            zone: self.ends.zone.0,
            protocol: quoted.protocol,
            source: quoted.source,
            destination: quoted.destination,
            source_port,
            destination_port,
        };
        self.tracer.look(|| Some(Look::Tracked(self.ends.guest, about)));
        // It is for who sent the packet.
        if quoted.source == facts.destination
            && let Some((at, direction)) = self.tracker.find(&self.tracker.probe(&about), self.now)
            && self.holds(at, direction, self.ends.swapped().stateful())
        {
            self.tracer.say("security", || "an ICMP error about a connection that is tracked".to_owned());
            return self.alone(facts, self.ends.stateless(), kind);
        }
        self.alone(facts, self.ends, kind)
    }

    /// Whether what an entry was let in by still lets it in. `ends`: of a packet that goes in `direction`.
    fn holds(&mut self, at: EntryRef, direction: Direction, ends: Ends<'_>) -> bool {
        let Some(entry) = self.tracker.entry(at) else { return false };
        if entry.epoch() == ends.epoch(direction) {
            return true;
        }
        let original = entry.tuple(Direction::Original);
        let kind = kind_of(entry);
        let ends = if direction == Direction::Original { ends } else { ends.swapped() };
        let port = if is_icmp(original.protocol) { kind } else { original.destination_port };
        let addresses = (original.source, original.destination);
        match self.rules(ends, addresses, original.protocol, port) {
            Ok([egress, ingress]) => {
                self.tracker.decide(
                    at,
                    ends.epoch(Direction::Original),
                    data(egress, ingress, port, original.protocol),
                );
                true
            }
            Err(_) => false,
        }
    }

    fn connection(
        &mut self,
        facts: &Facts,
        tuple: &Tuple,
        port: u16,
        seen: &Seen,
    ) -> Result<Judged, DropReason> {
        let ends = self.ends.stateful();
        if ends.is_empty() {
            return Ok(Judged::Pass);
        }
        self.tracer.look(|| Some(Look::Tracked(ends.guest, *tuple)));
        let probe = self.tracker.probe(tuple);
        if let Some((at, direction)) = self.tracker.find(&probe, self.now) {
            if let What::Query { kind, .. } = facts.what
                && self.tracker.entry(at).is_some_and(|entry| !is_like(kind, kind_of(entry), direction))
            {
                // Another question by the same identifier, or one where an answer belongs.
                return self.alone(facts, ends, kind);
            }
            if self.holds(at, direction, ends) {
                match self.tracker.update(at, direction, seen, self.now) {
                    Verdict::Pass | Verdict::Restarted => {
                        self.tracer.say("security", || describe(self.tracker.entry(at), direction, ends));
                        return Ok(Judged::Pass);
                    }
                    Verdict::Invalid(_) => return Err(DropReason::ConntrackInvalid),
                    Verdict::Renew => {}
                }
            }
            self.tracker.remove(at, &mut |_, _| {});
        }
        if is_icmp(facts.protocol) && matches!(facts.what, What::Part { port: None, .. }) {
            // Its type stood in the first part, which did not get through.
            return Err(DropReason::FragmentExpired);
        }
        if ends.from.is_some() && !self.openings.take(ends.ports.0, self.at) {
            return Err(DropReason::FloodLimit);
        }
        let numbers = self.rules(ends, (facts.source, facts.destination), facts.protocol, port)?;
        let [egress, ingress] = numbers;
        let new = New {
            guest: ends.guest.0,
            inbound: ends.from.is_none(),
            epoch: ends.epoch(Direction::Original),
            data: data(egress, ingress, port, facts.protocol),
            binding: None,
        };
        match self.tracker.insert(&probe, &tuple.reversed(), &new, seen, self.now, &mut |_, _| {}) {
            Ok(_) => {
                self.begin(ends, numbers, facts);
                Ok(Judged::Pass)
            }
            Err(Refused::Invalid(_)) => Err(DropReason::ConntrackInvalid),
            Err(Refused::Unlike | Refused::Taken(_) | Refused::Crowded) => Err(DropReason::ConntrackFull),
        }
    }
}

/// A connection, and the rules that let it in.
fn describe(entry: Option<&Entry>, direction: Direction, ends: Ends<'_>) -> String {
    let Some(entry) = entry else { return String::new() };
    let ends = if direction == Direction::Original { ends } else { ends.swapped() };
    let sides = [(ends.from, Side::Egress, Direction::Original), (ends.to, Side::Ingress, Direction::Reply)];
    let mut text = format!("of a connection that is tracked, {}", entry.state().name());
    for (policy, side, way) in sides {
        let number = (entry.data(way) & NUMBER).checked_sub(1);
        if let Some(rule) = policy.zip(number).and_then(|(policy, number)| side.rule(policy, number)) {
            text += &format!("; let in by a rule of security group {}: {}", rule.group, rule.text);
        }
    }
    text
}

fn names(policy: &Policy) -> String {
    policy.groups.join(", ")
}

fn is_icmp(kind: u8) -> bool {
    matches!(kind, protocol::ICMP | protocol::ICMPV6)
}

/// The part of what is kept with an entry that is a rule's number.
const NUMBER: u32 = 0xff_ffff;

/// What is kept with an entry: the numbers of the rules that let it in (from 1 on), and in their high bits an ICMP query's type
/// and code.
fn data(egress: u32, ingress: u32, port: u16, protocol: u8) -> [u32; 2] {
    let kind = if is_icmp(protocol) { u32::from(port) } else { 0 };
    [egress & NUMBER | (kind >> 8) << 24, ingress & NUMBER | (kind & 0xff) << 24]
}

/// The type and code of an ICMP query, as [`data`] keeps it.
#[allow(clippy::cast_possible_truncation)] // bytes
fn kind_of(entry: &Entry) -> u16 {
    let [high, low] = [Direction::Original, Direction::Reply].map(|way| (entry.data(way) >> 24) as u16);
    high << 8 | low
}

/// Whether an ICMP query's type and code are those of its connection's first packet, or of the answer to that.
fn is_like(kind: u16, first: u16, direction: Direction) -> bool {
    match direction {
        Direction::Original => kind == first,
        Direction::Reply => packet::answer(kind >> 8) == Some(first >> 8),
    }
}

/// A frame that is to be flooded: whether it may leave its sender.
///
/// # Errors
/// Why it may not.
#[inline(always)]
pub(super) fn leave(
    frame: &Frame,
    (ingress, network): (PortIdx, NetIdx),
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    match tables.port(ingress).and_then(PortEntry::policy) {
        None => Ok(()),
        from => {
            let ends = Ends { from, to: None, ports: (ingress, ingress), guest: ingress, zone: network };
            spread(frame, ends, (tables, shard), tracer)
        }
    }
}

/// A copy of a flooded frame: whether it may enter its receiver.
///
/// # Errors
/// Why it may not.
#[inline(always)]
pub(super) fn may_enter(
    frame: &Frame,
    exit: &Exit<'_>,
    port: &PortEntry,
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let is_home = shard.security.as_ref().is_some_and(|security| security.home == port.worker);
    match port.policy().filter(|_| is_home) {
        None => Ok(()),
        to => {
            let ends = Ends { from: None, to, ports: (exit.to, exit.to), guest: exit.to, zone: exit.index };
            spread(frame, ends, (tables, shard), tracer)
        }
    }
}

/// Judges a frame that goes to several ports, each packet by itself.
#[inline(never)]
fn spread(
    frame: &Frame,
    ends: Ends<'_>,
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let at = (tables, shard.now);
    let Some(security) = &mut shard.security else { return Ok(()) };
    let read = match packet::read(frame.head(), frame.len(), &ends) {
        Ok(read) => read,
        Err(reason) => return Err(security.refused(&ends, None, reason, at)),
    };
    let mut judge = security.judge(ends, at, tracer);
    let judged = match &read {
        // Where its first part is nobody knows: only rules without ports let it pass.
        Read::Unicast(facts @ Facts { what: What::Part { port: None, .. }, .. }) => {
            judge.alone(facts, ends, 0)
        }
        read => judge.judge(read, Some((0, 0))),
    };
    match judged {
        Ok(_) => Ok(()),
        Err(reason) => Err(security.refused(&ends, Some(&read), reason, at)),
    }
}

/// Whether a guest is sent a frame for this MAC though it is not known where that is: only if it is one of its own.
pub(super) fn is_its_own(port: &PortEntry, mac: Mac) -> bool {
    port.guard.as_ref().is_none_or(|guard| guard.claims.stations.iter().any(|station| station.mac == mac))
}

/// A frame that another worker decided on, for a port of this one: into its queue, if it may enter.
#[inline]
pub fn enter(
    frame: Frame,
    port: PortIdx,
    (tables, shard): (&Tables, &mut Shard),
    now: Instant,
    out: &mut Out,
) {
    shard.now = now;
    let Some(entry) = tables.port(port) else { return };
    let (Some(to), Segments::Access(network)) = (entry.policy(), &entry.segments) else {
        return out.push(port, frame);
    };
    let ends = Ends { from: None, to: Some(to), ports: (port, port), guest: port, zone: *network };
    let place = Held { to: port, ingress: port, network: *network, from_tunnel: false, enters: true };
    let known =
        shard.security.as_mut().and_then(|security| security.known_alone(&frame, &ends, (tables, now)));
    let ended = match known {
        Some(known) => known.map(|()| Some(frame)),
        None => decide(frame, ends, place, (tables, shard), &mut Silent),
    };
    match ended {
        Ok(Some(frame)) => out.push(port, frame),
        Ok(None) => {}
        Err(reason) => dropped(reason, port, (tables, shard)),
    }
    release(tables, shard, out, &mut Silent);
}

fn dropped(reason: DropReason, port: PortIdx, (tables, shard): (&Tables, &mut Shard)) {
    shard.last_drop = Some(reason);
    if let Some(port) = tables.port(port) {
        port.counters.count_drop_shared(reason, 1);
    }
}

/// Sends on, or drops, fragments that wait no longer.
#[inline(always)]
pub(super) fn release(tables: &Tables, shard: &mut Shard, out: &mut Out, tracer: &mut impl Tracer) {
    while let Some(released) = shard.security.as_mut().and_then(|security| security.fragments.pop()) {
        let port = released.1.ingress;
        if let Err(reason) = resume(released, (tables, shard), out, tracer) {
            dropped(reason, port, (tables, shard));
        }
    }
}

#[cold]
fn resume(
    (frame, place, ports): fragments::Released<Held>,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let (Some(port), Some(network)) = (tables.port(place.to), tables.network(place.network)) else {
        return Err(ports.err().unwrap_or(DropReason::PortDown));
    };
    // Slots may have been given to others while it waited.
    if !tables.is_member(place.network, place.to) {
        return Err(ports.err().unwrap_or(DropReason::PortDown));
    }
    let at = (tables, shard.now);
    let Some(security) = &mut shard.security else { return Err(DropReason::PortDown) };
    let from = tables.port(place.ingress).and_then(PortEntry::policy).filter(|_| !place.enters);
    let to = port.policy().filter(|_| port.worker == security.home);
    let guest = if from.is_some() { place.ingress } else { place.to };
    let ends = Ends { from, to, ports: (place.ingress, place.to), guest, zone: place.network };
    let read = packet::read(frame.head(), frame.len(), &ends)?;
    let judged = ports
        .and_then(|known| security.judge(ends, at, tracer).judge(&read, Some(known.unwrap_or_default())));
    if let Err(reason) = judged {
        return Err(security.refused(&ends, Some(&read), reason, at));
    }
    if place.enters {
        out.push(place.to, frame);
        return Ok(());
    }
    let Held { to, ingress, network: index, from_tunnel, .. } = place;
    let exit = Exit { to, ingress, index, network, from_tunnel, look: egress::NO_LOOK };
    match egress::admit(&frame, &exit, tables) {
        Ok(port) => egress::send(frame, &exit, port, (tables, shard), out, tracer).map(|_| ()),
        Err(egress::Refused::Drop(reason)) => Err(reason),
        Err(egress::Refused::TooBig(_)) => Err(DropReason::MtuExceeded),
    }
}

/// What falls due besides frames.
pub fn poll(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    if let Some(security) = &mut shard.security {
        security.sweep(now);
        release(tables, shard, out, &mut Silent);
    }
}

/// Brings a worker's memory in line with newly published tables.
pub fn configure(tables: &Tables, shard: &mut Shard, home: WorkerIdx) {
    if !is_wanted(tables, home) {
        shard.security = None;
        return;
    }
    let seed = shard.seed;
    shard.security.get_or_insert_with(|| Box::new(Security::new(tables, home, seed))).configure(tables);
}
