//! IP from a guest: its source address, and who it pretends to be to DHCP clients and to hosts without a router.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Look, neighbour};
use crate::dataplane::check::{least_transport, walk_v6};
use crate::services::SERVICE_V4;
use crate::stats::DropReason;
use crate::wire::ipv4::{FRAGMENT_OFFSET, Ipv4};
use crate::wire::{Malformed, dhcp4, dhcp6, protocol};

/// ICMP: an advertisement of routers (RFC 1256, 3).
const ROUTER_ADVERTISEMENT_V4: u8 = 9;
/// ICMPv6 of multicast listeners: the reports and the end of MLD (RFC 2710, 3.1; RFC 3810, 5.2).
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD2_REPORT: u8 = 143;
/// ICMPv6 of neighbour discovery (RFC 4861, 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Source and destination port.
fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    let &[s0, s1, d0, d1] = transport.first_chunk()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// Checks an IPv4 packet; `len` are the bytes of the frame from its header on.
pub(super) fn v4(look: &Look<'_>, packet: &[u8], len: usize) -> Result<(), DropReason> {
    let header = Ipv4::new_checked(packet).map_err(|wrong| match wrong {
        Malformed::Version => DropReason::IpVersion,
        _ => DropReason::IpLength,
    })?;
    let (at, total) = (header.header_len(), usize::from(header.total_len()));
    if total > len {
        return Err(DropReason::IpLength);
    }
    let protocol = header.protocol();
    let offset = header.fragment() & FRAGMENT_OFFSET;
    let is_short = total - at < least_transport(protocol) as usize;
    if header.is_fragment() && (offset == 0 && is_short || offset == 1 && protocol == protocol::TCP) {
        return Err(DropReason::FragmentTiny); // RFC 1858; RFC 3128
    }
    let transport = packet.get(at..total.min(packet.len())).unwrap_or_default();
    if !look.may_claim(look.mac, header.source()) && !is_new_v4(&header, transport) {
        return Err(DropReason::SpoofedIp);
    }
    match protocol {
        _ if offset != 0 => {}
        protocol::UDP if ports(transport).ok_or(DropReason::TransportTruncated)?.1 == dhcp4::CLIENT_PORT => {
            return Err(DropReason::GuestDhcpServer);
        }
        protocol::ICMP
            if *transport.first().ok_or(DropReason::TransportTruncated)? == ROUTER_ADVERTISEMENT_V4 =>
        {
            return Err(DropReason::GuestRouterAdvertiser);
        }
        _ => {}
    }
    Ok(())
}

/// What a host sends that has no address yet (RFC 2131, 4.1; RFC 3376, 4.2.13), or is told to give up the one that it has: it asks
/// our server from there to have it longer (RFC 2131, 4.4.5), and the answer is no. That goes to no guest and through no router.
fn is_new_v4(header: &Ipv4<'_>, transport: &[u8]) -> bool {
    let is_new = header.source() == Ipv4Addr::UNSPECIFIED;
    let asks_here = header.destination() == SERVICE_V4;
    !header.is_fragment()
        && match header.protocol() {
            protocol::UDP => {
                (is_new || asks_here) && ports(transport) == Some((dhcp4::CLIENT_PORT, dhcp4::SERVER_PORT))
            }
            protocol => is_new && protocol == protocol::IGMP,
        }
}

/// Checks an IPv6 packet; `len` are the bytes of the frame from its header on.
pub(super) fn v6(look: &Look<'_>, packet: &[u8], len: usize) -> Result<(), DropReason> {
    let (header, has_fragment_header) = walk_v6(packet, len)?;
    let (source, protocol, at) = (header.source, header.protocol, usize::from(header.transport));
    let total = usize::try_from(header.len).unwrap_or(usize::MAX);
    let transport = packet.get(at..total.min(packet.len())).unwrap_or_default();
    let may_claim = look.may_claim(look.mac, source);
    if !may_claim
        && (source != Ipv6Addr::UNSPECIFIED || has_fragment_header || !is_new_v6(protocol, transport))
    {
        return Err(DropReason::SpoofedIp);
    }
    match protocol {
        _ if !header.has_transport() => {}
        protocol::UDP => {
            let (_, to) = ports(transport).ok_or(DropReason::TransportTruncated)?;
            if to == dhcp6::CLIENT_PORT {
                return Err(DropReason::GuestDhcpServer);
            }
        }
        protocol::ICMPV6 => {
            let kind = *transport.first().ok_or(DropReason::TransportTruncated)?;
            let is_discovery = (ROUTER_SOLICITATION..=REDIRECT).contains(&kind);
            // RFC 6980, 5. A part of it may be in another piece of the frame.
            let is_whole = !has_fragment_header && transport.len() == total - at;
            match kind {
                ROUTER_ADVERTISEMENT | REDIRECT => return Err(DropReason::GuestRouterAdvertiser),
                _ if is_discovery && !is_whole => return Err(DropReason::NdMalformed),
                ROUTER_SOLICITATION => neighbour::solicits_router(look, source, transport)?,
                NEIGHBOUR_SOLICITATION => {
                    neighbour::solicits(look, (source, header.destination), transport)?;
                }
                NEIGHBOUR_ADVERTISEMENT => neighbour::advertises(look, transport)?,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether it is a message of those that a host sends which has no address yet (RFC 4861, 4.1 and 4.3; RFC 3590;
/// RFC 3810, 5.2.13).
fn is_new_v6(protocol: u8, transport: &[u8]) -> bool {
    protocol == protocol::ICMPV6
        && matches!(
            transport.first(),
            Some(&(ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | MLD_REPORT | MLD_DONE | MLD2_REPORT))
        )
}
