//! Router advertisements (RFC 4861, 4.2 and 6.2; RFC 4862; RFC 8106): what a router's interface tells the hosts of its network,
//! and when.
//!
//! - Timers and lifetimes are those that Neutron's radvd is given: unsolicited ones every 30 to 100 seconds, so that a host
//!   which missed one has a router within two minutes, and a router that vanished without a word is given up after 300.
//! - A solicitation is answered at once and to its sender alone; one from `::` too, by the group's address at the sender's
//!   MAC (RFC 6085). So no answer is flooded, many hosts may boot at the same time, and the delay and the rate limit of RFC
//!   4861, 6.2.6, which are there to spare everyone else on the link, have nothing to do.
//!
//! Limits: an advertisement has at most 1280 bytes, what every IPv6 link carries. Of its options, the later ones do not
//! come with it where that is not enough: the MTU and some 37 prefixes always fit.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use arrayvec::ArrayVec;
use ipnet::Ipv6Net;

use super::nd::ALL_NODES;
use super::packet::{Message, Packet, V6, link, put};
use super::{Ignored, is_device, is_host_v6};
use crate::types::{Instant, Mac};
use crate::wire::checksum::pseudo_v6;
use crate::wire::dhcp6::domain_name;
use crate::wire::ethernet::{self, multicast_mac};
use crate::wire::{ipv6, protocol};

/// Seconds for which a router stays a default router: three times [`MAX_INTERVAL`] (RFC 4861, 6.2.1).
pub const LIFETIME: u16 = 300;
/// The time between unsolicited advertisements is between these.
pub const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// See [`MIN_INTERVAL`].
pub const MAX_INTERVAL: Duration = Duration::from_secs(100);
/// So many come first, no farther apart than this (RFC 4861, 10).
pub const INITIAL: u8 = 3;
/// See [`INITIAL`].
pub const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Seconds for which a prefix is valid, and its addresses preferred (radvd's defaults, which Neutron leaves as they are).
const VALID: u32 = 86400;
const PREFERRED: u32 = 14400;
/// All routers of the link (RFC 4291, 2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// ICMPv6 types (RFC 4861, 4.1 and 4.2).
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Options (RFC 4861, 4.6; RFC 8106, 5).
const SOURCE_ADDRESS: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Flags of an advertisement (RFC 4861, 4.2), and of a prefix (4.6.2).
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// The hop limit that proves a message to be from this link (RFC 4861, 6.1).
const HOP_LIMIT: u8 = 255;
/// The hop limit that hosts are told to use.
const HOSTS_HOP_LIMIT: u8 = 64;
/// Bytes of an advertisement before its options.
const HEADER: usize = 16;
/// No link has a lower MTU (RFC 8200, 5).
const MIN_MTU: u16 = 1280;
const MAX_BODY: usize = MIN_MTU as usize - ipv6::HEADER;

/// What an interface tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Advertisement {
    /// Addresses are to be had by DHCPv6: some subnet's mode is "dhcpv6-stateful".
    pub managed: bool,
    /// Other facts are to be had by DHCPv6: some subnet's mode is "dhcpv6-stateless".
    pub other: bool,
    /// The network's MTU; it is told where it is one for IPv6.
    pub mtu: u16,
    /// The prefixes on the link, and whether hosts make themselves addresses from it.
    pub prefixes: Vec<(Ipv6Net, bool)>,
    /// Recursive DNS servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// The domain to search. A text that is no domain name is not sent.
    pub domain: Option<String>,
    /// Seconds for which it is a default router; 0: it is none, but what it says of prefixes holds.
    pub lifetime: u16,
}

/// Writes an advertisement of the interface with `mac` and the link-local address `source`. `to` is who asked; nobody: it goes
/// to all nodes. The final one says that the router is none any more, nor its DNS servers; prefixes live on, as the
/// addresses in them do (RFC 4861, 6.2.5).
pub fn advertisement(
    mac: Mac,
    source: Ipv6Addr,
    to: Option<(Mac, Ipv6Addr)>,
    facts: &Advertisement,
    is_final: bool,
) -> Message {
    let all = multicast_mac(ALL_NODES.into()).unwrap_or(Mac::BROADCAST);
    let (to, destination) = to.unwrap_or((all, ALL_NODES));
    let ip = V6 { source, destination, hop_limit: HOP_LIMIT, class: 0, router_alert: false };
    ip.message(&link(to, mac, ethernet::IPV6), &[&body(mac, facts, is_final)])
}

type Body = ArrayVec<u8, MAX_BODY>;

