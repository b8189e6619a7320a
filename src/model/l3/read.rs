//! The words of routing, each value by itself: `[[subnet]]`, `[[router]]`, `[[floating_ip]]`, `[conntrack]`, and lists of
//! fixed IPs. How they fit together is left to the modules beside this one.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use crate::model::diagnostic::{Report, Reported};
use crate::model::later;
use crate::model::read::{Place, given, name, number, origin, station};
use crate::model::reader::{Field, List, Part, Reader};
use crate::model::schema::*;
use crate::model::text::{Gateway, Ip, IpRange, PortRange, Prefix};
use crate::types::Mac;

/// Protocols with ports that can be forwarded, by their IANA numbers.
const PROTOCOLS: &[(&str, u8)] = &[("tcp", 6), ("udp", 17), ("dccp", 33)];
/// The longest timeout in seconds, and bounds of the tables' size.
const TIMEOUT_MAX: u32 = 1_000_000;
const ENTRIES_MIN: u32 = 1024;
const ENTRIES_MAX: u32 = 1 << 24;
const NEW_MAX: u32 = 100_000_000;

/// The objects of routing of a file, each right by itself.
pub(in crate::model) struct DraftL3 {
    pub(super) subnets: Vec<DraftSubnet>,
    pub(super) routers: Vec<DraftRouter>,
    pub(super) floating_ips: Vec<DraftFloatingIp>,
    pub(super) conntrack: Conntrack,
}

pub(super) struct DraftSubnet {
    pub(super) at: Place,
    pub(super) name: String,
    pub(super) network: Result<Spanned<String>, Reported>,
    pub(super) cidr: Result<Spanned<IpNet>, Reported>,
    pub(super) gateway_ip: Field<Gateway>,
    /// None: all that the gateway leaves.
    pub(super) pools: Option<List<(IpAddr, IpAddr)>>,
    pub(super) told: DraftTold,
    pub(super) origin: Origin,
}

/// What a subnet's guests are told.
pub(super) struct DraftTold {
    pub(super) enable_dhcp: bool,
    pub(super) dns_nameservers: Vec<Spanned<IpAddr>>,
    pub(super) ntp_servers: Vec<Spanned<IpAddr>>,
    pub(super) host_routes: Vec<DraftRoute>,
    pub(super) ra_mode: Field<Ipv6Mode>,
    pub(super) address_mode: Field<Ipv6Mode>,
}

/// One of a list of fixed IPs: a subnet, an address, or both.
pub(super) struct DraftFixedIp {
    pub(super) at: Range<usize>,
    pub(super) subnet: Option<Spanned<String>>,
    pub(super) ip: Option<Spanned<IpAddr>>,
}

/// A list of fixed IPs, and whether that is all of them.
pub(in crate::model) struct DraftFixedIps {
    pub(super) items: Vec<DraftFixedIp>,
    pub(super) whole: Result<(), Reported>,
    /// The key.
    pub(super) at: Range<usize>,
}

impl DraftFixedIps {
    /// Where it says that there are none.
    pub(in crate::model) fn none_at(&self) -> Option<Range<usize>> {
        (self.items.is_empty() && self.whole.is_ok()).then(|| self.at.clone())
    }
}

pub(super) struct DraftRouter {
    pub(super) at: Place,
    /// What follows from references is empty until the whole is known.
    pub(super) object: Router,
    pub(super) gateway: Result<Option<DraftGateway>, Reported>,
    pub(super) interfaces: Vec<DraftInterface>,
    pub(super) routes: Vec<DraftRoute>,
    /// Whether those are all interfaces.
    pub(super) whole: Result<(), Reported>,
}

pub(super) struct DraftGateway {
    pub(super) at: Range<usize>,
    pub(super) network: Result<Spanned<String>, Reported>,
    pub(super) enable_snat: bool,
    pub(super) mac_address: Field<Mac>,
    /// None: the next free ones.
    pub(super) fixed_ips: Option<DraftFixedIps>,
}

