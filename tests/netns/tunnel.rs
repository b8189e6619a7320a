//! VXLAN against the kernel's own device: a guest behind a TAP here, a namespace whose `eth0` is a VXLAN device there, and one
//! veth pair between them as the underlay.

use crate::between::iperf;
use crate::lab::{Host, Kind, Lab, Namespace, add_address, text, veth};

/// Payloads of pings, the last three in fragments. What fills the MTU is tried apart, without fragments.
const SIZES: [usize; 5] = [0, 56, 1472, 1473, 4000];

/// The underlay's IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The VTEP of this number.
    pub(crate) fn vtep(self, number: u8) -> String {
        match self {
            Family::V4 => format!("192.0.2.{number}"),
            Family::V6 => format!("2001:db8::{number:x}"),
        }
    }

    /// The same with the prefix length of the underlay.
    pub(crate) fn vtep_in_subnet(self, number: u8) -> String {
        format!("{}/{}", self.vtep(number), if self == Family::V4 { 24 } else { 64 })
    }

    fn group(self) -> &'static str {
        match self {
            Family::V4 => "239.1.1.1",
            Family::V6 => "ff05::1:1",
        }
    }

    /// The MTU of networks on an underlay with 1500.
    pub(crate) fn mtu(self) -> usize {
        match self {
            Family::V4 => 1450,
            Family::V6 => 1430,
        }
    }

    /// What the kernel's device needs to take packets with zero UDP checksums (RFC 6935), and sends then itself.
    pub(crate) fn zero_sums(self) -> &'static str {
        match self {
            Family::V4 => "",
            Family::V6 => "udp6zerocsumrx udp6zerocsumtx",
        }
    }
}

/// A switch whose VTEP is number `number` on its device `under`, with network `blue` in tunnels. `keys` are further ones of
/// the overlay.
pub(crate) fn switch(driver: &str, family: Family, number: u8, keys: &str) -> Lab {
    let mut lab = Lab::new();
    lab.add(&format!(
        "[overlay]\ninterface = \"under\"\ndriver = \"{driver}\"\nlocal_ip = \"{}\"\n{keys}",
        family.vtep_in_subnet(number)
    ));
    lab.add("[[network]]\nname = \"blue\"\nnetwork_type = \"vxlan\"\nsegmentation_id = 1001");
    lab
}

/// `peers = […]` of these numbers.
pub(crate) fn peers(family: Family, numbers: &[u8]) -> String {
    let vteps: Vec<String> = numbers.iter().map(|number| format!("\"{}\"", family.vtep(*number))).collect();
    format!("peers = [{}]", vteps.join(", "))
}

/// A host of number 2 whose `eth0` is the kernel's VXLAN device; its VTEP is number 11. `options` say how it finds us.
fn kernel(lab: &Lab, family: Family, options: &str) -> Host {
    let far = Host::new("far", 2);
    veth(&lab.ns, "under", &far.ns, "under", 1500);
    add_address(&far.ns, "under", &family.vtep_in_subnet(11));
    far.ns.ip(&format!(
        "link add eth0 address 02:00:5e:00:53:02 type vxlan id 1001 local {} {options} dstport 4789 dev under",
        family.vtep(11)
    ));
    far.ns.ip("link set eth0 up");
    far.take_addresses();
    far
}

/// Both with each other as their only peer. `sums` are options of the kernel's device.
pub(crate) fn one_to_one(driver: &str, family: Family, sums: &str) -> (Lab, Host, Host) {
    let mut lab = switch(driver, family, 10, &peers(family, &[11]));
    let near = lab.host("near", Kind::Tap, 1);
    let far = kernel(&lab, family, &format!("remote {} {sums}", family.vtep(10)));
    lab.start();
    (lab, near, far)
}

/// A ping that must not be fragmented; `len` is that of its whole packet.
fn whole(from: &Host, address: &str, len: usize) -> String {
    let headers = if address.contains(':') { 48 } else { 28 };
    from.ping_says(address, &format!("-M do -s {} -c 3 -w 20", len - headers))
}

