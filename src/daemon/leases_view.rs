//! Leases as the control API tells of them: those that follow from the configuration, and those out of pools.

use std::net::IpAddr;

use crate::control::view::{Lease, LeaseKind};
use crate::model::{Attachment, FixedIp, Ipv6Mode, Model, Port, Subnet};
use crate::services::dhcp4::pool::State;
use crate::slowpath::leases::Shown;
use crate::tables::Tables;

/// All leases by network and address. `dynamic` are those out of pools.
pub(super) fn leases(model: &Model, dynamic: Vec<Lease>) -> Vec<Lease> {
    let mut all = fixed(model);
    all.extend(dynamic);
    all.sort_by(|a, b| (&a.network, a.ip_address).cmp(&(&b.network, b.ip_address)));
    all
}

/// What DHCP gives the guests of ports: their fixed IPs on subnets that serve it. Addresses that a guest makes of a prefix
/// (RFC 4862) are no leases.
fn fixed(model: &Model) -> Vec<Lease> {
    model
        .ports
        .iter()
        .flat_map(|port| port.fixed_ips.iter().filter_map(|ip| lease(model, port, ip)))
        .collect()
}

fn lease(model: &Model, port: &Port, fixed: &FixedIp) -> Option<Lease> {
    let Attachment::Access(network) = &port.attachment else { return None };
    let subnet = model.subnets.iter().find(|subnet| subnet.name == fixed.subnet)?;
    is_leased(subnet).then_some(())?;
    Some(Lease {
        network: network.clone(),
        subnet: subnet.name.clone(),
        port: Some(port.name.clone()),
        mac_address: port.mac_address?,
        ip_address: fixed.ip,
        hostname: Some(port.hostname()),
        lease_time: model.dhcp.lease_time,
        kind: LeaseKind::Fixed,
        state: None,
        expires_in: None,
    })
}

/// A lease out of a pool, at `now` in seconds since 1970; none where its subnet is gone.
pub(super) fn dynamic(shown: Shown, model: &Model, tables: &Tables, now: u64) -> Option<Lease> {
    let ip_address = IpAddr::V4(shown.address);
    let is_its = |subnet: &&Subnet| subnet.network == shown.network && subnet.cidr.contains(&ip_address);
    let subnet = model.subnets.iter().find(is_its)?;
    let state = match shown.state {
        _ if !shown.holds => "expired",
        State::Offered => "offered",
        State::Bound => "bound",
        State::Released => "released",
        State::Declined => "declined",
    };
    Some(Lease {
        network: shown.network,
        subnet: subnet.name.clone(),
        port: shown.ingress.and_then(|port| tables.port(port)).map(|port| port.name.to_string()),
        mac_address: shown.mac,
        ip_address,
        hostname: None,
        lease_time: model.dhcp.lease_time,
        kind: LeaseKind::Dynamic,
        state: Some(state.to_owned()),
        expires_in: shown.until.map(|until| until.saturating_sub(now)),
    })
}

/// Whether DHCP gives addresses of a subnet.
fn is_leased(subnet: &Subnet) -> bool {
    subnet.enable_dhcp
        && match subnet.cidr.addr() {
            IpAddr::V4(_) => true,
            IpAddr::V6(_) => subnet.ipv6_address_mode == Some(Ipv6Mode::Dhcpv6Stateful),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load;

    const TEXT: &str = r#"
dhcp.lease_time = 600
network = [{ name = "blue" }, { name = "red" }]
subnet = [
  { name = "v4", network = "blue", cidr = "10.0.0.0/24" },
  { name = "stateful", network = "blue", cidr = "2001:db8:1::/64", ipv6_address_mode = "dhcpv6-stateful" },
  { name = "auto", network = "blue", cidr = "2001:db8:2::/64", ipv6_address_mode = "slaac" },
  { name = "by-hand", network = "blue", cidr = "2001:db8:3::/64" },
  { name = "quiet", network = "red", cidr = "10.1.0.0/24", enable_dhcp = false },
]
[[port]]
name = "web 1"
network = "blue"
mac_address = "52:54:00:00:00:01"
fixed_ips = ["10.0.0.11", "2001:db8:1::11", { subnet = "auto" }, "2001:db8:3::11"]
interface = { kind = "guest", name = "nu-web1" }
[[port]]
name = "quiet"
network = "red"
interface = { kind = "guest", name = "nu-quiet" }
[[port]]
name = "nobody"
network = "blue"
interface = { kind = "packet", name = "eth7" }
"#;

    #[test]
    fn leases_are_the_fixed_ips_that_dhcp_gives_and_those_of_pools() {
        let model = load(TEXT, "f.toml").unwrap();
        let mac = "52:54:00:00:00:09".parse().unwrap();
        let stranger = Lease {
            network: "blue".into(),
            subnet: "v4".into(),
            port: None,
            mac_address: mac,
            ip_address: "10.0.0.2".parse().unwrap(),
            hostname: None,
            lease_time: 600,
            kind: LeaseKind::Dynamic,
            state: Some("bound".into()),
            expires_in: Some(300),
        };
        let all = leases(&model, vec![stranger.clone()]);
        let of: Vec<_> = all.iter().map(|lease| (lease.ip_address.to_string(), lease.kind)).collect();
        let expected = [
            ("10.0.0.2", LeaseKind::Dynamic),
            ("10.0.0.11", LeaseKind::Fixed),
            ("2001:db8:1::11", LeaseKind::Fixed),
        ];
        assert_eq!(of, expected.map(|(address, kind)| (address.to_owned(), kind)));
        assert_eq!(all[0], stranger);
        let expected = Lease {
            port: Some("web 1".into()),
            mac_address: "52:54:00:00:00:01".parse().unwrap(),
            ip_address: "10.0.0.11".parse().unwrap(),
            hostname: Some("host-10-0-0-11".into()),
            kind: LeaseKind::Fixed,
            state: None,
            expires_in: None,
            ..stranger
        };
        assert_eq!(all[1], expected);
    }
}
