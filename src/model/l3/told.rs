//! What a subnet's guests are told: DNS and NTP servers, routes, and how they come by their IPv6 addresses (Neutron's rules).

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::read::DraftSubnet;
use crate::model::diagnostic::{Report, Reported};
use crate::model::reader::Field;
use crate::model::schema::*;

/// Prefix length of a subnet whose guests make their addresses out of their MACs (RFC 4291, 2.5.1).
const AUTOMATIC: u8 = 64;

/// Fills in what guests of `subnet` are told.
pub(super) fn told(report: &Report<'_>, draft: &DraftSubnet, subnet: Subnet) -> Result<Subnet, Reported> {
    let told = &draft.told;
    let (ipv6_ra_mode, ipv6_address_mode) = modes(report, draft, subnet.cidr)?;
    Ok(Subnet {
        enable_dhcp: told.enable_dhcp,
        dns_nameservers: servers(report, draft, subnet.cidr, "dns_nameservers", &told.dns_nameservers)?,
        ntp_servers: servers(report, draft, subnet.cidr, "ntp_servers", &told.ntp_servers)?,
        host_routes: host_routes(report, draft, subnet.cidr)?,
        ipv6_ra_mode,
        ipv6_address_mode,
        ..subnet
    })
}

fn servers(
    report: &Report<'_>,
    draft: &DraftSubnet,
    net: IpNet,
    key: &str,
    servers: &[Spanned<IpAddr>],
) -> Result<Vec<IpAddr>, Reported> {
    let path = format!("{}.{key}", draft.at.path);
    let mut result = Ok(Vec::new());
    for server in servers {
        let ip = *server.get_ref();
        let message = if ip.is_ipv4() != net.addr().is_ipv4() {
            format!("{ip} is of the other IP version than the subnet")
        } else if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            format!("{ip} is no server's address")
        } else {
            if let Ok(known) = &mut result {
                known.push(ip);
            }
            continue;
        };
        let hint = "a subnet of each IP version tells its guests the servers of that version";
        result = Err(report.add(server.span(), &path, message, Some(hint.to_owned())));
    }
    result
}

fn host_routes(report: &Report<'_>, draft: &DraftSubnet, net: IpNet) -> Result<Vec<Route>, Reported> {
    let path = format!("{}.host_routes", draft.at.path);
    let mut routes = Vec::new();
    for route in &draft.told.host_routes {
        let destination = route.destination.as_ref().map_err(|reported| *reported)?;
        let nexthop = route.nexthop.as_ref().map_err(|reported| *reported)?;
        let is_v4 = |ip: IpAddr| ip.is_ipv4();
        if !is_v4(net.addr()) {
            let hint = "IPv6 guests learn routes from the routers of their network (RFC 4861)".to_owned();
            let message = "no guest can be told routes of IPv6 by DHCP";
            return Err(report.add(destination.span(), &path, message, Some(hint)));
        }
        for (ip, at) in
            [(destination.get_ref().addr(), destination.span()), (*nexthop.get_ref(), nexthop.span())]
        {
            if !is_v4(ip) {
                let message = format!("{ip} is of the other IP version than the subnet");
                return Err(report.add(at, &path, message, None));
            }
        }
        routes.push(Route { destination: *destination.get_ref(), nexthop: *nexthop.get_ref() });
    }
    Ok(routes)
}

type Modes = (Option<Ipv6Mode>, Option<Ipv6Mode>);

fn modes(report: &Report<'_>, draft: &DraftSubnet, net: IpNet) -> Result<Modes, Reported> {
    let told = &draft.told;
    let ra = mode(&told.ra_mode)?;
    let address = mode(&told.address_mode)?;
    let given = [("ipv6_ra_mode", &ra), ("ipv6_address_mode", &address)];
    for (key, (mode, at)) in given.iter().filter_map(|(key, mode)| Some((*key, mode.as_ref()?))) {
        let path = format!("{}.{key}", draft.at.path);
        let (message, hint) = if net.addr().is_ipv4() {
            ("an IPv4 subnet has no IPv6 mode".to_owned(), None)
        } else if !told.enable_dhcp {
            ("needs `enable_dhcp`, which is false here".to_owned(), Some("leave out one of the two"))
        } else if mode.is_automatic() && net.prefix_len() != AUTOMATIC {
            let message = format!(
                "guests make addresses of their own on prefixes of 64 bits only, not of {}",
                net.prefix_len()
            );
            (message, Some("use a /64, or \"dhcpv6-stateful\""))
        } else {
            continue;
        };
        return Err(report.add(at.clone(), &path, message, hint.map(str::to_owned)));
    }
    if let (Some((ra, _)), Some((address, at))) = (&ra, &address)
        && ra != address
    {
        let path = format!("{}.ipv6_address_mode", draft.at.path);
        let hint = "what routers advertise and what guests do must be the same".to_owned();
        return Err(report.add(at.clone(), &path, "differs from `ipv6_ra_mode`", Some(hint)));
    }
    Ok((ra.map(|(mode, _)| mode), address.map(|(mode, _)| mode)))
}

fn mode(field: &Field<Ipv6Mode>) -> Result<Option<(Ipv6Mode, Range<usize>)>, Reported> {
    let field = field.as_ref().map_err(|reported| *reported)?;
    Ok(field.as_ref().map(|mode| (*mode.get_ref(), mode.span())))
}