pub(super) struct DraftInterface {
    pub(super) subnet: Result<Spanned<String>, Reported>,
    /// None: the subnet's gateway.
    pub(super) ip: Field<IpAddr>,
    pub(super) mac_address: Field<Mac>,
}

pub(super) struct DraftRoute {
    pub(super) destination: Result<Spanned<IpNet>, Reported>,
    pub(super) nexthop: Result<Spanned<IpAddr>, Reported>,
}

pub(super) struct DraftFloatingIp {
    pub(super) at: Place,
    /// None: the next free one.
    pub(super) address: Field<Ipv4Addr>,
    pub(super) network: Result<Spanned<String>, Reported>,
    pub(super) port: Field<String>,
    pub(super) fixed_ip_address: Field<Ipv4Addr>,
    pub(super) port_forwardings: Vec<DraftForwarding>,
    pub(super) origin: Origin,
}

pub(super) struct DraftForwarding {
    pub(super) at: Range<usize>,
    pub(super) protocol: Result<u8, Reported>,
    pub(super) external_ports: Result<Spanned<(u16, u16)>, Reported>,
    /// None: the same as outside.
    pub(super) internal_ports: Field<(u16, u16)>,
    pub(super) port: Result<Spanned<String>, Reported>,
    pub(super) internal_ip_address: Field<Ipv4Addr>,
}

/// Reads the objects of routing.
pub(in crate::model) fn document(root: &mut Reader<'_, '_>, report: &Report<'_>) -> DraftL3 {
    let subnets = root.objects("subnet");
    let routers = root.objects("router");
    let floating_ips = root.objects_by("floating_ip", "floating_ip_address");
    let conntrack = root.table("conntrack", "[conntrack] once, with its keys below");
    DraftL3 {
        subnets: subnets.into_iter().map(|table| subnet(table, report)).collect(),
        routers: routers.into_iter().map(|table| router(table, report)).collect(),
        floating_ips: floating_ips.into_iter().map(|table| floating_ip(table, report)).collect(),
        conntrack: conntrack.ok().flatten().map(self::conntrack).unwrap_or_default(),
    }
}