fn body(mac: Mac, facts: &Advertisement, is_final: bool) -> Body {
    let flags = if facts.managed { MANAGED } else { 0 } | if facts.other { OTHER } else { 0 };
    let lifetime = if is_final { 0 } else { facts.lifetime };
    // RFC 8106, 5.1: it ends as the router does.
    let resolver = u32::from(if is_final { 0 } else { LIFETIME }).to_be_bytes();
    let mut body = Body::new();
    put(&mut body, &[ADVERTISEMENT, 0, 0, 0, HOSTS_HOP_LIMIT, flags]);
    put(&mut body, &lifetime.to_be_bytes());
    put(&mut body, &[0; HEADER - 8]);
    option(&mut body, SOURCE_ADDRESS, &[&mac.0]);
    if facts.mtu >= MIN_MTU {
        option(&mut body, MTU, &[&[0; 2], &u32::from(facts.mtu).to_be_bytes()]);
    }
    for (net, is_autonomous) in &facts.prefixes {
        let flags = ON_LINK | if *is_autonomous { AUTONOMOUS } else { 0 };
        let times = [VALID.to_be_bytes(), PREFERRED.to_be_bytes()];
        let head = [net.prefix_len(), flags];
        option(&mut body, PREFIX, &[&head, times.as_flattened(), &[0; 4], &net.network().octets()]);
    }
    if !facts.dns_servers.is_empty() {
        let servers: Vec<u8> = facts.dns_servers.iter().flat_map(Ipv6Addr::octets).collect();
        option(&mut body, RDNSS, &[&[0; 2], &resolver, &servers]);
    }
    if let Some(name) = facts.domain.as_deref().and_then(domain_name) {
        option(&mut body, DNSSL, &[&[0; 2], &resolver, &name]);
    }
    body
}

/// Appends an option, padded to a multiple of 8 bytes (RFC 4861, 4.6), if there is room.
fn option(body: &mut Body, kind: u8, value: &[&[u8]]) {
    let len: usize = 2 + value.iter().map(|part| part.len()).sum::<usize>();
    let units = len.div_ceil(8);
    let Ok(count) = u8::try_from(units) else { return };
    if body.remaining_capacity() < units * 8 {
        return;
    }
    put(body, &[kind, count]);
    value.iter().for_each(|part| put(body, part));
    put(body, [0; 7].get(..units * 8 - len).unwrap_or_default());
}

/// Who sent a router solicitation: where its answer goes. One without an address yet is to be answered at all nodes' address,
/// but at its own MAC.
///
/// # Errors
/// [`Ignored`] when the frame is none, and [`Ignored::Invalid`] by RFC 4861, 6.1.1. An unfinished checksum is taken.
pub fn solicited(frame: &[u8]) -> Result<(Mac, Ipv6Addr), Ignored> {
    let packet = Packet::parse(frame)?;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return Err(Ignored::Protocol);
    };
    if packet.protocol != protocol::ICMPV6 || packet.payload.first() != Some(&SOLICITATION) {
        return Err(Ignored::Protocol);
    }
    let len = u32::try_from(packet.payload.len()).map_err(|_| Ignored::Malformed)?;
    let pseudo = pseudo_v6(source, destination, protocol::ICMPV6, len);
    let field = packet.payload.get(2..4).ok_or(Ignored::Malformed)?;
    if field != pseudo.fold().to_be_bytes() {
        packet.verified(protocol::ICMPV6)?;
    }
    let (&[_, code, ..], options) = packet.payload.split_first_chunk::<8>().ok_or(Ignored::Malformed)?;
    let has_mac = has_source_address(options).ok_or(Ignored::Invalid)?;
    if packet.hops != HOP_LIMIT || code != 0 || has_mac && source.is_unspecified() {
        return Err(Ignored::Invalid);
    }
    if !(source.is_unspecified() || is_host_v6(source)) || !is_device(packet.source_mac) {
        return Err(Ignored::Source);
    }
    Ok((packet.source_mac, if source.is_unspecified() { ALL_NODES } else { source }))
}

/// Whether there is an option with the sender's MAC. Nothing at all when an option is of length 0, or cut off.
fn has_source_address(mut options: &[u8]) -> Option<bool> {
    let mut found = false;
    while let &[kind, units, ..] = options {
        options = options.get(usize::from(units) * 8..).filter(|_| units > 0)?;
        found |= kind == SOURCE_ADDRESS;
    }
    options.is_empty().then_some(found)
}

/// When an interface advertises unasked (RFC 4861, 6.2.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    next: Instant,
    /// How many of the first ones are still to come.
    initial: u8,
    /// Where the random numbers are.
    state: u64,
}

impl Schedule {
    /// A schedule whose first advertisement is due now. Schedules with different seeds keep out of each other's way.
    pub fn new(seed: u64, now: Instant) -> Schedule {
        Schedule { next: now, initial: INITIAL, state: seed }
    }

    /// When the next one is due.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// What is told has changed: it begins anew, now.
    pub fn restart(&mut self, now: Instant) {
        (self.next, self.initial) = (now, INITIAL);
    }

    /// Whether one is due; if so, the next one comes later.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        self.initial = self.initial.saturating_sub(1);
        let range = MAX_INTERVAL.saturating_sub(MIN_INTERVAL);
        let wait = MIN_INTERVAL.saturating_add(range.mul_f64(self.random()));
        self.next = now.after(if self.initial > 0 { wait.min(INITIAL_INTERVAL) } else { wait });
        true
    }

    /// The next number of SplitMix64, from 0 up to 1.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default();
        f64::from(high) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
