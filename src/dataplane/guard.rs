//! Port security: what a guest sends is only what its port may claim ([`Claims`]). It is decided before anything is learned of
//! a frame, and whatever the security groups say (RFC 2827; RFC 6620 has the same aim).
//!
//! - The source MAC is one of the port's. EtherTypes are IPv4, IPv6, ARP and RARP; a VLAN tag behind the port's own hides nothing.
//! - The IP source goes with that MAC. The unspecified address stands only where a host has none yet: DHCP as a client and
//!   IGMP; duplicate address detection for an address that the guest may claim, router solicitations (RFC 4861, 4.1) and MLD.
//! - ARP, RARP and neighbour discovery speak for the port's own MACs and addresses alone. A probe for an address (RFC 5227, 2.1.1;
//!   RFC 4862, 5.4) speaks for it too: it keeps others from taking it.
//! - No guest is a DHCP server: nothing goes to a client's port, 68 or 546, from whatever port, as clients do not look at
//!   that. No guest advertises routers, by ICMPv6, by redirects of it, or by ICMP (RFC 1256).
//! - Neither options, extension headers nor fragments hide any of this: a first fragment has its whole transport header, a
//!   later one is checked by its addresses, and neighbour discovery comes in no fragments (RFC 6980). A header that would have
//!   to be looked at and cannot be is a reason to refuse.
//! - An unfinished checksum is the transport's own ([`super::segment::check`]): else whoever finishes it would write over what
//!   was checked here.
//!
//! Where nothing is known of addresses ([`Claims::any_address`]) MACs are checked and servers and routers refused, no more.
//!
//! Limits: headers lie in the frame's head. What a guest carries inside of a tunnel or of IPsec is not looked at. A port's
//! list of addresses is walked, but for packets from its first MAC and address: it should be short.

mod ip;
mod neighbour;

use std::net::IpAddr;

use super::ingress::{Classified, Stop};
use super::tracer::Tracer;
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::security::{Claims, Guard};
use crate::types::Mac;
use crate::wire::ethernet::{ARP, Ethernet, HEADER, IPV4, IPV6, RARP, is_tag};
use crate::wire::ipv4::{FRAGMENT_OFFSET, MORE_FRAGMENTS};
use crate::wire::{dhcp4, dhcp6, ipv4, ipv6, protocol};

/// Bytes that nearly all frames are known by: the headers of Ethernet and IPv4, and ports.
const PLAIN: usize = HEADER + ipv4::HEADER + 4;
/// The same of IPv6.
const PLAIN6: usize = HEADER + ipv6::HEADER + 4;
/// Version 4 and a header of five words.
const VERSION: u8 = 0x45;

/// What a port may claim, with what nearly all its frames are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Checker<'c> {
    claims: &'c Claims,
    /// The first MAC and the EtherType of IPv4, as a little-endian load gives them.
    source: u64,
    /// The first IPv4 address or prefix, and the bits of it that count.
    net: u32,
    mask: u32,
    /// The same of IPv6, of the first that is not link-local.
    net6: u128,
    mask6: u128,
}

