//! Counters and drop reasons. Each packet ends in exactly one of: forwarded, flooded, answered, consumed, or dropped
//! with a [`DropReason`]; the sum of a port's ends is what it received. Copies of a flooded frame that could not leave
//! count as drops besides, as long as one of them could.
//!
//! A counter has one writer, the worker that owns its port, so it is a plain load and store of a relaxed atomic; anyone
//! may read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize};

/// A counter with one writer and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. For the counter's one writer only: two would lose counts (never more than that).
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// As [`Counter::add`], for a counter with several writers.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

macro_rules! drop_reasons {
    ($($(#[$meta:meta])* $variant:ident = $name:literal: $meaning:literal,)*) => {
        /// Why a frame was dropped. Names and meanings are public and stable.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The stable public name.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// The reason of this name.
            pub fn from_name(name: &str) -> Option<DropReason> {
                DropReason::ALL.iter().copied().find(|reason| reason.name() == name)
            }

            /// A sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $meaning,)* }
            }
        }
    };
}

drop_reasons! {
    Runt = "runt": "shorter than an Ethernet header (14 bytes)",
    Giant = "giant": "longer than the MTU of the port that it came from",
    TruncatedTag = "truncated_tag": "ends inside of a VLAN tag",
    ThirdTag = "third_tag": "carries more than two VLAN tags",
    BadLength = "bad_length": "its IEEE 802.3 length is longer than what follows, or neither a length nor an EtherType",
    SourceMulticast = "source_multicast": "its source address is a group address",
    SourceZero = "source_zero": "its source address is all zeros",
    ReservedMac = "reserved_mac": "addressed to 01-80-C2-00-00-0x, which no bridge forwards",
    BadOffload = "bad_offload": "its checksum or segmentation note does not fit the frame",
    TagNotAllowed = "tag_not_allowed": "tagged, on an access port",
    VlanNotAllowed = "vlan_not_allowed": "its VLAN is not one of this port's",
    UntaggedNotAllowed = "untagged_not_allowed": "untagged, on a port without a native network",
    VlanHop = "vlan_hop": "would leave untagged with a second tag, into another VLAN of the next switch",
    SamePort = "same_port": "its destination is behind the port that it came from",
    NoReceiver = "no_receiver": "no other port of its network is there to take it",
    MtuExceeded = "mtu_exceeded": "longer than the MTU of the port or network that it would leave by",
    NoBuffer = "no_buffer": "no free buffer",
    TxFull = "tx_full": "the device's send queue is full",
    TxError = "tx_error": "the device refused to send",
    HandoffFull = "handoff_full": "the ring to the worker of its port is full",
    PortDown = "port_down": "the port is down, or gone",
    UnderlayOther = "underlay_other": "arrived on the underlay and is neither of a tunnel nor for the local VTEP",
    OuterLength = "outer_length": "a tunnel packet whose IP or UDP length does not fit it",
    OuterChecksum = "outer_checksum": "a tunnel packet whose IP or UDP checksum is wrong",
    OuterFragment = "outer_fragment": "a fragment of a tunnel packet",
    TunnelHeader = "tunnel_header": "a tunnel packet whose VXLAN flags are wrong",
    UnknownVni = "unknown_vni": "a tunnel packet of a network that is not here",
    UnknownPeer = "unknown_peer": "a tunnel packet from a VTEP that is no peer of its network",
    InnerRunt = "inner_runt": "a tunnel packet with less than an Ethernet header in it",
    InnerTag = "inner_tag": "a VLAN tag inside of a tunnel",
    NestedTunnel = "nested_tunnel": "a frame of the underlay's own inside of a tunnel",
    Congestion = "congestion": "congestion was met on the underlay, and its packet cannot say so",
    SplitHorizon = "split_horizon": "came from a tunnel and would leave by another",
    Unresolved = "unresolved": "the next hop to its peer does not answer, or too many wait for it",
    RxTruncated = "rx_truncated": "the device delivered only a part of it",
    NotIp = "not_ip": "for a router, and neither IP nor ARP",
    NoRoute = "no_route": "the router has no route to its destination",
    TtlExceeded = "ttl_exceeded": "its TTL or hop limit ends at the router",
    DirectedBroadcast = "directed_broadcast": "to all hosts of another subnet, which no router forwards",
    RouterLoop = "router_loop": "passed too many routers of this switch in one go",
    OwnMac = "own_mac": "for a router itself, from its own MAC address: forged, or going round",
    NatUnmatched = "nat_unmatched": "to an address that NAT gives away, and of no connection or rule there",
    NatExhausted = "nat_exhausted": "no SNAT port or address is free for it",
    ConntrackInvalid = "conntrack_invalid": "cannot be of its connection, or begins none",
    NoService = "no_service": "for a router or for the switch itself, which has no such service",
    SecurityEgress = "security_egress": "no rule of its sender's security groups lets it out",
    SecurityIngress = "security_ingress": "no rule of its receiver's security groups lets it in",
    ConntrackFull = "conntrack_full": "there is no place for its connection",
    DhcpMalformed = "dhcp_malformed": "a DHCP message with a wrong length, checksum, address or option",
    DhcpUnsupported = "dhcp_unsupported": "no message of a DHCP client to a server, or of a kind that is not served",
    DhcpOtherServer = "dhcp_other_server": "a DHCP message for another server",
    DhcpOtherClient = "dhcp_other_client": "a DHCP message of a client that its port is not for",
    DhcpNoLease = "dhcp_no_lease": "a DHCP message, and there is no address or answer for it",
    DhcpLimit = "dhcp_limit": "a DHCP message beyond what one port may ask for",
    SlowPathFull = "slow_path_full": "too many of its port's requests wait for the slow path",
    IpVersion = "ip_version": "its IP version does not fit its EtherType",
    IpLength = "ip_length": "its IP header, or a length in it, does not fit the packet",
    IpChecksum = "ip_checksum": "the checksum of its IPv4 header is wrong",
    IpOptions = "ip_options": "its IPv4 options are malformed",
    SourceRoute = "source_route": "carries a source route option",
    RoutingHeader = "routing_header": "carries an IPv6 routing header of type 0",
    ExtensionOrder = "extension_order": "an IPv6 extension header where it may not stand",
    ExtensionCount = "extension_count": "too many IPv6 extension headers",
    MartianSource = "martian_source": "from an IP address that no host may send from",
    MartianDestination = "martian_destination": "to an IP address that never stands on a network",
    Land = "land": "its IP source and destination are the same",
    LinkLocal = "link_local": "from or to a link-local address, which no router forwards",
    NotUnicast = "not_unicast": "to an IP multicast group, which the router does not forward",
    TransportTruncated = "transport_truncated": "ends inside of its transport header",
    FragmentTiny = "fragment_tiny": "a first fragment without the whole transport header, or one that would overwrite it",
    FragmentLength = "fragment_length": "a fragment whose length is no multiple of 8, passes 65535, or contradicts the others'",
    FragmentOverlap = "fragment_overlap": "a fragment of a packet whose fragments overlap",
    FragmentDuplicate = "fragment_duplicate": "a fragment that was there already",
    FragmentLimit = "fragment_limit": "too many fragments wait for their first, or one packet has too many",
    FragmentExpired = "fragment_expired": "a fragment whose first did not come in time",
    IcmpQuote = "icmp_quote": "an ICMP error with too little of the packet that it is about",
    IcmpChecksum = "icmp_checksum": "an ICMP error whose checksum is wrong, or that of the IP header that it quotes",
    SpoofedMac = "spoofed_mac": "its source MAC is none that its port may send from; give the guest the port's MAC (nuswitch qemu PORT), or the port that of its guest (mac_address)",
    SpoofedIp = "spoofed_ip": "its source IP address does not go with its MAC at this port; give the port the address (fixed_ips, allowed_address_pairs)",
    SpoofedArp = "spoofed_arp": "an ARP packet that speaks for a MAC or an address that its port may not claim",
    SpoofedNd = "spoofed_nd": "a neighbour discovery message that speaks for a MAC or an address that its port may not claim",
    ArpMalformed = "arp_malformed": "an ARP packet that is cut off, or no request or reply of IPv4 over Ethernet",
    NdMalformed = "nd_malformed": "a neighbour discovery message that is cut off, fragmented, or has options that cannot be read",
    FloodLimit = "flood_limit": "floods its network, asks for neighbours, or begins connections, beyond what one port with port security may (conntrack.max_new_per_guest)",
    EthertypeNotAllowed = "ethertype_not_allowed": "neither IPv4, IPv6, ARP nor RARP, from a port with port security",
    GuestDhcpServer = "guest_dhcp_server": "what a DHCP server tells a client, from a port with port security",
    GuestRouterAdvertiser = "guest_router_advertiser": "a router advertisement or redirect, from a port with port security",
}

