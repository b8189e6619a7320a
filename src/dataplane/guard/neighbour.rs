//! ARP, RARP and neighbour discovery from a guest: whom it speaks for.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Look;
use crate::stats::DropReason;
use crate::types::Mac;

/// How ARP of IPv4 over Ethernet begins: hardware, protocol, the lengths of their addresses (RFC 826).
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// What a RARP client asks (RFC 903).
const REVERSE_REQUEST: u16 = 3;
/// Bytes before the options of a router solicitation, and of the messages with a target (RFC 4861, 4.1, 4.3 and 4.4).
const ROUTER_SOLICITATION: usize = 8;
const WITH_TARGET: usize = 24;
/// Options with a link-layer address: the source's, the target's (RFC 4861, 4.6.1). Those of Ethernet have eight bytes.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Solicited-node multicast addresses: all but the last 24 bits (RFC 4291, 2.7.1).
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000 >> 24;

/// Checks an ARP packet (RFC 826; RFC 5227 for probes and announcements).
#[cold]
pub(super) fn arp(look: &Look<'_>, packet: &[u8]) -> Result<(), DropReason> {
    let packet: &[u8; 28] = packet.first_chunk().ok_or(DropReason::ArpMalformed)?;
    let [h0, h1, p0, p1, hardware_len, protocol_len, o0, o1, rest @ ..] = *packet;
    let [m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = rest;
    let operation = u16::from_be_bytes([o0, o1]);
    if [h0, h1, p0, p1, hardware_len, protocol_len] != ETHERNET_IPV4 || !matches!(operation, REQUEST | REPLY)
    {
        return Err(DropReason::ArpMalformed);
    }
    let mac = Mac([m0, m1, m2, m3, m4, m5]);
    let (sender, target) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(t0, t1, t2, t3));
    let is_probe = sender == Ipv4Addr::UNSPECIFIED && operation == REQUEST;
    let claimed = if is_probe { target } else { sender };
    if mac == look.mac && (look.may_claim(mac, sender) || look.may_claim(mac, claimed)) {
        Ok(())
    } else {
        Err(DropReason::SpoofedArp)
    }
}

/// Checks a RARP packet: a hypervisor says by one that asks for the guest's own address where the guest is now, after it moved
/// (RFC 903 has it for hosts that do not know their address). No guest gives addresses to others.
#[cold]
pub(super) fn rarp(look: &Look<'_>, packet: &[u8]) -> Result<(), DropReason> {
    let packet: &[u8; 28] = packet.first_chunk().ok_or(DropReason::ArpMalformed)?;
    let [h0, h1, p0, p1, hardware_len, protocol_len, o0, o1, rest @ ..] = *packet;
    let [m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, t0, t1, t2, t3] = rest;
    if [h0, h1, p0, p1, hardware_len, protocol_len] != ETHERNET_IPV4
        || u16::from_be_bytes([o0, o1]) != REVERSE_REQUEST
    {
        return Err(DropReason::ArpMalformed);
    }
    let own = |mac: Mac, address: Ipv4Addr| {
        look.has_mac(mac) && (address == Ipv4Addr::UNSPECIFIED || look.may_claim(mac, address))
    };
    let sender = Mac([m0, m1, m2, m3, m4, m5]);
    let is_own = sender == look.mac
        && own(sender, Ipv4Addr::new(s0, s1, s2, s3))
        && own(Mac([n0, n1, n2, n3, n4, n5]), Ipv4Addr::new(t0, t1, t2, t3));
    if is_own { Ok(()) } else { Err(DropReason::SpoofedArp) }
}

/// Checks a router solicitation.
#[cold]
pub(super) fn solicits_router(look: &Look<'_>, source: Ipv6Addr, message: &[u8]) -> Result<(), DropReason> {
    source_macs(look, source, message.get(ROUTER_SOLICITATION..))
}

/// Checks a neighbour solicitation between these addresses.
#[cold]
pub(super) fn solicits(
    look: &Look<'_>,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    message: &[u8],
) -> Result<(), DropReason> {
    let target = target(message)?;
    source_macs(look, source, message.get(WITH_TARGET..))?;
    let is_probe = source == Ipv6Addr::UNSPECIFIED;
    let is_right = destination.to_bits() >> 24 == SOLICITED_NODE && look.may_claim(look.mac, target);
    if is_probe && !is_right { Err(DropReason::SpoofedNd) } else { Ok(()) }
}

/// Checks a neighbour advertisement: with each MAC that it tells, or else the frame's, the guest may claim its target.
#[cold]
pub(super) fn advertises(look: &Look<'_>, message: &[u8]) -> Result<(), DropReason> {
    let target = target(message)?;
    let mut told = false;
    macs(message.get(WITH_TARGET..), |mac| {
        told = true;
        look.may_claim(mac, target)
    })?;
    if told || look.may_claim(look.mac, target) { Ok(()) } else { Err(DropReason::SpoofedNd) }
}

fn target(message: &[u8]) -> Result<Ipv6Addr, DropReason> {
    let octets: Option<&[u8; 16]> = message.get(8..).and_then(<[u8]>::first_chunk);
    octets.map(|octets| Ipv6Addr::from(*octets)).ok_or(DropReason::NdMalformed)
}

/// The MACs of a solicitation are the port's, and one from the unspecified address has none (RFC 4861, 6.1.1 and 7.1.1).
fn source_macs(look: &Look<'_>, source: Ipv6Addr, options: Option<&[u8]>) -> Result<(), DropReason> {
    macs(options, |mac| source != Ipv6Addr::UNSPECIFIED && look.has_mac(mac))
}

/// Walks over options (RFC 4861, 4.6); each link-layer address in them must be one that `may_tell`.
fn macs(options: Option<&[u8]>, mut may_tell: impl FnMut(Mac) -> bool) -> Result<(), DropReason> {
    let mut rest = options.ok_or(DropReason::NdMalformed)?;
    while !rest.is_empty() {
        let &[kind, units, a, b, c, d, e, f] = rest.first_chunk().ok_or(DropReason::NdMalformed)?;
        if matches!(kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER) {
            if units != 1 {
                return Err(DropReason::NdMalformed);
            }
            if !may_tell(Mac([a, b, c, d, e, f])) {
                return Err(DropReason::SpoofedNd);
            }
        }
        rest = match usize::from(units) * 8 {
            0 => return Err(DropReason::NdMalformed),
            len => rest.get(len..).ok_or(DropReason::NdMalformed)?,
        };
    }
    Ok(())
}