impl<'c> Checker<'c> {
    /// A checker for the frames of one port.
    pub fn new(claims: &'c Claims) -> Checker<'c> {
        let first = claims.stations.first();
        // A group's MAC is nobody's source; an address without any bits is never 1.
        let source =
            first.map_or(u64::MAX, |station| station.mac.to_bits() | u64::from(IPV4.swap_bytes()) << 48);
        let (net, mask) = match first.and_then(|station| station.v4.first()) {
            _ if claims.any_address => (0, 0),
            Some(net) => (net.network().to_bits(), net.netmask().to_bits()),
            None => (1, 0),
        };
        let mut v6 = first.into_iter().flat_map(|station| &station.v6);
        let (net6, mask6) = match v6.find(|net| !net.network().is_unicast_link_local()) {
            _ if claims.any_address => (0, 0),
            Some(net) => (net.network().to_bits(), net.netmask().to_bits()),
            None => (1, 0),
        };
        Checker { claims, source, net, mask, net6, mask6 }
    }

    /// Whether the port may send this frame. It is one that ingress has nothing against: its own tag is off.
    ///
    /// # Errors
    /// [`DropReason::SpoofedMac`], [`DropReason::SpoofedIp`], [`DropReason::SpoofedArp`], [`DropReason::SpoofedNd`],
    /// [`DropReason::EthertypeNotAllowed`], [`DropReason::ThirdTag`], [`DropReason::GuestDhcpServer`], [`DropReason::GuestRouterAdvertiser`]; and for
    /// what cannot be judged [`DropReason::ArpMalformed`], [`DropReason::NdMalformed`],
    /// [`DropReason::TransportTruncated`], [`DropReason::FragmentTiny`] and what else [`super::check`] refuses in the lengths
    /// of IP headers.
    #[inline(always)]
    pub fn check(&self, frame: &Frame) -> Result<(), DropReason> {
        if self.is_plain(frame) { Ok(()) } else { self.check_other(frame) }
    }

    #[inline(never)]
    fn check_other(&self, frame: &Frame) -> Result<(), DropReason> {
        if self.is_plain6(frame) { Ok(()) } else { look(frame, self.claims) }
    }

    /// As [`Checker::is_plain`]: TCP and UDP over IPv6, without extension headers.
    #[inline(always)]
    fn is_plain6(&self, frame: &Frame) -> bool {
        let Some(head) = frame.head().first_chunk::<PLAIN6>() else { return false };
        let [_, _, _, _, _, _, m0, m1, m2, m3, m4, m5, t0, t1, version, _, _, _, l0, l1, protocol, _, ..] =
            *head;
        let &[.., p0, p1] = head;
        let Some(from) = head.get(HEADER + 8..).and_then(<[u8]>::first_chunk::<16>) else { return false };
        let mac = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0]);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        (mac == self.source & Mac::MASK)
            & (u16::from_be_bytes([t0, t1]) == IPV6)
            & (version >> 4 == 6)
            & (len >= 8)
            & (HEADER + ipv6::HEADER + len <= frame.len())
            & (u128::from_be_bytes(*from) & self.mask6 == self.net6)
            & ((protocol == protocol::TCP) | (protocol == protocol::UDP))
            & (u16::from_be_bytes([p0, p1]) != dhcp6::CLIENT_PORT)
    }

    /// What nearly all frames are: IPv4 from the first MAC and address, whole, without options, and neither to a DHCP client
    /// nor ICMP. For others [`look`] decides.
    #[inline(always)]
    fn is_plain(&self, frame: &Frame) -> bool {
        let Some(head) = frame.head().first_chunk::<PLAIN>() else { return false };
        let &[
            ..,
            t0,
            t1,
            version,
            _,
            _,
            _,
            _,
            _,
            f0,
            f1,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            _,
            _,
            _,
            _,
            _,
            _,
            p0,
            p1,
        ] = head;
        let [_, _, _, _, _, _, m0, m1, m2, m3, m4, m5, ..] = *head;
        let source = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, t0, t1]);
        let parts = u16::from_be_bytes([f0, f1]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
        // All at once: one branch that is almost always taken.
        (source == self.source)
            & (version == VERSION)
            & (u32::from_be_bytes([s0, s1, s2, s3]) & self.mask == self.net)
            & (parts == 0)
            & (protocol != protocol::ICMP)
            & (u16::from_be_bytes([p0, p1]) != dhcp4::CLIENT_PORT)
    }
}

/// What the checks of protocols are about.
struct Look<'c> {
    claims: &'c Claims,
    /// The frame's source, one of the port's MACs.
    mac: Mac,
}

impl Look<'_> {
    fn has_mac(&self, mac: Mac) -> bool {
        self.claims.stations.iter().any(|station| station.mac == mac)
    }

    /// Whether `mac` is the port's and may speak for an address.
    fn may_claim(&self, mac: Mac, address: impl Into<IpAddr>) -> bool {
        if self.claims.any_address { self.has_mac(mac) } else { self.claims.allows(mac, address.into()) }
    }
}

