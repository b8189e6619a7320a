//! The words of tunnels, each value by itself: `[overlay]`, and what a network says about its tunnels. How they fit
//! together is left to [`super::tunnels`].

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use toml::Spanned;

use super::diagnostic::{Report, Reported};
use super::read::{MTU_MAX, Nic, Place, nic, number, origin, station_only};
use super::reader::{Field, List, Reader};
use super::schema::*;
use super::text::{Cidr, Ip, VniRange};
use crate::types::{Mac, Vni};

/// Smallest MTU of an IPv4 underlay: the longest datagram that every host can take (RFC 791, 3.1).
const MTU_MIN_V4: u32 = 576;
/// Smallest MTU of an IPv6 underlay: within its tunnels IPv6 works, which needs 1280 (RFC 8200, section 5).
const MTU_MIN_V6: u32 = 1350;

pub(super) struct DraftOverlay {
    pub(super) at: Place,
    /// Interface, address and gateway are placeholders where they are wrong.
    pub(super) object: Overlay,
    pub(super) local_ip: Result<(), Reported>,
    pub(super) mtu: Result<(), Reported>,
    pub(super) gateway_ip: Field<IpAddr>,
    pub(super) ranges: List<(Vni, Vni)>,
    /// For networks without their own.
    pub(super) peers: List<IpAddr>,
    pub(super) multicast_group: Field<IpAddr>,
}

/// What a network says about its tunnels.
pub(super) struct DraftTunnels {
    /// None: the overlay's.
    pub(super) peers: Option<List<IpAddr>>,
    /// None: the overlay's.
    pub(super) multicast_group: Field<IpAddr>,
    pub(super) remote_ports: Vec<DraftRemotePort>,
    /// Whether `remote_ports` are all there are.
    pub(super) whole: Result<(), Reported>,
    pub(super) l2population: bool,
}

pub(super) struct DraftRemotePort {
    pub(super) mac_address: Result<Spanned<Mac>, Reported>,
    pub(super) fixed_ips: Vec<Spanned<IpAddr>>,
    pub(super) vtep: Result<Spanned<IpAddr>, Reported>,
}

pub(super) fn overlay(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftOverlay {
    let Nic { at, interface } = nic(&mut table);
    if let Ok(None) = interface {
        table.missing("interface", Some("the device that tunnels leave through".to_owned()));
    }
    let nowhere = Interface::Best { name: String::new(), shared: None };
    let local = local_ip(&mut table);
    let gateway_ip = hosts_address(&mut table, "gateway_ip");
    let (local_ip, prefix_len) = local.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32));
    let (mtu_min, bytes) =
        if local_ip.is_ipv6() { (MTU_MIN_V6, " bytes over IPv6") } else { (MTU_MIN_V4, " bytes") };
    let mtu = table.number("mtu", mtu_min..=MTU_MAX, bytes);
    let object = Overlay {
        interface: interface.ok().flatten().unwrap_or(nowhere),
        local_ip,
        prefix_len,
        gateway_ip: gateway_ip.as_ref().ok().and_then(|ip| ip.as_ref()).map(|ip| *ip.get_ref()),
        mtu: mtu.as_ref().ok().and_then(|mtu| u16::try_from(*mtu.as_ref()?.get_ref()).ok()).unwrap_or(1500),
        udp_port: u16::try_from(number(&mut table, "udp_port", 1..=65535, "", 4789)).unwrap_or(4789),
        ttl: u8::try_from(number(&mut table, "ttl", 1..=255, "", 64)).unwrap_or(64),
        dscp: u8::try_from(number(&mut table, "dscp", 0..=63, "", 0)).unwrap_or(0),
        vni_ranges: Vec::new(),
        learn_peers: false,
        origin: origin(&table, report),
    };
    let mut draft = DraftOverlay {
        at: Place { path: table.path().to_owned(), name: table.span(), device: at },
        object,
        local_ip: local.map(|_| ()),
        mtu: mtu.map(|_| ()),
        gateway_ip,
        ranges: table.list::<VniRange>("vni_ranges").map(|range| range.0),
        peers: peers(&mut table),
        multicast_group: group(&mut table),
    };
    draft.object.learn_peers = table.or("learn_peers", false);
    table.finish(&[]);
    draft
}

/// Address and prefix length of the local VTEP.
fn local_ip(table: &mut Reader<'_, '_>) -> Result<(IpAddr, u8), Reported> {
    let Some(address) = table.field::<Cidr>("local_ip")? else {
        let hint = "an address of the underlay that is not this host's, like \"192.0.2.10/24\"";
        return Err(table.missing("local_ip", Some(hint.to_owned())));
    };
    let (span, Cidr(ip, prefix_len)) = (address.span(), address.into_inner());
    underlay(table, "local_ip", Spanned::new(span.clone(), ip))?;
    match ip {
        // RFC 4291, 2.6.1; two addresses of a point-to-point link are both hosts (RFC 6164).
        IpAddr::V6(v6) if prefix_len < 127 && v6.to_bits() << prefix_len == 0 => {
            let message = format!("{ip} is the anycast address of the subnet's routers");
            Err(table.wrong(span, "local_ip", message, Some("take another one of the subnet".to_owned())))
        }
        _ => Ok((ip, prefix_len)),
    }
}

