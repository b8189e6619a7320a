//! What the home of a router's interface does for it: answers ARP, neighbour solicitations and ping, finds out the MACs of
//! neighbours and tells every worker, announces the router's addresses when they appear, and sends router advertisements: in
//! time, at once when what they say changes, and a last one that takes the router back. Whoever asks for routers is answered
//! where it asks, by whichever worker that is.
//!
//! Frames get here by [`Out`], as to any port. One whose source is the interface's own MAC is a packet that is to be sent and
//! waits for its next hop's MAC; any other was sent to the router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::nat::{self, Translator};
use super::out::Out;
use super::router::errors::{tell, unreachable};
use super::router::neighbours::NeighbourEvent;
use super::router::{self, At, Context, Delivered, drop_at, emit, emit_into, hop};
use super::tracer::Silent;
use super::{Event, Shard, security};
use crate::frame::Frame;
use crate::services::arp::{self, Arp, Operation};
use crate::services::icmp::Problem;
use crate::services::icmp::{self, Bucket};
use crate::services::nd::{self, Nd};
use crate::services::neighbour::{Claim, Effect, Neighbours};
use crate::services::packet::{Message, Packet};
use crate::services::ra::{self, Advertisement, Schedule};
use crate::stats::DropReason;
use crate::tables::fib::Route;
use crate::tables::tunnel::{address_key, key_address};
use crate::tables::{NetEntry, PortEntry, Tables};
use crate::types::{Instant, Mac, NetIdx, PortIdx, WorkerIdx};
use crate::wire::ethernet::{self, Ethernet, HEADER};
use crate::wire::protocol;

/// Most neighbours of an interface besides next hops of routes.
const NEIGHBOURS: usize = 1024;
/// Echo replies a second, and at once.
const ECHO: (u32, u32) = (1000, 100);
/// Where an IPv6 header names what follows it.
const NEXT_HEADER: u32 = 6;
/// How often, and how far apart, an address is announced (RFC 5227, 1.1: `ANNOUNCE_NUM`, `ANNOUNCE_INTERVAL`).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// No trace leads here.
type Here<'a, 't> = Context<'a, 't, Silent>;

