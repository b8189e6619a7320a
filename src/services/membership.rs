//! Group membership of a host: IGMPv3 (RFC 3376) and MLDv2 (RFC 3810), and their forerunners where a querier speaks
//! them, so that switches and routers let a group's packets through to us.
//!
//! A group is told of twice when it is joined, once for each query, and, unless the querier is of version 1, when it is left.
//! All go out by `poll`, one group a message. Queries are answered at once instead of after a random delay, because
//! nothing here is random; so that a flood of queries is none of answers, a group answers at most ten times a second.
//! Sources are not filtered: we are in a group with all of them.
//!
//! MLD wants a link-local source (RFC 3810, 5.2.13): the one that follows from our MAC (RFC 4291, appendix A). Nobody
//! writes to it, so it is nowhere else known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::Ignored;
use super::packet::{Message, Packet, V4, V6, link};
use crate::types::{Instant, Mac};
use crate::wire::ethernet::{self, multicast_mac};
use crate::wire::protocol;

/// Messages of IGMP (RFC 3376, 4; RFC 2236, 2.1; RFC 1112, appendix I), and of MLD (RFC 3810, 5; RFC 2710, 3.1).
const QUERY_V4: u8 = 0x11;
const REPORT_V4: [u8; 3] = [0x12, 0x16, 0x22];
const LEAVE_V4: u8 = 0x17;
const QUERY_V6: u8 = 130;
const REPORT_V6: [u8; 2] = [131, 143];
const LEAVE_V6: u8 = 132;
/// Types of group records (RFC 3376, 4.2.12; RFC 3810, 5.2.12), each with an empty list of sources.
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
/// How often a change is told (RFC 3376, 8.1; RFC 3810, 9.1), and how far apart (8.11; 9.11).
const ROBUSTNESS: u8 = 2;
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an older querier is remembered: robustness times 125 s, and 10 s (RFC 3376, 8.12; RFC 3810, 9.12).
const OLDER_QUERIER: Duration = Duration::from_secs(260);
/// Least time between two messages about one group in answer to queries.
const GAP: Duration = Duration::from_millis(100);

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_V2_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// What the querier speaks. MLDv1 counts as 2 and MLDv2 as 3, as IGMP's versions that they are modelled on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Version {
    V1,
    V2,
    V3,
}

#[derive(Debug)]
struct Group {
    member: bool,
    /// How often the last change is still to be told.
    untold: u8,
    due: Option<Instant>,
    told: Option<Instant>,
}

/// The groups that we are in, on one link and of one IP version.
#[derive(Debug)]
pub struct Membership {
    mac: Mac,
    local: IpAddr,
    groups: BTreeMap<IpAddr, Group>,
    /// Until when queriers of versions 1 and 2 are reckoned with.
    older: [Option<Instant>; 2],
    /// The first of the groups' times.
    deadline: Option<Instant>,
}

impl Membership {
    /// No groups yet, for the host that has `local` and `mac`.
    pub fn new(mac: Mac, local: IpAddr) -> Membership {
        Membership { mac, local, groups: BTreeMap::new(), older: [None; 2], deadline: None }
    }

    /// The host has another MAC or address: all groups are told of anew.
    pub fn identify(&mut self, mac: Mac, local: IpAddr, now: Instant) {
        (self.mac, self.local) = (mac, local);
        for group in self.groups.values_mut().filter(|group| group.member) {
            (group.untold, group.due) = (ROBUSTNESS, Some(now));
        }
        self.reckon();
    }

    /// True for a group that we are in.
    pub fn contains(&self, group: IpAddr) -> bool {
        self.groups.get(&group).is_some_and(|group| group.member)
    }

    /// Makes the groups that we are in those of `wanted`. All nodes' groups, which nobody joins (RFC 3376, 6; RFC 3810, 6),
    /// and addresses of the other IP version or of no group, are passed over.
    pub fn set(&mut self, wanted: impl Iterator<Item = IpAddr>, now: Instant) {
        let local = self.local;
        let wanted: BTreeSet<IpAddr> =
            wanted.filter(|ip| ip.is_ipv4() == local.is_ipv4() && is_told(*ip)).collect();
        for (ip, group) in &mut self.groups {
            if group.member && !wanted.contains(ip) {
                *group = Group { member: false, untold: ROBUSTNESS, due: Some(now), told: group.told };
            }
        }
        for ip in wanted {
            let group =
                self.groups.entry(ip).or_insert(Group { member: false, untold: 0, due: None, told: None });
            if !group.member {
                *group = Group { member: true, untold: ROBUSTNESS, due: Some(now), told: group.told };
            }
        }
        self.reckon();
    }

    /// A message of IGMP or MLD. Answers to a query become due.
    ///
    /// # Errors
    /// [`Ignored::Protocol`] when it is none for hosts (reports, which suppress nothing in version 3), and others when it
    /// is not valid: RFC 3376, 4 and 7.1; RFC 3810, 6.2 and 8.1.
    pub fn receive(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), Ignored> {
        let (about, version) = match self.local {
            IpAddr::V4(_) => query_v4(packet)?,
            IpAddr::V6(_) => query_v6(packet)?,
        };
        match version {
            Version::V1 => self.older[0] = Some(now.after(OLDER_QUERIER)),
            Version::V2 => self.older[1] = Some(now.after(OLDER_QUERIER)),
            Version::V3 => {}
        }
        for (ip, group) in &mut self.groups {
            if group.member && (about.is_unspecified() || about == *ip) {
                let earliest = group.told.map_or(now, |told| now.max(told.after(GAP)));
                group.due = Some(group.due.map_or(earliest, |due| due.min(earliest)));
            }
        }
        self.reckon();
        Ok(())
    }