/// No answer for what is too long: its sender learns how long packets may be.
fn is_told(from: &Host, to: &Host, mtu: usize) {
    for address in [to.v4(), to.v6()] {
        let said = whole(from, &address, mtu + 1);
        assert!(said.contains("100% packet loss"), "{said}");
        let words = if address.contains(':') {
            format!("Packet too big: mtu={mtu}")
        } else {
            format!("Frag needed and DF set (mtu = {mtu})")
        };
        assert!(said.contains(&words), "{words}: {said}");
        let route = from.ns.ip(&format!("route get {address}"));
        assert!(route.contains(&format!("mtu {mtu}")), "{route}");
        let said = whole(from, &address, mtu);
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
}

/// Nothing that was sent may have ended in a fault.
fn no_faults(lab: &Lab) {
    for port in lab.ports() {
        let drops = &port["counters"]["drops"];
        for never in ["bad_offload", "tx_error", "giant", "rx_truncated", "outer_checksum", "outer_length"] {
            assert!(drops[never].is_null(), "{port:#}");
        }
    }
}

fn pings(driver: &str, family: Family, sums: &str) {
    let (mut lab, near, far) = one_to_one(driver, family, sums);
    let mtu = family.mtu();
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.ping_sizes(to, &SIZES);
        for address in [to.v4(), to.v6()] {
            for len in [mtu - 2, mtu - 1, mtu] {
                let said = whole(from, &address, len);
                assert!(said.contains(" 0% packet loss"), "{said}");
            }
            assert!(whole(from, &address, mtu + 1).contains("100% packet loss"));
        }
    }
    // The guest does not know how long its packets may be, as one with an MTU of its own.
    near.ns.ip("link set eth0 mtu 1500");
    is_told(&near, &far, mtu);
    near.ping_sizes(&far, &SIZES);
    no_faults(&lab);
    lab.stop();
}

fn streams(driver: &str, family: Family, sums: &str) {
    let (mut lab, near, far) = one_to_one(driver, family, sums);
    near.udp_echo(&far, &[1, 100, 1422, 1423, 9000]);
    far.udp_echo(&near, &[1, 100, 1422, 1423, 9000]);
    near.tcp_to(&far, 3 << 20);
    far.tcp_to(&near, 3 << 20);
    iperf(&near, &far);
    no_faults(&lab);
    lab.stop();
}

macro_rules! with_the_kernel {
    ($($module:ident: $driver:literal, $family:ident, $sums:expr;)*) => {
        $(mod $module {
            use super::{Family, pings, streams};

            #[test]
            fn pings_of_every_size() {
                needs_system!();
                pings($driver, Family::$family, $sums);
            }

            #[test]
            fn tcp_and_udp() {
                needs_system!();
                streams($driver, Family::$family, $sums);
            }
        })*
    };
}

with_the_kernel! {
    packet_over_ipv4: "packet", V4, "";
    packet_over_ipv4_with_udp_checksums: "packet", V4, "udpcsum";
    packet_over_ipv6: "packet", V6, Family::V6.zero_sums();
    packet_over_ipv6_with_udp_checksums: "packet", V6, "udp6zerocsumrx";
    xdp_over_ipv4: "xdp", V4, "";
    xdp_over_ipv4_with_udp_checksums: "xdp", V4, "udpcsum";
    xdp_over_ipv6: "xdp", V6, Family::V6.zero_sums();
    xdp_over_ipv6_with_udp_checksums: "xdp", V6, "udp6zerocsumrx";
}

/// Both flood into a multicast group and know nobody: who speaks is learned.
fn in_a_group(driver: &str, family: Family, we_begin: bool) {
    let keys = format!("multicast_group = \"{}\"\nlearn_peers = true", family.group());
    let mut lab = switch(driver, family, 10, &keys);
    let near = lab.host("near", Kind::Tap, 1);
    let far = kernel(&lab, family, &format!("group {} {}", family.group(), family.zero_sums()));
    lab.start();
    let (first, second) = if we_begin { (&near, &far) } else { (&far, &near) };
    first.ping(second);
    second.ping(first);
    near.tcp_to(&far, 1 << 20);
    far.udp_echo(&near, &[100, 4000]);
    no_faults(&lab);
    lab.stop();
}

