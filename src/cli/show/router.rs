//! `nuswitch show routers`, `routes` and `neighbours`.

use clap::Args;
use serde_json::Value;

use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, or_dash};
use super::{owner, state};
use crate::control::client::{self, Client, encode};
use crate::control::view::{Neighbour, Route, RouteKind, Router, RouterInterface};

/// Whose.
#[derive(Debug, Args)]
pub(super) struct OfRouter {
    /// Only of this router
    #[arg(long, value_name = "ROUTER")]
    router: Option<String>,
}

impl OfRouter {
    pub(super) fn routes(&self, client: &Client) -> Result<Vec<Value>, client::Error> {
        super::of(client, "routes", "router", &self.router)
    }
}

/// Whose.
#[derive(Debug, Args)]
pub(super) struct Neighbours {
    /// Only of this router
    #[arg(long, value_name = "ROUTER")]
    router: Option<String>,
    /// Only on this network
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
}

impl Neighbours {
    pub(super) fn neighbours(&self, client: &Client) -> Result<Vec<Value>, client::Error> {
        let mut path = "/v1/neighbours?".to_owned();
        for (kind, name) in [("router", &self.router), ("network", &self.network)] {
            if let Some(name) = name {
                path.push_str(&format!("{kind}={}&", encode(&owner(client, kind, name)?)));
            }
        }
        client.get_key(path.trim_end_matches(['?', '&']), "neighbours")
    }
}

/// A line for each router, and then one for each interface.
pub(super) fn routers(routers: &[Router], wide: bool) -> String {
    let mut columns = vec![
        ("router", Left),
        ("external network", Left),
        ("snat", Left),
        ("interfaces", Right),
        ("worker", Right),
        ("connections", Right),
        ("bindings", Right),
        ("exhausted", Right),
        ("status", Left),
    ];
    columns.extend(wide.then_some(("id", Left)));
    let mut table = Table::new(&columns);
    for router in routers {
        let gateway = router.external_gateway_info.as_ref();
        let snat = gateway.filter(|gateway| gateway.enable_snat);
        let snat = snat.map(|gateway| {
            let v4 = gateway.external_fixed_ips.iter().filter(|fixed| fixed.ip_address.is_ipv4());
            v4.map(|fixed| fixed.ip_address.to_string()).collect::<Vec<_>>().join(" ")
        });
        table.row([
            router.name.clone(),
            or_dash(gateway.map(|gateway| &gateway.network)),
            or_dash(snat.filter(|text| !text.is_empty())),
            router.interfaces.len().to_string(),
            or_dash(router.worker),
            count(router.connections),
            count(router.bindings),
            count(router.exhausted),
            state(router.status),
            router.id.to_string(),
        ]);
    }
    let all = routers.iter().flat_map(|router| &router.interfaces);
    format!("{table}\n{}", interfaces(all, wide))
}

fn interfaces<'a>(all: impl Iterator<Item = &'a RouterInterface>, wide: bool) -> String {
    let mut columns = vec![
        ("interface", Left),
        ("network", Left),
        ("addresses", Left),
        ("mac", Left),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
        ("dropped", Right),
    ];
    columns.extend(wide.then_some(("drops", Left)));
    let mut table = Table::new(&columns);
    for interface in all {
        let counters = &interface.counters;
        let addresses = interface.fixed_ips.iter().map(|fixed| fixed.ip_address.to_string());
        let reasons = counters.drops.iter().map(|(reason, frames)| format!("{reason} {}", count(*frames)));
        let reasons = Some(reasons.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty());
        table.row([
            interface.name.clone(),
            interface.network.clone(),
            addresses.collect::<Vec<_>>().join(" "),
            interface.mac_address.to_string(),
            count(counters.rx_frames),
            count(counters.rx_bytes),
            count(counters.tx_frames),
            count(counters.tx_bytes),
            count(counters.dropped()),
            or_dash(reasons),
        ]);
    }
    table.to_string()
}

/// The FIBs.
pub(super) fn routes(routes: &[Route]) -> String {
    let mut table = Table::new(&[
        ("router", Left),
        ("destination", Left),
        ("kind", Left),
        ("next hop", Left),
        ("interface", Left),
        ("from", Left),
    ]);
    for route in routes {
        let kind = match route.kind {
            RouteKind::Local => "local",
            RouteKind::Translated => "translated",
            RouteKind::Broadcast => "broadcast",
            RouteKind::Connected => "connected",
            RouteKind::Via => "via",
        };
        let from = match (route.origin.as_str(), &route.subnet) {
            ("extra", _) => "extra route".to_owned(),
            ("floating_ip", _) => "floating IP".to_owned(),
            (_, Some(subnet)) => format!("subnet {subnet}"),
            (origin, None) => origin.to_owned(),
        };
        // Several share the flows: a line for each, the first with all that they have in common.
        let mut hops = route.nexthops.iter();
        let first = hops.next();
        table.row([
            route.router.clone(),
            route.destination.clone(),
            kind.to_owned(),
            or_dash(first.map(|hop| hop.address)),
            or_dash(first.map(|hop| &hop.interface).or(route.interface.as_ref())),
            from,
        ]);
        for hop in hops {
            let blank = String::new;
            table.row([blank(), blank(), blank(), hop.address.to_string(), hop.interface.clone()]);
        }
    }
    table.to_string()
}

/// Neighbours.
pub(super) fn neighbours(neighbours: &[Neighbour]) -> String {
    let mut table = Table::new(&[
        ("router", Left),
        ("network", Left),
        ("address", Left),
        ("mac", Left),
        ("state", Left),
        ("interface", Left),
    ]);
    for neighbour in neighbours {
        table.row([
            neighbour.router.clone(),
            neighbour.network.clone(),
            neighbour.address.to_string(),
            or_dash(neighbour.mac),
            neighbour.state.clone(),
            neighbour.interface.clone(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{fake_neighbour, fake_router, fake_routes};

    #[test]
    fn the_tables_of_routers() {
        let expected = "\
ROUTER  EXTERNAL NETWORK  SNAT           INTERFACES  WORKER  CONNECTIONS  BINDINGS  EXHAUSTED  STATUS
edge    public            203.0.113.100           1       0         1.2k         7          0  ACTIVE

INTERFACE       NETWORK  ADDRESSES                    MAC                RX  RX BYTES  TX  TX BYTES  DROPPED
edge/public-v4  public   203.0.113.100 2001:db8:a::2  02:00:00:00:00:ee   5         0   0         0        3
";
        assert_eq!(routers(&[fake_router()], false), expected);
        assert!(routers(&[fake_router()], true).contains("  nat_unmatched 3\n"));
    }

    #[test]
    fn the_table_of_routes() {
        let expected = "\
ROUTER  DESTINATION       KIND        NEXT HOP     INTERFACE       FROM
edge    203.0.113.100/32  translated  -            -               gateway
edge    10.0.0.0/24       connected   -            edge/blue-v4    subnet blue-v4
edge    198.51.100.0/24   via         203.0.113.7  edge/public-v4  extra route
                                      203.0.113.8  edge/public-v4
";
        assert_eq!(routes(&fake_routes()), expected);
    }

    #[test]
    fn the_table_of_neighbours() {
        let expected = "\
ROUTER  NETWORK  ADDRESS      MAC  STATE       INTERFACE
edge    public   203.0.113.9  -    incomplete  edge/public-v4
";
        assert_eq!(neighbours(&[fake_neighbour()]), expected);
    }
}