pub(super) fn tunnels(table: &mut Reader<'_, '_>) -> DraftTunnels {
    let peers = peers(table);
    let own_peers = table.given("peers").is_some();
    let multicast_group = group(table);
    let (remote_ports, mut whole) =
        table.parts("remote_ports", "remote_ports = [{ mac_address = \"…\", vtep = \"…\" }]");
    let remote_ports: Vec<DraftRemotePort> = remote_ports.into_iter().map(remote_port).collect();
    if remote_ports.iter().any(|port| port.vtep.is_err()) {
        whole = Err(Reported);
    }
    DraftTunnels {
        peers: own_peers.then_some(peers),
        multicast_group,
        remote_ports,
        whole,
        l2population: table.or("l2population", false),
    }
}

fn remote_port(mut table: Reader<'_, '_>) -> DraftRemotePort {
    let mac_address = table.required::<Mac>("mac_address");
    let mac_address = mac_address.and_then(|mac| match station_only(&table, "mac_address", &mac) {
        true => Ok(mac),
        false => Err(Reported),
    });
    let mut fixed_ips = table.list::<Ip>("fixed_ips").map(|ip| ip.0).items;
    fixed_ips.retain(|ip| host(&table, "fixed_ips", ip).is_ok());
    let vtep = match hosts_address(&mut table, "vtep") {
        Ok(Some(vtep)) => Ok(vtep),
        Ok(None) => Err(table.missing("vtep", Some("the local_ip of the host that has the port".to_owned()))),
        Err(Reported) => Err(Reported),
    };
    table.finish(&[]);
    DraftRemotePort { mac_address, fixed_ips, vtep }
}

fn peers(table: &mut Reader<'_, '_>) -> List<IpAddr> {
    let List { items, mut whole } = table.list::<Ip>("peers").map(|ip| ip.0);
    let mut right: Vec<Spanned<IpAddr>> = Vec::new();
    for peer in items {
        match underlay(table, "peers", peer) {
            Ok(peer) => right.push(peer),
            Err(Reported) => whole = Err(Reported),
        }
    }
    List { items: right, whole }
}

/// An address of the underlay.
fn hosts_address(table: &mut Reader<'_, '_>, key: &'static str) -> Field<IpAddr> {
    let Some(ip) = table.field::<Ip>(key)? else { return Ok(None) };
    underlay(table, key, Spanned::new(ip.span(), ip.get_ref().0)).map(Some)
}

/// Refuses what cannot be an address of a host in the underlay.
fn underlay(table: &Reader<'_, '_>, key: &str, ip: Spanned<IpAddr>) -> Result<Spanned<IpAddr>, Reported> {
    host(table, key, &ip)?;
    match ip.get_ref() {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            let hint = "tunnels need a global or a unique local address (fc00::/7)";
            Err(table.wrong(ip.span(), key, format!("{v6} is link-local"), Some(hint.to_owned())))
        }
        _ => Ok(ip),
    }
}

/// Refuses what is no single host's address (RFC 6890; 240.0.0.0/4 is reserved by RFC 1112, section 4).
fn host(table: &Reader<'_, '_>, key: &str, ip: &Spanned<IpAddr>) -> Result<(), Reported> {
    let (span, ip) = (ip.span(), *ip.get_ref());
    if ip.is_multicast() {
        let hint = "one host's address stands here; tunnels' group is `multicast_group`";
        return Err(table.wrong(span, key, format!("{ip} is a multicast group"), Some(hint.to_owned())));
    }
    let reserved = match ip {
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 240..=255),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if reserved || ip.is_loopback() {
        let hint = Some("one host's address stands here".to_owned());
        return Err(table.wrong(span, key, format!("{ip} is no address of a host in a network"), hint));
    }
    Ok(())
}

/// `multicast_group`: one that routers pass on, so none of link scope (RFC 5771, section 4; RFC 4291, 2.7).
fn group(table: &mut Reader<'_, '_>) -> Field<IpAddr> {
    let key = "multicast_group";
    let Some(ip) = table.field::<Ip>(key)? else { return Ok(None) };
    let (span, ip): (Range<usize>, IpAddr) = (ip.span(), ip.get_ref().0);
    let (on_link, other) = match ip {
        IpAddr::V4(v4) => (v4.octets()[..3] == [224, 0, 0], "take one of 239.0.0.0/8"),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xf <= 2, "take one of ff05::/16 or ff08::/16"),
    };
    let message = match ip.is_multicast() {
        false => format!("{ip} is no multicast group"),
        true if on_link => format!("{ip} does not leave the link"),
        true => return Ok(Some(Spanned::new(span, ip))),
    };
    Err(table.wrong(span, key, message, Some(other.to_owned())))
}
