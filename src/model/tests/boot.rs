//! What guests are told when they boot: what loads, and each mistake with its place.

use super::*;

const BASE: &str = "switch.state = 's.db'\nnetwork = [{ name = 'n' }]\n";

fn subnets(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        let text = format!("{BASE}[[subnet]]\nname = 's'\nnetwork = 'n'\n{text}");
        assert_eq!(mistakes(&text), *expected, "in {text}");
    }
}

#[test]
fn a_subnet_tells_its_guests_servers_and_routes() {
    subnets(&[
        (
            "cidr = '10.0.0.0/24'\ndns_nameservers = ['192.0.2.1', '192.0.2.2']\nntp_servers = ['192.0.2.3']\nhost_routes = [{ destination = '10.1.0.0/16', nexthop = '10.0.0.9' }]",
            &[],
        ),
        (
            "cidr = '10.0.0.0/24'\ndns_nameservers = ['2001:db8::1']",
            &["7:20 subnet[s].dns_nameservers: 2001:db8::1 is of the other IP version than the subnet"],
        ),
        (
            "cidr = '10.0.0.0/24'\nntp_servers = ['224.0.1.1']",
            &["7:16 subnet[s].ntp_servers: 224.0.1.1 is no server's address"],
        ),
        (
            "cidr = '10.0.0.0/24'\nhost_routes = [{ destination = '2001:db8::/32', nexthop = '10.0.0.9' }]",
            &["7:32 subnet[s].host_routes: 2001:db8:: is of the other IP version than the subnet"],
        ),
        (
            "cidr = '2001:db8::/64'\nhost_routes = [{ destination = '2001:db8:1::/64', nexthop = '2001:db8::9' }]",
            &["7:32 subnet[s].host_routes: no guest can be told routes of IPv6 by DHCP"],
        ),
    ]);
}

#[test]
fn ipv6_modes_go_together() {
    subnets(&[
        ("cidr = '2001:db8::/64'\nipv6_ra_mode = 'slaac'\nipv6_address_mode = 'slaac'", &[]),
        ("cidr = '2001:db8::/80'\nipv6_address_mode = 'dhcpv6-stateful'", &[]),
        (
            "cidr = '10.0.0.0/24'\nipv6_ra_mode = 'slaac'",
            &["7:16 subnet[s].ipv6_ra_mode: an IPv4 subnet has no IPv6 mode"],
        ),
        (
            "cidr = '2001:db8::/64'\nenable_dhcp = false\nipv6_ra_mode = 'slaac'",
            &["8:16 subnet[s].ipv6_ra_mode: needs `enable_dhcp`, which is false here"],
        ),
        (
            "cidr = '2001:db8::/80'\nipv6_address_mode = 'dhcpv6-stateless'",
            &[
                "7:21 subnet[s].ipv6_address_mode: guests make addresses of their own on prefixes of 64 bits only, not of 80",
            ],
        ),
        (
            "cidr = '2001:db8::/64'\nipv6_ra_mode = 'slaac'\nipv6_address_mode = 'dhcpv6-stateful'",
            &["8:21 subnet[s].ipv6_address_mode: differs from `ipv6_ra_mode`"],
        ),
    ]);
}

/// Neutron's rule: on such a subnet a port has the address that its guest makes out of its MAC.
#[test]
fn an_automatic_address_follows_from_the_mac() {
    let text = "network = [{ name = 'n' }]
subnet = [{ name = 'v4', network = 'n', cidr = '10.0.0.0/24' },
  { name = 'auto', network = 'n', cidr = '2001:db8::/64', ipv6_address_mode = 'slaac' },
  { name = 'given', network = 'n', cidr = '2001:db8:1::/64', ipv6_address_mode = 'dhcpv6-stateful' }]
port = [{ name = 'p', network = 'n', mac_address = '52:54:00:12:34:56', interface = { kind = 'tap', name = 'p' } },
  { name = 'q', network = 'n', mac_address = '52:54:00:12:34:57', fixed_ips = [{ subnet = 'auto' }], interface = { kind = 'tap', name = 'q' } }]";
    let model = load(text, "f.toml").unwrap();
    let ips = |port: usize| -> Vec<String> {
        model.ports[port].fixed_ips.iter().map(|fixed| fixed.ip.to_string()).collect()
    };
    assert_eq!(ips(0), ["10.0.0.2", "2001:db8:1::2", "2001:db8::5054:ff:fe12:3456"]);
    assert_eq!(ips(1), ["2001:db8::5054:ff:fe12:3457"]);
}

#[test]
fn metadata_is_passed_on_only_to_a_nova_that_is_known() {
    table(&[
        (
            "[metadata]\nmode = 'proxy'\nnova_metadata_host = '192.0.2.9'\nmetadata_proxy_shared_secret = 'x'",
            &[],
        ),
        ("[metadata]\nmode = 'proxy'", &["2:8 metadata.mode: no Nova is known to pass requests on to"]),
        (
            "[[network]]\nname = 'n'\nmetadata = 'proxy'",
            &["3:12 network[n].metadata: no Nova is known to pass requests on to"],
        ),
        (
            "[metadata]\nnova_metadata_host = '192.0.2.9'",
            &["1:1 metadata.metadata_proxy_shared_secret: is missing"],
        ),
        ("[metadata]\nmode = 'yes'", &["2:8 metadata.mode: `yes` is not known here"]),
    ]);
}

#[test]
fn a_guest_is_told_of_itself() {
    check_port(
        "network = 'home', metadata = { hostname = 'web_1', public_keys = ['ssh-ed25519 AAAAC3 me', 'id_rsa'], user_date = 'x' }, interface = { kind = 'tap', name = 't' }",
        &[
            "43 metadata.hostname: `web_1` is no domain name",
            "92 metadata.public_keys: is no SSH public key",
            "103 metadata.user_date: unknown key",
        ],
    );
    let text = "network = [{ name = 'n', dns_domain = 'blue.lab.' }]
port = [{ name = 'p', network = 'n', interface = { kind = 'tap', name = 'p' }, metadata = { user_data = 'a.yaml', vendor_data = '/b' } }]";
    let model = load(text, "/etc/lab/f.toml").unwrap();
    assert_eq!(model.networks[0].dns_domain.as_deref(), Some("blue.lab"));
    let metadata = &model.ports[0].metadata;
    assert_eq!(metadata.user_data.as_deref(), Some(Path::new("/etc/lab/a.yaml")));
    assert_eq!(metadata.vendor_data.as_deref(), Some(Path::new("/b")));
}

#[test]
fn leases_for_strangers_need_addresses_and_a_memory() {
    table(&[
        (
            "switch.state = 's'\nnetwork = [{ name = 'n', dynamic_leases = true }]\nsubnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/24' }]",
            &[],
        ),
        (
            "network = [{ name = 'n', dynamic_leases = true }]\nsubnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/24', enable_dhcp = false }]",
            &[
                "1:43 network[n].dynamic_leases: leases must outlive the process, and nothing says where they are kept",
                "1:43 network[n].dynamic_leases: the network has no IPv4 subnet with DHCP to take addresses from",
            ],
        ),
    ]);
}

#[test]
fn nobody_has_the_address_of_the_service() {
    check_port(
        "network = 'home', mac_address = '02:00:a9:fe:a9:fe', interface = { kind = 'tap', name = 't' }",
        &["33 mac_address: 02:00:a9:fe:a9:fe is the switch's own, on every network"],
    );
}
