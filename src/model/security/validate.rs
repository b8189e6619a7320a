//! Puts security groups together with ports: which names mean something, which ports have port security, and what that can be
//! about.

use std::collections::{HashMap, HashSet};

use toml::Spanned;

use super::read::{DraftAddressGroup, DraftGroup, DraftPair, DraftRule, DraftSecurity, Listed, Named, shown};
use super::{AddressGroup, AddressPair, DEFAULT_GROUP, PortSecurity, SecurityGroup};
use crate::model::diagnostic::{Report, Reported};
use crate::model::read::{DraftNetwork, DraftPort};
use crate::model::schema::*;
use crate::model::validate::{Names, limit, refer, unique};
use crate::types::Mac;

/// What port security is judged against.
pub(in crate::model) struct Scene<'d, 'r> {
    pub(in crate::model) report: &'r Report<'r>,
    pub(in crate::model) networks: &'d [DraftNetwork],
    pub(in crate::model) network_names: &'d Names<'d>,
    pub(in crate::model) ports: &'d [DraftPort],
    pub(in crate::model) attachments: &'d [Result<Attachment, Reported>],
    /// Of each port.
    pub(in crate::model) macs: &'d [Option<Mac>],
    pub(in crate::model) subnets: &'d [Subnet],
    /// Whether those are all that were meant.
    pub(in crate::model) subnets_whole: Result<(), Reported>,
}

/// The groups, and the security of each port.
pub(in crate::model) struct Security {
    pub(in crate::model) groups: Vec<SecurityGroup>,
    pub(in crate::model) address_groups: Vec<AddressGroup>,
    pub(in crate::model) ports: Vec<Option<PortSecurity>>,
}

/// Puts the groups together and finds out what they mean for ports.
pub(in crate::model) fn validate(draft: DraftSecurity, scene: &Scene<'_, '_>) -> Security {
    let report = scene.report;
    limit(report, "security groups", draft.groups.iter().map(|group| &group.at));
    limit(report, "address groups", draft.address_groups.iter().map(|group| &group.at));
    let of_group = |group: &'_ DraftGroup| group.object.origin.line;
    let groups = draft.groups.iter();
    let mut names = unique(report, groups.map(|g| (g.object.name.as_str(), &g.at, of_group(g))));
    let has_default = names.contains_key(DEFAULT_GROUP);
    names.entry(DEFAULT_GROUP).or_insert(draft.groups.len());
    let of_address_group = |group: &'_ DraftAddressGroup| group.object.origin.line;
    let address_groups = draft.address_groups.iter();
    let address_names =
        unique(report, address_groups.map(|g| (g.object.name.as_str(), &g.at, of_address_group(g))));
    for group in &draft.groups {
        rules(report, group, &names, &address_names);
    }
    let with_subnets: HashSet<&str> = scene.subnets.iter().map(|subnet| subnet.network.as_str()).collect();
    let judge = Judge { scene, names: &names, groups: &draft.groups, with_subnets };
    let ports = scene.ports.iter().enumerate().map(|(index, port)| judge.port(index, port)).collect();
    let built_in = (!has_default).then(SecurityGroup::built_in);
    Security {
        groups: built_in.into_iter().chain(draft.groups.into_iter().map(finished)).collect(),
        address_groups: draft.address_groups.into_iter().map(|group| group.object).collect(),
        ports,
    }
}

fn finished(draft: DraftGroup) -> SecurityGroup {
    SecurityGroup { rules: draft.rules.into_iter().flat_map(|rule| rule.rules).collect(), ..draft.object }
}

