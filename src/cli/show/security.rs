//! `nuswitch show security-groups`, `rules` and `security-log`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::super::print;
use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, or_dash};
use super::conntrack::follow;
use super::{Output, endpoint, list, one};
use crate::control::client::{Client, encode};
use crate::control::view::{
    PortRule, PortRules, SecurityEvent, SecurityGroup, SecurityGroupRule, SecurityLine, TrackerStats,
};

/// `nuswitch show security-groups`.
#[derive(Debug, Args)]
pub(super) struct Groups {
    /// Only the one of this name or ID, with its rules
    name: Option<String>,
}

impl Groups {
    pub(super) fn text(&self, client: &Client, output: Output) -> anyhow::Result<String> {
        let Some(name) = &self.name else {
            let wide = output == Output::Wide;
            let all = client.get_key("/v2.0/security-groups", "security_groups")?;
            return list(output, all, |all| groups(all, wide));
        };
        let path = format!("/v2.0/security-groups/{}", encode(name));
        let one: Value = client.get_key(&path, "security_group")?;
        list(output, vec![one], |all| all.iter().map(group).collect())
    }
}

/// `nuswitch show rules`.
#[derive(Debug, Args)]
pub(super) struct Rules {
    /// Of this port
    #[arg(long, short, value_name = "PORT")]
    port: String,
}

impl Rules {
    pub(super) fn text(&self, client: &Client, output: Output) -> anyhow::Result<String> {
        one(output, client.get(&format!("/v1/ports/{}/rules", encode(&self.port)))?, port_rules)
    }
}

/// `nuswitch show security-log`.
#[derive(Debug, Args)]
pub(super) struct Log {
    /// Tell what is logged from now on; without it: what was of late
    #[arg(long, short)]
    follow: bool,
}

