//! An IP host on one link, sans-IO: the underlay's end point.
//!
//! It has one address and one MAC, answers ARP, ND and ping, keeps the next hops of its peers resolved, tells of
//! the groups that it is in, and hears of path MTUs and of others that use its address. What comes of it goes out through
//! [`Net`]: messages of its own, frames that waited for a next hop, and events.
//!
//! # Decisions
//!
//! - The address is in use from the start, without duplicate address detection, which only who sets an address in the
//!   configuration can act upon (RFC 4862, 5.4 asks for it; RFC 5227, 2.1 too). It is announced twice, and a
//!   conflict is told once and answered by an announcement at most every 10 s (RFC 5227, 2.4(c)).
//! - The host has no link-local address; solicitations come from its address. It is in its solicited-node group.
//! - Answers go back to the MAC that the question came from.
//! - Tagged frames, fragments and packets of other protocols are [`Heard::Ignored`]: on a shared NIC they are for another.
//! - One frame that comes in makes at most two go out, besides those that waited.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use self::paths::Paths;
use super::arp::{self, Arp, Operation};
use super::icmp::{self, Bucket};
use super::membership::Membership;
use super::nd::{self, Nd};
use super::neighbour::{Claim, Effect, Neighbours, addressed};
use super::packet::{Message, Packet};
use super::{Ignored, is_device, is_host};
use crate::frame::Frame;
use crate::types::{Instant, Mac};
use crate::wire::ethernet::{self, Ethernet, multicast_mac};
use crate::wire::protocol;

mod paths;

/// How often, and how far apart, an address is announced (RFC 5227, 1.1: `ANNOUNCE_NUM`, `ANNOUNCE_INTERVAL`).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Least time between two defences of our address (RFC 5227, 1.1: `DEFEND_INTERVAL`).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Echo replies a second, and at once.
const ECHO_RATE: u32 = 1000;
const ECHO_BURST: u32 = 100;
/// Most neighbours besides the peers' next hops.
const OTHER_NEIGHBOURS: usize = 1024;

/// What a host is. Addresses of another IP version than `local` are passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Its MAC.
    pub mac: Mac,
    /// Its address.
    pub local: IpAddr,
    /// Bits of the link's prefix.
    pub prefix_len: u8,
    /// The router to all that is not on the link.
    pub gateway: Option<IpAddr>,
    /// Longest packet of the link, in bytes from the IP header on.
    pub mtu: u16,
    /// The UDP port of the tunnels, for messages about their packets.
    pub udp_port: u16,
    /// Multicast groups to be in.
    pub groups: Vec<IpAddr>,
    /// Peers, whose next hops are kept resolved; groups among them need none.
    pub wanted: Vec<IpAddr>,
}

/// What a host has learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A next hop has another MAC: for everything behind it, see [`Host::next_hop`].
    NextHop {
        /// Its address.
        ip: IpAddr,
        /// Its MAC; none: no longer known.
        mac: Option<Mac>,
    },
    /// A path carries less than its link, or that was ten minutes ago and it counts no longer.
    PathMtu {
        /// The end of the path.
        destination: IpAddr,
        /// The longest packet, in bytes from the IP header on.
        mtu: u16,
    },
    /// Another uses our address. Told once for each address or MAC of ours.
    Conflict {
        /// Our address.
        ip: IpAddr,
        /// The other's MAC.
        mac: Mac,
    },
}

/// Where a host's doings go.
pub trait Net {
    /// Sends a whole Ethernet frame of the host's own; it is copied.
    fn send(&mut self, frame: &[u8]);
    /// Sends a frame that was submitted: its destination MAC is written.
    fn release(&mut self, frame: Frame);
    /// Counts and frees a frame that was submitted and found no next hop.
    fn discard(&mut self, frame: Frame);
    /// Learns of an event.
    fn event(&mut self, event: Event);
}

/// What became of a frame that came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was a question, and is answered.
    Answered,
    /// It told the host something.
    Consumed,
    /// It is not for the host.
    Ignored(Ignored),
}

/// A host.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    neighbours: Neighbours,
    membership: Membership,
    paths: Paths,
    /// Next hops that are kept resolved.
    wanted: BTreeSet<IpAddr>,
    unannounced: u8,
    announce_at: Instant,
    defended: Option<Instant>,
    conflict: bool,
    echo: Bucket,
    /// An echo reply, as long as a packet may be.
    scratch: Vec<u8>,
}

