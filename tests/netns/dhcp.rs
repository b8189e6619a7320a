//! DHCPv4 with the clients that guests have: udhcpc, ISC's dhclient and dhcpcd, each in a namespace behind a tap port.

use nix::sys::signal::Signal;

use crate::dhcp_client::{Client, Event};
use crate::lab::{Lab, Namespace, Watch, eventually, require, run};

const BLUE: &str = r#"
[dhcp]
lease_time = 60
[[network]]
name = "blue"
mtu = 1450
dns_domain = "blue.lab"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
dns_nameservers = ["192.0.2.53", "192.0.2.54"]
ntp_servers = ["192.0.2.123"]
host_routes = [{ destination = "198.51.100.0/24", nexthop = "10.0.0.9" }]
"#;
const ROUTER: &str = "[[router]]\nname = \"edge\"\ninterfaces = [\"blue-v4\"]";

/// A switch with a guest `web` at 10.0.0.10, of which its kernel knows nothing yet.
fn lab(more: &str, keys: &str) -> (Lab, Namespace) {
    for tool in ["udhcpc", "dhclient", "dhcpcd", "curl"] {
        require(tool);
    }
    let (mut lab, guest) = (Lab::new(), Namespace::new("web"));
    lab.add(&format!("{BLUE}{more}"));
    let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", guest.name);
    let keys = format!(
        "network = \"blue\"\nmac_address = \"52:54:00:00:00:0a\"\nfixed_ips = [\"10.0.0.10\"]\n{keys}"
    );
    lab.port("web", &keys, &interface);
    lab.start();
    (lab, guest)
}

fn counted(lab: &Lab, counter: &str) -> u64 {
    lab.show_port("web")["counters"][counter].as_u64().unwrap()
}

fn address(guest: &Namespace) -> String {
    guest.ip("-4 -o address show dev eth0 scope global")
}

/// What is asked for is there, under any of its names.
#[track_caller]
fn has(event: &Event, names: &[&str], value: &str) {
    let found: Vec<_> = names.iter().filter_map(|name| event.get(*name)).collect();
    assert!(found.iter().any(|found| found.trim_end_matches('.') == value), "{names:?} {value}: {event:#?}");
}

/// The lease is all there, the guest's kernel has it, and metadata is found by it.
fn check(guest: &Namespace, bound: &Event, has_router: bool) {
    has(bound, &["ip", "new_ip_address"], "10.0.0.10");
    has(bound, &["subnet", "new_subnet_mask"], "255.255.255.0");
    has(bound, &["mtu", "new_interface_mtu"], "1450");
    has(bound, &["dns", "new_domain_name_servers"], "192.0.2.53 192.0.2.54");
    has(bound, &["domain", "new_domain_name"], "blue.lab");
    has(bound, &["ntpsrv", "new_ntp_servers"], "192.0.2.123");
    has(bound, &["hostname", "new_host_name"], "web");
    has(bound, &["lease", "new_dhcp_lease_time"], "60");
    has(bound, &["serverid", "new_dhcp_server_identifier"], "169.254.169.254");
    assert!(address(guest).contains("10.0.0.10/24"), "{}", address(guest));
    let routes = guest.ip("-4 route show");
    for route in ["default via 10.0.0.1 ", "198.51.100.0/24 via 10.0.0.9 "] {
        assert!(routes.contains(route), "{route}: {routes}");
    }
    let way = if has_router { "169.254.169.254 via 10.0.0.1 " } else { "169.254.169.254 dev eth0 " };
    assert!(routes.contains(way), "{way}: {routes}");
    let mut curl = guest.command("curl");
    curl.args(["-sS", "--max-time", "10", "http://169.254.169.254/latest/meta-data/local-ipv4"]);
    assert_eq!(run(&mut curl), "10.0.0.10");
}

