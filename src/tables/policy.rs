//! Rules of security groups, compiled for look-up.

use std::net::IpAddr;

use ipnet::IpNet;

/// The IP version that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ethertype {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A rule, as the compiler takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub ethertype: Ethertype,
    /// The IP protocol; none: any. ICMPv6 is 58 here, whatever word the user chose.
    pub protocol: Option<u8>,
    /// First and last destination port (TCP, UDP, UDP-Lite, SCTP, DCCP); none: any. ICMP: see [`Rule::icmp`].
    pub ports: Option<(u16, u16)>,
    /// ICMP and ICMPv6: the type, and the code (none: any); none: any type.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Who is at the other end.
    pub remote: Remote,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Anybody.
    Any,
    /// An address of one of these prefixes, of the rule's IP version: a remote prefix, or an address group.
    Prefixes(Vec<IpNet>),
    /// An address of a member of the security group with this number.
    Group(u32),
}

/// A packet that would begin a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The other end: the destination of what leaves the guest, the source of what enters it.
    pub remote: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The destination port; ICMP: type in the high byte, code in the low one; other protocols: 0.
    pub port: u16,
}

/// Rules of one direction.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {}

/// Who is a member of which security group: by address.
#[derive(Clone, Debug, Default)]
pub struct Members {}

impl RuleSet {
    /// Compiles rules; the number of a rule is its place.
    pub fn compile(_rules: &[Rule]) -> RuleSet {
        RuleSet::default()
    }

    /// The number of a rule that lets the packet through: the lowest of those that do. Nothing: none does.
    pub fn admits(&self, _packet: &Packet, _members: &Members) -> Option<u32> {
        None
    }
}

impl Members {
    /// Who is a member: numbers of groups and prefixes of their members.
    pub fn new(_members: impl Iterator<Item = (u32, IpNet)>) -> Members {
        Members::default()
    }
}
