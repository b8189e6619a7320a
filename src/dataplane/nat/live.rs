//! What the translator knows, for people: connections and bindings that a filter lets through, in steps of bounded length; and
//! what it would do with one packet, as a seed for the copy that a trace runs in. Nothing here is called for a packet of the
//! switch's own path.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Asked, Carried, Translator, asked_for, low, tuple};
use crate::dataplane::conntrack::binding::{Binding, BindingRef, Inside, NoBinding, Outside};
use crate::dataplane::conntrack::{Direction, Entry, State, Tuple};
use crate::tables::Tables;
use crate::tables::tunnel::{key_address, v4_key};
use crate::types::{NetIdx, PortIdx, RouterIdx};
use crate::wire::protocol;

/// Which connections are meant: of each kind that is not empty, one must be true.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// The router is one of these.
    pub routers: Vec<RouterIdx>,
    /// It is a guest's, and the network is one of these; or one of the routers'.
    pub networks: Vec<NetIdx>,
    /// The IP protocol is one of these.
    pub protocols: Vec<u8>,
    /// Where the first packet came from, before or after its translation, is in one of these.
    pub sources: Vec<IpNet>,
    /// Where it went, before or after its translation, is in one of these.
    pub destinations: Vec<IpNet>,
    /// A port of either end, before or after translation, or an ICMP query's identifier, is one of these.
    pub ports: Vec<u16>,
    /// The state is one of these.
    pub states: Vec<State>,
    /// The guest that it is of is one of these.
    pub guests: Vec<PortIdx>,
}

fn any<T: PartialEq>(wanted: &[T], is: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is)
}

impl Filter {
    /// Whether connections of routers may be meant.
    pub fn wants_routers(&self) -> bool {
        self.networks.is_empty() || !self.routers.is_empty()
    }

    /// Whether connections that guests have in networks may be meant.
    pub fn wants_guests(&self) -> bool {
        self.routers.is_empty() || !self.networks.is_empty()
    }

    /// Whether a router's connection is meant.
    pub fn takes(&self, entry: &Entry, tables: &Tables) -> bool {
        let zone = entry.tuple(Direction::Original).zone;
        self.wants_routers()
            && any(&self.routers, |router| router.0 == zone)
            && any(&self.guests, |guest| guest_of(entry, tables) == Some(*guest))
            && self.takes_ends(entry)
    }

    /// Whether it is meant by all that does not ask whose it is.
    pub(in crate::dataplane) fn takes_ends(&self, entry: &Entry) -> bool {
        let (sent, to) = (entry.tuple(Direction::Original), entry.translated(Direction::Original));
        let within = |net: &IpNet, one: u128, other: u128| {
            net.contains(&key_address(one)) || net.contains(&key_address(other))
        };
        let ports = [sent.source_port, sent.destination_port, to.source_port, to.destination_port];
        any(&self.protocols, |protocol| *protocol == sent.protocol)
            && any(&self.states, |state| *state == entry.state())
            && any(&self.ports, |port| ports.contains(port))
            && any(&self.sources, |net| within(net, sent.source, to.source))
            && any(&self.destinations, |net| within(net, sent.destination, to.destination))
    }
}

/// The port of a connection's inside end, if it is one of ours.
pub fn guest_of(entry: &Entry, tables: &Tables) -> Option<PortIdx> {
    let inside = if entry.is_inbound() {
        entry.translated(Direction::Original).destination
    } else {
        entry.tuple(Direction::Original).source
    };
    let zone = entry.tuple(Direction::Original).zone;
    tables.router(RouterIdx(zone))?.nat.guests.get(low(inside))
}

/// Which bindings are meant, as [`Filter`].
#[derive(Clone, Default, Debug)]
pub struct BindingFilter {
    /// The router is one of these.
    pub routers: Vec<RouterIdx>,
    /// The IP protocol is one of these.
    pub protocols: Vec<u8>,
    /// The inside address is in one of these.
    pub inside: Vec<IpNet>,
    /// The outside address is in one of these.
    pub outside: Vec<IpNet>,
}

