//! The words of port security and security groups, each value by itself: `[[security_group]]`, `[[address_group]]`, and what
//! ports say.

use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::text::{Net, Ports, Protocol, no_source};
use super::{
    AddressGroup, Direction, Ethertype, RuleRemote, SecurityGroup, SecurityLog, SecurityRule, protocol,
};
use crate::model::diagnostic::{Report, Reported};
use crate::model::read::{Place, given, name, origin, station, word};
use crate::model::reader::{Field, List, Reader};
use crate::types::Mac;

/// The objects of a file, each right by itself.
pub(in crate::model) struct DraftSecurity {
    pub(super) groups: Vec<DraftGroup>,
    pub(super) address_groups: Vec<DraftAddressGroup>,
}

pub(super) struct DraftGroup {
    pub(super) at: Place,
    /// Its rules are missing.
    pub(super) object: SecurityGroup,
    pub(super) rules: Vec<DraftRule>,
}

/// What one line of `rules` says.
pub(super) struct DraftRule {
    pub(super) at: Range<usize>,
    /// None where there is a mistake.
    pub(super) rules: Vec<SecurityRule>,
    /// The group at the other end.
    pub(super) named: Option<Named>,
}

pub(super) enum Named {
    Group(Spanned<String>),
    AddressGroup(Spanned<String>),
}

pub(super) struct DraftAddressGroup {
    pub(super) at: Place,
    pub(super) object: AddressGroup,
}

/// What a port says of its security.
pub(in crate::model) struct DraftPortSecurity {
    pub(super) enabled: Field<bool>,
    /// None: left out.
    pub(super) groups: Option<Listed<Spanned<String>>>,
    /// None: left out.
    pub(super) pairs: Option<Listed<DraftPair>>,
}

/// A list that is there, and its key.
pub(super) struct Listed<T> {
    pub(super) at: Range<usize>,
    pub(super) items: Vec<T>,
    pub(super) whole: Result<(), Reported>,
}

pub(super) struct DraftPair {
    pub(super) at: Range<usize>,
    pub(super) ip_address: Result<IpNet, Reported>,
    pub(super) mac_address: Field<Mac>,
}

/// Reads the groups.
pub(in crate::model) fn document(root: &mut Reader<'_, '_>, report: &Report<'_>) -> DraftSecurity {
    let groups = root.objects("security_group");
    let address_groups = root.objects("address_group");
    DraftSecurity {
        groups: groups.into_iter().map(|table| group(table, report)).collect(),
        address_groups: address_groups.into_iter().map(|table| address_group(table, report)).collect(),
    }
}

/// Words of `log`.
const LOG: &[(&str, SecurityLog)] = &[
    ("none", SecurityLog::None),
    ("accepted", SecurityLog::Accepted),
    ("dropped", SecurityLog::Dropped),
    ("all", SecurityLog::All),
];

