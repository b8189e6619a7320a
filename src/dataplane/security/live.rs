//! What is known of guests' connections, for people: those that a filter lets through, in steps of bounded length, and the
//! rules that let each in. Nothing here is called for a packet.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{NUMBER, Security, Side};
use crate::dataplane::conntrack::{Direction, Entry};
use crate::dataplane::nat::live::Filter;
use crate::tables::security::{Policy, RuleEntry};
use crate::tables::tunnel::key_address;
use crate::tables::{PortEntry, Segments, Tables};
use crate::types::{NetIdx, PortIdx};

impl Filter {
    /// Whether a guest's connection is meant: one whose zone is a network.
    pub fn takes_guests(&self, entry: &Entry, tables: &Tables) -> bool {
        let original = entry.tuple(Direction::Original);
        let zone = NetIdx(original.zone);
        let is_of = |guest: &PortIdx| {
            let Some(owner) = owner(entry, tables) else { return false };
            // Between two guests of one worker it is tracked once, with whom it came from.
            *guest == owner
                || is_home_of_both(tables, owner, *guest) && {
                    let other = if entry.is_inbound() { original.source } else { original.destination };
                    has(tables.port(*guest), zone, key_address(other))
                }
        };
        self.wants_guests()
            && (self.networks.is_empty() || self.networks.contains(&zone))
            && (self.guests.is_empty() || self.guests.iter().any(is_of))
            && self.takes_ends(entry)
    }
}

/// The guest on whose account a connection goes, if it is still in that network.
pub fn owner(entry: &Entry, tables: &Tables) -> Option<PortIdx> {
    let (port, zone) = (PortIdx(entry.guest()), NetIdx(entry.tuple(Direction::Original).zone));
    is_in(tables.port(port)?, zone).then_some(port)
}

fn is_in(port: &PortEntry, zone: NetIdx) -> bool {
    matches!(port.segments, Segments::Access(network) if network == zone)
}

fn is_home_of_both(tables: &Tables, one: PortIdx, other: PortIdx) -> bool {
    let home = |port| tables.port(port).map(|port| port.worker);
    home(one) == home(other)
}

/// Whether a port of a network that has security groups has this address.
fn has(port: Option<&PortEntry>, zone: NetIdx, address: IpAddr) -> bool {
    let Some(port) = port.filter(|port| port.policy().is_some()) else { return false };
    let claims = port.guard.as_ref().map(|guard| &guard.claims);
    is_in(port, zone)
        && claims
            .is_some_and(|claims| claims.stations.iter().any(|station| claims.allows(station.mac, address)))
}

impl Security {
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
            if entry.expiry() > now && filter.takes_guests(entry, tables) {
                show(at.number(), entry);
            }
        })
    }

    /// As [`Security::walk`], but ends those connections. Gives how many, too.
    pub fn flush_some(
        &mut self,
        (from, most): (u32, u32),
        filter: &Filter,
        tables: &Tables,
        now: u32,
    ) -> (Option<u32>, u32) {
        let is = |entry: &Entry| entry.expiry() > now && filter.takes_guests(entry, tables);
        let mut count = 0;
        let next = self.tracker.flush(from, most, is, &mut |_, _| count += 1);
        (next, count)
    }
}

/// Which guest has which address, in all networks.
#[derive(Default)]
pub struct Stations {
    single: HashMap<(NetIdx, IpAddr), PortIdx>,
    wide: Vec<(NetIdx, IpNet, PortIdx)>,
}

impl Stations {
    /// Those of ports with security groups.
    pub fn of(tables: &Tables) -> Stations {
        let mut stations = Stations::default();
        for (slot, port) in (0..).zip(&tables.ports) {
            let Some(port) = port.as_ref().filter(|port| port.policy().is_some()) else { continue };
            let (Segments::Access(network), Some(guard)) = (&port.segments, &port.guard) else { continue };
            for station in &guard.claims.stations {
                let v4 = station.v4.iter().copied().map(IpNet::V4);
                for net in v4.chain(station.v6.iter().copied().map(IpNet::V6)) {
                    if net.prefix_len() == net.max_prefix_len() {
                        stations.single.entry((*network, net.addr())).or_insert(PortIdx(slot));
                    } else {
                        stations.wide.push((*network, net, PortIdx(slot)));
                    }
                }
            }
        }
        stations
    }

    /// The port with this address; several may share one by `allowed_address_pairs`.
    fn find(&self, zone: NetIdx, address: IpAddr) -> impl Iterator<Item = PortIdx> {
        let single = self.single.get(&(zone, address)).copied();
        let is_around = move |of: &&(NetIdx, IpNet, PortIdx)| of.0 == zone && of.1.contains(&address);
        single.into_iter().chain(self.wide.iter().filter(is_around).map(|of| of.2))
    }
}

/// The rules that let a guest's connection begin: that of who sent its first packet, and that of who was to get it. None where
/// an end has no say, and where the groups have changed and no packet has come since, by which they would be asked again.
pub fn admitted<'t>(entry: &Entry, tables: &'t Tables, stations: &Stations) -> [Option<&'t RuleEntry>; 2] {
    let original = entry.tuple(Direction::Original);
    let Some(owner) = owner(entry, tables) else { return [None; 2] };
    let number = |way| (entry.data(way) & NUMBER).checked_sub(1);
    let numbers = [number(Direction::Original), number(Direction::Reply)];
    let policy = |port: PortIdx| tables.port(port).and_then(PortEntry::policy);
    let rules = |sender: Option<&'t Policy>, receiver: Option<&'t Policy>| {
        let [egress, ingress] = numbers;
        let ends = [sender.zip(egress), receiver.zip(ingress)];
        let epoch = super::epoch(ends[0].map(|(policy, _)| policy), ends[1].map(|(policy, _)| policy));
        let [sender, receiver] = ends;
        (epoch == entry.epoch()).then(|| {
            [
                sender.and_then(|(policy, number)| Side::Egress.rule(policy, number)),
                receiver.and_then(|(policy, number)| Side::Ingress.rule(policy, number)),
            ]
        })
    };
    if entry.is_inbound() {
        return rules(None, policy(owner)).unwrap_or_default();
    }
    let zone = NetIdx(original.zone);
    let others = stations.find(zone, key_address(original.destination));
    let others = others.filter(|other| is_home_of_both(tables, owner, *other)).map(policy);
    others.chain([None]).find_map(|other| rules(policy(owner), other)).unwrap_or_default()
}
