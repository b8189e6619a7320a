//! The local VTEP as a host of the underlay: it answers ARP, neighbour solicitations and ping, finds next hops, joins groups, and
//! hears how long packets may be ([`Host`] does all that). What it finds out about peers is written where every worker
//! reads it ([`crate::tables::tunnel::TunnelState`]).
//!
//! It lives with the worker that owns the underlay's device; other workers hand frames without a next hop to that worker's
//! resolver port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::out::Out;
use super::tracer::Tracer;
use super::{Sent, Shard};
use crate::frame::{Frame, Pool};
use crate::services::host::{Event, Heard, Host, HostConfig, Net};
use crate::stats::DropReason;
use crate::tables::tunnel::{Tunnel, Underlay};
use crate::tables::{PortEntry, Tables};
use crate::types::{Instant, Mac, NetIdx, PortIdx};
use crate::wire::ethernet::{HEADER, IPV4};

/// Most notes that the control thread is told in [`NOTES_PERIOD`]: it compiles tables for some, and anyone can cause them.
const MAX_NOTES: usize = 64;
const NOTES_PERIOD: Duration = Duration::from_secs(1);

/// What the control thread should know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A VTEP that is no peer of this network has sent to it, where such may become one.
    Stranger(IpAddr, NetIdx),
    /// Somebody else uses the local VTEP's address.
    Conflict(IpAddr, Mac),
}

/// The local VTEP's own state.
pub struct Vtep {
    host: Host,
    /// The host's deadline: worked out when something changes it, as it is asked for every turn.
    deadline: Instant,
}

/// What is to be told to the control thread, each once in a period.
#[derive(Default)]
pub struct Notes {
    /// Of this period.
    list: arrayvec::ArrayVec<Note, MAX_NOTES>,
    /// How many of them were told already.
    told: usize,
    since: Instant,
}

impl Notes {
    #[cold]
    pub(super) fn add(&mut self, note: Note) {
        if !self.list.contains(&note) {
            // A full list loses it; its cause comes again.
            let _ = self.list.try_push(note);
        }
    }

    /// Gives those that were added and not yet given.
    pub fn take(&mut self, now: Instant, give: impl FnMut(Note)) {
        self.list.iter().skip(self.told).copied().for_each(give);
        self.told = self.list.len();
        if now >= self.since.after(NOTES_PERIOD) {
            self.list.clear();
            (self.told, self.since) = (0, now);
        }
    }
}

/// The underlay's wire as the host sees it.
struct Wire<'a> {
    pool: &'a mut Pool,
    out: &'a mut Out,
    port: PortIdx,
    entry: &'a PortEntry,
    events: Vec<Event>,
}

impl Net for Wire<'_> {
    fn send(&mut self, frame: &[u8]) {
        match self.pool.frame_from(frame) {
            Some(frame) => self.out.push(self.port, frame),
            None => self.entry.counters.count_drop(DropReason::NoBuffer, 1),
        }
    }

    fn release(&mut self, frame: Frame) {
        self.out.push(self.port, frame);
    }

    fn discard(&mut self, _frame: Frame) {
        self.entry.counters.count_drop(DropReason::Unresolved, 1);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// Where a host's last words go: there is no wire any more.
struct End<'a>(Option<&'a PortEntry>);

impl Net for End<'_> {
    fn send(&mut self, _frame: &[u8]) {}

    fn release(&mut self, frame: Frame) {
        self.discard(frame);
    }

    fn discard(&mut self, _frame: Frame) {
        if let Some(entry) = self.0 {
            entry.counters.count_drop(DropReason::Unresolved, 1);
        }
    }

    fn event(&mut self, _event: Event) {}
}

