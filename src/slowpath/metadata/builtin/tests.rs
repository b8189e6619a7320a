use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::slowpath::metadata::By;
use crate::slowpath::metadata::tests::guest;

fn get(guest: &Guest, path: &str) -> Option<String> {
    answer(guest, path).map(|content| String::from_utf8(content.body.to_vec()).unwrap())
}

fn parsed(guest: &Guest, path: &str) -> Value {
    serde_json::from_str(&get(guest, path).unwrap()).unwrap()
}

/// As cloud-init's `Ec2` source does it: what a listing names is fetched, and a name that comes twice is a warning.
fn crawl(guest: &Guest, at: &str, found: &mut Vec<String>) {
    let listing = get(guest, at).unwrap_or_else(|| panic!("{at} is listed, and not there"));
    for line in listing.lines() {
        if let Some(directory) = line.strip_suffix('/') {
            crawl(guest, &format!("{at}{directory}/"), found);
            continue;
        }
        let leaf = match line.split_once('=') {
            Some((number, _)) => format!("{at}{number}/openssh-key"),
            None => format!("{at}{line}"),
        };
        let body = get(guest, &leaf).unwrap_or_else(|| panic!("{leaf} is listed, and not there"));
        assert!(!found.contains(&leaf), "{leaf} comes twice");
        assert!(!body.starts_with('{') || serde_json::from_str::<Value>(&body).is_ok());
        found.push(leaf);
    }
}

#[test]
fn a_crawl_of_ec2_finds_everything_in_each_version() {
    let mut guest = guest(0);
    guest.public_ipv4 = Some([203, 0, 113, 9].into());
    let mut second = guest.nics[0].clone();
    second.mac = "52:54:00:00:00:02".parse().unwrap();
    guest.nics.push(second);
    for version in get(&guest, "/").unwrap().lines() {
        let mut found = Vec::new();
        let root = format!("/{version}/meta-data/");
        crawl(&guest, &root, &mut found);
        assert_eq!(found.len(), 33, "{found:#?}");
        for name in ["instance-id", "placement/availability-zone", "public-keys/1/openssh-key", "public-ipv4"]
        {
            assert!(found.contains(&format!("{root}{name}")), "{name}");
        }
    }
    let at = "/latest/meta-data/network/interfaces/macs/52:54:00:00:00:02";
    assert_eq!(get(&guest, &format!("{at}/device-number")).unwrap(), "1");
    assert_eq!(get(&guest, &format!("{at}/subnet-ipv4-cidr-block")).unwrap(), "10.0.0.0/24");
    assert_eq!(get(&guest, &format!("{at}/ipv6s")).unwrap(), "2001:db8::5");
    assert_eq!(
        get(&guest, &at.replace(':', "%3A")),
        get(&guest, &format!("{at}//")),
        "encoded, and with slashes"
    );
    assert_eq!(get(&guest, "/latest/meta-data/security-groups").unwrap(), "default\nweb");
}

#[test]
fn what_is_not_known_is_not_there() {
    let mut guest = guest(0);
    guest.public_keys.clear();
    guest.user_data = None;
    guest.availability_zone = None;
    guest.nics.clear();
    guest.security_groups.clear();
    let listing = get(&guest, "/latest/meta-data/").unwrap();
    assert_eq!(listing, "ami-launch-index\nhostname\ninstance-id\nlocal-hostname\npublic-hostname");
    assert_eq!(get(&guest, "/latest").unwrap(), "meta-data/");
    for path in [
        "/latest/user-data",
        "/openstack/latest/user_data",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/instance-type",
        "/latest/dynamic/instance-identity/document",
        "/1999-01-01/meta-data/",
        "/latest/meta-data/hostname/x",
        "/latest/../latest/",
        "/openstack/2011-01-01/meta_data.json",
        "/openstack/latest/x",
        "/nocloud/x",
        "/%ff/",
        "/%zz/",
        "/%",
    ] {
        assert_eq!(get(&guest, path), None, "{path}");
    }
    let data = parsed(&guest, "/openstack/latest/meta_data.json");
    assert!(data.get("public_keys").is_none() && data["availability_zone"].is_null());
    assert_eq!(
        parsed(&guest, "/openstack/latest/network_data.json"),
        json!({ "links": [], "networks": [], "services": [] })
    );
}