/// A neighbour as its home knows it: address, MAC if known, state.
pub type Neighbour = (IpAddr, Option<Mac>, &'static str);

/// The interfaces that this worker is the home of.
#[derive(Default)]
pub struct Gateways(BTreeMap<PortIdx, Gateway>);

struct Gateway {
    mac: Mac,
    neighbours: Neighbours,
    /// Next hops that are kept resolved.
    wanted: BTreeSet<IpAddr>,
    addresses: BTreeSet<IpAddr>,
    /// Addresses that are still to be announced, how often, and when next.
    announcing: Vec<(Instant, IpAddr, u8)>,
    advertising: Option<Advertising>,
    echo: Bucket,
    scratch: Vec<u8>,
}

/// What an interface tells the hosts of a network, and when: as much as it takes to take it back when the interface is gone.
struct Advertising {
    source: Ipv6Addr,
    network: NetIdx,
    facts: Advertisement,
    schedule: Schedule,
}

/// What becomes of a frame that was sent to the router.
enum Heard {
    Answer(Vec<u8>),
    Consumed,
    /// Nobody here takes it; its sender may be told.
    Refused(Option<Problem>),
}

impl Gateways {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first interface from `from` on, and its neighbours.
    pub fn neighbours_from(&self, from: PortIdx) -> Option<(PortIdx, impl Iterator<Item = Neighbour>)> {
        let (port, gateway) = self.0.range(from..).next()?;
        Some((*port, gateway.neighbours.iter()))
    }
}

/// Brings the homes in line with newly published tables: new addresses are announced, new next hops asked for.
pub fn configure(tables: &Tables, shard: &mut Shard, home: WorkerIdx, now: Instant, out: &mut Out) {
    security::configure(tables, shard, home);
    if nat::is_wanted(tables, home) {
        let seed = shard.seed;
        let translator = shard.nat.get_or_insert_with(|| Box::new(Translator::new(tables, seed)));
        translator.configure(tables, home);
    } else {
        shard.nat = None;
    }
    let mut gateways = std::mem::take(&mut shard.gateways);
    let mut farewells = Vec::new();
    gateways.0.retain(|port, gateway| {
        farewells.extend(gateway.farewell(tables.port(*port)).map(|(to, message)| (*port, to, message)));
        let stays = is_home(*port, tables, home);
        if !stays {
            gateway.neighbours.discard_waiting(&mut |_| {});
        }
        stays
    });
    let mut silent = Silent;
    let cx = &mut Context::new(tables, shard, now, out, &mut silent);
    for (port, network, message) in farewells {
        match cx.shard.pool.frame_from(&message) {
            Some(frame) => emit_into(frame, port, network, cx),
            None => drop_at(port, DropReason::NoBuffer, cx),
        }
    }
    for slot in 0..tables.ports.len() {
        let Ok(index) = u16::try_from(slot).map(PortIdx) else { break };
        let Some(at) = At::new(index, tables).filter(|_| is_home(index, tables, home)) else { continue };
        let gateway = gateways.0.entry(index).or_insert_with(|| Gateway::new(at.interface.mac, now));
        let effects = gateway.configure(&at, now);
        carry_out(effects, &at, cx);
        gateway.announce(&at, cx);
        gateway.plan(&at, cx);
        gateway.advertise(&at, cx);
    }
    cx.shard.gateways = gateways;
    router::route(cx);
}

fn is_home(port: PortIdx, tables: &Tables, home: WorkerIdx) -> bool {
    tables.port(port).is_some_and(|entry| entry.worker == home && entry.up && entry.interface().is_some())
}

/// Frames that stand at interfaces whose home this is.
pub fn serve(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    let mut gateways = std::mem::take(&mut shard.gateways);
    let mut silent = Silent;
    let cx = &mut Context::new(tables, shard, now, out, &mut silent);
    let mut burst = Delivered::default();
    while let Some((index, frames)) = cx.out.take_from(|port| gateways.0.contains_key(&port)) {
        let Some(at) = At::new(index, tables) else { continue };
        let Some(gateway) = gateways.0.get_mut(&index) else { continue };
        for frame in frames {
            if frame.head().get(6..12) == Some(&at.interface.mac.0[..]) {
                gateway.submit(frame, &at, cx);
            } else if burst.push(frame, index, index).is_ok() && burst.is_full() {
                gateway.take_in(&mut burst, cx);
            }
        }
        gateway.take_in(&mut burst, cx);
        // Frames that this delivered to routers may stand at further interfaces then.
        router::route(cx);
    }
    cx.shard.gateways = gateways;
}

/// What falls due: questions to neighbours, announcements.
pub fn poll(tables: &Tables, shard: &mut Shard, now: Instant, out: &mut Out) {
    let mut silent = Silent;
    let cx = &mut Context::new(tables, shard, now, out, &mut silent);
    if let Some(nat) = &mut cx.shard.nat
        && nat.fragments.deadline().is_some_and(|at| at <= now)
    {
        nat.fragments.expire(now);
        router::release_fragments(cx);
    }
    let is_due = |gateway: &Gateway| {
        gateway.neighbours.deadline().is_some_and(|at| at <= now)
            || gateway.announcing.iter().any(|(at, ..)| *at <= now)
            || gateway.advertising.as_ref().is_some_and(|advertising| advertising.schedule.deadline() <= now)
    };
    if !cx.shard.gateways.0.values().any(is_due) {
        return;
    }
    let mut gateways = std::mem::take(&mut cx.shard.gateways);
    for (index, gateway) in &mut gateways.0 {
        let Some(at) = At::new(*index, tables) else { continue };
        let mut effects = Vec::new();
        gateway.neighbours.poll(now, &mut |effect| effects.push(effect));
        carry_out(effects, &at, cx);
        gateway.announce(&at, cx);
        gateway.advertise(&at, cx);
    }
    cx.shard.gateways = gateways;
    router::route(cx);
}

/// Answers a router solicitation, at any worker: an advertisement of each interface on the network that has any, with the
/// interface's name. Nothing: the frame is none.
pub(super) fn solicited<'t>(
    frame: &[u8],
    network: &'t NetEntry,
    tables: &'t Tables,
) -> Option<impl Iterator<Item = (&'t str, Message)>> {
    let to = ra::solicited(frame).ok()?;
    let interfaces = network.routers_advertising.iter().filter_map(|index| At::new(*index, tables));
    Some(interfaces.filter(|at| at.port.up).filter_map(move |at| {
        let facts = at.interface.ra.as_ref()?;
        let (mac, source) = (at.interface.mac, at.interface.link_local());
        Some((&*at.port.name, ra::advertisement(mac, source, Some(to), facts, false)))
    }))
}