/// Each rule once, and the groups that rules name are there.
fn rules(report: &Report<'_>, group: &DraftGroup, names: &Names<'_>, address_names: &Names<'_>) {
    let path = format!("{}.rules", group.at.path);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for DraftRule { at, rules, named } in &group.rules {
        // What is not there was reported.
        let _ = match named {
            Some(Named::Group(name)) => {
                refer(report, names, "security_group", name, &format!("{path}.remote_group"))
            }
            Some(Named::AddressGroup(name)) => {
                let path = format!("{path}.remote_address_group");
                refer(report, address_names, "address_group", name, &path)
            }
            None => Ok(0),
        };
        let mut known = None;
        for text in rules.iter().map(ToString::to_string) {
            if let Some(line) = seen.get(&text) {
                known.get_or_insert((text, *line));
            } else {
                seen.insert(text, report.line(at.start));
            }
        }
        if let Some((text, line)) = known {
            let message = format!("`{text}` is what the rule of line {line} says");
            report.add(at.clone(), &path, message, Some("leave one of them out".to_owned()));
        }
    }
}

/// Judges what ports say.
struct Judge<'d, 'r> {
    scene: &'d Scene<'d, 'r>,
    names: &'d Names<'d>,
    /// In the order of the file; one more means the built-in one.
    groups: &'d [DraftGroup],
    /// Networks that have subnets.
    with_subnets: HashSet<&'d str>,
}

impl Judge<'_, '_> {
    /// The security of a port; none: it is off, or hidden by a mistake.
    fn port(&self, index: usize, port: &DraftPort) -> Option<PortSecurity> {
        let network = match self.scene.attachments.get(index)? {
            Ok(Attachment::Access(name)) => {
                self.scene.networks.get(*self.scene.network_names.get(name.as_str())?)?
            }
            Ok(Attachment::Trunk { .. }) => {
                self.trunk(port);
                return None;
            }
            Err(Reported) => return None,
        };
        if !self.is_on(port, network)? {
            self.off(port);
            return None;
        }
        let Some(mac) = *self.scene.macs.get(index)? else {
            self.no_mac(port);
            return None;
        };
        if self.with_subnets.contains(network.object.name.as_str()) {
            let pairs = self.pairs(port, mac);
            self.leased(port, network, &pairs);
            return Some(PortSecurity {
                security_groups: Some(self.groups(port)?),
                allowed_address_pairs: pairs,
            });
        }
        self.scene.subnets_whole.ok()?;
        self.no_subnets(port, &network.object.name);
        Some(PortSecurity { security_groups: None, allowed_address_pairs: Vec::new() })
    }

    /// Whether port security is on; none where a mistake hides it.
    fn is_on(&self, port: &DraftPort, network: &DraftNetwork) -> Option<bool> {
        match port.security.enabled.as_ref().ok()? {
            Some(said) => Some(*said.get_ref()),
            None => {
                let is_guest =
                    matches!(port.interface.as_ref().ok()?, Interface::Tap { .. } | Interface::Guest { .. });
                Some(is_guest && network.object.port_security_enabled)
            }
        }
    }

    fn wrong(&self, port: &DraftPort, at: std::ops::Range<usize>, key: &str, message: &str, hint: &str) {
        let path = format!("{}.{key}", port.at.path);
        self.scene.report.add(at, &path, message, Some(hint.to_owned()));
    }

    /// Refuses lists that say something.
    fn refuse_lists(&self, port: &DraftPort, message: &str, hint: &str) {
        if let Some(listed) = port.security.groups.as_ref().filter(|listed| listed.says_something()) {
            self.wrong(port, listed.at.clone(), "security_groups", message, hint);
        }
        if let Some(listed) = port.security.pairs.as_ref().filter(|listed| listed.says_something()) {
            self.wrong(port, listed.at.clone(), "allowed_address_pairs", message, hint);
        }
    }

    fn trunk(&self, port: &DraftPort) {
        let message = "a trunk has no port security";
        let hint = "leave it out: a trunk is in several networks, and who is behind it is not known";
        if let Ok(Some(said)) = &port.security.enabled
            && *said.get_ref()
        {
            self.wrong(port, said.span(), "port_security_enabled", message, hint);
        }
        self.refuse_lists(port, message, hint);
    }

    fn off(&self, port: &DraftPort) {
        let hint = "write `port_security_enabled = true`, or leave this out";
        self.refuse_lists(port, "port security is off at this port", hint);
    }