impl Host {
    /// A host that announces its address and asks for its next hops at once.
    pub fn new(config: HostConfig, now: Instant, net: &mut impl Net) -> Host {
        let mut host = Host {
            neighbours: Neighbours::new(OTHER_NEIGHBOURS),
            membership: Membership::new(config.mac, config.local),
            paths: Paths::default(),
            wanted: BTreeSet::new(),
            unannounced: ANNOUNCEMENTS,
            announce_at: now,
            defended: None,
            conflict: false,
            echo: Bucket::new(ECHO_RATE, ECHO_BURST, now),
            scratch: Vec::with_capacity(ethernet::HEADER + usize::from(config.mtu)),
            config,
        };
        host.settle(now, net);
        host
    }

    /// Changes what differs: announces another address or MAC, joins and leaves groups, asks for new next hops. What is
    /// known of neighbours and paths stays.
    pub fn configure(&mut self, config: HostConfig, now: Instant, net: &mut impl Net) {
        if (config.mac, config.local) != (self.config.mac, self.config.local) {
            self.unannounced = ANNOUNCEMENTS;
            self.announce_at = now;
            self.defended = None;
            self.conflict = false;
            self.membership.identify(config.mac, config.local, now);
        }
        self.config = config;
        self.settle(now, net);
    }

    /// Makes groups and next hops those of the configuration, and sends what is due.
    fn settle(&mut self, now: Instant, net: &mut impl Net) {
        let own_group = match self.config.local {
            IpAddr::V6(local) => Some(IpAddr::V6(nd::solicited_node(local))),
            IpAddr::V4(_) => None,
        };
        self.membership.set(self.config.groups.iter().copied().chain(own_group), now);
        let gateway = self.config.gateway.filter(|&gateway| self.may_be_neighbour(gateway));
        let peers = self.config.wanted.iter().filter_map(|&peer| self.next_hop(peer));
        let wanted: BTreeSet<IpAddr> = peers.chain(gateway).collect();
        let mut out = effects(&self.config, net);
        for &ip in wanted.difference(&self.wanted) {
            self.neighbours.want(ip, now, &mut out);
        }
        for &ip in self.wanted.difference(&wanted) {
            self.neighbours.unwant(ip, &mut out);
        }
        drop(out);
        self.wanted = wanted;
        self.poll(now, net);
    }

    /// Leaves all groups and lets go of all frames: the host's end.
    pub fn close(mut self, now: Instant, net: &mut impl Net) {
        self.membership.set(std::iter::empty(), now);
        self.membership.poll(now, |message| net.send(message));
        self.neighbours.discard_waiting(&mut effects(&self.config, net));
    }

    /// The address whose MAC a packet to `to` is sent to: `to` itself when it is on the link, else the gateway. None:
    /// it is unreachable, or a group, which has a MAC without ([`multicast_mac`]).
    pub fn next_hop(&self, to: IpAddr) -> Option<IpAddr> {
        if !self.may_be_neighbour(to) {
            return None;
        }
        if self.on_link(to) {
            return Some(to);
        }
        self.config.gateway.filter(|&gateway| self.may_be_neighbour(gateway))
    }

    /// The MAC that a packet to `to` is sent to, when it is known now.
    pub fn resolved(&self, to: IpAddr) -> Option<Mac> {
        multicast_mac(to).or_else(|| self.neighbours.mac(self.next_hop(to)?))
    }

    fn may_be_neighbour(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.config.local.is_ipv4()
            && is_host(ip)
            && ip != self.config.local
            && !self.is_net(ip)
    }