/// Counters of one port, as `show ports` and the API give them. Drops count at the port that the frame came from, but
/// for those of sending (`tx_…`, `handoff_full`), which count at the port that it should have left by.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames that the device gave us.
    pub rx_frames: Counter,
    /// Their bytes, without FCS.
    pub rx_bytes: Counter,
    /// Frames that the device took from us.
    pub tx_frames: Counter,
    /// Their bytes, without FCS.
    pub tx_bytes: Counter,
    /// Received here and sent to one known port.
    pub forwarded: Counter,
    /// Received here and sent to all other ports of the network.
    pub flooded: Counter,
    /// Received here and answered by the switch itself.
    pub answered: Counter,
    /// Received here and used up by the switch itself.
    pub consumed: Counter,
    drops: Drops,
}

#[derive(Debug)]
struct Drops([Counter; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Drops {
        Drops(std::array::from_fn(|_| Counter::default()))
    }
}

impl PortCounters {
    /// Counts `n` frames dropped for `reason`.
    #[inline]
    pub fn count_drop(&self, reason: DropReason, n: u64) {
        self.drops.0[reason as usize].add(n);
    }

    /// As [`PortCounters::count_drop`], for reasons that any worker may count.
    #[inline]
    pub fn count_drop_shared(&self, reason: DropReason, n: u64) {
        if n > 0 {
            self.drops.0[reason as usize].add_shared(n);
        }
    }

    /// Frames dropped for `reason` so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].get()
    }

    /// The counts now.
    pub fn snapshot(&self) -> PortSnapshot {
        PortSnapshot {
            rx_frames: self.rx_frames.get(),
            rx_bytes: self.rx_bytes.get(),
            tx_frames: self.tx_frames.get(),
            tx_bytes: self.tx_bytes.get(),
            forwarded: self.forwarded.get(),
            flooded: self.flooded.get(),
            answered: self.answered.get(),
            consumed: self.consumed.get(),
            drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason.name(), self.dropped(reason)))
                .filter(|&(_, count)| count > 0)
                .collect(),
        }
    }
}

/// The counts of a port at one moment; drop reasons that never occurred are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // as in PortCounters
pub struct PortSnapshot {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub forwarded: u64,
    pub flooded: u64,
    pub answered: u64,
    pub consumed: u64,
    #[serde(deserialize_with = "known_drops")]
    pub drops: BTreeMap<&'static str, u64>,
}

fn known_drops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let drops = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let known = |(name, count): (String, u64)| match DropReason::from_name(&name) {
        Some(reason) => Ok((reason.name(), count)),
        None => Err(serde::de::Error::custom(format!("`{name}` is not a drop reason of this version"))),
    };
    drops.into_iter().map(known).collect()
}

impl PortSnapshot {
    /// Frames dropped, over all reasons.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}