impl BindingFilter {
    /// Whether a binding is meant.
    pub fn takes(&self, binding: &Binding) -> bool {
        let within = |net: &IpNet, address: u32| net.contains(&key_address(v4_key(address)));
        any(&self.routers, |router| router.0 == binding.inside.zone)
            && any(&self.protocols, |protocol| *protocol == binding.inside.protocol)
            && any(&self.inside, |net| within(net, binding.inside.address))
            && any(&self.outside, |net| within(net, binding.outside.address))
    }
}

/// What a translator would do with a packet of a tuple.
#[derive(Clone, Debug)]
pub struct Found {
    /// The packet's.
    pub tuple: Tuple,
    /// Its connection, if there is one.
    pub entry: Option<Entry>,
    /// The connection holds the binding, and the pool still has that.
    pub is_held: bool,
    /// The binding that the connection holds, or that its first packet would use or make if it came from inside.
    pub binding: Option<(Inside, Outside)>,
    /// Why it would get none.
    pub refused: Option<NoBinding>,
    /// The binding that the packet comes in by.
    pub target: Option<(Inside, Outside)>,
    /// Whom of the packet's senders, as it came and as it would leave, that one has sent to before.
    pub heard_of: Vec<u32>,
    /// The half of a connection that lets the packet in, if it came from inside.
    pub half: Option<Entry>,
}

impl Translator {
    /// Looks at up to `most` places for connections from `from` on, and shows those that are meant and have not ended by
    /// `now`, with their places. Returns where to go on.
    pub fn walk(
        &self,
        (from, most): (u32, u32),
        filter: &Filter,
        tables: &Tables,
        now: u32,
        mut show: impl FnMut(u32, &Entry),
    ) -> Option<u32> {
        self.tracker.walk(from, most, |at, entry| {
            if entry.expiry() > now && filter.takes(entry, tables) {
                show(at.number(), entry);
            }
        })
    }

    /// As [`Translator::walk`], but ends those connections. Gives how many, too.
    pub fn flush_some(
        &mut self,
        (from, most): (u32, u32),
        filter: &Filter,
        tables: &Tables,
        now: u32,
    ) -> (Option<u32>, u32) {
        let Translator { tracker, bindings, held, .. } = self;
        let is = |entry: &Entry| entry.expiry() > now && filter.takes(entry, tables);
        let mut count = 0;
        let next = tracker.flush(from, most, is, &mut |entry, _| {
            count += 1;
            held.let_go(entry, bindings);
        });
        (next, count)
    }

    /// What would be done with a packet of this tuple. Changes nothing.
    pub fn foresee(&self, tuple: &Tuple, now: u32) -> Found {
        let find = |tuple: &Tuple| {
            let (at, _) = self.tracker.find(&self.tracker.probe(tuple), now)?;
            self.tracker.entry(at).copied()
        };
        let mut found = Found {
            tuple: *tuple,
            entry: find(tuple),
            is_held: false,
            binding: None,
            refused: None,
            target: None,
            heard_of: Vec::new(),
            half: None,
        };
        let Tuple { zone, protocol, source, destination, source_port, destination_port } = *tuple;
        if !tuple.is_v4() {
            return found;
        }
        let ends = |at| self.bindings.get(at).map(|binding| (binding.inside, binding.outside));
        let wanted = found.entry.and_then(|entry| entry.binding());
        let held = wanted.filter(|at| self.bindings.is_current(*at));
        found.is_held = held.is_some();
        found.binding = held.and_then(ends);
        if found.binding.is_none() && (found.entry.is_none() || wanted.is_some()) {
            let inside = Inside { zone, protocol, address: low(source), port: source_port };
            match self.bindings.foresee(&inside) {
                Ok(outside) => found.binding = Some((inside, outside)),
                Err(refused) => found.refused = Some(refused),
            }
        }
        let to = Outside { address: low(destination), port: destination_port };
        let inward = self.bindings.find_outside(zone, protocol, to);
        let other = found.entry.and_then(|entry| self.held.other(&entry));
        found.target = other.or(inward).and_then(ends);
        let Some(inward) = inward else { return found };
        let mut senders = vec![low(source)];
        if let Some((_, Outside { address, port })) = found.binding {
            senders.push(address);
            let outside = Tuple { source: v4_key(address), source_port: port, ..*tuple };
            found.half = find(&outside).filter(|half| half.binding() == Some(inward));
        }
        senders.retain(|sender| self.held.has_sent_to(inward, *sender));
        found.heard_of = senders;
        found
    }

