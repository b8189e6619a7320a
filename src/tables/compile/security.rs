//! Compiles port security and security groups: what each guest may claim, which rules it has, and who is a member of which group.
//!
//! What was compiled is kept: a policy whose groups say the same is the same one, so that a change of one rule compiles the
//! policies with its group and no other, and one of a group's members compiles none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Places;
use crate::model::{
    self, AttachmentKey, Direction, Interface, Model, Port, PortSecurity, RuleRemote, SecurityGroup,
    SecurityLog, SecurityRule,
};
use crate::tables::Tables;
use crate::tables::policy::{Ethertype, Members, Remote, Rule, RuleSet};
use crate::tables::security::{Claims, Guard, Policy, RuleEntry, Station};
use crate::tables::slots::Slots;
use crate::types::Mac;

/// fe80::, where every station has an address that follows from its MAC.
const LINK_LOCAL: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// What lives over epochs.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Of the groups that rules name, by name.
    numbers: Slots<String>,
    /// All groups of the model, by name.
    groups: HashMap<String, Arc<Group>>,
    /// Of ports, by the names of their groups.
    policies: HashMap<Vec<String>, Compiled>,
    /// Of the groups that have numbers.
    lists: BTreeMap<u16, List>,
    /// The same, for look-up.
    members: Arc<Members>,
    /// The last one of policies and lists.
    epoch: u32,
    /// The last one that a rule got.
    rule_id: u64,
}

/// A group, ready to be put into policies.
#[derive(Debug)]
struct Group {
    name: Arc<str>,
    stateful: bool,
    log: SecurityLog,
    /// What it was made of.
    source: Vec<SecurityRule>,
    /// The address groups that it names, with what they were.
    addresses: BTreeMap<String, Vec<IpNet>>,
    ingress: Vec<(Rule, RuleEntry)>,
    egress: Vec<(Rule, RuleEntry)>,
    /// Numbers of the groups that its rules name.
    remotes: Vec<u16>,
}

/// A policy, and what it was made of.
#[derive(Clone, Debug)]
struct Compiled {
    policy: Arc<Policy>,
    groups: Vec<Arc<Group>>,
    /// The epochs of the lists of members that its rules are about.
    lists: Vec<(u16, u32)>,
}

/// Members of a group: sorted, each once.
#[derive(Clone, Debug)]
struct List {
    nets: Vec<IpNet>,
    epoch: u32,
}

pub(super) fn compile(tables: &mut Tables, model: &Model, places: &mut Places) {
    let Places { ports: slots, security: kept, .. } = places;
    kept.renew_groups(model);
    kept.renew_members(model);
    tables.members = kept.members.clone();
    let mut before = std::mem::take(&mut kept.policies);
    for port in &model.ports {
        let Some((mac, security)) = secured(port) else { continue };
        let Some(slot) = slots.get(&AttachmentKey::Port(port.name.clone())) else { continue };
        let Some(Some(entry)) = tables.ports.get_mut(usize::from(slot)) else { continue };
        let policy = security.security_groups.as_ref().map(|names| kept.policy(names, &mut before));
        entry.guard = Some(Arc::new(Guard { claims: claims(port, mac, security), policy }));
    }
}

/// The MAC and the security of a port that has some.
fn secured(port: &Port) -> Option<(Mac, &PortSecurity)> {
    Some((port.mac_address?, port.port_security.as_ref()?))
}

fn claims(port: &Port, own: Mac, security: &PortSecurity) -> Claims {
    let mut claims = Claims { stations: Vec::new(), any_address: security.security_groups.is_none() };
    // Whoever configured further MACs said that they are behind the port too.
    for mac in std::iter::once(own).chain(port.static_macs.iter().copied()) {
        addresses(port).for_each(|net| claim(&mut claims, mac, Some(net)));
        claim(&mut claims, mac, None);
    }
    for pair in &security.allowed_address_pairs {
        claim(&mut claims, pair.mac_address, Some(pair.ip_address));
    }
    claims
}

/// Fixed IPs, and what the port's own tap was given.
fn addresses(port: &Port) -> impl Iterator<Item = IpNet> {
    let of_tap = match &port.interface {
        Interface::Tap { address, .. } => address.as_slice(),
        _ => &[],
    };
    let fixed = port.fixed_ips.iter().map(|fixed| fixed.ip);
    fixed.chain(of_tap.iter().map(|(ip, _)| *ip)).map(IpNet::from)
}

