//! What the API tells of security groups.

use std::ops::ControlFlow;

use serde_json::Value;
use uuid::Uuid;

use super::*;

fn rule(id: u128, group: &str, direction: &str, ethertype: &str) -> SecurityGroupRule {
    SecurityGroupRule {
        id: Uuid::from_u128(id),
        security_group_id: Uuid::from_u128(if group == "web" { 51 } else { 50 }),
        security_group: group.into(),
        direction: direction.into(),
        ethertype: ethertype.into(),
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id: None,
        remote_group: None,
        remote_address_group_id: None,
        remote_address_group: None,
        description: None,
    }
}

pub(crate) fn fake_security_groups() -> Vec<SecurityGroup> {
    let members = SecurityGroupRule {
        remote_group_id: Some(Uuid::from_u128(50)),
        remote_group: Some("default".into()),
        ..rule(60, "default", "egress", "IPv4")
    };
    let http = SecurityGroupRule {
        protocol: Some("tcp".into()),
        port_range_min: Some(80),
        port_range_max: Some(443),
        remote_address_group_id: Some(fake_address_group().id),
        remote_address_group: Some("office".into()),
        ..rule(61, "web", "ingress", "IPv4")
    };
    let ping = SecurityGroupRule {
        protocol: Some("ipv6-icmp".into()),
        port_range_min: Some(128),
        remote_ip_prefix: Some("2001:db8::/32".into()),
        description: Some("ping".into()),
        ..rule(62, "web", "egress", "IPv6")
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let group = |id, name: &str, rules| SecurityGroup {
        id: Uuid::from_u128(id),
        name: name.into(),
        description: None,
        stateful: true,
        log: "none".into(),
        security_group_rules: rules,
        ports: Vec::new(),
        members: Vec::new(),
    };
    vec![
        group(50, "default", vec![members]),
        SecurityGroup {
            description: Some("HTTP for all".into()),
            log: "dropped".into(),
            ports: texts(&["web1", "web2"]),
            members: texts(&["10.0.0.11/32", "10.0.0.12/32", "10.0.0.64/26"]),
            ..group(51, "web", vec![http, ping])
        },
    ]
}

pub(crate) fn fake_address_group() -> AddressGroup {
    AddressGroup {
        id: Uuid::from_u128(55),
        name: "office".into(),
        description: None,
        addresses: vec!["198.51.100.0/24".into()],
    }
}

pub(crate) fn fake_port_rules() -> PortRules {
    let [default, web] = fake_security_groups().try_into().unwrap();
    let rules = web.security_group_rules.into_iter().chain(default.security_group_rules);
    PortRules {
        port: "web1".into(),
        port_security_enabled: true,
        security_groups: Some(vec!["default".into(), "web".into()]),
        stateful: Some(true),
        rules: rules.zip([12_345, 0, 0]).map(|(rule, hits)| PortRule { rule, hits }).collect(),
    }
}

pub(crate) fn fake_security_event() -> SecurityEvent {
    SecurityEvent::Dropped(SecurityLine {
        time: "2026-01-02T03:04:05.678Z".into(),
        port: "web1".into(),
        network: "blue".into(),
        direction: "ingress".into(),
        security_groups: vec!["default".into(), "web".into()],
        rule: None,
        reason: Some("security_ingress".into()),
        ethertype: Some("IPv4".into()),
        protocol: Some("tcp".into()),
        source: Some("192.0.2.7".parse().unwrap()),
        destination: Some("10.0.0.11".parse().unwrap()),
        source_port: Some(40_000),
        destination_port: Some(25),
        icmp_type: None,
        icmp_code: None,
        suppressed: 3,
    })
}

#[test]
fn groups_and_rules_are_listed_and_shown_as_neutron_does() {
    let switch = Running::start();
    let client = switch.client();
    let groups: Vec<SecurityGroup> =
        client.get_key("/v2.0/security-groups?stateful=true", "security_groups").unwrap();
    assert_eq!(groups, fake_security_groups());
    let web: SecurityGroup = client.get_key("/v2.0/security-groups/web", "security_group").unwrap();
    assert_eq!(web, fake_security_groups()[1]);
    let path =
        "/v2.0/security-group-rules?security_group_id=00000000-0000-0000-0000-000000000033&direction=ingress";
    let rules: Vec<SecurityGroupRule> = client.get_key(path, "security_group_rules").unwrap();
    assert_eq!(rules, web.security_group_rules[..1]);
    let path = format!("/v2.0/security-group-rules/{}", rules[0].id);
    let one: SecurityGroupRule = client.get_key(&path, "security_group_rule").unwrap();
    assert_eq!(one, rules[0]);
    let offices: Vec<AddressGroup> =
        client.get_key("/v2.0/address-groups?name=office", "address_groups").unwrap();
    assert_eq!(offices, [fake_address_group()]);
    let office: AddressGroup = client.get_key("/v2.0/address-groups/office", "address_group").unwrap();
    assert_eq!(office, fake_address_group());
    let port: Value = client.get_key("/v2.0/ports/web1", "port").unwrap();
    assert_eq!(port["security_groups"][0], "00000000-0000-0000-0000-000000000032");
    assert_eq!(
        (&port["port_security_enabled"], &port["allowed_address_pairs"]),
        (&true.into(), &Value::Array(Vec::new()))
    );
}

#[test]
fn every_field_of_security_groups_is_known_to_the_filters() {
    fake_security_groups().iter().for_each(check_fields);
    fake_security_groups().iter().flat_map(|group| &group.security_group_rules).for_each(check_fields);
    check_fields(&fake_address_group());
}

#[test]
fn the_rules_of_a_port_have_their_hits_beside_neutrons_fields() {
    let switch = Running::start();
    let client = switch.client();
    let rules: PortRules = client.get("/v1/ports/web1/rules").unwrap();
    assert_eq!(rules, fake_port_rules());
    let raw: Value = client.get("/v1/ports/web1/rules").unwrap();
    let first = &raw["rules"][0];
    assert_eq!((&first["hits"], &first["port_range_max"]), (&12_345.into(), &443.into()));
    for (path, status, kind) in [
        ("/v1/ports/nope/rules", 404, "PortNotFound"),
        ("/v1/ports/web1/rules?direction=ingress", 400, "InvalidInput"),
        ("/v2.0/security-groups/nope", 404, "SecurityGroupNotFound"),
        ("/v2.0/security-group-rules/nope", 404, "SecurityGroupRuleNotFound"),
        ("/v2.0/address-groups/nope", 404, "AddressGroupNotFound"),
        ("/v2.0/security-groups?rules=1", 400, "InvalidInput"),
        ("/v1/security-log?follow=maybe", 400, "InvalidInput"),
        ("/v1/security-log?port=web1", 400, "InvalidInput"),
    ] {
        let problem = switch.problem(path);
        assert_eq!((problem.status, problem.body.kind.as_str()), (status, kind), "{path}");
    }
}

/// The lines of the log, until there are so many or it ends.
fn logged(switch: &Running, path: &str, most: usize) -> Vec<SecurityEvent> {
    let mut bytes = Vec::new();
    let take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        let count = bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(if count >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    switch.client().stream(path, std::future::pending(), take).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_security_log_is_followed_or_looked_back_at() {
    let switch = Running::start();
    assert_eq!(logged(&switch, "/v1/security-log?follow=false", 99), [fake_security_event()]);
    assert_eq!(logged(&switch, "/v1/security-log", 2), [SecurityEvent::Following, fake_security_event()]);
    assert!(switch.switch.log.lock().unwrap().is_some());
}