    /// Takes over what another translator knows of a packet, so that this one does the same with it.
    pub fn import(&mut self, found: &Found) {
        let target = found.target.and_then(|(inside, outside)| self.bindings.import(&inside, outside));
        let binding = found.binding.and_then(|(inside, outside)| self.bindings.import(&inside, outside));
        match &found.entry {
            Some(entry) => {
                let other = target.filter(|_| entry.is_hairpin());
                self.import_entry(entry, binding.filter(|_| found.is_held), other);
            }
            None if found.refused.is_some_and(|refused| refused != NoBinding::NoPool) => {
                self.bindings.set_host_limit(0);
            }
            None => {}
        }
        let Some(target) = target else { return };
        for sender in &found.heard_of {
            self.held.note_sent(target, *sender);
        }
        if let Some(half) = &found.half {
            self.bindings.hold(target);
            self.import_entry(half, Some(target), None);
        }
    }

    fn import_entry(&mut self, entry: &Entry, binding: Option<BindingRef>, other: Option<BindingRef>) {
        if self.tracker.import(entry, binding) {
            let mut copy = *entry;
            copy.rebind(binding);
            self.held.note(&copy, other);
        }
    }

    /// The tuple that a packet's connection is looked for by.
    pub(in crate::dataplane) fn tuple_of(&self, asked: &Asked<'_>) -> Option<Tuple> {
        match asked_for(asked).ok()? {
            Carried::Error(quoted) => Some(quoted.reversed()),
            Carried::Flow { ports, .. } => Some(tuple(asked.header, asked.router, ports)),
        }
    }

    /// The connection that a packet is of, for people.
    pub(in crate::dataplane) fn describe(&self, asked: &Asked<'_>) -> String {
        let Some(tuple) = self.tuple_of(asked) else {
            return "nothing that a connection could be found by".to_owned();
        };
        let probe = self.tracker.probe(&tuple);
        let found = self.tracker.find(&probe, asked.now);
        let entry = found.and_then(|(at, direction)| Some((self.tracker.entry(at)?, direction)));
        let Some((entry, direction)) = entry else {
            return format!("{}: no connection has it", ends_of(&tuple));
        };
        let way = match direction {
            Direction::Original => "original direction",
            Direction::Reply => "reply",
        };
        let sent = entry.tuple(Direction::Original);
        let to = entry.translated(Direction::Original);
        let left = entry.expiry().saturating_sub(asked.now);
        format!(
            "{} of the connection {}, which is {}; its first packet became {}; it ends in {left} s without packets",
            way,
            ends_of(&sent),
            entry.state().name(),
            ends_of(&to)
        )
    }
}

/// A tuple, for people.
pub fn ends_of(tuple: &Tuple) -> String {
    let name = protocol_name(tuple.protocol);
    let (source, destination) = (key_address(tuple.source), key_address(tuple.destination));
    match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            format!("{name} {source} > {destination} id {}", tuple.source_port)
        }
        number if has_ports(number) => {
            let end = |address, port| match address {
                IpAddr::V4(address) => format!("{address}:{port}"),
                IpAddr::V6(address) => format!("[{address}]:{port}"),
            };
            let source = end(source, tuple.source_port);
            format!("{name} {source} > {}", end(destination, tuple.destination_port))
        }
        _ => format!("{name} {source} > {destination}"),
    }
}

/// Whether the tracker knows a protocol's ports.
pub fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP)
}

/// The name of an IP protocol, or its number.
pub fn protocol_name(number: u8) -> String {
    let name = PROTOCOLS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| number.to_string())
}

/// The number of an IP protocol by its name or number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
    named.or_else(|| text.parse().ok())
}

const PROTOCOLS: [(u8, &str); 9] = [
    (protocol::ICMP, "icmp"),
    (protocol::TCP, "tcp"),
    (protocol::UDP, "udp"),
    (protocol::DCCP, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (protocol::ICMPV6, "icmpv6"),
    (protocol::SCTP, "sctp"),
    (protocol::UDP_LITE, "udplite"),
];
