//! Security groups, as the control API tells of them: Neutron's objects, the rules of a port as they are compiled, and the
//! security log.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model;
use crate::types::Mac;

/// A security group: `GET /v2.0/security-groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among security groups.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whether what is let through is remembered, so that replies pass.
    pub stateful: bool,
    /// What is written into the security log: `none`, `accepted`, `dropped` or `all`.
    pub log: String,
    /// What may pass.
    pub security_group_rules: Vec<SecurityGroupRule>,
    /// Names of the ports that have it.
    pub ports: Vec<String>,
    /// Addresses of its members, and prefixes of their address pairs: whom `remote_group` means.
    pub members: Vec<String>,
}

/// A rule of a security group: `GET /v2.0/security-group-rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Stable for the group's name and what the rule says.
    pub id: Uuid,
    /// Its group.
    pub security_group_id: Uuid,
    /// The group's name.
    pub security_group: String,
    /// `ingress`: it enters the guest; `egress`: it leaves it.
    pub direction: String,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// Name of the IP protocol, or its number where it has none; none: any.
    pub protocol: Option<String>,
    /// First destination port, or the type of ICMP; none: any.
    pub port_range_min: Option<u16>,
    /// Last destination port, or the code of ICMP; none: any.
    pub port_range_max: Option<u16>,
    /// The prefix at the other end. Of this and the next two at most one is there; none: anybody.
    pub remote_ip_prefix: Option<String>,
    /// The security group whose members are at the other end.
    pub remote_group_id: Option<Uuid>,
    /// Its name.
    pub remote_group: Option<String>,
    /// The address group at the other end.
    pub remote_address_group_id: Option<Uuid>,
    /// Its name.
    pub remote_address_group: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// An address group: `GET /v2.0/address-groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among address groups.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Prefixes of both IP versions.
    pub addresses: Vec<String>,
}

/// One of a port's `allowed_address_pairs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// Addresses that its guest may send from.
    pub ip_address: String,
    /// With this MAC.
    pub mac_address: Mac,
}

/// The rules that are in force at a port: `GET /v1/ports/{name}/rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRules {
    /// Name of the port.
    pub port: String,
    /// False: the port is trusted, and no rule is about it.
    pub port_security_enabled: bool,
    /// Names of its groups; none: its network has no subnets, so that rules would be about nothing, or port security is off.
    pub security_groups: Option<Vec<String>>,
    /// Whether they remember connections; none where there are no groups.
    pub stateful: Option<bool>,
    /// In the order in which the first one that matches is told: what enters the guest, then what leaves it.
    pub rules: Vec<PortRule>,
}

/// A rule in force at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: SecurityGroupRule,
    /// How many connections it let begin at this port, and packets where nothing is remembered of those, since it is in force
    /// there.
    pub hits: u64,
}

/// A line of the security log: `GET /v1/security-log`, and the file `switch.security_log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum SecurityEvent {
    /// From here on all is told; on the control socket alone.
    Following,
    /// A rule let something begin at a port.
    Accepted(SecurityLine),
    /// The groups of a port did not let a packet pass.
    Dropped(SecurityLine),
    /// So many lines before the next one are not there, as too much was to be written at once, or the file could not be.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What the security log says of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityLine {
    /// RFC 3339, in UTC with milliseconds.
    pub time: String,
    /// Name of the port.
    pub port: String,
    /// Name of its network.
    pub network: String,
    /// The way of the packet: `ingress` enters the guest, `egress` leaves it.
    pub direction: String,
    /// Names of the groups: that of the rule, or, where none let it pass, all of the port.
    pub security_groups: Vec<String>,
    /// The rule that let it pass, as people read it.
    pub rule: Option<String>,
    /// The name of the reason why it was dropped, as `nuswitch show drops` has it.
    pub reason: Option<String>,
    /// `IPv4` or `IPv6`; none, as what follows, where the packet could not be read.
    pub ethertype: Option<String>,
    /// Name or number of the IP protocol.
    pub protocol: Option<String>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// Where it was to go.
    pub destination: Option<IpAddr>,
    /// The source's port, where it has one.
    pub source_port: Option<u16>,
    /// The destination's.
    pub destination_port: Option<u16>,
    /// The type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// Its code.
    pub icmp_code: Option<u8>,
    /// Lines of this port before this one that were left out, as it had too many.
    pub suppressed: u64,
}

impl SecurityGroup {
    /// A group of the model, with the names of the ports that have it and whom `remote_group` means.
    pub fn of(group: &model::SecurityGroup, ports: Vec<String>, members: &[IpNet]) -> SecurityGroup {
        SecurityGroup {
            id: group.id,
            name: group.name.clone(),
            description: group.description.clone(),
            stateful: group.stateful,
            log: group.log.to_string(),
            security_group_rules: group.rules.iter().map(|rule| SecurityGroupRule::of(rule, group)).collect(),
            ports,
            members: members.iter().map(ToString::to_string).collect(),
        }
    }
}