#[test]
fn every_client_gets_all_that_the_subnet_says() {
    needs_system!();
    for (router, has_router) in [(ROUTER, true), ("", false)] {
        let (mut lab, guest) = lab(router, "");
        let clients: [fn(&Namespace) -> Client; 3] =
            [|ns| Client::udhcpc(ns, ""), |ns| Client::dhclient(ns, "-4", ""), |ns| Client::dhcpcd(ns, "-4")];
        for start in clients {
            let client = start(&guest);
            check(&guest, &client.waits_for("bound", 1), has_router);
            drop(client);
            guest.ip("-4 address flush dev eth0");
        }
        lab.stop();
    }
}

#[test]
fn systemd_s_client_has_all_of_it_too() {
    needs_system!();
    require("networkctl");
    let (mut lab, guest) = lab(ROUTER, "");
    let client = Client::networkd(&guest);
    let lease = client.networkd_lease();
    for line in [
        "ADDRESS=10.0.0.10",
        "NETMASK=255.255.255.0",
        "SERVER_ADDRESS=169.254.169.254",
        "MTU=1450",
        "LIFETIME=60",
        "DNS=192.0.2.53 192.0.2.54",
        "NTP=192.0.2.123",
        "DOMAINNAME=blue.lab",
        "HOSTNAME=web",
        "CLASSLESS_ROUTES=198.51.100.0/24,10.0.0.9 169.254.169.254/32,10.0.0.1 0.0.0.0/0,10.0.0.1",
    ] {
        assert!(lease.lines().any(|found| found == line), "{line}: {lease}");
    }
    let route = "169.254.169.254 via 10.0.0.1 dev eth0 proto dhcp";
    eventually("the guest has its routes", || guest.ip("-4 route show").contains(route));
    drop(client);
    lab.stop();
}

#[test]
fn a_lease_is_renewed_by_unicast_and_rebound_by_broadcast() {
    needs_system!();
    // udhcpc renews when it is told to, on the link.
    let (mut on_link, guest) = lab("", "");
    let client = Client::udhcpc(&guest, "");
    client.waits_for("bound", 1);
    client.signal(Signal::SIGUSR1);
    client.waits_for("renew", 1);
    let before = counted(&on_link, "consumed");
    client.signal(Signal::SIGUSR2);
    client.waits_for("deconfig", 2);
    eventually("the switch hears the release", || counted(&on_link, "consumed") > before);
    drop(client);
    on_link.stop();
    let (mut lab, guest) = lab(ROUTER, "");
    // dhclient with timers of its own: first to the server's address, by the router.
    let timers = "supersede dhcp-renewal-time 2; supersede dhcp-rebinding-time 40;";
    let client = Client::dhclient(&guest, "-4", timers);
    client.waits_for("renew", 1);
    assert!(
        client.log().contains("DHCPREQUEST for 10.0.0.10 on eth0 to 169.254.169.254 port 67"),
        "{}",
        client.log()
    );
    drop(client);
    // Then, as the server does not answer there, to everybody.
    guest.ip("-4 address flush dev eth0");
    guest.ip("rule add to 169.254.169.254 blackhole");
    let timers = "supersede dhcp-renewal-time 1; supersede dhcp-rebinding-time 3;";
    let client = Client::dhclient(&guest, "-4", timers);
    let rebound = "over fallback interface.\nDHCPREQUEST for 10.0.0.10 on eth0 to 255.255.255.255 port 67\nDHCPACK of 10.0.0.10 ";
    eventually("the lease is rebound", || client.log().contains(rebound));
    drop(client);
    lab.stop();
}

#[test]
fn a_client_that_has_an_address_is_told_the_rest() {
    needs_system!();
    let (mut lab, guest) = lab(ROUTER, "");
    guest.ip("address add 10.0.0.10/24 dev eth0");
    let client = Client::dhcpcd(&guest, "-4 --inform");
    let informed = client.waits_for("inform", 1);
    has(&informed, &["new_domain_name_servers"], "192.0.2.53 192.0.2.54");
    assert!(!informed.contains_key("new_dhcp_lease_time"), "{informed:#?}");
    drop(client);
    lab.stop();
}