fn subnet(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftSubnet {
    let (name, name_span) = name(&mut table);
    let network = table.field::<String>("network").and_then(|network| {
        network.ok_or_else(|| table.missing("network", Some("the network whose addresses these are".into())))
    });
    let cidr = match table.field::<Prefix>("cidr") {
        Ok(Some(cidr)) => prefix(&table, "cidr", cidr),
        Ok(None) => Err(table.missing("cidr", Some("a prefix like \"10.0.0.0/24\"".to_owned()))),
        Err(Reported) => Err(Reported),
    };
    let gateway_ip = table.field::<Gateway>("gateway_ip");
    let pools = table.list::<IpRange>("allocation_pools").map(|range| range.0);
    let pools = table.given("allocation_pools").map(|_| pools);
    let enable_dhcp = table.or("enable_dhcp", true);
    let servers = |list: List<Ip>| list.map(|ip| ip.0).items;
    let dns_nameservers = servers(table.list("dns_nameservers"));
    let ntp_servers = servers(table.list("ntp_servers"));
    let (routes, _) = table.parts("host_routes", "host_routes = [{ destination = \"…\", nexthop = \"…\" }]");
    let modes = [
        ("slaac", Ipv6Mode::Slaac),
        ("dhcpv6-stateful", Ipv6Mode::Dhcpv6Stateful),
        ("dhcpv6-stateless", Ipv6Mode::Dhcpv6Stateless),
    ];
    let ra_mode = table.choice("ipv6_ra_mode", &modes, &[]);
    let address_mode = table.choice("ipv6_address_mode", &modes, &[]);
    let told = DraftTold {
        enable_dhcp,
        dns_nameservers,
        ntp_servers,
        host_routes: routes.into_iter().map(route).collect(),
        ra_mode,
        address_mode,
    };
    let at = Place { path: table.path().to_owned(), name: name_span, device: table.span() };
    let origin = origin(&table, report);
    table.finish(later::SUBNET);
    DraftSubnet { at, name, network, cidr, gateway_ip, pools, told, origin }
}

/// A prefix without host bits.
fn prefix(table: &Reader<'_, '_>, key: &str, prefix: Spanned<Prefix>) -> Result<Spanned<IpNet>, Reported> {
    let (span, Prefix(net)) = (prefix.span(), prefix.into_inner());
    if net != net.trunc() {
        let hint = Some(format!("did you mean `{}`?", net.trunc()));
        return Err(table.wrong(span, key, format!("`{net}` has bits set behind its prefix"), hint));
    }
    Ok(Spanned::new(span, net))
}

/// `fixed_ips` of a port or `external_fixed_ips` of a router; none when it is left out.
pub(in crate::model) fn fixed_ips(table: &mut Reader<'_, '_>, key: &'static str) -> Option<DraftFixedIps> {
    let example = format!("{key} = [\"10.0.0.11\", {{ subnet = \"…\" }}]");
    let (parts, mut whole) = table.values_or_parts::<Ip>(key, &example);
    let at = table.given(key)?;
    let mut items = Vec::new();
    for part in parts {
        let (mut part, at) = match part {
            Part::Value(ip) => {
                let at = ip.span();
                items.push(DraftFixedIp { at, subnet: None, ip: Some(plain(ip)) });
                continue;
            }
            Part::Table(part) => {
                let at = part.span();
                (part, at)
            }
        };
        match (part.field::<String>("subnet"), part.field::<Ip>("ip_address")) {
            (Ok(None), Ok(None)) => {
                let hint = "give `subnet` for its next free address, `ip_address`, or both";
                whole = Err(part.missing("subnet", Some(hint.to_owned())));
            }
            (Ok(subnet), Ok(ip)) => items.push(DraftFixedIp { at, subnet, ip: ip.map(plain) }),
            _ => whole = Err(Reported),
        }
        part.finish(&[]);
    }
    Some(DraftFixedIps { items, whole, at })
}

fn plain(ip: Spanned<Ip>) -> Spanned<IpAddr> {
    Spanned::new(ip.span(), ip.into_inner().0)
}

fn address(table: &mut Reader<'_, '_>, key: &'static str) -> Field<IpAddr> {
    Ok(table.field::<Ip>(key)?.map(plain))
}

/// An address that NAT is about.
fn ipv4(table: &mut Reader<'_, '_>, key: &'static str) -> Field<Ipv4Addr> {
    let Some(ip) = address(table, key)? else { return Ok(None) };
    match *ip.get_ref() {
        IpAddr::V4(v4) => Ok(Some(Spanned::new(ip.span(), v4))),
        IpAddr::V6(v6) => {
            let hint = Some("there is no NAT for IPv6: the guest's own address is reached".to_owned());
            Err(table.wrong(ip.span(), key, format!("{v6} is IPv6"), hint))
        }
    }
}

fn router(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftRouter {
    let (name, name_span) = name(&mut table);
    let gateway = table.table("external_gateway", "external_gateway = { network = \"…\" }");
    let gateway = gateway.map(|gateway| gateway.map(self::gateway));
    let (interfaces, whole) =
        table.values_or_parts("interfaces", "interfaces = [\"…\"] with names of subnets");
    let (routes, _) = table.parts("routes", "routes = [{ destination = \"…\", nexthop = \"…\" }]");
    let filtering = [
        ("address-and-port-dependent", NatFiltering::AddressAndPortDependent),
        ("address-dependent", NatFiltering::AddressDependent),
        ("endpoint-independent", NatFiltering::EndpointIndependent),
    ];
    let object = Router {
        id: crate::model::id("router", &name),
        name,
        external_gateway: None,
        interfaces: Vec::new(),
        routes: Vec::new(),
        nat_filtering: given(table.choice("nat_filtering", &filtering, &[])).unwrap_or_default(),
        mss_clamping: table.or("mss_clamping", false),
        admin_state_up: table.or("admin_state_up", true),
        origin: origin(&table, report),
    };
    let draft = DraftRouter {
        at: Place { path: table.path().to_owned(), name: name_span, device: table.span() },
        object,
        gateway,
        interfaces: interfaces.into_iter().map(interface).collect(),
        routes: routes.into_iter().map(route).collect(),
        whole,
    };
    table.finish(later::ROUTER);
    draft
}

fn gateway(mut table: Reader<'_, '_>) -> DraftGateway {
    let draft = DraftGateway {
        at: table.span(),
        network: table.field::<String>("network").and_then(|network| {
            network.ok_or_else(|| table.missing("network", Some("a network with `external = true`".into())))
        }),
        enable_snat: table.or("enable_snat", true),
        mac_address: station(&mut table),
        fixed_ips: fixed_ips(&mut table, "external_fixed_ips"),
    };
    table.finish(later::EXTERNAL_GATEWAY);
    draft
}

fn interface(part: Part<'_, '_, String>) -> DraftInterface {
    let mut table = match part {
        Part::Value(subnet) => {
            return DraftInterface { subnet: Ok(subnet), ip: Ok(None), mac_address: Ok(None) };
        }
        Part::Table(table) => table,
    };
    let draft = DraftInterface {
        subnet: table.required("subnet"),
        ip: address(&mut table, "ip"),
        mac_address: station(&mut table),
    };
    table.finish(&[]);
    draft
}

fn route(mut table: Reader<'_, '_>) -> DraftRoute {
    let destination = table.required::<Prefix>("destination");
    let draft = DraftRoute {
        destination: destination.and_then(|net| prefix(&table, "destination", net)),
        nexthop: table.required::<Ip>("nexthop").map(plain),
    };
    table.finish(&[]);
    draft
}

fn floating_ip(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftFloatingIp {
    let address = ipv4(&mut table, "floating_ip_address");
    let network = table.field::<String>("floating_network").and_then(|network| {
        let hint = "a network with `external = true`";
        network.ok_or_else(|| table.missing("floating_network", Some(hint.to_owned())))
    });
    let port = table.field::<String>("port");
    let fixed_ip_address = ipv4(&mut table, "fixed_ip_address");
    let example =
        "port_forwardings = [{ protocol = \"tcp\", external_port = 8080, internal_port = 80, port = \"…\" }]";
    let (forwardings, _) = table.parts("port_forwardings", example);
    let whole = table.given("port");
    if let (None, Some(span)) = (&whole, table.given("fixed_ip_address")) {
        table.wrong(span, "fixed_ip_address", "`fixed_ip_address` needs `port`", None);
    }
    if let (Some(_), Some(span), false) = (whole, table.given("port_forwardings"), forwardings.is_empty()) {
        let message = "`port_forwardings` and `port` exclude each other";
        let hint = "`port` gets all of the address, `port_forwardings` single ports of it";
        table.wrong(span, "port_forwardings", message, Some(hint.to_owned()));
    }
    let draft = DraftFloatingIp {
        at: Place { path: table.path().to_owned(), name: table.span(), device: table.span() },
        address,
        network,
        port,
        fixed_ip_address,
        port_forwardings: forwardings.into_iter().map(forwarding).collect(),
        origin: origin(&table, report),
    };
    table.finish(later::FLOATING_IP);
    draft
}

fn forwarding(mut table: Reader<'_, '_>) -> DraftForwarding {
    let protocol = match table.choice("protocol", PROTOCOLS, &[]) {
        Ok(Some(protocol)) => Ok(protocol.into_inner()),
        Ok(None) => Err(table.missing("protocol", Some("\"tcp\" or \"udp\"".to_owned()))),
        Err(Reported) => Err(Reported),
    };
    let external_ports = ports(&mut table, "external_port", "external_port_range").and_then(|ports| {
        ports.ok_or_else(|| table.missing("external_port", Some("or `external_port_range`".to_owned())))
    });
    let mut internal_ports = ports(&mut table, "internal_port", "internal_port_range");
    if let (Ok(outside), Ok(Some(inside))) = (&external_ports, &internal_ports) {
        let count = |(from, to): (u16, u16)| u32::from(to - from) + 1;
        let (outside, inside_count) = (count(*outside.get_ref()), count(*inside.get_ref()));
        if outside != inside_count {
            let message = format!("{outside} ports outside cannot be {inside_count} inside");
            let hint = Some("give as many, or leave the inner ones out for the same as outside".to_owned());
            let key =
                if table.given("internal_port").is_some() { "internal_port" } else { "internal_port_range" };
            internal_ports = Err(table.wrong(inside.span(), key, message, hint));
        }
    }
    let draft = DraftForwarding {
        at: table.span(),
        protocol,
        external_ports,
        internal_ports,
        port: table.required("port"),
        internal_ip_address: ipv4(&mut table, "internal_ip_address"),
    };
    table.finish(&[]);
    draft
}

/// One port or a range of them, by the key of each.
fn ports(table: &mut Reader<'_, '_>, one: &'static str, range: &'static str) -> Field<(u16, u16)> {
    let single = table.number(one, 1..=65535, "");
    let several = table.field::<PortRange>(range);
    match (single?, several?) {
        (Some(_), Some(several)) => {
            Err(table.wrong(several.span(), range, format!("`{range}` and `{one}` exclude each other"), None))
        }
        (Some(single), None) => {
            let port = u16::try_from(*single.get_ref()).unwrap_or(u16::MAX);
            Ok(Some(Spanned::new(single.span(), (port, port))))
        }
        (None, several) => Ok(several.map(|ports| Spanned::new(ports.span(), ports.into_inner().0))),
    }
}

fn conntrack(mut table: Reader<'_, '_>) -> Conntrack {
    let default = Conntrack::default();
    let max_entries = number(&mut table, "max_entries", ENTRIES_MIN..=ENTRIES_MAX, "", default.max_entries);
    let of_guest = table.number("max_entries_per_guest", 1..=ENTRIES_MAX, "");
    if let Ok(Some(of_guest)) = &of_guest
        && *of_guest.get_ref() > max_entries
    {
        let message = format!("{} is more than all the {max_entries} of max_entries", of_guest.get_ref());
        table.wrong(of_guest.span(), "max_entries_per_guest", message, None);
    }
    let of_guest = given(of_guest).unwrap_or(default.max_entries_per_guest.min(max_entries));
    let max_new_per_guest =
        number(&mut table, "max_new_per_guest", 1..=NEW_MAX, "", default.max_new_per_guest);
    let timeouts = table.table("timeouts", "timeouts = { udp = 300 }").ok().flatten();
    let timeouts = timeouts.map(self::timeouts).unwrap_or_default();
    table.finish(&[]);
    Conntrack { max_entries, max_entries_per_guest: of_guest, max_new_per_guest, timeouts }
}

fn timeouts(mut table: Reader<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let mut seconds = |key, default| number(&mut table, key, 1..=TIMEOUT_MAX, " s", default);
    let timeouts = Timeouts {
        tcp_transitory: seconds("tcp_transitory", default.tcp_transitory),
        tcp_established: seconds("tcp_established", default.tcp_established),
        tcp_closing: seconds("tcp_closing", default.tcp_closing),
        udp: seconds("udp", default.udp),
        icmp: seconds("icmp", default.icmp),
        other: seconds("other", default.other),
    };
    table.finish(&[]);
    timeouts
}