fn group(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftGroup {
    let (name, name_span) = name(&mut table);
    let object = SecurityGroup {
        id: crate::model::id("security_group", &name),
        name,
        description: given(word(&mut table, "description")),
        stateful: table.or("stateful", true),
        log: given(table.choice("log", LOG, &[])).unwrap_or_default(),
        rules: Vec::new(),
        origin: origin(&table, report),
    };
    let example = "rules = [{ direction = \"ingress\", protocol = \"tcp\", ports = \"22\" }]";
    let (rules, _) = table.parts("rules", example);
    let rules = rules.into_iter().map(rule).collect();
    let at = Place { path: table.path().to_owned(), name: name_span, device: table.span() };
    table.refuse_renamed(&[("security_group_rules", "rules")]);
    table.finish(&[]);
    DraftGroup { at, object, rules }
}

fn address_group(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftAddressGroup {
    let (name, name_span) = name(&mut table);
    let object = AddressGroup {
        id: crate::model::id("address_group", &name),
        name,
        description: given(word(&mut table, "description")),
        addresses: addresses(&mut table),
        origin: origin(&table, report),
    };
    let at = Place { path: table.path().to_owned(), name: name_span, device: table.span() };
    table.finish(&[]);
    DraftAddressGroup { at, object }
}

fn addresses(table: &mut Reader<'_, '_>) -> Vec<IpNet> {
    let list = table.list::<Net>("addresses");
    if table.given("addresses").is_none() {
        table
            .missing("addresses", Some("a list of prefixes like [\"192.0.2.0/24\"]; [] for none".to_owned()));
    }
    let mut addresses: Vec<IpNet> = Vec::new();
    for net in list.items {
        let span = net.span();
        let Ok(net) = bare(table, "addresses", net) else { continue };
        if addresses.contains(&net) {
            table.wrong(span, "addresses", format!("{net} is listed twice"), None);
            continue;
        }
        addresses.push(net);
    }
    addresses
}

/// A prefix without host bits.
fn bare(table: &Reader<'_, '_>, key: &str, net: Spanned<Net>) -> Result<IpNet, Reported> {
    let (span, Net(net)) = (net.span(), net.into_inner());
    if net == net.trunc() {
        return Ok(net);
    }
    let hint = Some(format!("did you mean `{}`?", net.trunc()));
    Err(table.wrong(span, key, format!("`{net}` has bits set behind its prefix"), hint))
}

/// Neutron's words for what is written otherwise here.
const RENAMED: &[(&str, &str)] = &[
    ("port_range_min", "ports"),
    ("port_range_max", "ports"),
    ("remote_ip_prefix", "remote"),
    ("remote_group_id", "remote_group"),
    ("remote_address_group_id", "remote_address_group"),
];

fn rule(mut table: Reader<'_, '_>) -> DraftRule {
    let direction = direction(&mut table);
    let ethertypes = [("IPv4", Ethertype::V4), ("IPv6", Ethertype::V6)];
    let ethertype = table.choice("ethertype", &ethertypes, &[]);
    let protocol = table.field::<Protocol>("protocol");
    let ports = ports(&mut table, &protocol);
    let icmp = icmp(&mut table, &protocol);
    let (remote, named) = remote(&mut table);
    let ethertypes = self::ethertypes(&table, ethertype, &protocol, &remote);
    let description = given(word(&mut table, "description"));
    let at = table.span();
    table.refuse_renamed(RENAMED);
    table.finish(&[]);
    let rules = || {
        let (direction, ports, icmp, ethertypes) = (direction?, ports?, icmp?, ethertypes?);
        let protocol = number(&protocol)?;
        let remote = match remote?.map(Spanned::into_inner) {
            Some(RuleRemote::Prefix(net)) if net.prefix_len() == 0 => RuleRemote::Any,
            remote => remote.unwrap_or(RuleRemote::Any),
        };
        let rules = ethertypes.iter().flat_map(|ethertype| {
            ports.iter().map(|ports| SecurityRule {
                direction,
                ethertype: *ethertype,
                protocol: protocol.map(|number| of_family(number, *ethertype)),
                ports: *ports,
                icmp,
                remote: remote.clone(),
                description: description.clone(),
            })
        });
        Ok::<_, Reported>(rules.collect())
    };
    DraftRule { at, rules: rules().unwrap_or_default(), named }
}

/// ICMP of IPv6 is ICMPv6, as Neutron has it.
fn of_family(number: u8, ethertype: Ethertype) -> u8 {
    if number == protocol::ICMP && ethertype == Ethertype::V6 { protocol::ICMPV6 } else { number }
}

fn direction(table: &mut Reader<'_, '_>) -> Result<Direction, Reported> {
    let words = [("ingress", Direction::Ingress), ("egress", Direction::Egress)];
    match table.choice("direction", &words, &[])? {
        Some(direction) => Ok(direction.into_inner()),
        None => {
            let hint = "\"ingress\": what enters the guest; \"egress\": what leaves it";
            Err(table.missing("direction", Some(hint.to_owned())))
        }
    }
}

/// The ranges, one none for any port.
fn ports(
    table: &mut Reader<'_, '_>,
    protocol: &Field<Protocol>,
) -> Result<Vec<Option<(u16, u16)>>, Reported> {
    let Some(ports) = table.field::<Ports>("ports")? else { return Ok(vec![None]) };
    let number = number(protocol)?;
    if number.is_some_and(protocol::has_ports) {
        return Ok(ports.into_inner().0.into_iter().map(Some).collect());
    }
    let hint = match number.is_some_and(protocol::is_icmp) {
        true => "ICMP has `icmp_type` and `icmp_code`",
        false => "write protocol = \"tcp\", or udp, udplite, sctp, dccp",
    };
    let message = match number {
        None => "`ports` needs a `protocol`".to_owned(),
        Some(number) => format!("{} has no ports", word_of(number)),
    };
    Err(table.wrong(ports.span(), "ports", message, Some(hint.to_owned())))
}

fn icmp(
    table: &mut Reader<'_, '_>,
    protocol: &Field<Protocol>,
) -> Result<Option<(u8, Option<u8>)>, Reported> {
    let kind = table.number("icmp_type", 0..=255, "");
    let code = table.number("icmp_code", 0..=255, "");
    let fields = [("icmp_type", &kind), ("icmp_code", &code)];
    let there = |(key, field): (_, &Field<u32>)| Some((key, field.as_ref().ok()?.as_ref()?.span()));
    if let (Some((key, at)), Ok(number)) = (fields.into_iter().find_map(there), number(protocol))
        && !number.is_some_and(protocol::is_icmp)
    {
        let message = format!("`{key}` needs protocol = \"icmp\" or \"ipv6-icmp\"");
        return Err(table.wrong(at, key, message, None));
    }
    let byte = |value: Spanned<u32>| u8::try_from(value.into_inner()).unwrap_or_default();
    match (kind?, code?) {
        (None, Some(code)) => {
            let hint = Some("a code is one of a type's: give that too".to_owned());
            Err(table.wrong(code.span(), "icmp_code", "`icmp_code` needs `icmp_type`", hint))
        }
        (kind, code) => Ok(kind.map(|kind| (byte(kind), code.map(byte)))),
    }
}

/// The protocol's number; none: any.
fn number(protocol: &Field<Protocol>) -> Result<Option<u8>, Reported> {
    let protocol = protocol.as_ref().map_err(|reported| *reported)?;
    Ok(protocol.as_ref().and_then(|protocol| protocol.get_ref().0))
}

fn word_of(number: u8) -> String {
    protocol::name(number).map_or_else(|| format!("protocol {number}"), |name| format!("`{name}`"))
}

/// The other end, and the group that it names.
fn remote(table: &mut Reader<'_, '_>) -> (Field<RuleRemote>, Option<Named>) {
    let prefix = table.field::<Net>("remote");
    let group = table.field::<String>("remote_group");
    let address_group = table.field::<String>("remote_address_group");
    let keys = ["remote", "remote_group", "remote_address_group"];
    let mut there = keys.into_iter().filter_map(|key| Some((key, table.given(key)?)));
    if let (Some((first, _)), Some((second, span))) = (there.next(), there.next()) {
        let message = format!("`{second}` and `{first}` exclude each other");
        let hint = Some("write a rule for each".to_owned());
        return (Err(table.wrong(span, second, message, hint)), None);
    }
    match (prefix, group, address_group) {
        (Ok(Some(net)), ..) => {
            let span = net.span();
            let net = bare(table, "remote", net);
            (net.map(|net| Some(Spanned::new(span, RuleRemote::Prefix(net)))), None)
        }
        (_, Ok(Some(name)), _) => {
            let remote = Spanned::new(name.span(), RuleRemote::Group(name.get_ref().clone()));
            (Ok(Some(remote)), Some(Named::Group(name)))
        }
        (.., Ok(Some(name))) => {
            let remote = Spanned::new(name.span(), RuleRemote::AddressGroup(name.get_ref().clone()));
            (Ok(Some(remote)), Some(Named::AddressGroup(name)))
        }
        (Ok(None), Ok(None), Ok(None)) => (Ok(None), None),
        _ => (Err(Reported), None),
    }
}

/// The IP versions that a rule is about: said, or as the remote prefix and the protocol tell, else both.
fn ethertypes(
    table: &Reader<'_, '_>,
    ethertype: Field<Ethertype>,
    protocol: &Field<Protocol>,
    remote: &Field<RuleRemote>,
) -> Result<Vec<Ethertype>, Reported> {
    let number = number(protocol)?;
    let remote = remote.as_ref().map_err(|reported| *reported)?.as_ref();
    let prefix = remote.and_then(|remote| match remote.get_ref() {
        RuleRemote::Prefix(net) => Some((remote.span(), *net)),
        _ => None,
    });
    let ipv6_only = number.is_some_and(protocol::is_ipv6_only);
    let said = ethertype?;
    let by_protocol = match number {
        _ if ipv6_only => Some(Ethertype::V6),
        Some(protocol::ICMP) => Some(Ethertype::V4),
        _ => None,
    };
    if let (Some(said), true) = (&said, ipv6_only)
        && *said.get_ref() == Ethertype::V4
    {
        let message = format!("no IPv4 packet carries {}", word_of(number.unwrap_or_default()));
        let hint = Some("leave `ethertype` out, or choose another protocol".to_owned());
        return Err(table.wrong(said.span(), "ethertype", message, hint));
    }
    // ICMP of IPv6 is ICMPv6: what is said counts before the protocol.
    let known = said.map(Spanned::into_inner).or(by_protocol);
    let Some((at, net)) = prefix else { return Ok(known.map_or(Ethertype::ALL.to_vec(), |one| vec![one])) };
    let of_net = Ethertype::of(&net);
    if let Some(known) = known.filter(|known| *known != of_net) {
        let hint = match number {
            Some(protocol::ICMP) => Some("`ipv6-icmp` is the ICMP of IPv6".to_owned()),
            _ => None,
        };
        return Err(table.wrong(
            at,
            "remote",
            format!("{net} is {of_net}, and the rule is of {known}"),
            hint,
        ));
    }
    Ok(vec![of_net])
}

/// A port's `port_security_enabled`, `security_groups` and `allowed_address_pairs`.
pub(in crate::model) fn port(table: &mut Reader<'_, '_>) -> DraftPortSecurity {
    let enabled = table.field::<bool>("port_security_enabled");
    let List { items, whole } = table.list::<String>("security_groups");
    let groups = table.given("security_groups").map(|at| Listed { at, items, whole });
    let example = "allowed_address_pairs = [{ ip_address = \"192.0.2.100\" }]";
    let (pairs, whole) = table.parts("allowed_address_pairs", example);
    let items = pairs.into_iter().map(pair).collect();
    let pairs = table.given("allowed_address_pairs").map(|at| Listed { at, items, whole });
    DraftPortSecurity { enabled, groups, pairs }
}

fn pair(mut table: Reader<'_, '_>) -> DraftPair {
    let ip_address = table.required::<Net>("ip_address").and_then(|net| {
        let span = net.span();
        let net = bare(&table, "ip_address", net)?;
        match no_source(&net) {
            Some(why) => Err(table.wrong(span, "ip_address", format!("{} {why}", shown(&net)), None)),
            None => Ok(net),
        }
    });
    let mac_address = station(&mut table);
    let at = table.span();
    table.finish(&[]);
    DraftPair { at, ip_address, mac_address }
}

/// A prefix, or the address alone where it is one.
pub(super) fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}