fn claim(claims: &mut Claims, mac: Mac, net: Option<IpNet>) {
    let at = claims.stations.iter().position(|station| station.mac == mac).unwrap_or_else(|| {
        let v6 = vec![mac.address_on(LINK_LOCAL).into()];
        claims.stations.push(Station { mac, v4: Vec::new(), v6 });
        claims.stations.len() - 1
    });
    let Some(station) = claims.stations.get_mut(at) else { return };
    match net {
        Some(IpNet::V4(net)) if !station.v4.contains(&net) => station.v4.push(net),
        Some(IpNet::V6(net)) if !station.v6.contains(&net) => station.v6.push(net),
        _ => {}
    }
}

impl Kept {
    /// An epoch that was not there before. Spread over all bits, each number another one and none 0: sums of two tell pairs
    /// apart.
    fn next_epoch(&mut self) -> u32 {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        let mixed = (self.epoch ^ self.epoch >> 16).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
        mixed ^ mixed >> 16
    }

    /// Makes those groups anew that say something else than before.
    fn renew_groups(&mut self, model: &Model) {
        let mut before = std::mem::take(&mut self.groups);
        let addresses: HashMap<&str, &[IpNet]> =
            model.address_groups.iter().map(|group| (group.name.as_str(), &*group.addresses)).collect();
        let mut same = true;
        for group in &model.security_groups {
            let known = before.remove(&group.name);
            let kept = known.clone().filter(|known| known.is_of(group, &addresses));
            same &= kept.is_some();
            let made = kept.unwrap_or_else(|| {
                Arc::new(Group::new(
                    group,
                    &addresses,
                    known.as_deref(),
                    &mut self.numbers,
                    &mut self.rule_id,
                ))
            });
            self.groups.insert(group.name.clone(), made);
        }
        if same && before.is_empty() {
            return;
        }
        let rules = self.groups.values().flat_map(|group| &group.source);
        let named = rules.filter_map(|rule| match &rule.remote {
            RuleRemote::Group(name) => Some(name),
            _ => None,
        });
        let named: HashSet<&String> = named.collect();
        // Tables carry policies and members together, so nobody takes the next owner of a number for the last one.
        self.numbers.release(|name| named.contains(name));
    }

    /// Finds out who is a member of which group that rules name.
    fn renew_members(&mut self, model: &Model) {
        let numbers = self.groups.values().flat_map(|group| &group.remotes);
        let mut found: BTreeMap<u16, Vec<IpNet>> = numbers.map(|number| (*number, Vec::new())).collect();
        for port in &model.ports {
            let Some((_, security)) = secured(port) else { continue };
            for name in security.security_groups.iter().flatten() {
                if let Some(nets) = self.numbers.get(name).and_then(|number| found.get_mut(&number)) {
                    nets.extend(member(port, security));
                }
            }
        }
        let mut before = std::mem::take(&mut self.lists);
        let mut same = before.len() == found.len();
        for (number, mut nets) in found {
            nets.sort_unstable();
            nets.dedup();
            let known = before.remove(&number).filter(|known| known.nets == nets);
            same &= known.is_some();
            let list = known.unwrap_or_else(|| List { nets, epoch: self.next_epoch() });
            self.lists.insert(number, list);
        }
        if !same {
            let all = self
                .lists
                .iter()
                .flat_map(|(number, list)| list.nets.iter().map(|net| (u32::from(*number), *net)));
            self.members = Arc::new(Members::new(all));
        }
    }