#[test]
fn whose_address_has_changed_gets_the_new_one() {
    needs_system!();
    let (mut lab, guest) = lab(ROUTER, "");
    let client = Client::udhcpc(&guest, "");
    client.waits_for("bound", 1);
    lab.config = lab.config.replace("\"10.0.0.10\"", "\"10.0.0.77\"");
    lab.write();
    lab.reload();
    client.signal(Signal::SIGUSR1);
    client.waits_for("nak", 1);
    let bound = client.waits_for("bound", 2);
    has(&bound, &["ip"], "10.0.0.77");
    assert!(address(&guest).contains("10.0.0.77/24") && !address(&guest).contains("10.0.0.10/"));
    drop(client);
    // One that starts with an old lease at hand hears it at once.
    let old = "lease { interface \"eth0\"; fixed-address 10.0.0.10; option subnet-mask 255.255.255.0; renew never; \
               rebind never; expire never; }";
    let client = Client::dhclient_with(&guest, "-4", "", old);
    has(&client.waits_for("bound", 1), &["new_ip_address"], "10.0.0.77");
    assert!(client.log().contains("DHCPNAK from 169.254.169.254"), "{}", client.log());
    drop(client);
    lab.stop();
}

#[test]
fn a_port_s_own_options_and_a_second_subnet() {
    needs_system!();
    let more = "[[subnet]]\nname = \"blue-more\"\nnetwork = \"blue\"\ncidr = \"10.0.1.0/24\"";
    let options = r#"extra_dhcp_opts = [
  { opt_name = "bootfile-name", opt_value = "pxelinux.0" },
  { opt_name = "tftp-server", opt_value = "192.0.2.9" },
  { opt_name = "mtu", opt_value = "1400" },
]"#;
    let (mut lab, guest) = lab(more, "");
    lab.config = lab.config.replace(
        "fixed_ips = [\"10.0.0.10\"]",
        &format!("fixed_ips = [\"10.0.0.10\", \"10.0.1.10\"]\n{options}"),
    );
    lab.write();
    lab.reload();
    let client = Client::udhcpc(&guest, "-O bootfile -O tftp");
    let bound = client.waits_for("bound", 1);
    for (name, value) in
        [("ip", "10.0.0.10"), ("mtu", "1400"), ("bootfile", "pxelinux.0"), ("tftp", "192.0.2.9")]
    {
        has(&bound, &[name], value);
    }
    drop(client);
    // The other one for who asks for it.
    let client = Client::udhcpc(&guest, "-r 10.0.1.10");
    let bound = client.waits_for("bound", 1);
    has(&bound, &["ip"], "10.0.1.10");
    assert!(bound["staticroutes"].ends_with("0.0.0.0/0 10.0.1.1"), "{bound:#?}");
    drop(client);
    lab.stop();
}

#[test]
fn nobody_else_is_served_and_nobody_else_is_asked() {
    needs_system!();
    let (mut lab, guest) = lab(ROUTER, "");
    let other = Namespace::new("other");
    let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", other.name);
    lab.port("other", "network = \"blue\"", &interface);
    lab.write();
    lab.reload();
    lab.wait_for_ports();
    let heard = Watch::start(&other, "eth0", "udp port 67 or udp port 68");
    let client = Client::udhcpc(&guest, "-q");
    assert!(client.ends().contains("lease of 10.0.0.10 obtained from 169.254.169.254"));
    // A station with another MAC behind the same port.
    guest.ip("link set eth0 down");
    guest.ip("link set eth0 address 52:54:00:00:00:99");
    guest.ip("link set eth0 up");
    let client = Client::udhcpc(&guest, "-n -t 2");
    let said = client.ends();
    assert!(said.contains("no lease, failing"), "{said}");
    assert!(lab.drops("web", "spoofed_mac") >= 2, "{}", lab.show_port("web"));
    let heard: Vec<String> = heard.lines().into_iter().filter(|line| !line.is_empty()).collect();
    assert!(heard.is_empty(), "{heard:?}");
    lab.stop();
}