impl SecurityGroupRule {
    /// A rule of a group of the model.
    pub fn of(rule: &model::SecurityRule, group: &model::SecurityGroup) -> SecurityGroupRule {
        let (min, max) = match (rule.ports, rule.icmp) {
            (Some((first, last)), _) => (Some(first), Some(last)),
            (None, Some((kind, code))) => (Some(kind.into()), code.map(u16::from)),
            (None, None) => (None, None),
        };
        let (mut prefix, mut remote_group, mut remote_address_group) = (None, None, None);
        match &rule.remote {
            model::RuleRemote::Any => {}
            model::RuleRemote::Prefix(net) => prefix = Some(net.to_string()),
            model::RuleRemote::Group(name) => remote_group = Some(name),
            model::RuleRemote::AddressGroup(name) => remote_address_group = Some(name),
        }
        SecurityGroupRule {
            id: rule.id(&group.name),
            security_group_id: group.id,
            security_group: group.name.clone(),
            direction: rule.direction.to_string(),
            ethertype: rule.ethertype.to_string(),
            protocol: rule.protocol_name(),
            port_range_min: min,
            port_range_max: max,
            remote_ip_prefix: prefix,
            remote_group_id: remote_group.map(|name| model::id("security_group", name)),
            remote_group: remote_group.cloned(),
            remote_address_group_id: remote_address_group.map(|name| model::id("address_group", name)),
            remote_address_group: remote_address_group.cloned(),
            description: rule.description.clone(),
        }
    }
}

impl From<&model::AddressGroup> for AddressGroup {
    fn from(group: &model::AddressGroup) -> AddressGroup {
        AddressGroup {
            id: group.id,
            name: group.name.clone(),
            description: group.description.clone(),
            addresses: group.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&model::AddressPair> for AddressPair {
    fn from(pair: &model::AddressPair) -> AddressPair {
        AddressPair { ip_address: pair.ip_address.to_string(), mac_address: pair.mac_address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_in_neutrons_fields() {
        let text = "security_group = [{ name = 'web', description = 'HTTP', rules = [
            { direction = 'ingress', protocol = 'tcp', ports = '80-90', remote = '192.0.2.0/24' },
            { direction = 'ingress', ethertype = 'IPv4', remote_group = 'default', description = 'own' },
            { direction = 'egress', protocol = 'icmp', icmp_type = 8, icmp_code = 0 },
            { direction = 'egress', protocol = 'ipv6-icmp', icmp_type = 128 },
            { direction = 'egress', ethertype = 'IPv6', protocol = 99, remote_address_group = 'office' }] }]
            address_group = [{ name = 'office', addresses = ['2001:db8::/32'] }]";
        let model = model::load(text, "f.toml").unwrap();
        let web = model.security_groups.iter().find(|group| group.name == "web").unwrap();
        let view = SecurityGroup::of(web, vec!["web1".into()], &["10.0.0.1/32".parse().unwrap()]);
        assert_eq!(
            (view.description.as_deref(), view.stateful, view.log.as_str()),
            (Some("HTTP"), true, "none")
        );
        assert_eq!(view.members, ["10.0.0.1/32"]);
        let rules = &view.security_group_rules;
        let said: Vec<_> = rules
            .iter()
            .map(|rule| {
                (
                    &*rule.direction,
                    &*rule.ethertype,
                    rule.protocol.as_deref(),
                    rule.port_range_min,
                    rule.port_range_max,
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                ("ingress", "IPv4", Some("tcp"), Some(80), Some(90)),
                ("ingress", "IPv4", None, None, None),
                ("egress", "IPv4", Some("icmp"), Some(8), Some(0)),
                ("egress", "IPv6", Some("ipv6-icmp"), Some(128), None),
                ("egress", "IPv6", Some("99"), None, None),
            ]
        );
        assert_eq!(rules[0].remote_ip_prefix.as_deref(), Some("192.0.2.0/24"));
        let default = model.security_groups.iter().find(|group| group.name == "default").unwrap();
        assert_eq!(
            (rules[1].remote_group_id, rules[1].description.as_deref()),
            (Some(default.id), Some("own"))
        );
        assert_eq!(rules[4].remote_address_group_id, Some(model.address_groups[0].id));
        // IDs are the rules' own, and the same every time.
        let ids: std::collections::HashSet<Uuid> = rules.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), 5);
        assert!(rules.iter().all(|rule| rule.security_group_id == web.id));
        assert_eq!(SecurityGroupRule::of(&web.rules[0], web).id, rules[0].id);
    }
}