    /// The policy of ports with these groups. `before`: those of the tables that are replaced.
    fn policy(&mut self, names: &[String], before: &mut HashMap<Vec<String>, Compiled>) -> Arc<Policy> {
        if let Some(known) = self.policies.get(names) {
            return known.policy.clone();
        }
        let groups: Vec<Arc<Group>> =
            names.iter().filter_map(|name| self.groups.get(name).cloned()).collect();
        let mut lists: Vec<(u16, u32)> = groups
            .iter()
            .flat_map(|group| &group.remotes)
            .filter_map(|number| Some((*number, self.lists.get(number)?.epoch)))
            .collect();
        lists.sort_unstable();
        lists.dedup();
        let same_groups = |known: &Compiled| {
            known.groups.len() == groups.len()
                && known.groups.iter().zip(&groups).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let policy = match before.remove(names).filter(same_groups) {
            Some(known) if known.lists == lists => known.policy,
            Some(known) => Arc::new(Policy { epoch: self.next_epoch(), ..Policy::clone(&known.policy) }),
            None => Arc::new(policy(&groups, self.next_epoch())),
        };
        self.policies.insert(names.to_vec(), Compiled { policy: policy.clone(), groups, lists });
        policy
    }
}

/// Addresses that are members of a port's groups. Of its address pairs the whole world is none.
fn member(port: &Port, security: &PortSecurity) -> impl Iterator<Item = IpNet> {
    let paired = security.allowed_address_pairs.iter().map(|pair| pair.ip_address);
    addresses(port).chain(paired.filter(|net| net.prefix_len() > 0))
}

/// Members of each security group that a port has, whether rules name it or not: sorted, each once.
pub fn members(model: &Model) -> HashMap<&str, Vec<IpNet>> {
    let mut found: HashMap<&str, Vec<IpNet>> = HashMap::new();
    for port in &model.ports {
        let Some((_, security)) = secured(port) else { continue };
        for name in security.security_groups.iter().flatten() {
            found.entry(name).or_default().extend(member(port, security));
        }
    }
    for nets in found.values_mut() {
        nets.sort_unstable();
        nets.dedup();
    }
    found
}

fn policy(groups: &[Arc<Group>], epoch: u32) -> Policy {
    let ingress: Vec<&(Rule, RuleEntry)> = groups.iter().flat_map(|group| &group.ingress).collect();
    let egress: Vec<&(Rule, RuleEntry)> = groups.iter().flat_map(|group| &group.egress).collect();
    let set = |rules: &[&(Rule, RuleEntry)]| {
        let rules: Vec<Rule> = rules.iter().map(|(rule, _)| rule.clone()).collect();
        Arc::new(RuleSet::compile(&rules))
    };
    Policy {
        groups: groups.iter().map(|group| group.name.clone()).collect(),
        // Those of a port are all alike.
        is_stateful: groups.iter().all(|group| group.stateful),
        logs_dropped: groups.iter().any(|group| group.log.has_dropped()),
        epoch,
        ingress: set(&ingress),
        egress: set(&egress),
        rules: ingress.iter().chain(&egress).map(|(_, entry)| entry.clone()).collect(),
        ingress_rules: ingress.len(),
    }
}

impl Group {
    fn new(
        group: &SecurityGroup,
        addresses: &HashMap<&str, &[IpNet]>,
        before: Option<&Group>,
        numbers: &mut Slots<String>,
        last_id: &mut u64,
    ) -> Group {
        let before = before.into_iter().flat_map(|group| group.ingress.iter().chain(&group.egress));
        let ids: HashMap<&str, u64> = before.map(|(_, entry)| (&*entry.text, entry.id)).collect();
        let mut made = Group {
            name: group.name.as_str().into(),
            stateful: group.stateful,
            log: group.log,
            source: group.rules.clone(),
            addresses: BTreeMap::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
            remotes: Vec::new(),
        };
        for rule in &group.rules {
            let text: Arc<str> = rule.to_string().into();
            let id = ids.get(&*text).copied().unwrap_or_else(|| {
                *last_id += 1;
                *last_id
            });
            let entry = RuleEntry { group: made.name.clone(), text, id, is_logged: group.log.has_accepted() };
            let compiled = compiled(rule, made.remote(rule, addresses, numbers));
            match rule.direction {
                Direction::Ingress => made.ingress.push((compiled, entry)),
                Direction::Egress => made.egress.push((compiled, entry)),
            }
        }
        made.remotes.sort_unstable();
        made.remotes.dedup();
        made
    }

    /// Whether it is what `group` says now.
    fn is_of(&self, group: &SecurityGroup, addresses: &HashMap<&str, &[IpNet]>) -> bool {
        self.stateful == group.stateful
            && self.log == group.log
            && self.source.len() == group.rules.len()
            && self.source.iter().zip(&group.rules).all(|(known, rule)| known.says_the_same_as(rule))
            && self
                .addresses
                .iter()
                .all(|(name, nets)| addresses.get(name.as_str()) == Some(&nets.as_slice()))
    }

    /// The other end of a rule, which is noted.
    fn remote(
        &mut self,
        rule: &SecurityRule,
        addresses: &HashMap<&str, &[IpNet]>,
        numbers: &mut Slots<String>,
    ) -> Remote {
        match &rule.remote {
            RuleRemote::Any => Remote::Any,
            RuleRemote::Prefix(net) => Remote::Prefixes(vec![*net]),
            RuleRemote::Group(name) => {
                let number = numbers.assign(name);
                self.remotes.push(number);
                Remote::Group(number.into())
            }
            RuleRemote::AddressGroup(name) => {
                let all = addresses.get(name.as_str()).copied().unwrap_or_default();
                self.addresses.insert(name.clone(), all.to_vec());
                let of_version = |net: &&IpNet| model::Ethertype::of(net) == rule.ethertype;
                Remote::Prefixes(all.iter().filter(of_version).copied().collect())
            }
        }
    }
}

fn compiled(rule: &SecurityRule, remote: Remote) -> Rule {
    let ethertype = match rule.ethertype {
        model::Ethertype::V4 => Ethertype::V4,
        model::Ethertype::V6 => Ethertype::V6,
    };
    Rule { ethertype, protocol: rule.protocol, ports: rule.ports, icmp: rule.icmp, remote }
}

#[cfg(test)]
mod tests;