impl Gateway {
    fn new(mac: Mac, now: Instant) -> Gateway {
        Gateway {
            mac,
            neighbours: Neighbours::new(NEIGHBOURS),
            wanted: BTreeSet::new(),
            addresses: BTreeSet::new(),
            announcing: Vec::new(),
            advertising: None,
            echo: Bucket::new(ECHO.0, ECHO.1, now),
            scratch: Vec::new(),
        }
    }

    fn configure(&mut self, at: &At<'_>, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut out = |effect| effects.push(effect);
        let wanted: BTreeSet<IpAddr> = at.interface.next_hops.iter().copied().collect();
        for &ip in wanted.difference(&self.wanted) {
            self.neighbours.want(ip, now, &mut out);
        }
        for &ip in self.wanted.difference(&wanted) {
            self.neighbours.unwant(ip, &mut out);
        }
        self.wanted = wanted;
        let addresses: BTreeSet<IpAddr> = at.interface.all_addresses().collect();
        self.announcing.retain(|(_, ip, _)| addresses.contains(ip));
        let new = addresses.difference(&self.addresses).map(|ip| (now, *ip, ANNOUNCEMENTS));
        self.announcing.extend(new);
        self.addresses = addresses;
        effects
    }

    /// Tells everyone on the network who has the router's addresses (RFC 5227, 2.3; RFC 4861, 7.2.6).
    fn announce(&mut self, at: &At<'_>, cx: &mut Here<'_, '_>) {
        for (when, ip, left) in &mut self.announcing {
            if *when > cx.now {
                continue;
            }
            *left -= 1;
            *when = cx.now.after(ANNOUNCE_INTERVAL);
            let message = match ip {
                IpAddr::V4(ip) => arp::announcement(self.mac, *ip),
                IpAddr::V6(ip) => nd::advertisement(self.mac, *ip, None, true),
            };
            send(&message, at, cx);
        }
        self.announcing.retain(|(.., left)| *left > 0);
    }

    /// What it says at last, and to which network, where the new tables have it advertise there no more. Where it does so at
    /// another worker from now on, there is nothing to take back.
    fn farewell(&mut self, port: Option<&PortEntry>) -> Option<(NetIdx, Message)> {
        let told = self.advertising.as_ref()?;
        let interface = port.filter(|port| port.up).and_then(PortEntry::interface);
        if interface.is_some_and(|now| now.ra.is_some() && now.network == told.network && now.mac == self.mac)
        {
            return None;
        }
        let Advertising { source, network, facts, .. } = self.advertising.take()?;
        Some((network, ra::advertisement(self.mac, source, None, &facts, true)))
    }

