//! A rule of a security group.

use std::fmt;

use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::protocol;

/// One rule: what may begin a connection. It is about one IP version and at most one range of ports; where the file says more
/// in one line, it has several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecurityRule {
    /// Which way.
    pub direction: Direction,
    /// The IP version.
    pub ethertype: Ethertype,
    /// The IP protocol; none: any. Never 0.
    pub protocol: Option<u8>,
    /// First and last destination port; none: any. Of TCP, UDP, UDP-Lite, SCTP and DCCP alone, never 0.
    pub ports: Option<(u16, u16)>,
    /// Type and code (none: any) of ICMP and ICMPv6; none: any type.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Who is at the other end.
    pub remote: RuleRemote,
    /// For people.
    pub description: Option<String>,
}

/// The way of a packet, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It enters the guest.
    Ingress,
    /// It leaves the guest.
    Egress,
}

/// Neutron's word for the IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Ethertype {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RuleRemote {
    /// Anybody; a prefix of length 0 says the same.
    Any,
    /// An address of the prefix, which is of the rule's IP version and has no host bits.
    Prefix(IpNet),
    /// A member of the security group of this name.
    Group(String),
    /// An address of the address group of this name.
    AddressGroup(String),
}

impl SecurityRule {
    /// Stable for the group's name and what the rule says: UUID version 5.
    pub fn id(&self, group: &str) -> Uuid {
        crate::model::id("security_group_rule", &format!("{group}/{self}"))
    }

    /// Neutron's name of its protocol, or the number where that has none; none: any.
    pub fn protocol_name(&self) -> Option<String> {
        self.protocol.map(|number| match protocol::name(number) {
            Some(name) => name.to_owned(),
            None => number.to_string(),
        })
    }

    /// Whether it lets the same pass, whatever people are told of it.
    pub fn says_the_same_as(&self, other: &SecurityRule) -> bool {
        // Taken apart, so that nothing new can be forgotten here.
        let SecurityRule { direction, ethertype, protocol, ports, icmp, remote, description: _ } = self;
        (direction, ethertype, protocol, ports, icmp, remote)
            == (&other.direction, &other.ethertype, &other.protocol, &other.ports, &other.icmp, &other.remote)
    }
}

impl Ethertype {
    /// Both.
    pub const ALL: [Ethertype; 2] = [Ethertype::V4, Ethertype::V6];

    /// That of an address or prefix.
    pub fn of(net: &IpNet) -> Ethertype {
        match net {
            IpNet::V4(_) => Ethertype::V4,
            IpNet::V6(_) => Ethertype::V6,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

impl fmt::Display for Ethertype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ethertype::V4 => "IPv4",
            Ethertype::V6 => "IPv6",
        })
    }
}

/// As a person reads it, without the description: `ingress IPv4 tcp 80-443 from 192.0.2.0/24`. Two rules that read the same are
/// the same.
impl fmt::Display for SecurityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction, self.ethertype)?;
        if let Some(number) = self.protocol {
            match protocol::name(number) {
                Some(name) => write!(f, " {name}")?,
                None => write!(f, " protocol {number}")?,
            }
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, " {first}")?,
            Some((first, last)) => write!(f, " {first}-{last}")?,
            None => {}
        }
        match self.icmp {
            Some((kind, Some(code))) => write!(f, " type {kind} code {code}")?,
            Some((kind, None)) => write!(f, " type {kind}")?,
            None => {}
        }
        let preposition = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        match &self.remote {
            RuleRemote::Any => Ok(()),
            RuleRemote::Prefix(net) => write!(f, " {preposition} {net}"),
            RuleRemote::Group(name) => write!(f, " {preposition} group {name}"),
            RuleRemote::AddressGroup(name) => write!(f, " {preposition} address group {name}"),
        }
    }
}