/// Lets the host do something, then writes down what it found out.
fn with_host<T>(
    shard: &mut Shard,
    tables: &Tables,
    out: &mut Out,
    work: impl FnOnce(&mut Host, &mut Wire<'_>) -> T,
) -> Option<T> {
    let underlay = tables.underlay.as_ref()?;
    let entry = tables.port(underlay.port)?;
    let vtep = shard.vtep.as_mut()?;
    let mut wire = Wire { pool: &mut shard.pool, out, port: underlay.port, entry, events: Vec::new() };
    let done = work(&mut vtep.host, &mut wire);
    let events = wire.events;
    vtep.deadline = vtep.host.deadline();
    if !events.is_empty() {
        vtep.heed(&events, tables, underlay.mtu, &mut shard.notes);
    }
    Some(done)
}

/// Brings the host in line with newly published tables.
pub fn configure(shard: &mut Shard, tables: &Tables, now: Instant, out: &mut Out) {
    let Some(underlay) =
        tables.underlay.as_ref().filter(|underlay| tables.port(underlay.port).is_some_and(|p| p.up))
    else {
        close(shard, tables, now);
        return;
    };
    let config = config(underlay, tables);
    if shard.vtep.is_none() {
        let Some(entry) = tables.port(underlay.port) else { return };
        let mut wire = Wire { pool: &mut shard.pool, out, port: underlay.port, entry, events: Vec::new() };
        let host = Host::new(config, now, &mut wire);
        shard.vtep = Some(Vtep { deadline: host.deadline(), host });
    } else {
        with_host(shard, tables, out, |host, wire| host.configure(config, now, wire));
    }
    if let Some(vtep) = &mut shard.vtep {
        vtep.write_next_hops(tables);
        vtep.write_path_mtus(tables, underlay.mtu);
    }
}

/// The host's end, if there is one: its device is gone, or another worker's. Frames that wait are lost, and counted where
/// the port is still known.
pub fn close(shard: &mut Shard, tables: &Tables, now: Instant) {
    if let Some(Vtep { host, .. }) = shard.vtep.take() {
        let port = tables.underlay.as_ref().and_then(|underlay| tables.port(underlay.port));
        host.close(now, &mut End(port));
    }
}

fn config(underlay: &Underlay, tables: &Tables) -> HostConfig {
    HostConfig {
        mac: underlay.mac,
        local: underlay.local,
        prefix_len: underlay.prefix_len,
        gateway: underlay.gateway,
        mtu: underlay.mtu,
        udp_port: underlay.udp_port,
        groups: underlay.groups.clone(),
        wanted: peers(tables).map(|tunnel| tunnel.remote).collect(),
    }
}

/// Tunnels to peers: not to groups, nor to those that are not peers yet.
fn peers(tables: &Tables) -> impl Iterator<Item = &Tunnel> {
    let tunnels = tables.ports.iter().flatten().filter_map(PortEntry::tunnel);
    tunnels.filter(|tunnel| !tunnel.remote.is_multicast() && !tunnel.remote.is_unspecified())
}

/// A frame of the underlay that is no tunnel's.
pub(super) fn receive(
    frame: &Frame,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    let head = frame.head().to_vec();
    let heard = with_host(shard, tables, out, |host, wire| host.receive(&head, now, wire));
    tracer.say("ingress", || match heard {
        Some(Heard::Answered) => "the local VTEP is asked, and answers".to_owned(),
        Some(Heard::Consumed) => "tells the local VTEP something about the underlay".to_owned(),
        Some(Heard::Ignored(why)) => format!("neither of a tunnel nor for the local VTEP: {why}"),
        None => "neither of a tunnel, nor is there a VTEP that it could be for".to_owned(),
    });
    match heard {
        Some(Heard::Answered) => Ok(Sent::Answered),
        Some(Heard::Consumed) => Ok(Sent::Consumed),
        Some(Heard::Ignored(_)) | None => Err(DropReason::UnderlayOther),
    }
}

/// Frames that stand at the resolver: sent as soon as their next hop is known.
pub fn resolve(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    let Some(underlay) = &tables.underlay else { return };
    for frame in out.take(underlay.resolver) {
        let Some(to) = destination(frame.head()) else { continue };
        with_host(shard, tables, out, |host, wire| host.submit(frame, to, now, wire));
    }
}

/// The destination of a tunnel packet that we made.
fn destination(head: &[u8]) -> Option<IpAddr> {
    let kind = u16::from_be_bytes(*head.get(12..)?.first_chunk()?);
    if kind == IPV4 {
        let octets: [u8; 4] = *head.get(HEADER + 16..)?.first_chunk()?;
        Some(Ipv4Addr::from(octets).into())
    } else {
        let octets: [u8; 16] = *head.get(HEADER + 24..)?.first_chunk()?;
        Some(Ipv6Addr::from(octets).into())
    }
}

/// What falls due: retries, probes, a path's MTU that counts no longer.
pub fn poll(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    let Some(vtep) = &shard.vtep else { return };
    if vtep.deadline <= now {
        with_host(shard, tables, out, |host, wire| host.poll(now, wire));
    }
}

impl Vtep {
    /// The neighbours of the underlay: address, MAC if known, state.
    pub fn neighbours(&self) -> impl Iterator<Item = (IpAddr, Option<Mac>, &'static str)> {
        self.host.neighbours()
    }

    fn heed(&self, events: &[Event], tables: &Tables, full: u16, notes: &mut Notes) {
        let mut moved = false;
        for event in events {
            match event {
                Event::NextHop { .. } => moved = true,
                Event::PathMtu { destination, mtu } => {
                    for tunnel in peers(tables).filter(|tunnel| tunnel.remote == *destination) {
                        tunnel.state.set_path_mtu(Some(*mtu).filter(|mtu| *mtu < full));
                    }
                }
                Event::Conflict { ip, mac } => notes.add(Note::Conflict(*ip, *mac)),
            }
        }
        if moved {
            self.write_next_hops(tables);
        }
    }

    /// What the host knows of the way to each peer, to one that is new in the tables too.
    fn write_path_mtus(&self, tables: &Tables, full: u16) {
        let known: HashMap<IpAddr, u16> = self.host.paths().collect();
        for tunnel in peers(tables) {
            tunnel.state.set_path_mtu(known.get(&tunnel.remote).copied().filter(|mtu| *mtu < full));
        }
    }

    fn write_next_hops(&self, tables: &Tables) {
        for tunnel in peers(tables) {
            tunnel.state.set_next_hop(self.host.resolved(tunnel.remote));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(n: u32) -> Note {
        Note::Stranger(IpAddr::V4(n.into()), NetIdx(1))
    }

    /// Whoever sends from thousands of addresses keeps neither the control thread busy nor its queue full.
    #[test]
    fn a_note_is_told_once_a_second_and_so_many_at_most() {
        let at = |millis: u64| Instant(5_000_000_000 + millis * 1_000_000);
        let mut notes = Notes::default();
        let told = |notes: &mut Notes, millis| {
            let mut list = Vec::new();
            notes.take(at(millis), |note| list.push(note));
            list
        };
        told(&mut notes, 0);
        notes.add(stranger(1));
        assert_eq!(told(&mut notes, 1), [stranger(1)]);
        (1..1000).for_each(|n| notes.add(stranger(n)));
        assert_eq!(told(&mut notes, 2).len(), MAX_NOTES - 1);
        (1..1000).for_each(|n| notes.add(stranger(n)));
        assert_eq!(told(&mut notes, 999).len(), 0);
        assert_eq!(told(&mut notes, 1000).len(), 0);
        notes.add(stranger(1));
        assert_eq!(told(&mut notes, 1001), [stranger(1)], "its cause came again");
    }
}
