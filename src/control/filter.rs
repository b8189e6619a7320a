//! Lists as the Neutron API gives them: filtered by equality of fields (`?name=web1&name=web2` is either), cut down to
//! `fields=`. Unknown names are errors, so that a misspelt filter does not look like an empty or a full list.

use serde::Serialize;
use serde_json::{Map, Value};

use super::view::{
    AddressGroup, Binding, Connection, Drop, FdbEntry, FloatingIp, Lease, Neighbour, Network, Port,
    PortForwarding, Problem, Route, Router, SecurityGroup, SecurityGroupRule, Subnet,
};
use crate::types::Mac;

/// A kind of object that the API lists.
pub trait Resource: Serialize {
    /// The name of a list of them in the answer.
    const COLLECTION: &str;
    /// Fields that a list can be filtered by.
    const SCALARS: &[&str];
    /// The other fields.
    const COMPOUNDS: &[&str];
}

impl Resource for Network {
    const COLLECTION: &str = "networks";
    const SCALARS: &[&str] = &[
        "id",
        "name",
        "network_type",
        "physical_network",
        "segmentation_id",
        "mtu",
        "mac_limit",
        "dns_domain",
        "port_security_enabled",
        "macs",
        "status",
    ];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Port {
    const COLLECTION: &str = "ports";
    const SCALARS: &[&str] = &[
        "id",
        "name",
        "role",
        "network",
        "mac_address",
        "mtu",
        "worker",
        "status",
        "status_reason",
        "admin_state_up",
        "port_security_enabled",
    ];
    const COMPOUNDS: &[&str] =
        &["trunk", "interface", "extra_dhcp_opts", "security_groups", "allowed_address_pairs", "counters"];
}

impl Resource for FdbEntry {
    const COLLECTION: &str = "fdb";
    const SCALARS: &[&str] = &["network", "vlan", "mac", "port", "kind", "age_seconds"];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Drop {
    const COLLECTION: &str = "drops";
    const SCALARS: &[&str] = &["port", "reason", "meaning", "count"];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Lease {
    const COLLECTION: &str = "leases";
    const SCALARS: &[&str] = &[
        "network",
        "subnet",
        "port",
        "mac_address",
        "ip_address",
        "hostname",
        "lease_time",
        "kind",
        "state",
        "expires_in",
    ];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Router {
    const COLLECTION: &str = "routers";
    const SCALARS: &[&str] =
        &["id", "name", "status", "admin_state_up", "worker", "connections", "bindings", "exhausted"];
    const COMPOUNDS: &[&str] = &["external_gateway_info", "routes", "interfaces"];
}

impl Resource for Subnet {
    const COLLECTION: &str = "subnets";
    const SCALARS: &[&str] = &[
        "id",
        "name",
        "network_id",
        "network",
        "ip_version",
        "cidr",
        "gateway_ip",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
    ];
    const COMPOUNDS: &[&str] = &["allocation_pools", "dns_nameservers", "ntp_servers", "host_routes"];
}

impl Resource for FloatingIp {
    const COLLECTION: &str = "floatingips";
    const SCALARS: &[&str] = &[
        "id",
        "floating_ip_address",
        "floating_network_id",
        "floating_network",
        "router_id",
        "router",
        "port_id",
        "port",
        "fixed_ip_address",
        "status",
    ];
    const COMPOUNDS: &[&str] = &["port_forwardings"];
}

impl Resource for PortForwarding {
    const COLLECTION: &str = "port_forwardings";
    const SCALARS: &[&str] = &[
        "id",
        "protocol",
        "external_port",
        "external_port_range",
        "internal_port_id",
        "internal_ip_address",
        "internal_port",
        "internal_port_range",
    ];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Route {
    const COLLECTION: &str = "routes";
    const SCALARS: &[&str] = &["router", "destination", "kind", "interface", "origin", "subnet"];
    const COMPOUNDS: &[&str] = &["nexthops"];
}

impl Resource for Neighbour {
    const COLLECTION: &str = "neighbours";
    const SCALARS: &[&str] = &["router", "network", "interface", "address", "mac", "state"];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for Connection {
    const COLLECTION: &str = "conntrack";
    const SCALARS: &[&str] =
        &["router", "network", "worker", "protocol", "state", "inbound", "expires_in", "guest"];
    const COMPOUNDS: &[&str] =
        &["original", "translated", "reply", "egress_rule", "ingress_rule", "packets", "bytes"];
}

impl Resource for SecurityGroup {
    const COLLECTION: &str = "security_groups";
    const SCALARS: &[&str] = &["id", "name", "description", "stateful", "log"];
    const COMPOUNDS: &[&str] = &["security_group_rules", "ports", "members"];
}

impl Resource for SecurityGroupRule {
    const COLLECTION: &str = "security_group_rules";
    const SCALARS: &[&str] = &[
        "id",
        "security_group_id",
        "security_group",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_group",
        "remote_address_group_id",
        "remote_address_group",
        "description",
    ];
    const COMPOUNDS: &[&str] = &[];
}

impl Resource for AddressGroup {
    const COLLECTION: &str = "address_groups";
    const SCALARS: &[&str] = &["id", "name", "description"];
    const COMPOUNDS: &[&str] = &["addresses"];
}

impl Resource for Binding {
    const COLLECTION: &str = "bindings";
    const SCALARS: &[&str] = &[
        "router",
        "protocol",
        "inside_address",
        "inside_port",
        "outside_address",
        "outside_port",
        "connections",
        "current",
    ];
    const COMPOUNDS: &[&str] = &[];
}

/// What a query asks for.
struct Selection<'a> {
    filters: Vec<(&'a str, String)>,
    fields: Vec<&'a str>,
}

impl<'a> Selection<'a> {
    fn parse<T: Resource>(query: &'a [(String, String)]) -> Result<Selection<'a>, Problem> {
        let (mut filters, mut fields) = (Vec::new(), Vec::new());
        let (mut unknown, mut compound) = (Vec::new(), Vec::new());
        for (key, value) in query {
            let name = if key == "fields" { value.as_str() } else { key.as_str() };
            let is_scalar = T::SCALARS.contains(&name);
            if !is_scalar && !T::COMPOUNDS.contains(&name) {
                unknown.push(name);
            } else if key == "fields" {
                fields.push(name);
            } else if !is_scalar {
                compound.push(name);
            } else {
                filters.push((name, canonical(name, value)));
            }
        }
        if !unknown.is_empty() {
            let known = T::SCALARS.iter().chain(T::COMPOUNDS).copied().collect::<Vec<_>>().join(", ");
            let message = format!("{} have no field {}.", T::COLLECTION, unknown.join(", "));
            return Err(Problem::invalid(message).with_detail(format!("The fields are {known}.")));
        }
        if !compound.is_empty() {
            let message = format!("{} cannot be filtered by {}.", T::COLLECTION, compound.join(", "));
            return Err(Problem::invalid(message));
        }
        Ok(Selection { filters, fields })
    }

    /// Every name that is filtered by has a value that matches.
    fn takes(&self, object: &Map<String, Value>) -> bool {
        self.filters.iter().all(|(name, _)| {
            let value = object.get(*name).unwrap_or(&Value::Null);
            self.filters.iter().any(|(other, wanted)| name == other && matches(value, wanted))
        })
    }

    fn cut(&self, object: &mut Map<String, Value>) {
        if !self.fields.is_empty() {
            object.retain(|name, _| self.fields.contains(&name.as_str()));
        }
    }
}

/// MACs are compared in the way that they are printed.
fn canonical(name: &str, value: &str) -> String {
    match value.parse::<Mac>() {
        Ok(mac) if name == "mac" || name == "mac_address" => mac.to_string(),
        _ => value.to_owned(),
    }
}

fn matches(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        Value::Bool(flag) => wanted.eq_ignore_ascii_case(if *flag { "true" } else { "false" }),
        Value::Null => wanted.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn object<T: Serialize>(item: &T) -> Result<Map<String, Value>, Problem> {
    match serde_json::to_value(item) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Problem::internal(format!("not an object: {other}"))),
        Err(error) => Err(Problem::internal(error.to_string())),
    }
}

/// The answer to a list request: `{"<collection>": […]}`.
///
/// # Errors
/// 400 when the query names what is not there.
pub fn list<T: Resource>(items: &[T], query: &[(String, String)]) -> Result<Value, Problem> {
    let selection = Selection::parse::<T>(query)?;
    let mut chosen = Vec::new();
    for item in items {
        let mut object = object(item)?;
        if selection.takes(&object) {
            selection.cut(&mut object);
            chosen.push(Value::Object(object));
        }
    }
    Ok(Value::Object(Map::from_iter([(T::COLLECTION.to_owned(), Value::Array(chosen))])))
}

/// The answer to a request for one object: `{"<key>": {…}}`; of the query, `fields` alone makes sense here.
///
/// # Errors
/// 400 when the query asks for more, or for fields that are not there.
pub fn show<T: Resource>(item: &T, key: &str, query: &[(String, String)]) -> Result<Value, Problem> {
    let selection = Selection::parse::<T>(query)?;
    if !selection.filters.is_empty() {
        return Err(Problem::invalid(format!(
            "One {key} cannot be filtered; only `fields` can be asked for."
        )));
    }
    let mut object = object(item)?;
    selection.cut(&mut object);
    Ok(Value::Object(Map::from_iter([(key.to_owned(), Value::Object(object))])))
}

#[cfg(test)]
mod tests {
    use super::super::view::FdbKind;
    use super::*;

    fn entry(port: &str, vlan: Option<u16>, mac: &str) -> FdbEntry {
        let (network, port, mac) = ("blue".into(), port.into(), mac.parse().unwrap());
        FdbEntry { network, vlan, mac, port, kind: FdbKind::Learned, age_seconds: Some(3) }
    }

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn values_of_one_field_are_alternatives_and_fields_must_all_match() {
        let all = [
            entry("a", Some(120), "52:54:00:00:00:0a"),
            entry("b", Some(120), "52:54:00:00:00:0b"),
            entry("c", None, "52:54:00:00:00:0c"),
        ];
        let ports = |pairs: &[(&str, &str)]| -> Vec<String> {
            let answer = list(&all, &query(pairs)).unwrap();
            let list = answer["fdb"].as_array().unwrap();
            list.iter().map(|entry| entry["port"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ports(&[]), ["a", "b", "c"]);
        assert_eq!(ports(&[("port", "a"), ("port", "c")]), ["a", "c"]);
        assert_eq!(ports(&[("port", "a"), ("port", "c"), ("vlan", "120")]), ["a"]);
        assert_eq!(ports(&[("vlan", "")]), ["c"]);
        assert_eq!(ports(&[("mac", "52-54-00-00-00-0B")]), ["b"]);
        assert_eq!(ports(&[("port", "A")]), [""; 0]);
    }

    #[test]
    fn unknown_names_are_refused_even_for_an_empty_list() {
        for pairs in [[("prot", "a")], [("fields", "prot")]] {
            let problem = list::<FdbEntry>(&[], &query(&pairs)).unwrap_err();
            assert_eq!(problem.status, 400);
            assert!(problem.body.message.contains("prot"), "{problem}");
        }
        assert_eq!(list::<Port>(&[], &query(&[("trunk", "x")])).unwrap_err().status, 400);
    }

    #[test]
    fn only_the_fields_asked_for_are_given() {
        let answer =
            show(&entry("a", None, "52:54:00:00:00:0a"), "entry", &query(&[("fields", "port")])).unwrap();
        assert_eq!(answer, serde_json::json!({"entry": {"port": "a"}}));
    }
}