/// The whole look at a frame.
#[inline(never)]
fn look(frame: &Frame, claims: &Claims) -> Result<(), DropReason> {
    let ethernet = Ethernet::new_checked(frame.head()).map_err(|_| DropReason::Runt)?;
    let look = Look { claims, mac: ethernet.source() };
    if !look.has_mac(look.mac) {
        return Err(DropReason::SpoofedMac);
    }
    if !claims.any_address && ethernet.tags().next().is_some() {
        return Err(DropReason::EthertypeNotAllowed);
    }
    let at = ethernet.header_len();
    let (packet, len) = (ethernet.payload(), frame.len().saturating_sub(at));
    match ethernet.ethertype() {
        IPV4 => ip::v4(&look, packet, len),
        IPV6 => ip::v6(&look, packet, len),
        ARP => neighbour::arp(&look, packet),
        RARP => neighbour::rarp(&look, packet),
        kind if is_tag(kind) => Err(DropReason::ThirdTag),
        len if len < LEAST_ETHERTYPE && hides_other(packet) => Err(DropReason::EthertypeNotAllowed),
        _ if claims.any_address => Ok(()),
        _ => Err(DropReason::EthertypeNotAllowed),
    }
}

/// The least EtherType; what is less is a length (IEEE 802.3, 3.2.6).
const LEAST_ETHERTYPE: u16 = 0x600;

/// Whether a frame with a length has in a SNAP header (RFC 1042) what it could have as its EtherType: some hosts take it for that.
fn hides_other(packet: &[u8]) -> bool {
    let Some([0xaa, 0xaa, _, 0, 0, 0, k0, k1]) = packet.first_chunk() else { return false };
    let kind = u16::from_be_bytes([*k0, *k1]);
    matches!(kind, IPV4 | IPV6 | ARP | RARP) || is_tag(kind)
}

/// Refuses those frames of a burst that the port may not send. Whoever would be told that its packet is too big is checked too.
#[inline(never)]
pub(super) fn check_burst(
    burst: &[Frame],
    classified: &mut [Result<Classified, Stop>],
    guard: &Guard,
    tracer: &mut impl Tracer,
) {
    let checker = Checker::new(&guard.claims);
    for (frame, classified) in burst.iter().zip(classified) {
        if !matches!(classified, Ok(_) | Err(Stop::TooBig(..))) {
            continue;
        }
        match checker.check(frame) {
            Ok(()) => tracer.say("guard", || "its port may send from these addresses".to_owned()),
            Err(reason) => {
                tracer.say("guard", || explain(frame, &guard.claims, reason));
                *classified = Err(reason.into());
            }
        }
    }
}

/// What would have been allowed.
#[cold]
fn explain(frame: &Frame, claims: &Claims, reason: DropReason) -> String {
    fn list(items: impl Iterator<Item = String>) -> String {
        items.collect::<Vec<_>>().join(", ")
    }
    let source = Ethernet::new_checked(frame.head()).map(|ethernet| ethernet.source()).unwrap_or_default();
    match (reason, claims.stations.iter().find(|station| station.mac == source)) {
        (DropReason::SpoofedMac, _) => {
            let macs = list(claims.stations.iter().map(|station| station.mac.to_string()));
            format!("comes from {source}; its port may send from {macs}")
        }
        (DropReason::SpoofedIp | DropReason::SpoofedArp | DropReason::SpoofedNd, Some(station))
            if !claims.any_address =>
        {
            let v4 = station.v4.iter().map(ToString::to_string);
            let nets = list(v4.chain(station.v6.iter().map(ToString::to_string)));
            format!("claims what is not its own; {source} may claim {nets}")
        }
        _ => "is nothing that its port may send".to_owned(),
    }
}

#[cfg(test)]
mod tests;