    /// Takes over what it is to advertise; what is new is due now.
    fn plan(&mut self, at: &At<'_>, cx: &Here<'_, '_>) {
        let Some(facts) = &at.interface.ra else { return };
        match &mut self.advertising {
            Some(known) if known.facts == *facts => {}
            Some(known) => {
                known.facts = facts.clone();
                known.schedule.restart(cx.now);
            }
            None => {
                let seed = cx.shard.seed ^ u64::from(at.index.0);
                self.advertising = Some(Advertising {
                    source: at.interface.link_local(),
                    network: at.interface.network,
                    facts: facts.clone(),
                    schedule: Schedule::new(seed, cx.now),
                });
            }
        }
    }

    /// Tells all hosts of the network about the router, when it is time.
    fn advertise(&mut self, at: &At<'_>, cx: &mut Here<'_, '_>) {
        if let Some(Advertising { source, facts, schedule, .. }) = &mut self.advertising
            && schedule.take(cx.now)
        {
            send(&ra::advertisement(self.mac, *source, None, facts, false), at, cx);
        }
    }

    /// Frames that were sent to the router: those that it is to send on go their way.
    fn take_in(&mut self, burst: &mut Delivered, cx: &mut Here<'_, '_>) {
        router::pass(burst, cx, |frame, at, _, cx| self.receive(frame, at, cx));
    }

    /// A frame for the router itself.
    fn receive(&mut self, frame: Frame, at: &At<'_>, cx: &mut Here<'_, '_>) {
        let head = frame.head();
        let whole: Vec<u8>;
        let bytes = if frame.is_linear() {
            head
        } else {
            whole = frame.segments().collect::<Vec<_>>().concat();
            &whole
        };
        let mut effects = Vec::new();
        let heard = self.hear(bytes, at, cx.now, &mut effects);
        carry_out(effects, at, cx);
        let counters = &at.port.counters;
        match heard {
            Heard::Answer(message) => {
                counters.answered.add_shared(1);
                send(&message, at, cx);
            }
            Heard::Consumed => counters.consumed.add_shared(1),
            Heard::Refused(error) => {
                if let Some(error) = error {
                    tell(&frame, error, at, cx);
                }
                drop_at(at.index, DropReason::NoService, cx);
            }
        }
    }

    /// A packet that waits for its next hop.
    fn submit(&mut self, frame: Frame, at: &At<'_>, cx: &mut Here<'_, '_>) {
        let Some(next) = next_hop(frame.head(), at) else {
            return drop_at(at.index, DropReason::NoRoute, cx);
        };
        let mut effects = Vec::new();
        let mac = self.neighbours.mac(next);
        self.neighbours.submit(frame, next, cx.now, &mut |effect| effects.push(effect));
        if mac.is_some() {
            // Whoever had to ask is told again.
            effects.insert(0, Effect::Changed { ip: next, mac });
        }
        carry_out(effects, at, cx);
    }

    fn hear(&mut self, bytes: &[u8], at: &At<'_>, now: Instant, effects: &mut Vec<Effect>) -> Heard {
        let Ok(link) = Ethernet::new_checked(bytes) else { return Heard::Refused(None) };
        let mut out = |effect| effects.push(effect);
        if link.ethertype() == ethernet::ARP {
            let Some(arp) = Arp::parse(bytes) else { return Heard::Refused(None) };
            if arp.operation == Operation::Request {
                let ours = self.addresses.contains(&IpAddr::V4(arp.target)) && !arp.is_announcement();
                return if ours { Heard::Answer(arp.reply(self.mac).to_vec()) } else { Heard::Consumed };
            }
            let claim = Claim { mac: arp.sender_mac, solicited: true, overrides: true };
            self.neighbours.heard(arp.sender.into(), claim, now, &mut out);
            return Heard::Consumed;
        }
        let Ok(packet) = Packet::parse(bytes) else { return Heard::Refused(None) };
        let link_local = at.interface.link_local();
        if packet.protocol == protocol::ICMPV6
            && let Ok(message) = Nd::parse(&packet)
        {
            return match message {
                Nd::Solicitation { source, target, .. } => {
                    let is_ours = target == link_local || self.addresses.contains(&IpAddr::V6(target));
                    if is_ours {
                        Heard::Answer(nd::reply(&packet, source, target, self.mac, true).to_vec())
                    } else {
                        Heard::Consumed
                    }
                }
                Nd::Advertisement { target, target_mac, solicited, overrides, .. } => {
                    let known = self.neighbours.mac(target.into());
                    let confirmed = known.filter(|mac| *mac == packet.source_mac);
                    if let Some(mac) = target_mac.or(confirmed) {
                        self.neighbours.heard(
                            target.into(),
                            Claim { mac, solicited, overrides },
                            now,
                            &mut out,
                        );
                    }
                    Heard::Consumed
                }
            };
        }
        if let (Some(facts), Ok(to)) = (&at.interface.ra, ra::solicited(bytes)) {
            return Heard::Answer(ra::advertisement(self.mac, link_local, Some(to), facts, false).to_vec());
        }
        match icmp::echo_reply(&packet, self.mac, at.interface.mtu, &mut self.echo, now, &mut self.scratch) {
            Ok(()) => Heard::Answer(std::mem::take(&mut self.scratch)),
            Err(_) => Heard::Refused(refusal(&packet)),
        }
    }
}

