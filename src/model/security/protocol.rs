//! IP protocols by Neutron's names (`IP_PROTOCOL_MAP` of neutron-lib) and IANA's numbers, and what rules can say of each.

/// ICMP.
pub const ICMP: u8 = 1;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Names and numbers; of two names for one number the first is the one that is shown. Neutron's 0 means every protocol.
const NAMES: &[(&str, u8)] = &[
    ("any", 0),
    ("ip", 0),
    ("hopopt", 0),
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", ICMPV6),
    ("icmpv6", ICMPV6),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The number of a name.
pub(super) fn number(name: &str) -> Option<u8> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a number, where Neutron has one.
pub fn name(number: u8) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// Whether rules can name its ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

/// Whether it has types and codes.
pub(super) fn is_icmp(number: u8) -> bool {
    matches!(number, ICMP | ICMPV6)
}

/// Whether no IPv4 packet carries it: ICMPv6, and what belongs to IPv6's header.
pub(super) fn is_ipv6_only(number: u8) -> bool {
    matches!(number, 43 | 44 | ICMPV6 | 59 | 60)
}
