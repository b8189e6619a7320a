//! What is told of security groups: the model's objects, and the rules in force at a port with what the worker there has counted.

use std::collections::HashMap;

use super::state::{Daemon, State};
use crate::control::view::{AddressGroup, PortRule, PortRules, Problem, SecurityGroup, SecurityGroupRule};
use crate::model::{self, AttachmentKey, SecurityRule};
use crate::tables::PortEntry;
use crate::tables::compile::security::members;
use crate::types::PortIdx;
use crate::worker::inspect::{Facts, Question};

impl State {
    pub(super) fn security_groups(&self) -> Vec<SecurityGroup> {
        let members = members(&self.model);
        let mut ports: HashMap<&str, Vec<String>> = HashMap::new();
        for port in &self.model.ports {
            let groups = port.port_security.as_ref().and_then(|security| security.security_groups.as_ref());
            for name in groups.into_iter().flatten() {
                ports.entry(name).or_default().push(port.name.clone());
            }
        }
        let view = |group: &model::SecurityGroup| {
            let members = members.get(group.name.as_str()).map(Vec::as_slice).unwrap_or_default();
            SecurityGroup::of(group, ports.remove(group.name.as_str()).unwrap_or_default(), members)
        };
        self.model.security_groups.iter().map(view).collect()
    }

    pub(super) fn address_groups(&self) -> Vec<AddressGroup> {
        self.model.address_groups.iter().map(AddressGroup::from).collect()
    }

    /// The rules in force at a port, with nothing counted yet, each with the number that it is counted for.
    fn rules_of(&self, slot: Option<PortIdx>, name: &str) -> (PortRules, Vec<u64>) {
        let tables = self.workers.tables();
        let entry = slot.and_then(|slot| tables.port(slot));
        let policy = entry.and_then(PortEntry::policy);
        let mut rules = PortRules {
            port: name.to_owned(),
            port_security_enabled: entry.is_some_and(|entry| entry.guard.is_some()),
            security_groups: policy.map(|policy| policy.groups.iter().map(|name| name.to_string()).collect()),
            stateful: policy.map(|policy| policy.is_stateful),
            rules: Vec::new(),
        };
        let Some(policy) = policy else { return (rules, Vec::new()) };
        // What is in force says what people are told; the model says it in parts.
        let groups = self
            .model
            .security_groups
            .iter()
            .filter(|group| rules.security_groups.iter().flatten().any(|name| *name == group.name));
        let mut said: HashMap<(&str, String), &SecurityRule> = HashMap::new();
        let groups: Vec<_> = groups.collect();
        for group in &groups {
            said.extend(group.rules.iter().map(|rule| ((group.name.as_str(), rule.to_string()), rule)));
        }
        let mut ids = Vec::new();
        for entry in policy.rules.iter() {
            let group = groups.iter().find(|group| *group.name == *entry.group);
            let Some((group, rule)) = group.zip(said.get(&(&*entry.group, entry.text.to_string()))) else {
                continue;
            };
            ids.push(entry.id);
            rules.rules.push(PortRule { rule: SecurityGroupRule::of(rule, group), hits: 0 });
        }
        (rules, ids)
    }
}

impl Daemon {
    pub(super) async fn rules_of_port(&self, name: &str) -> Result<PortRules, Problem> {
        let (mut rules, ids, asked) = {
            let state = self.state();
            let key = AttachmentKey::Port(name.to_owned());
            let slot = state.places.ports.get(&key).map(PortIdx);
            let (rules, ids) = state.rules_of(slot, name);
            let home = slot.and_then(|slot| Some((slot, state.workers.tables().port(slot)?.worker)));
            let home = home.filter(|_| !ids.is_empty());
            (rules, ids, home)
        };
        let Some((slot, home)) = asked else { return Ok(rules) };
        if let Facts::Hits(hits) = self.ask(home, Question::Hits(slot)).await?.facts {
            let hits: HashMap<u64, u64> = hits.into_iter().collect();
            for (rule, id) in rules.rules.iter_mut().zip(&ids) {
                rule.hits = hits.get(id).copied().unwrap_or(0);
            }
        }
        Ok(rules)
    }
}