macro_rules! groups {
    ($($name:ident: $driver:literal, $family:ident;)*) => {
        $(#[test]
        fn $name() {
            needs_system!();
            for we_begin in [true, false] {
                in_a_group($driver, Family::$family, we_begin);
            }
        })*
    };
}

groups! {
    a_group_over_ipv4_with_packet: "packet", V4;
    a_group_over_ipv6_with_packet: "packet", V6;
    a_group_over_ipv4_with_xdp: "xdp", V4;
    a_group_over_ipv6_with_xdp: "xdp", V6;
}

/// Frames that came out of the kernel's tunnel device.
fn came_out(far: &Host) -> u64 {
    let links: serde_json::Value = serde_json::from_str(&far.ns.ip("-j -s link show eth0")).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// Ports on other hosts are known from entries. Their addresses are answered for here, though at one of them nobody is; on a
/// network that has only entries nothing else goes into a tunnel.
fn entries(driver: &str, family: Family, l2population: bool) {
    let mut lab = switch(driver, family, 10, &peers(family, &[11]));
    let entry = |number: u8| {
        format!(
            "{{ mac_address = \"02:00:5e:00:53:0{number}\", fixed_ips = [\"10.9.0.{number}\", \"fd09::{number}\"], \
             vtep = \"{}\" }}",
            family.vtep(11)
        )
    };
    // These are still keys of the network.
    lab.config = lab.config.trim_end().to_owned();
    lab.add(&format!("\nremote_ports = [{}, {}]\nl2population = {l2population}", entry(2), entry(9)));
    let near = lab.host("near", Kind::Tap, 1);
    let far = kernel(&lab, family, &format!("remote {} {}", family.vtep(10), family.zero_sums()));
    far.ns.ip("link set eth0 multicast off"); // so that it does not ask on its own, which would be answered
    lab.start();

    // Addresses without an entry: what asks for them is flooded, or nowhere.
    let before = came_out(&far);
    for address in ["10.9.0.77", "fd09::77"] {
        assert!(!near.ping_once(address, "-c 3 -w 4").status.success());
    }
    let flooded = came_out(&far) - before;
    assert_eq!(flooded > 0, !l2population, "{flooded} frames were flooded into the tunnel");

    // The entry of nobody: the guest has its MAC from the switch, and only its pings pass.
    let (before, pings) = (came_out(&far), 3);
    for address in ["10.9.0.9", "fd09::9"] {
        assert!(!near.ping_once(address, &format!("-c {pings} -w 4")).status.success());
        let neighbour = near.ns.ip(&format!("neigh show {address}"));
        assert!(neighbour.contains("02:00:5e:00:53:09"), "{neighbour}");
    }
    let passed = came_out(&far) - before;
    assert!(passed >= pings, "only {passed} frames came to the entry's host");
    let answered = lab.show_port("near")["counters"]["answered"].as_u64().unwrap();
    assert!(answered >= 2, "the switch answered {answered} times");

    near.ping(&far);
    far.ping(&near);
    lab.stop();
}

#[test]
fn entries_alone_flood_nothing() {
    needs_system!();
    entries("packet", Family::V4, true);
    entries("xdp", Family::V6, true);
}

#[test]
fn entries_are_answered_for_beside_flooding() {
    needs_system!();
    entries("xdp", Family::V4, false);
    entries("packet", Family::V6, false);
}

/// A router between two subnets of the underlay. Its link to the peer takes 1400 bytes, which the switch does not know.
fn behind_a_router(driver: &str) -> (Lab, Host, Host, Namespace) {
    let keys = "gateway_ip = \"192.0.2.1\"\npeers = [\"198.51.100.11\"]";
    let mut lab = switch(driver, Family::V4, 10, keys);
    let near = lab.host("near", Kind::Tap, 1);
    let (router, far) = (Namespace::new("router"), Host::new("far", 2));
    veth(&lab.ns, "under", &router, "left", 1500);
    veth(&router, "right", &far.ns, "under", 1500);
    router.ip("link set right mtu 1400");
    add_address(&router, "left", "192.0.2.1/24");
    add_address(&router, "right", "198.51.100.1/24");
    router.within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    add_address(&far.ns, "under", "198.51.100.11/24");
    far.ns.ip("route add default via 198.51.100.1");
    far.ns
        .ip("link add eth0 type vxlan id 1001 local 198.51.100.11 remote 192.0.2.10 dstport 4789 dev under");
    // What it sends fits; what it says that it takes does not, so that only the router can tell.
    far.ns.ip("link set eth0 mtu 1350 up");
    far.take_addresses();
    far.ns.ip("route change 10.9.0.0/24 dev eth0 src 10.9.0.2 advmss 1410");
    lab.start();
    (lab, near, far, router)
}

fn learned(near: &Host, far: &Host) -> bool {
    near.ns.ip(&format!("route get {}", far.v4())).contains("mtu 1350")
}

fn a_narrow_path_is_found_by_pings(driver: &str) {
    let (mut lab, near, far, _router) = behind_a_router(driver);
    near.ping(&far);
    assert!(!learned(&near, &far));
    let said = whole(&near, &far.v4(), 1450);
    assert!(said.contains("Frag needed and DF set (mtu = 1350)"), "{said}");
    assert!(learned(&near, &far));
    // The path is known by now: IPv6's packets need not try it.
    let said = whole(&near, &far.v6(), 1450);
    assert!(said.contains("icmp_seq=1 Packet too big: mtu=1350"), "{said}");
    for address in [far.v4(), far.v6()] {
        let said = whole(&near, &address, 1350);
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    near.ping_sizes(&far, &SIZES);
    no_faults(&lab);
    lab.stop();
}

fn a_narrow_path_is_found_by_tcp(driver: &str) {
    let (mut lab, near, far, _router) = behind_a_router(driver);
    near.tcp_to(&far, 3 << 20);
    assert!(learned(&near, &far), "TCP went on without being told");
    far.tcp_to(&near, 3 << 20);
    no_faults(&lab);
    lab.stop();
}

/// The host goes on to use its NIC, at an address of its own, while tunnels use it at theirs.
fn on_a_shared_nic(driver: &str, family: Family) {
    let mut lab = switch(driver, family, 10, &peers(family, &[11]));
    let near = lab.host("near", Kind::Tap, 1);
    let far = kernel(&lab, family, &format!("remote {} {}", family.vtep(10), family.zero_sums()));
    add_address(&lab.ns, "under", &family.vtep_in_subnet(100));
    lab.start();
    let own = |from: &Namespace, number: u8| {
        let mut command = from.command("ping");
        let output =
            command.args(["-n", "-q", "-c", "3", "-i", "0.1", "-w", "20", &family.vtep(number)]).output();
        let said = text(&output.unwrap());
        assert!(said.contains(" 0% packet loss"), "{} to {number}: {said}", from.name);
    };
    std::thread::scope(|scope| {
        let host = scope.spawn(|| (0..5).for_each(|_| own(&lab.ns, 11)));
        (0..5).for_each(|_| near.ping(&far));
        host.join().unwrap();
    });
    far.ns.ip("neigh flush dev under");
    own(&far.ns, 100);
    own(&far.ns, 10); // the tunnels' end answers too
    far.ping(&near);
    lab.stop();
    own(&lab.ns, 11);
}

macro_rules! with_each_driver {
    ($($test:ident: $what:expr;)*) => {
        $(mod $test {
            use super::*;

            #[test]
            fn with_packet() {
                needs_system!();
                $what("packet");
            }

            #[test]
            fn with_xdp() {
                needs_system!();
                $what("xdp");
            }
        })*
    };
}

with_each_driver! {
    path_mtu_by_pings: a_narrow_path_is_found_by_pings;
    path_mtu_by_tcp: a_narrow_path_is_found_by_tcp;
}

#[test]
fn tunnels_share_a_nic_over_ipv4() {
    needs_system!();
    on_a_shared_nic("xdp", Family::V4);
}

#[test]
fn tunnels_share_a_nic_over_ipv6() {
    needs_system!();
    on_a_shared_nic("xdp", Family::V6);
}

/// Another UDP port, then another address, by reload: the host goes on to use the NIC, and tunnels go by the new ones.
fn a_shared_nic_is_split_anew(in_group: bool) {
    let family = Family::V4;
    let keys = if in_group {
        format!("multicast_group = \"{}\"\nlearn_peers = true", family.group())
    } else {
        peers(family, &[11])
    };
    let towards = |number: u8| match in_group {
        true => format!("group {}", family.group()),
        false => format!("remote {}", family.vtep(number)),
    };
    let mut lab = switch("xdp", family, 10, &keys);
    let near = lab.host("near", Kind::Tap, 1);
    let far = kernel(&lab, family, &towards(10));
    add_address(&lab.ns, "under", &family.vtep_in_subnet(100));
    lab.start();
    far.ping(&near);
    for (from, to, number) in [
        ("driver = \"xdp\"", "driver = \"xdp\"\nudp_port = 8472", 10),
        ("192.0.2.10/24", "192.0.2.20/24", 20),
    ] {
        assert!(lab.config.contains(from));
        lab.config = lab.config.replacen(from, to, 1);
        lab.write();
        lab.reload();
        lab.wait_for_ports();
        far.ns.ip("link del eth0");
        far.ns.ip(&format!(
            "link add eth0 address 02:00:5e:00:53:02 type vxlan id 1001 local {} {} dstport 8472 dev under",
            family.vtep(11),
            towards(number)
        ));
        far.ns.ip("link set eth0 up");
        far.take_addresses();
        // It begins: what comes first goes to the group, where there is one.
        far.ping(&near);
        near.ping(&far);
        far.tcp_to(&near, 1 << 20);
        let mut command = lab.ns.command("ping");
        let said = text(&command.args(["-n", "-c", "3", "-w", "20", &family.vtep(11)]).output().unwrap());
        assert!(said.contains(" 0% packet loss"), "the host itself: {said}");
    }
    no_faults(&lab);
    lab.stop();
}

#[test]
fn a_shared_nic_is_split_anew_by_a_reload() {
    needs_system!();
    a_shared_nic_is_split_anew(false);
    a_shared_nic_is_split_anew(true);
}

/// An MTU that the device does not have is refused by a reload as it is at the start; all runs on as before.
#[test]
fn a_reload_does_not_make_a_black_hole() {
    needs_system!();
    for driver in ["packet", "xdp"] {
        let (mut lab, near, far) = one_to_one(driver, Family::V4, "");
        let before = lab.config.clone();
        lab.config = before.replacen("[overlay]", "[overlay]\nmtu = 1600", 1);
        lab.write();
        let output = lab.nuswitch(&["reload"]);
        let said = text(&output);
        assert!(!output.status.success() && said.contains("the MTU of `under` is 1500"), "{said}");
        near.ping(&far);
        lab.config = before.replacen("[overlay]", "[overlay]\nmtu = 1400", 1);
        lab.write();
        lab.reload();
        near.ping(&far);
        lab.stop();
    }
}

/// The guest's worker makes the tunnel packets, the underlay's sends them; and the other way round.
#[test]
fn tunnels_between_two_workers() {
    needs_system!();
    for driver in ["packet", "xdp"] {
        let mut lab = switch(driver, Family::V4, 10, &peers(Family::V4, &[11]));
        lab.settings = "workers = [0, 1]".into();
        let (near, other) = (lab.host("near", Kind::Tap, 1), lab.host("other", Kind::Tap, 3));
        let far = kernel(&lab, Family::V4, &format!("remote {}", Family::V4.vtep(10)));
        lab.start();
        let worker = |port: &str| lab.show_port(port)["worker"].as_u64().unwrap();
        assert_ne!(worker("near"), worker("other"), "one of them is not with the underlay");
        for guest in [&near, &other] {
            guest.ping_sizes(&far, &SIZES);
            guest.udp_echo(&far, &[1, 1422, 9000]);
            guest.tcp_to(&far, 3 << 20);
            far.tcp_to(guest, 3 << 20);
            guest.ns.ip("link set eth0 mtu 1500");
            is_told(guest, &far, Family::V4.mtu());
        }
        near.tcp_to(&other, 1 << 20);
        no_faults(&lab);
        lab.stop();
    }
}