    /// Sends what is due.
    pub fn poll(&mut self, now: Instant, mut send: impl FnMut(&Message)) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let version = self.version(now);
        for (&ip, group) in &mut self.groups {
            if group.due.is_none_or(|due| due > now) {
                continue;
            }
            let record = match (group.member, group.untold) {
                (true, 0) => IS_EXCLUDE,
                (true, _) => TO_EXCLUDE,
                (false, _) => TO_INCLUDE,
            };
            if let Some(message) = report(self.mac, self.local, ip, record, version) {
                send(&message);
            }
            group.told = Some(now);
            group.untold = group.untold.saturating_sub(1);
            if !group.member && version < Version::V3 {
                group.untold = 0; // leaving is told once (RFC 2236, 3; RFC 2710, 4)
            }
            group.due = (group.untold > 0).then(|| now.after(INTERVAL));
        }
        self.groups.retain(|_, group| group.member || group.due.is_some());
        self.reckon();
    }

    /// When [`Membership::poll`] has something to do next; nothing: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn reckon(&mut self) {
        self.deadline = self.groups.values().filter_map(|group| group.due).min();
    }

    fn version(&self, now: Instant) -> Version {
        let [v1, v2] = self.older.map(|until| until.is_some_and(|until| until > now));
        match (v1, v2) {
            (true, _) => Version::V1,
            (_, true) => Version::V2,
            _ => Version::V3,
        }
    }
}

/// True for groups that are told of: not all nodes', not those that never leave the host (RFC 3810, 6).
fn is_told(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() && ip != ALL_SYSTEMS,
        IpAddr::V6(ip) => {
            let [_, scope, ..] = ip.octets();
            ip.is_multicast() && scope & 0xf >= 2 && ip != super::nd::ALL_NODES
        }
    }
}

/// The group that a query of IGMP is about, or the unspecified address for all, and its version (RFC 3376, 7.1).
fn query_v4(packet: &Packet<'_>) -> Result<(IpAddr, Version), Ignored> {
    let message = packet.verified(protocol::IGMP)?;
    let &[kind, longest, _, _, a, b, c, d] = message.first_chunk().ok_or(Ignored::Malformed)?;
    if kind != QUERY_V4 {
        return Err(Ignored::Protocol);
    }
    if packet.hops != 1 {
        return Err(Ignored::Invalid);
    }
    let version = match (message.len(), longest) {
        (8, 0) => Version::V1,
        (8, _) => Version::V2,
        (12.., _) => Version::V3,
        _ => return Err(Ignored::Malformed),
    };
    Ok((Ipv4Addr::new(a, b, c, d).into(), version))
}

/// As [`query_v4`], for MLD (RFC 3810, 6.2 and 8.1).
fn query_v6(packet: &Packet<'_>) -> Result<(IpAddr, Version), Ignored> {
    let message = packet.verified(protocol::ICMPV6)?;
    if message.first() != Some(&QUERY_V6) {
        return Err(Ignored::Protocol);
    }
    let group: &[u8; 16] = message.get(8..).and_then(|rest| rest.first_chunk()).ok_or(Ignored::Malformed)?;
    let link_local = matches!(packet.source, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if packet.hops != 1 || !link_local || !packet.alerts_mld() {
        return Err(Ignored::Invalid);
    }
    let version = match message.len() {
        24 => Version::V2,
        28.. => Version::V3,
        _ => return Err(Ignored::Malformed),
    };
    Ok((Ipv6Addr::from(*group).into(), version))
}

/// The message that tells of one group, or nothing when the version has none for it: version 1 tells of no leaving.
fn report(mac: Mac, local: IpAddr, group: IpAddr, record: u8, version: Version) -> Option<Message> {
    let leaves = record == TO_INCLUDE;
    if leaves && version == Version::V1 {
        return None;
    }
    let head = [record, 0, 0, 0];
    match (local, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            let (destination, kind) = match version {
                Version::V3 => (ALL_V3_ROUTERS, REPORT_V4[2]),
                Version::V2 if leaves => (ALL_ROUTERS, LEAVE_V4),
                Version::V2 => (group, REPORT_V4[1]),
                Version::V1 => (group, REPORT_V4[0]),
            };
            let to = link(multicast_mac(destination.into())?, mac, ethernet::IPV4);
            let (protocol, ttl, class, id) = (protocol::IGMP, 1, 0xc0, None);
            let router_alert = version > Version::V1;
            let ip = V4 { source, destination, protocol, ttl, class, id, router_alert };
            let octets = group.octets();
            Some(match version {
                Version::V3 => ip.message(&to, &[&[kind, 0, 0, 0, 0, 0, 0, 1], &head, &octets]),
                _ => ip.message(&to, &[&[kind, 0, 0, 0], &octets]),
            })
        }
        (IpAddr::V6(_), IpAddr::V6(group)) => {
            let (destination, kind) = match version {
                Version::V3 => (ALL_V2_ROUTERS_V6, REPORT_V6[1]),
                _ if leaves => (ALL_ROUTERS_V6, LEAVE_V6),
                _ => (group, REPORT_V6[0]),
            };
            let to = link(multicast_mac(destination.into())?, mac, ethernet::IPV6);
            let source = link_local(mac);
            let ip = V6 { source, destination, hop_limit: 1, class: 0, router_alert: true };
            let octets = group.octets();
            Some(match version {
                Version::V3 => ip.message(&to, &[&[kind, 0, 0, 0, 0, 0, 0, 1], &head, &octets]),
                _ => ip.message(&to, &[&[kind, 0, 0, 0, 0, 0, 0, 0], &octets]),
            })
        }
        _ => None,
    }
}

/// The link-local address that follows from a MAC (RFC 4291, 2.5.6 and appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let Mac([a, b, c, d, e, f]) = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests;