    fn no_mac(&self, port: &DraftPort) {
        if let (Ok(Some(said)), Ok(None)) = (&port.security.enabled, &port.mac_address) {
            let message = "the port has no MAC that it could be held to";
            let hint = "give the port its `mac_address`";
            self.wrong(port, said.span(), "port_security_enabled", message, hint);
        }
    }

    /// An address that the switch leases to whoever asks is none that port security knows.
    fn leased(&self, port: &DraftPort, network: &DraftNetwork, pairs: &[AddressPair]) {
        let has_v4 = match &port.interface {
            Ok(Interface::Tap { address, .. }) => address.iter().any(|(ip, _)| ip.is_ipv4()),
            _ => false,
        } || pairs.iter().any(|pair| pair.ip_address.addr().is_ipv4());
        let none = port.fixed_ips.as_ref().and_then(|fixed| fixed.none_at());
        if let Some(at) = none.filter(|_| network.object.dynamic_leases && !has_v4) {
            let message = "with port security it could not use an address that the switch leases to it";
            let hint = "leave it out: the port has an address of its own then; or write allowed_address_pairs with a prefix of the \
                        pool, or `port_security_enabled = false`";
            self.wrong(port, at, "fixed_ips", message, hint);
        }
    }

    fn no_subnets(&self, port: &DraftPort, network: &str) {
        let message =
            format!("network `{network}` has no subnets, so that nothing is known of addresses there");
        let hint = "leave it out: MACs alone are checked; or write [[subnet]] with its `network` and `cidr`";
        self.refuse_lists(port, &message, hint);
        // An empty list would let nothing pass where there are addresses.
        if let Some(listed) = port.security.groups.as_ref().filter(|listed| !listed.says_something()) {
            self.wrong(port, listed.at.clone(), "security_groups", &message, hint);
        }
    }

    /// The names of its groups, sorted.
    fn groups(&self, port: &DraftPort) -> Option<Vec<String>> {
        let Some(listed) = &port.security.groups else { return Some(vec![DEFAULT_GROUP.to_owned()]) };
        let path = format!("{}.security_groups", port.at.path);
        let mut names: Vec<String> = Vec::new();
        let mut of_kind: [Option<&str>; 2] = [None, None];
        for name in &listed.items {
            let Ok(index) = refer(self.scene.report, self.names, "security_group", name, &path) else {
                continue;
            };
            if names.contains(name.get_ref()) {
                let message = format!("`{}` is listed twice", name.get_ref());
                self.scene.report.add(name.span(), &path, message, None);
                continue;
            }
            let stateful = self.groups.get(index).is_none_or(|group| group.object.stateful);
            of_kind[usize::from(stateful)].get_or_insert(name.get_ref());
            names.push(name.get_ref().clone());
        }
        if let [Some(stateless), Some(stateful)] = of_kind {
            let message =
                format!("`{stateful}` is stateful and `{stateless}` is not, and a port is one of both");
            let hint = "take groups that say the same of `stateful`";
            self.wrong(port, listed.at.clone(), "security_groups", &message, hint);
        }
        listed.whole.ok()?;
        names.sort_unstable();
        Some(names)
    }

    fn pairs(&self, port: &DraftPort, own: Mac) -> Vec<AddressPair> {
        let mut pairs: Vec<AddressPair> = Vec::new();
        for DraftPair { at, ip_address, mac_address } in
            port.security.pairs.iter().flat_map(|pairs| &pairs.items)
        {
            let (Ok(ip_address), Ok(mac)) = (ip_address, mac_address) else { continue };
            let mac_address = mac.as_ref().map_or(own, |mac: &Spanned<Mac>| *mac.get_ref());
            let pair = AddressPair { ip_address: *ip_address, mac_address };
            if pairs.contains(&pair) {
                let path = format!("{}.allowed_address_pairs", port.at.path);
                let message = format!("{} with {mac_address} is listed twice", shown(ip_address));
                self.scene.report.add(at.clone(), &path, message, None);
                continue;
            }
            pairs.push(pair);
        }
        pairs
    }
}

impl<T> Listed<T> {
    fn says_something(&self) -> bool {
        !self.items.is_empty() || self.whole.is_err()
    }
}