    fn on_link(&self, ip: IpAddr) -> bool {
        let len = u32::from(self.config.prefix_len);
        match (ip, self.config.local) {
            (IpAddr::V4(ip), IpAddr::V4(local)) => {
                (ip.to_bits() ^ local.to_bits()).checked_shr(32u32.saturating_sub(len)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ip), IpAddr::V6(local)) => {
                let differ = ip.to_bits() ^ local.to_bits();
                ip.is_unicast_link_local() || differ.checked_shr(128u32.saturating_sub(len)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The first and last address of an IPv4 link are no hosts' (RFC 1122, 3.2.1.3), but on links of two (RFC 3021).
    fn is_net(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        let hosts = u32::MAX.checked_shr(u32::from(self.config.prefix_len)).unwrap_or(0);
        hosts > 1 && self.on_link(ip) && matches!(v4.to_bits() & hosts, bits if bits == 0 || bits == hosts)
    }

    /// Sends a finished outer frame to `to`: its destination MAC, the first 6 bytes, is filled in. When that is not
    /// known yet, the frame waits.
    pub fn submit(&mut self, frame: Frame, to: IpAddr, now: Instant, net: &mut impl Net) {
        let mut out = effects(&self.config, net);
        if let Some(mac) = multicast_mac(to) {
            return out(addressed(frame, mac));
        }
        match self.next_hop(to) {
            Some(ip) => self.neighbours.submit(frame, ip, now, &mut out),
            None => out(Effect::Discard(frame)),
        }
    }

    /// Does what time demands.
    pub fn poll(&mut self, now: Instant, net: &mut impl Net) {
        if self.unannounced > 0 && self.announce_at <= now {
            self.unannounced -= 1;
            self.announce_at = now.after(ANNOUNCE_INTERVAL);
            net.send(&self.announcement());
        }
        self.membership.poll(now, |message| net.send(message));
        self.paths.poll(self.config.mtu, now, net);
        self.neighbours.poll(now, &mut effects(&self.config, net));
    }

    /// When [`Host::poll`] has something to do next; the end of time when never. Anything that comes in or is
    /// submitted may bring it forward.
    pub fn deadline(&self) -> Instant {
        let announce = (self.unannounced > 0).then_some(self.announce_at);
        let times = [announce, self.membership.deadline(), self.paths.deadline(), self.neighbours.deadline()];
        times.into_iter().flatten().min().unwrap_or(Instant(u64::MAX))
    }

    /// All neighbours: their MACs and the names of their states.
    pub fn neighbours(&self) -> impl Iterator<Item = (IpAddr, Option<Mac>, &'static str)> {
        self.neighbours.iter()
    }

    /// The paths that carry less than the link, with their MTUs in bytes.
    pub fn paths(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.paths.iter()
    }

    fn announcement(&self) -> Message {
        match self.config.local {
            IpAddr::V4(local) => arp::announcement(self.config.mac, local),
            IpAddr::V6(local) => nd::advertisement(self.config.mac, local, None, false),
        }
    }

    /// Takes in a frame of the link that is no tunnel's.
    pub fn receive(&mut self, frame: &[u8], now: Instant, net: &mut impl Net) -> Heard {
        self.hear(frame, now, net).unwrap_or_else(Heard::Ignored)
    }

    fn hear(&mut self, frame: &[u8], now: Instant, net: &mut impl Net) -> Result<Heard, Ignored> {
        let link = Ethernet::new_checked(frame).map_err(|_| Ignored::Malformed)?;
        if link.tags().next().is_some() {
            return Err(Ignored::Tagged);
        }
        if !is_device(link.source()) || link.source() == self.config.mac {
            return Err(Ignored::Source);
        }
        if link.destination() != self.config.mac && !link.destination().is_group() {
            return Err(Ignored::OtherMac);
        }
        if link.ethertype() == ethernet::ARP {
            let IpAddr::V4(local) = self.config.local else { return Err(Ignored::Protocol) };
            let arp = Arp::parse(frame).ok_or(Ignored::Malformed)?;
            return self.hear_arp(local, link.destination(), &arp, now, net);
        }
        let packet = Packet::parse(frame)?;
        if !self.is_for_us(&packet) {
            return Err(Ignored::OtherAddress);
        }
        match (packet.protocol, packet.payload.first()) {
            (protocol::IGMP, _) if packet.source.is_ipv4() => {
                self.membership.receive(&packet, now).map(|()| Heard::Consumed)
            }
            (protocol::ICMP, Some(3)) if packet.source.is_ipv4() => self.hear_path(&packet, now, net),
            (protocol::ICMP, Some(8)) if packet.source.is_ipv4() => self.answer_echo(&packet, now, net),
            (protocol::ICMPV6, Some(2)) if packet.source.is_ipv6() => self.hear_path(&packet, now, net),
            (protocol::ICMPV6, Some(128)) if packet.source.is_ipv6() => self.answer_echo(&packet, now, net),
            (protocol::ICMPV6, Some(130)) if packet.source.is_ipv6() => {
                self.membership.receive(&packet, now).map(|()| Heard::Consumed)
            }
            (protocol::ICMPV6, Some(135 | 136)) => self.hear_nd(&packet, now, net),
            _ => Err(Ignored::Protocol),
        }
    }

    /// Whether a packet's destination is ours: our address behind our MAC (RFC 1122, 3.3.6), or a group that we are in.
    fn is_for_us(&self, packet: &Packet<'_>) -> bool {
        if packet.destination == self.config.local {
            return packet.destination_mac == self.config.mac;
        }
        let all = match self.config.local {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
            IpAddr::V6(_) => IpAddr::V6(nd::ALL_NODES),
        };
        packet.destination == all || self.membership.contains(packet.destination)
    }

    fn hear_arp(
        &mut self,
        local: Ipv4Addr,
        to: Mac,
        arp: &Arp,
        now: Instant,
        net: &mut impl Net,
    ) -> Result<Heard, Ignored> {
        if arp.sender == local {
            return Ok(self.hear_conflict(arp.sender_mac, now, net));
        }
        let solicited = arp.operation == Operation::Reply && arp.target == local && to == self.config.mac;
        let claim = Claim { mac: arp.sender_mac, solicited, overrides: true };
        let mut out = effects(&self.config, net);
        let known = self.neighbours.heard(arp.sender.into(), claim, now, &mut out);
        drop(out);
        if arp.operation == Operation::Request && arp.target == local {
            net.send(&arp.reply(self.config.mac));
            return Ok(Heard::Answered);
        }
        if known { Ok(Heard::Consumed) } else { Err(Ignored::OtherAddress) }
    }

    fn hear_nd(&mut self, packet: &Packet<'_>, now: Instant, net: &mut impl Net) -> Result<Heard, Ignored> {
        let IpAddr::V6(local) = self.config.local else { return Err(Ignored::Protocol) };
        match Nd::parse(packet)? {
            Nd::Solicitation { source, target, source_mac } => {
                if source == local {
                    return Ok(self.hear_conflict(packet.source_mac, now, net));
                }
                if target != local {
                    return Err(Ignored::OtherAddress);
                }
                if let Some(mac) = source_mac {
                    let claim = Claim { mac, solicited: false, overrides: true };
                    self.neighbours.heard(source.into(), claim, now, &mut effects(&self.config, net));
                }
                net.send(&nd::reply(packet, source, target, self.config.mac, false));
                Ok(Heard::Answered)
            }
            Nd::Advertisement { target, target_mac, solicited, overrides, .. } => {
                if target == local {
                    return Ok(self.hear_conflict(target_mac.unwrap_or(packet.source_mac), now, net));
                }
                self.hear_claim(packet, target, target_mac, (solicited, overrides), now, net)
            }
        }
    }

    /// An advertisement of another's address. One without a MAC can only confirm the one that it came from (RFC 4861,
    /// 7.2.5).
    fn hear_claim(
        &mut self,
        packet: &Packet<'_>,
        target: Ipv6Addr,
        target_mac: Option<Mac>,
        (solicited, overrides): (bool, bool),
        now: Instant,
        net: &mut impl Net,
    ) -> Result<Heard, Ignored> {
        let known = self.neighbours.mac(target.into());
        let confirmed = known.filter(|&mac| mac == packet.source_mac);
        let mac = target_mac.or(confirmed).ok_or(Ignored::Invalid)?;
        let claim = Claim { mac, solicited, overrides };
        let mut out = effects(&self.config, net);
        if self.neighbours.heard(target.into(), claim, now, &mut out) {
            Ok(Heard::Consumed)
        } else {
            Err(Ignored::OtherAddress)
        }
    }

    fn hear_conflict(&mut self, mac: Mac, now: Instant, net: &mut impl Net) -> Heard {
        if mac == self.config.mac {
            return Heard::Consumed; // our own words, carried on by another
        }
        if !self.conflict {
            self.conflict = true;
            net.event(Event::Conflict { ip: self.config.local, mac });
        }
        if self.defended.is_none_or(|at| at.after(DEFEND_INTERVAL) <= now) {
            self.defended = Some(now);
            net.send(&self.announcement());
            return Heard::Answered;
        }
        Heard::Consumed
    }

    fn hear_path(&mut self, packet: &Packet<'_>, now: Instant, net: &mut impl Net) -> Result<Heard, Ignored> {
        let path = icmp::path_mtu(packet, self.config.local, self.config.udp_port)?;
        self.paths.lower(path.destination, path.mtu, self.config.mtu, now, net);
        Ok(Heard::Consumed)
    }

    fn answer_echo(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        net: &mut impl Net,
    ) -> Result<Heard, Ignored> {
        if packet.destination != self.config.local {
            return Err(Ignored::OtherAddress); // no answers to a whole group (RFC 1122, 3.2.2.6)
        }
        let (mac, mtu) = (self.config.mac, self.config.mtu);
        icmp::echo_reply(packet, mac, mtu, &mut self.echo, now, &mut self.scratch)?;
        net.send(&self.scratch);
        Ok(Heard::Answered)
    }
}

/// Carries out what the neighbours want.
fn effects(config: &HostConfig, net: &mut impl Net) -> impl FnMut(Effect) {
    move |effect| match effect {
        Effect::Solicit { ip, to } => match (config.local, ip) {
            (IpAddr::V4(local), IpAddr::V4(ip)) => net.send(&arp::request(config.mac, local, ip, to)),
            (IpAddr::V6(local), IpAddr::V6(ip)) => net.send(&nd::solicitation(config.mac, local, ip, to)),
            _ => {} // left over from an address of the other version
        },
        Effect::Changed { ip, mac } => net.event(Event::NextHop { ip, mac }),
        Effect::Release(frame) => net.release(frame),
        Effect::Discard(frame) => net.discard(frame),
    }
}

#[cfg(test)]
mod tests;
