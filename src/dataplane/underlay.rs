//! The local VTEP as a host of the underlay: it answers ARP, neighbour solicitations and ping, finds next hops, joins groups, and
//! hears how long packets may be ([`Host`] does all that). What it finds out about peers is written where every worker
//! reads it ([`crate::tables::tunnel::TunnelState`]).
//!
//! It lives with the worker that owns the underlay's device; other workers hand frames without a next hop to that worker's
//! resolver port.

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
use crate::types::{Instant, NetIdx, PortIdx};
use crate::wire::ethernet::{HEADER, IPV4};

/// How long a path's MTU is believed (RFC 1191, 6.3; RFC 8201, section 4: ten minutes).
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);
/// Paths whose MTU is remembered; peers are configured, so there are seldom more.
const MAX_PATHS: usize = 4096;
/// VTEPs that may wait to be told to the control thread.
const MAX_STRANGERS: usize = 16;

/// A VTEP that is not a peer yet, and the network that it sent to.
pub type Stranger = (IpAddr, NetIdx);

/// The local VTEP's own state.
pub struct Vtep {
    host: Host,
    /// Until when a path's MTU is believed.
    paths: Vec<(IpAddr, Instant)>,
}

/// VTEPs that want to be peers, on their way to the control thread.
#[derive(Default)]
pub struct Strangers(arrayvec::ArrayVec<Stranger, MAX_STRANGERS>);

impl Strangers {
    #[cold]
    pub(super) fn note(&mut self, stranger: Stranger) {
        if !self.0.contains(&stranger) {
            // A full list loses it; it will send again.
            let _ = self.0.try_push(stranger);
        }
    }

    /// Those noted since the last call.
    pub fn take(&mut self) -> impl Iterator<Item = Stranger> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// Lets the host do something, then writes down what it found out.
fn with_host<T>(
    shard: &mut Shard,
    tables: &Tables,
    now: Instant,
    out: &mut Out,
    work: impl FnOnce(&mut Host, &mut Wire<'_>) -> T,
) -> Option<T> {
    let underlay = tables.underlay.as_ref()?;
    let entry = tables.port(underlay.port)?;
    let vtep = shard.vtep.as_mut()?;
    let mut wire = Wire { pool: &mut shard.pool, out, port: underlay.port, entry, events: Vec::new() };
    let done = work(&mut vtep.host, &mut wire);
    let events = wire.events;
    if !events.is_empty() {
        vtep.heed(&events, tables, now);
    }
    Some(done)
}

/// Brings the host in line with newly published tables.
pub fn configure(shard: &mut Shard, tables: &Tables, now: Instant, out: &mut Out) {
    let Some(underlay) = tables.underlay.as_ref().filter(|underlay| tables.port(underlay.port).is_some_and(|p| p.up))
    else {
        shard.vtep = None;
        return;
    };
    let config = config(underlay, tables);
    if shard.vtep.is_none() {
        let Some(entry) = tables.port(underlay.port) else { return };
        let mut wire = Wire { pool: &mut shard.pool, out, port: underlay.port, entry, events: Vec::new() };
        let host = Host::new(config, now, &mut wire);
        shard.vtep = Some(Vtep { host, paths: Vec::new() });
    } else {
        with_host(shard, tables, now, out, |host, wire| host.configure(config, now, wire));
    }
    if let Some(vtep) = &mut shard.vtep {
        vtep.write_next_hops(tables);
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
    tracer.say("ingress", || "is no tunnel packet: for the local VTEP itself".to_owned());
    let head = frame.head().to_vec();
    match with_host(shard, tables, now, out, |host, wire| host.receive(&head, now, wire)) {
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
        with_host(shard, tables, now, out, |host, wire| host.submit(frame, to, now, wire));
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

/// What falls due: retries, probes, a path's MTU that is believed no longer.
pub fn poll(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    let Some(vtep) = &mut shard.vtep else { return };
    if vtep.paths.iter().any(|(_, until)| *until <= now) {
        let old: Vec<IpAddr> =
            vtep.paths.extract_if(.., |(_, until)| *until <= now).map(|(remote, _)| remote).collect();
        for tunnel in peers(tables).filter(|tunnel| old.contains(&tunnel.remote)) {
            tunnel.state.set_path_mtu(None);
        }
    }
    if vtep.host.deadline() <= now {
        with_host(shard, tables, now, out, |host, wire| host.poll(now, wire));
    }
}

impl Vtep {
    /// The neighbours of the underlay: address, MAC if known, state.
    pub fn neighbours(&self) -> impl Iterator<Item = (IpAddr, Option<crate::types::Mac>, &'static str)> {
        self.host.neighbours()
    }

    fn heed(&mut self, events: &[Event], tables: &Tables, now: Instant) {
        let mut moved = false;
        for event in events {
            match event {
                Event::NextHop { .. } => moved = true,
                Event::PathMtu { destination, mtu } => self.note_path_mtu(*destination, *mtu, tables, now),
                Event::Conflict { .. } => {}
            }
        }
        if moved {
            self.write_next_hops(tables);
        }
    }

    fn write_next_hops(&mut self, tables: &Tables) {
        for tunnel in peers(tables) {
            let mac = self.host.next_hop(tunnel.remote).and_then(|hop| self.host.mac(hop));
            tunnel.state.set_next_hop(mac);
        }
    }

    fn note_path_mtu(&mut self, remote: IpAddr, mtu: u16, tables: &Tables, now: Instant) {
        let Some(tunnel) = peers(tables).find(|tunnel| tunnel.remote == remote) else { return };
        self.paths.retain(|(known, _)| *known != remote);
        if self.paths.len() < MAX_PATHS {
            self.paths.push((remote, now.after(PATH_MTU_LIFETIME)));
            tunnel.state.set_path_mtu(Some(mtu));
        }
    }
}
