//! Router advertisements and DHCPv6 with real clients: the kernel's autoconfiguration, rdisc6, dhclient and dhcpcd.

use crate::dhcp_client::Client;
use crate::lab::{Lab, Namespace, eventually, require, text};

/// A switch with a guest on a subnet of this mode, behind a router.
fn lab(mode: &str, address: &str) -> (Lab, Namespace) {
    for tool in ["dhclient", "dhcpcd", "rdisc6"] {
        require(tool);
    }
    let (mut lab, guest) = (Lab::new(), Namespace::new("web"));
    lab.add(&format!(
        r#"
[[network]]
name = "blue"
mtu = 1450
dns_domain = "blue.lab"
[[subnet]]
name = "blue-v6"
network = "blue"
cidr = "2001:db8:b::/64"
ipv6_ra_mode = "{mode}"
ipv6_address_mode = "{mode}"
dns_nameservers = ["2001:db8::53"]
[[router]]
name = "edge"
interfaces = ["blue-v6"]"#
    ));
    let keys = format!("network = \"blue\"\nmac_address = \"52:54:00:00:00:0a\"{address}");
    lab.port("web", &keys, &format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", guest.name));
    lab.start();
    (lab, guest)
}

fn rdisc6(guest: &Namespace) -> String {
    eventually("the guest has a link-local address", || {
        let said = guest.ip("-6 address show dev eth0 scope link");
        said.contains("fe80::") && !said.contains("tentative")
    });
    text(&guest.command("rdisc6").args(["-1", "-r", "3", "-w", "2000", "eth0"]).output().unwrap())
}

fn has_default(guest: &Namespace) -> bool {
    guest.ip("-6 route show default").contains("default via fe80::")
}

#[test]
fn a_kernel_configures_itself_by_what_the_router_says() {
    needs_system!();
    let (mut lab, guest) = lab("slaac", "");
    // As it is in the configuration's view: of the prefix and the MAC.
    eventually("the guest has its address", || {
        let said = guest.ip("-6 address show dev eth0 scope global");
        said.contains("2001:db8:b:0:5054:ff:fe00:a/64") && !said.contains("tentative")
    });
    eventually("the guest has a router", || has_default(&guest));
    let mut ping = guest.command("ping");
    let said = text(&ping.args(["-n", "-c", "1", "-w", "10", "2001:db8:b::1"]).output().unwrap());
    assert!(said.contains(" 0% packet loss"), "{said}");
    let said = rdisc6(&guest);
    for line in [
        "Stateful address conf.    :           No",
        "Router lifetime           :          300 (",
        "1450 bytes (valid)",
        "Prefix                   : 2001:db8:b::/64",
        "Autonomous address conf.:          Yes",
        "Recursive DNS server     : 2001:db8::53",
        "DNS search list          : blue.lab",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // A kernel whose device has another MTU takes the link's.
    let mut sysctl = guest.command("cat");
    let mtu = text(&sysctl.arg("/proc/sys/net/ipv6/conf/eth0/mtu").output().unwrap());
    assert_eq!(mtu.trim(), "1450");
    // The router goes, and says so.
    lab.config = lab.config.replace("interfaces = [\"blue-v6\"]", "interfaces = []");
    lab.write();
    lab.reload();
    eventually("the guest has no router any more", || !has_default(&guest));
    let said = rdisc6(&guest);
    assert!(said.contains("No response"), "{said}");
    lab.stop();
}

#[test]
fn addresses_come_by_dhcpv6_where_the_router_says_so() {
    needs_system!();
    let (mut lab, guest) = lab("dhcpv6-stateful", "\nfixed_ips = [\"2001:db8:b::10\"]");
    let said = rdisc6(&guest);
    assert!(said.contains("Stateful address conf.    :          Yes"), "{said}");
    assert!(said.contains("Autonomous address conf.:           No"), "{said}");
    let client = Client::dhclient(&guest, "-6", "");
    let bound = client.waits_for("bound6", 1);
    assert_eq!(bound["new_ip6_address"], "2001:db8:b::10");
    assert_eq!(bound["new_dhcp6_name_servers"], "2001:db8::53");
    let mut ping = guest.command("ping");
    let said = text(&ping.args(["-n", "-c", "1", "-w", "10", "2001:db8:b::1"]).output().unwrap());
    assert!(said.contains(" 0% packet loss"), "{said}");
    drop(client);
    guest.ip("-6 address flush dev eth0 scope global");
    // It begins when the router tells it to.
    for options in ["-6", "-6 -o rapid_commit"] {
        let client = Client::dhcpcd(&guest, options);
        let bound = client.waits_for("bound6", 1);
        assert_eq!(bound["new_dhcp6_ia_na1_ia_addr1"], "2001:db8:b::10");
        assert_eq!(bound.contains_key("new_dhcp6_rapid_commit"), options.contains("rapid"));
        assert!(guest.ip("-6 address show dev eth0").contains("2001:db8:b::10/128"));
        drop(client);
    }
    lab.stop();
}

#[test]
fn all_but_addresses_comes_by_stateless_dhcpv6() {
    needs_system!();
    let (mut lab, guest) = lab("dhcpv6-stateless", "");
    eventually("the guest has its address", || {
        let said = guest.ip("-6 address show dev eth0");
        said.contains("2001:db8:b:0:5054:ff:fe00:a/64") && !said.contains("tentative")
    });
    let said = rdisc6(&guest);
    assert!(said.contains("Stateful other conf.      :          Yes"), "{said}");
    let client = Client::dhclient(&guest, "-6 -S", "");
    let told = client.is_told("new_dhcp6_name_servers");
    assert_eq!(told["new_dhcp6_name_servers"], "2001:db8::53");
    assert_eq!(told["new_dhcp6_domain_search"], "blue.lab.");
    assert!(!told.contains_key("new_ip6_address"), "{told:#?}");
    drop(client);
    let client = Client::dhcpcd(&guest, "-6");
    let told = client.is_told("new_dhcp6_name_servers");
    assert_eq!(told["new_dhcp6_name_servers"], "2001:db8::53");
    drop(client);
    lab.stop();
}