/// What the sender of a packet is told that nobody here takes (RFC 1122, 3.2.2.1; RFC 4443, 3.1).
fn refusal(packet: &Packet<'_>) -> Option<Problem> {
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => None,
        protocol::TCP | protocol::UDP => Some(Problem::PortUnreachable),
        _ => Some(Problem::ProtocolUnreachable(NEXT_HEADER)),
    }
}

/// The next hop of a packet that leaves by this interface: the routes' choice once more.
fn next_hop(head: &[u8], at: &At<'_>) -> Option<IpAddr> {
    let kind = u16::from_be_bytes(*head.get(HEADER - 2..)?.first_chunk()?);
    let (route, destination) = match kind {
        ethernet::IPV4 => {
            let destination = u32::from_be_bytes(*head.get(HEADER + 16..)?.first_chunk()?);
            (at.router.fib.v4(destination)?, address_key(IpAddr::V4(destination.into())))
        }
        ethernet::IPV6 => {
            let destination = u128::from_be_bytes(*head.get(HEADER + 24..)?.first_chunk()?);
            (at.router.fib.v6(destination)?, destination)
        }
        _ => return None,
    };
    match route {
        Route::Connected(_) => Some(key_address(destination)),
        Route::Via(hops) => Some(key_address(hop(hops, head)?.address)),
        _ => None,
    }
}

fn send(message: &[u8], at: &At<'_>, cx: &mut Here<'_, '_>) {
    match cx.shard.pool.frame_from(message) {
        Some(frame) => emit(frame, at, cx),
        None => drop_at(at.index, DropReason::NoBuffer, cx),
    }
}

/// Does what the neighbours of an interface want.
fn carry_out(effects: Vec<Effect>, at: &At<'_>, cx: &mut Here<'_, '_>) {
    let mac = at.interface.mac;
    for effect in effects {
        match effect {
            Effect::Solicit { ip, to } => {
                let message = match (at.interface.address_towards(ip), ip) {
                    (Some(IpAddr::V4(local)), IpAddr::V4(ip)) => arp::request(mac, local, ip, to),
                    (_, IpAddr::V6(ip)) => nd::solicitation(mac, at.interface.link_local(), ip, to),
                    _ => continue,
                };
                send(&message, at, cx);
            }
            Effect::Changed { ip, mac } => {
                let event = NeighbourEvent { interface: at.index, address: address_key(ip), mac };
                let now = cx.seconds;
                cx.shard.neighbours.hear(event, now);
                cx.shard.tell(Event::Neighbour(event));
            }
            Effect::Release(frame) => emit(frame, at, cx),
            Effect::Discard(frame) => {
                unreachable(frame, at, cx);
                drop_at(at.index, DropReason::Unresolved, cx);
            }
        }
    }
}