impl Log {
    pub(super) fn execute(&self, client: &Client, output: Output) -> anyhow::Result<ExitCode> {
        if !self.follow && output != Output::Json {
            print(event_line(&SecurityEvent::Following))?;
        }
        follow(client, &format!("/v1/security-log?follow={}", self.follow), output, event_line)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn groups(all: &[SecurityGroup], wide: bool) -> String {
    let mut columns = vec![
        ("name", Left),
        ("stateful", Left),
        ("rules", Right),
        ("ports", Right),
        ("members", Right),
        ("log", Left),
    ];
    if wide {
        columns.extend([("description", Left), ("id", Left)]);
    }
    let mut table = Table::new(&columns);
    for group in all {
        table.row([
            group.name.clone(),
            yes(group.stateful),
            group.security_group_rules.len().to_string(),
            group.ports.len().to_string(),
            group.members.len().to_string(),
            group.log.clone(),
            or_dash(group.description.as_ref()),
            group.id.to_string(),
        ]);
    }
    table.to_string()
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// One group: who has it, and its rules in the words of the configuration.
fn group(group: &SecurityGroup) -> String {
    let all = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(" ") };
    let mut head =
        Table::new(&[("name", Left), ("stateful", Left), ("log", Left), ("ports", Left), ("members", Left)]);
    head.row([
        group.name.clone(),
        yes(group.stateful),
        group.log.clone(),
        all(&group.ports),
        all(&group.members),
    ]);
    let mut rules = Table::new(&[
        ("direction", Left),
        ("ethertype", Left),
        ("protocol", Left),
        ("ports", Left),
        ("remote", Left),
        ("description", Left),
    ]);
    for rule in &group.security_group_rules {
        rules.row(words(rule).into_iter().chain([or_dash(rule.description.as_ref())]));
    }
    format!("{head}\n{rules}")
}

/// Direction, ethertype, protocol, ports or ICMP type and code, and the other end.
fn words(rule: &SecurityGroupRule) -> [String; 5] {
    let is_icmp = matches!(rule.protocol.as_deref(), Some("icmp" | "ipv6-icmp"));
    let ports = match (rule.port_range_min, rule.port_range_max) {
        (Some(kind), None) if is_icmp => format!("type {kind}"),
        (Some(kind), Some(code)) if is_icmp => format!("type {kind} code {code}"),
        (Some(first), Some(last)) if first != last => format!("{first}-{last}"),
        (Some(port), _) => port.to_string(),
        (None, _) => "any".to_owned(),
    };
    let remote = match (&rule.remote_ip_prefix, &rule.remote_group, &rule.remote_address_group) {
        (Some(net), ..) => net.clone(),
        (None, Some(group), _) => format!("group {group}"),
        (None, None, Some(group)) => format!("address group {group}"),
        (None, None, None) => "any".to_owned(),
    };
    [
        rule.direction.clone(),
        rule.ethertype.clone(),
        rule.protocol.clone().unwrap_or_else(|| "any".to_owned()),
        ports,
        remote,
    ]
}

fn port_rules(of: &PortRules) -> String {
    let port = &of.port;
    let Some(groups) = &of.security_groups else {
        return if of.port_security_enabled {
            format!("{port}: port security without rules, as its network has no subnets\n")
        } else {
            format!("{port}: no port security, its guest is trusted\n")
        };
    };
    if groups.is_empty() {
        return format!("{port}: no security groups, nothing passes\n");
    }
    let stateful = of.stateful.unwrap_or(true);
    let kind = if stateful { "stateful" } else { "stateless" };
    let mut table = Table::new(&[
        ("direction", Left),
        ("ethertype", Left),
        ("protocol", Left),
        ("ports", Left),
        ("remote", Left),
        ("group", Left),
        (if stateful { "connections" } else { "packets" }, Right),
    ]);
    for PortRule { rule, hits } in &of.rules {
        table.row(words(rule).into_iter().chain([rule.security_group.clone(), count(*hits)]));
    }
    format!("{port}: {kind} security groups {}\n\n{table}", groups.join(", "))
}

/// What workers have done with guests' connections.
pub(super) fn trackers(trackers: &[TrackerStats]) -> String {
    let mut table = Table::new(&[
        ("guests at worker", Right),
        ("connections", Right),
        ("of", Right),
        ("created", Right),
        ("expired", Right),
        ("guest limit", Right),
        ("full", Right),
        ("removed", Right),
        ("refused", Right),
        ("invalid", Right),
    ]);
    for stats in trackers {
        let counts = [
            stats.created,
            stats.expired,
            stats.guest_limit,
            stats.full,
            stats.removed,
            stats.refused,
            stats.invalid,
        ];
        let now =
            [stats.worker.to_string(), stats.connections.to_string(), stats.max_connections.to_string()];
        table.row(now.into_iter().chain(counts.map(count)));
    }
    table.to_string()
}

/// A line of the log in columns that fit most.
fn event_line(event: &SecurityEvent) -> String {
    let text = |action: &str, line: &SecurityLine| {
        let end = |address: Option<_>, port| or_dash(address.map(|address| endpoint(address, port)));
        let icmp = line.icmp_type.zip(line.icmp_code);
        let icmp = icmp.map(|(kind, code)| format!(" type {kind} code {code}")).unwrap_or_default();
        let ends = format!(
            "{} > {}{icmp}",
            end(line.source, line.source_port),
            end(line.destination, line.destination_port)
        );
        let groups = line.security_groups.join(", ");
        let why = match (&line.rule, &line.reason) {
            (Some(rule), _) => format!("{groups}: {rule}"),
            (None, reason) => format!("{} ({groups})", or_dash(reason.as_ref())),
        };
        let before = match line.suppressed {
            0 => String::new(),
            count => format!("; {count} before it left out"),
        };
        let protocol = or_dash(line.protocol.as_ref());
        format!(
            "{} {action:<8} {:<12} {:<7} {protocol:<8} {ends:<44} {why}{before}\n",
            line.time, line.port, line.direction
        )
    };
    match event {
        SecurityEvent::Following => format!(
            "{:<24} {:<8} {:<12} {:<7} {:<8} {:<44} WHY\n",
            "TIME", "ACTION", "PORT", "WAY", "PROTOCOL", "PACKET"
        ),
        SecurityEvent::Accepted(line) => text("accepted", line),
        SecurityEvent::Dropped(line) => text("dropped", line),
        SecurityEvent::Lost { count } => format!("{count} lines were lost: too much happened at once\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{fake_port_rules, fake_security_event, fake_security_groups};

    #[test]
    fn the_table_of_groups() {
        let expected = "\
NAME     STATEFUL  RULES  PORTS  MEMBERS  LOG
default  yes           1      0        0  none
web      yes           2      2        3  dropped
";
        assert_eq!(groups(&fake_security_groups(), false), expected);
        assert!(groups(&fake_security_groups(), true).contains("  HTTP for all"));
    }

    #[test]
    fn one_group_with_its_rules() {
        let expected = "\
NAME  STATEFUL  LOG      PORTS      MEMBERS
web   yes       dropped  web1 web2  10.0.0.11/32 10.0.0.12/32 10.0.0.64/26

DIRECTION  ETHERTYPE  PROTOCOL   PORTS     REMOTE                DESCRIPTION
ingress    IPv4       tcp        80-443    address group office  -
egress     IPv6       ipv6-icmp  type 128  2001:db8::/32         ping
";
        assert_eq!(group(&fake_security_groups()[1]), expected);
    }

    #[test]
    fn the_rules_of_a_port() {
        let expected = "\
web1: stateful security groups default, web

DIRECTION  ETHERTYPE  PROTOCOL   PORTS     REMOTE                GROUP    CONNECTIONS
ingress    IPv4       tcp        80-443    address group office  web            12.3k
egress     IPv6       ipv6-icmp  type 128  2001:db8::/32         web                0
egress     IPv4       any        any       group default         default            0
";
        let rules = fake_port_rules();
        assert_eq!(port_rules(&rules), expected);
        let stateless = PortRules { stateful: Some(false), ..rules.clone() };
        assert!(port_rules(&stateless).contains("  PACKETS\n"));
        let none = PortRules { security_groups: Some(Vec::new()), ..rules.clone() };
        assert_eq!(port_rules(&none), "web1: no security groups, nothing passes\n");
        let trusted = PortRules { security_groups: None, port_security_enabled: false, ..rules };
        assert_eq!(port_rules(&trusted), "web1: no port security, its guest is trusted\n");
        let bare = PortRules { port_security_enabled: true, ..trusted };
        assert!(port_rules(&bare).contains("has no subnets"));
    }

    #[test]
    fn lines_of_the_log_are_in_columns() {
        let header = event_line(&SecurityEvent::Following);
        let dropped = event_line(&fake_security_event());
        let at = |line: &str, part: &str| line.find(part).unwrap();
        assert_eq!(at(&header, "PACKET"), at(&dropped, "192.0.2.7:40000 > 10.0.0.11:25"));
        assert_eq!(at(&header, "WHY"), at(&dropped, "security_ingress (default, web); 3 before it left out"));
    }
}