#[test]
fn openstacks_documents_have_novas_shape() {
    let guest = guest(0);
    assert_eq!(
        parsed(&guest, "/openstack/latest/meta_data.json"),
        json!({
            "uuid": guest.instance_id, "name": "guest 0", "hostname": "guest-0", "launch_index": 0,
            "availability_zone": "az1", "project_id": "3c5d", "devices": [], "dedicated_cpus": [],
            "public_keys": { "key-0": "ssh-ed25519 AAAA one", "key-1": "ssh-rsa BBBB two" },
            "keys": [
                { "name": "key-0", "type": "ssh", "data": "ssh-ed25519 AAAA one" },
                { "name": "key-1", "type": "ssh", "data": "ssh-rsa BBBB two" },
            ],
        })
    );
    let dns = json!({ "type": "dns", "address": "192.0.2.53" });
    assert_eq!(
        parsed(&guest, "/openstack/2018-08-27/network_data.json"),
        json!({
            "links": [{
                "id": "tapaaaabbbb-cc", "vif_id": "aaaabbbb-cccc-0000-0000-000000000000", "type": "phy", "mtu": 1450,
                "ethernet_mac_address": "02:00:00:00:00:00",
            }],
            "networks": [
                {
                    "id": "network0", "type": "ipv4_dhcp", "link": "tapaaaabbbb-cc",
                    "network_id": "00000000-0000-0000-0000-000000001111",
                },
                {
                    "id": "network1", "type": "ipv6_slaac", "link": "tapaaaabbbb-cc",
                    "network_id": "00000000-0000-0000-0000-000000001111",
                    "ip_address": "2001:db8::5", "netmask": "ffff:ffff:ffff:ffff::",
                    "routes": [{ "network": "::", "netmask": "::", "gateway": "2001:db8::1" }],
                    "services": [dns],
                },
            ],
            "services": [dns],
        })
    );
    assert_eq!(get(&guest, "/openstack").unwrap().lines().next(), Some("2012-08-10"));
    assert_eq!(get(&guest, "/openstack/latest/").unwrap().lines().count(), 6);
}

#[test]
fn an_identifier_that_is_no_uuid_has_one_made_of_it() {
    let mut guest = guest(0);
    guest.instance_id = "i-abc".into();
    let uuid = |guest: &Guest| parsed(guest, "/openstack/latest/meta_data.json")["uuid"].clone();
    let first = uuid(&guest);
    assert_eq!(uuid::Uuid::parse_str(first.as_str().unwrap()).unwrap().get_version_num(), 5);
    assert_eq!(uuid(&guest), first);
    guest.instance_id = "i-abd".into();
    assert_ne!(uuid(&guest), first);
    assert_eq!(get(&guest, "/latest/meta-data/instance-id").unwrap(), "i-abd");
}

#[test]
fn an_address_that_no_protocol_gives_is_written_out() {
    let mut guest = guest(0);
    guest.nics[0].addresses[0].by = By::Static;
    guest.nics[0].addresses[0].routes =
        vec![("198.51.100.0/24".parse().unwrap(), "10.0.0.9".parse().unwrap())];
    let network = &parsed(&guest, "/openstack/latest/network_data.json")["networks"][0];
    assert_eq!((&network["type"], &network["netmask"]), (&json!("ipv4"), &json!("255.255.255.0")));
    assert_eq!(
        network["routes"],
        json!([
            { "network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1" },
            { "network": "198.51.100.0", "netmask": "255.255.255.0", "gateway": "10.0.0.9" },
        ])
    );
    assert_eq!(
        parsed(&guest, "/nocloud/network-config"),
        json!({ "version": 2, "ethernets": { "nic0": {
            "match": { "macaddress": "02:00:00:00:00:00" }, "mtu": 1450,
            "dhcp4": false, "dhcp6": false, "accept-ra": true,
            "addresses": ["10.0.0.5/24"],
            "routes": [
                { "to": "0.0.0.0/0", "via": "10.0.0.1" },
                { "to": "198.51.100.0/24", "via": "10.0.0.9" },
            ],
            "nameservers": { "addresses": ["192.0.2.53"] },
        } } })
    );
}

#[test]
fn vendor_data_is_json_for_openstack_and_text_for_nocloud() {
    let cases: [(Option<&str>, Value, &str); 5] = [
        (None, json!({}), ""),
        (Some("#cloud-config\nx: 1"), json!("#cloud-config\nx: 1"), "#cloud-config\nx: 1"),
        (Some("\"#!/bin/sh\""), json!("#!/bin/sh"), "#!/bin/sh"),
        (
            Some(r##"{"cloud-init":"#!/bin/sh","a":1}"##),
            json!({ "cloud-init": "#!/bin/sh", "a": 1 }),
            "#!/bin/sh",
        ),
        (Some(r#"{"a":1}"#), json!({ "a": 1 }), ""),
    ];
    for (data, json, text) in cases {
        let mut guest = guest(0);
        guest.vendor_data = data.map(|data| Arc::from(data.as_bytes()));
        guest.vendor_data2 = guest.vendor_data.clone();
        assert_eq!(parsed(&guest, "/openstack/latest/vendor_data.json"), json);
        assert_eq!(parsed(&guest, "/openstack/latest/vendor_data2.json"), json);
        assert_eq!(get(&guest, "/nocloud/vendor-data").unwrap(), text);
    }
}

#[test]
fn a_nocloud_seed_is_whole_even_when_empty() {
    let mut guest = guest(0);
    guest.user_data = None;
    assert_eq!(get(&guest, "/nocloud/user-data").unwrap(), "");
    assert_eq!(
        parsed(&guest, "/nocloud/meta-data"),
        json!({
            "instance-id": guest.instance_id, "local-hostname": "guest-0", "availability-zone": "az1",
            "public-keys": ["ssh-ed25519 AAAA one", "ssh-rsa BBBB two"],
        })
    );
}
