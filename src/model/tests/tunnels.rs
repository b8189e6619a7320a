//! `[overlay]` and networks of type `vxlan`.

use std::net::IpAddr;

use super::*;

/// Rows of what stands in line 4 of an overlay, and the mistakes of it without `4:` and `overlay.`.
fn check_overlay(head: &str, rows: &[(&str, &[&str])]) {
    for (line, expected) in rows {
        let text = format!("[overlay]\ninterface = 'eth2'\nlocal_ip = '{head}'\n{line}\n");
        let found: Vec<String> = judged(&text)
            .iter()
            .map(|found| found.strip_prefix("4:").unwrap_or(found).replacen("overlay.", "", 1))
            .collect();
        assert_eq!(found, *expected, "in {text}");
    }
}

#[test]
fn mistakes_of_an_overlay() {
    let rows: &[(&str, &[&str])] = &[
        (
            "overlay = 1",
            &[
                "1:11 overlay: expected a table, found a whole number (write [overlay] once, with its keys below)",
            ],
        ),
        (
            "[[overlay]]\ninterface = 'eth2'",
            &["1:1 overlay: expected a table, found a list (write [overlay] once, with its keys below)"],
        ),
        (
            "[overlay]",
            &[
                "1:1 overlay.interface: is missing (the device that tunnels leave through)",
                "1:1 overlay.local_ip: is missing (an address of the underlay that is not this host's, like \"192.0.2.10/24\")",
            ],
        ),
        (
            "port = [{ name = 'a', network = 'n', interface = { kind = 'guest', name = 'eth2' } }]\n\
             network = [{ name = 'n' }]\n[overlay]\ninterface = 'eth2'\nlocal_ip = '192.0.2.10/24'",
            &["1:75 port[a].interface.name: device `eth2` is already used, by line 4"],
        ),
        (
            "physical_network = [{ name = 'p', interface = 'eth2' }]\n[overlay]\ninterface = 'eth2'\n\
             local_ip = '192.0.2.10/24'",
            &["3:13 overlay.interface: device `eth2` is already used, by line 1"],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(judged(text), *expected, "in {text}");
    }
    check_overlay(
        "192.0.2.10/24",
        &[
            ("", &[]),
            ("driver = 'dpdk'", &["10 driver: `dpdk` is not known here (one of `xdp`, `packet`)"]),
            ("driver = 'packet'\nshared = true", &["5:1 shared: `shared` belongs to driver = \"xdp\""]),
            ("mode = 'native'", &["1 mode: `mode` belongs to driver = \"xdp\""]),
            ("busy_poll = true", &["1 busy_poll: `busy_poll` belongs to driver = \"xdp\""]),
            ("driver = 'xdp'\nmode = 'generic'\nshared = true\nbusy_poll = true", &[]),
            ("mtu = 575", &["7 mtu: 575 is outside of 576 to 9216 bytes"]),
            ("mtu = 576", &[]),
            ("mtu = 9217", &["7 mtu: 9217 is outside of 576 to 9216 bytes"]),
            ("udp_port = 0", &["12 udp_port: 0 is outside of 1 to 65535"]),
            ("udp_port = 65536", &["12 udp_port: 65536 is outside of 1 to 65535"]),
            ("ttl = 0", &["7 ttl: 0 is outside of 1 to 255"]),
            ("ttl = 256", &["7 ttl: 256 is outside of 1 to 255"]),
            ("dscp = 64", &["8 dscp: 64 is outside of 0 to 63"]),
            ("dscp = -1", &["8 dscp: -1 is outside of 0 to 63"]),
            ("learn_peers = 1", &["15 learn_peers: expected true or false, found integer `1`"]),
            ("learn_peer = true", &["1 learn_peer: unknown key (did you mean `learn_peers`?)"]),
            (
                "vni_ranges = ['5', '9:8', '1:16777216', '0:16777215', '+1:3']",
                &[
                    "15 vni_ranges: `5` is not a range of VNIs (0 to 16777215) like \"1000:1999\"",
                    "20 vni_ranges: `9:8` is not a range of VNIs (0 to 16777215) like \"1000:1999\"",
                    "27 vni_ranges: `1:16777216` is not a range of VNIs (0 to 16777215) like \"1000:1999\"",
                    "55 vni_ranges: `+1:3` is not a range of VNIs (0 to 16777215) like \"1000:1999\"",
                ],
            ),
            ("vni_ranges = ['1:10', '10:20']", &["23 vni_ranges: 10:20 overlaps with 1:10"]),
        ],
    );
    check_overlay(
        "2001:db8::a/64",
        &[("mtu = 1349", &["7 mtu: 1349 is outside of 1350 to 9216 bytes over IPv6"]), ("mtu = 1350", &[])],
    );
}

#[test]
fn mistakes_of_the_local_address() {
    let rows = [
        ("192.0.2.10", "`192.0.2.10` has no prefix length like /24"),
        ("192.0.2.0/24", "`192.0.2.0/24` is the address of the subnet, not of a host"),
        ("192.0.2.255/24", "`192.0.2.255/24` is the broadcast address of its subnet"),
        ("127.0.0.1/8", "`127.0.0.1/8` is not an address that a device can have"),
        ("239.1.1.1/24", "`239.1.1.1/24` is not an address that a device can have"),
        ("::/64", "`::/64` is not an address that a device can have"),
        ("0.0.0.1/8", "0.0.0.1 is no address of a host in a network (one host's address stands here)"),
        (
            "255.255.255.255/32",
            "255.255.255.255 is no address of a host in a network (one host's address stands here)",
        ),
        ("fe80::1/64", "fe80::1 is link-local (tunnels need a global or a unique local address (fc00::/7))"),
        (
            "2001:db8::/64",
            "2001:db8:: is the anycast address of the subnet's routers (take another one of the subnet)",
        ),
    ];
    for (ip, expected) in rows {
        // What else depends on the address raises no false alarm.
        let more = "gateway_ip = '192.0.2.1'\nmtu = 1349\npeers = ['192.0.2.11', '2001:db8::1']\n\
                    multicast_group = '239.1.1.1'\n[[network]]\nname = 'n'\nnetwork_type = 'vxlan'\n\
                    segmentation_id = 1\nmtu = 1400";
        let text = format!("[overlay]\ninterface = 'eth2'\nlocal_ip = '{ip}'\n{more}");
        assert_eq!(judged(&text), [format!("3:12 overlay.local_ip: {expected}")], "{ip}");
    }
    for ip in ["192.0.2.0/31", "192.0.2.10/32", "2001:db8::/127", "2001:db8::1/128", "fd00::1/64"] {
        check_overlay(ip, &[("", &[])]);
    }
}

#[test]
fn mistakes_of_other_underlay_addresses() {
    check_overlay(
        "192.0.2.10/24",
        &[
            ("gateway_ip = '192.0.2.1'", &[]),
            (
                "gateway_ip = '192.0.2'",
                &["14 gateway_ip: `192.0.2` is not an address like 192.0.2.5 or 2001:db8::5"],
            ),
            (
                "gateway_ip = '192.0.2.10'",
                &[
                    "14 gateway_ip: 192.0.2.10 is the overlay's own local_ip (another host's address stands here)",
                ],
            ),
            (
                "gateway_ip = '192.0.3.1'",
                &[
                    "14 gateway_ip: 192.0.3.1 is outside of the subnet of 192.0.2.10/24 (it must be reached without a gateway: look at the prefix length of local_ip)",
                ],
            ),
            (
                "gateway_ip = '192.0.2.255'",
                &[
                    "14 gateway_ip: 192.0.2.255 is the first or last address of its subnet (no host can have it)",
                ],
            ),
            (
                "gateway_ip = '2001:db8::1'",
                &["14 gateway_ip: 2001:db8::1 is IPv6, local_ip is IPv4 (an overlay has one family)"],
            ),
            (
                "gateway_ip = '224.0.0.2'",
                &[
                    "14 gateway_ip: 224.0.0.2 is a multicast group (one host's address stands here; tunnels' group is `multicast_group`)",
                ],
            ),
            ("peers = ['192.0.2.11', '192.0.2.12']", &[]),
            ("peers = '192.0.2.11'", &["9 peers: expected a list, found a string"]),
            (
                "peers = ['192.0.2.11', '192.0.2.11', '192.0.2.10', '239.1.1.1', 'x', '127.0.0.1']",
                &[
                    "24 peers: 192.0.2.11 is listed twice",
                    "38 peers: 192.0.2.10 is the overlay's own local_ip (another host's address stands here)",
                    "52 peers: 239.1.1.1 is a multicast group (one host's address stands here; tunnels' group is `multicast_group`)",
                    "65 peers: `x` is not an address like 192.0.2.5 or 2001:db8::5",
                    "70 peers: 127.0.0.1 is no address of a host in a network (one host's address stands here)",
                ],
            ),
            (
                "peers = ['198.51.100.1', '192.0.2.0', '2001:db8::1', '::ffff:192.0.2.1', 'fe80::1']",
                &[
                    "10 peers: 198.51.100.1 is outside of the subnet of 192.0.2.10/24, and there is no gateway to it (give the overlay a gateway_ip, or local_ip the prefix length of its subnet)",
                    "26 peers: 192.0.2.0 is the first or last address of its subnet (no host can have it)",
                    "39 peers: 2001:db8::1 is IPv6, local_ip is IPv4 (an overlay has one family)",
                    "54 peers: `::ffff:192.0.2.1` is an IPv4 address: write it as one",
                    "74 peers: fe80::1 is link-local (tunnels need a global or a unique local address (fc00::/7))",
                ],
            ),
            ("peers = ['198.51.100.1']\ngateway_ip = '192.0.2.1'", &[]),
            // A gateway with a mistake is a gateway still.
            (
                "peers = ['198.51.100.1']\ngateway_ip = ''",
                &["5:14 gateway_ip: `` is not an address like 192.0.2.5 or 2001:db8::5"],
            ),
            ("multicast_group = '239.1.1.1'", &[]),
            (
                "multicast_group = '192.0.2.11'",
                &["19 multicast_group: 192.0.2.11 is no multicast group (take one of 239.0.0.0/8)"],
            ),
            (
                "multicast_group = '224.0.0.251'",
                &["19 multicast_group: 224.0.0.251 does not leave the link (take one of 239.0.0.0/8)"],
            ),
            ("multicast_group = '224.0.1.1'", &[]),
            (
                "multicast_group = 'ff05::1'",
                &["19 multicast_group: ff05::1 is not of the family of local_ip (take one of 239.0.0.0/8)"],
            ),
        ],
    );
    check_overlay(
        "2001:db8::a/64",
        &[
            ("peers = ['2001:db8::b']", &[]),
            (
                "peers = ['2001:db8:0:1::b']",
                &[
                    "10 peers: 2001:db8:0:1::b is outside of the subnet of 2001:db8::a/64, and there is no gateway to it (give the overlay a gateway_ip, or local_ip the prefix length of its subnet)",
                ],
            ),
            ("gateway_ip = '2001:db8::1'\npeers = ['2001:db8:0:1::b']", &[]),
            ("multicast_group = 'ff05::1'", &[]),
            (
                "multicast_group = 'ff02::1'",
                &["19 multicast_group: ff02::1 does not leave the link (take one of ff05::/16 or ff08::/16)"],
            ),
            (
                "multicast_group = '239.1.1.1'",
                &["19 multicast_group: 239.1.1.1 is not of the family of local_ip (take one of ff05::/16)"],
            ),
        ],
    );
    // The edges of a subnet of two are hosts; a subnet of one has no other.
    check_overlay("192.0.2.0/31", &[("peers = ['192.0.2.1']\ngateway_ip = '192.0.2.1'", &[])]);
    check_overlay(
        "192.0.2.10/32",
        &[(
            "peers = ['192.0.2.11']",
            &[
                "10 peers: 192.0.2.11 is outside of the subnet of 192.0.2.10/32, and there is no gateway to it (give the overlay a gateway_ip, or local_ip the prefix length of its subnet)",
            ],
        )],
    );
}

/// An overlay without peers; what follows begins in line 5, after the network's type.
const ALONE: &str = "[overlay]\ninterface = 'eth2'\nlocal_ip = '192.0.2.10/24'\nlearn_peers = true\n";
const NETWORK: &str = "[[network]]\nname = 'n'\nnetwork_type = 'vxlan'\n";

#[test]
fn mistakes_of_vxlan_networks() {
    let seven = "segmentation_id = 7\n";
    let rows: &[(&str, &[&str])] = &[
        ("segmentation_id = 0", &[]),
        ("segmentation_id = 16777215", &[]),
        (
            "segmentation_id = 16777216",
            &["8:19 network[n].segmentation_id: 16777216 is outside of 0 to 16777215"],
        ),
        (
            "",
            &[
                "5:1 network[n].segmentation_id: is missing, and the overlay has no vni_ranges to take one from (give segmentation_id = 0 to 16777215, or the overlay more vni_ranges)",
            ],
        ),
        (
            "segmentation_id = 7\nphysical_network = 'p'",
            &[
                "9:1 network[n].physical_network: `physical_network` belongs to network_type = \"flat\" or \"vlan\"",
            ],
        ),
        (
            "segmentation_id = 7\n[[network]]\nname = 'm'\nnetwork_type = 'vxlan'\nsegmentation_id = 7",
            &["12:19 network[m].segmentation_id: VNI 7 is taken, by network `n` of line 5"],
        ),
        ("segmentation_id = 7\nmtu = 1450", &[]),
        (
            "segmentation_id = 7\nmtu = 1451",
            &[
                "9:7 network[n].mtu: 1451 is more than the 1450 bytes that the overlay's mtu of 1500 leaves (make it at most 1450, or the overlay's mtu at least 1501)",
            ],
        ),
        (
            "segmentation_id = 7\nmtu = 9166",
            &[
                "9:7 network[n].mtu: 9166 is more than the 1450 bytes that the overlay's mtu of 1500 leaves (make it at most 1450, or the overlay's mtu at least 9216)",
            ],
        ),
        (
            "segmentation_id = 7\nmtu = 9167",
            &[
                "9:7 network[n].mtu: 9167 is more than the 1450 bytes that the overlay's mtu of 1500 leaves (make it at most 1450; an overlay's mtu of 9216 leaves 9166)",
            ],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(judged(&format!("{ALONE}{NETWORK}{text}")), *expected, "in {text}");
    }
    let v6 = ALONE.replace("192.0.2.10/24", "2001:db8::a/64");
    assert_eq!(judged(&format!("{v6}{NETWORK}{seven}mtu = 1430")), [""; 0]);
    assert_eq!(
        judged(&format!("{v6}{NETWORK}{seven}mtu = 1431")),
        [
            "9:7 network[n].mtu: 1431 is more than the 1430 bytes that the overlay's mtu of 1500 leaves (make it at most 1430, or the overlay's mtu at least 1501)"
        ]
    );
    // A port's IPv6 address is judged with the MTU that follows from the overlay's.
    let port = "[[port]]\nname = 'a'\nnetwork = 'n'\n\
                interface = { kind = 'tap', name = 't', address = 'fe80::1/64' }";
    let small = ALONE.replace("learn_peers", "mtu = 1329\nlearn_peers");
    assert_eq!(
        judged(&format!("{small}{NETWORK}{seven}{port}")),
        [
            "13:36 port[a].interface.address: fe80::1 needs an MTU of at least 1280, the port's network has 1279"
        ]
    );
    assert_eq!(judged(&format!("{}{NETWORK}{seven}{port}", small.replace("1329", "1330"))), [""; 0]);

    let range = ALONE.replace("learn_peers", "vni_ranges = ['7:7']\nlearn_peers");
    assert_eq!(
        judged(&format!("{range}{NETWORK}{}", NETWORK.replace("'n'", "'m'"))),
        [
            "9:1 network[m].segmentation_id: is missing, and the overlay's vni_ranges are used up (give segmentation_id = 0 to 16777215, or the overlay more vni_ranges)"
        ]
    );
    assert_eq!(
        judged(&format!("{NETWORK}{seven}")),
        [
            "3:16 network[n].network_type: a vxlan network needs [overlay] (write [overlay] with the `interface` and the `local_ip` that tunnels leave from)"
        ]
    );
    for kind in ["geneve", "gre"] {
        assert_eq!(
            judged(&format!("{ALONE}{}", NETWORK.replace("vxlan", kind))),
            [format!(
                "7:16 network[n].network_type: `{kind}` is not built yet in this version (use \"vxlan\" for a network in tunnels)"
            )]
        );
    }
}

/// Keys of tunnels belong to networks that have some, and trunks to those that have none.
#[test]
fn tunnels_are_kept_apart_from_other_networks() {
    let keys = [
        ("peers", "['192.0.2.11']"),
        ("multicast_group", "'239.1.1.1'"),
        ("remote_ports", "[{ mac_address = '02:00:00:00:00:01', vtep = '192.0.2.11' }]"),
        ("l2population", "false"),
    ];
    for (key, value) in keys {
        for kind in ["local", "flat", "vlan"] {
            let on = if kind == "local" { "" } else { "physical_network = 'p'\n" };
            let text = format!(
                "[[network]]\n{key} = {value}\nname = 'n'\nnetwork_type = '{kind}'\n{on}\
                 [[physical_network]]\nname = 'p'\nvlan_ranges = ['1:2']"
            );
            let expected = format!("2:1 network[n].{key}: `{key}` belongs to network_type = \"vxlan\"");
            assert_eq!(judged(&text), [expected], "in {text}");
        }
    }
    let trunk = "[[physical_network]]\nname = 'p'\n[[port]]\nname = 'a'\n\
                 trunk = { physical_network = 'p', native = 'n' }\ninterface = { kind = 'tap', name = 't' }";
    assert_eq!(
        judged(&format!("{ALONE}{NETWORK}segmentation_id = 7\n{trunk}")),
        [
            "13:44 port[a].trunk.native: network `n` is not on physical network `p` (a vxlan network cannot be part of a trunk)"
        ]
    );
}

#[test]
fn mistakes_of_the_other_ends() {
    let mute = ALONE.replace("learn_peers = true", "");
    let lonely = "6:8 network[n]: reaches no other host (give it or the overlay `peers` or a `multicast_group`, or the overlay learn_peers = true)";
    let station = "{ mac_address = '02:00:00:00:00:01', vtep = '192.0.2.11' }";
    let l2population = "6:8 network[n]: reaches no other host: with l2population remote_ports are all there is (list the `remote_ports`, or leave `l2population` out)";
    let rows: &[(&str, &[&str])] = &[
        ("", &[lonely]),
        ("peers = []", &[lonely]),
        ("remote_ports = []", &[lonely]),
        ("peers = ['192.0.2.11']", &[]),
        ("multicast_group = '239.1.1.1'", &[]),
        (&format!("remote_ports = [{station}]"), &[]),
        (&format!("l2population = true\nremote_ports = [{station}]"), &[]),
        ("l2population = true", &[l2population]),
        ("l2population = true\npeers = ['192.0.2.11']", &[l2population]),
        (
            &format!("l2population = true\nmulticast_group = '239.1.1.1'\nremote_ports = [{station}]"),
            &[
                "10:19 network[n].multicast_group: `multicast_group` and `l2population` exclude each other (leave one of them out: with l2population nothing is flooded)",
            ],
        ),
        // What is wrong raises no second alarm.
        ("peers = ['x']", &["9:10 network[n].peers: `x` is not an address like 192.0.2.5 or 2001:db8::5"]),
        (
            "multicast_group = '192.0.2.11'",
            &["9:19 network[n].multicast_group: 192.0.2.11 is no multicast group (take one of 239.0.0.0/8)"],
        ),
        (
            "peers = ['192.0.2.10', '198.51.100.1']",
            &[
                "9:10 network[n].peers: 192.0.2.10 is the overlay's own local_ip (another host's address stands here)",
                "9:24 network[n].peers: 198.51.100.1 is outside of the subnet of 192.0.2.10/24, and there is no gateway to it (give the overlay a gateway_ip, or local_ip the prefix length of its subnet)",
            ],
        ),
        (
            "multicast_group = 'ff05::1'",
            &[
                "9:19 network[n].multicast_group: ff05::1 is not of the family of local_ip (take one of 239.0.0.0/8)",
            ],
        ),
        (
            "l2population = 1\npeers = ['192.0.2.11']",
            &["9:16 network[n].l2population: expected true or false, found integer `1`"],
        ),
    ];
    for (text, expected) in rows {
        let text = format!("{mute}{NETWORK}segmentation_id = 7\n{text}");
        assert_eq!(judged(&text.replace("\n\n[[", "\n#\n[[")), *expected, "in {text}");
    }
}

#[test]
fn mistakes_of_remote_ports() {
    let rows: &[(&str, &[&str])] = &[
        ("1", &["9:17 : expected a table (write remote_ports = [{ mac_address = \"…\", vtep = \"…\" }])"]),
        (
            "{}",
            &[
                "9:17 .mac_address: is missing",
                "9:17 .vtep: is missing (the local_ip of the host that has the port)",
            ],
        ),
        (
            "{ mac_address = '01:00:5e:00:00:01', vtep = '192.0.2.11' }",
            &[
                "9:33 .mac_address: 01:00:5e:00:00:01 is a group address, which no station has (the lowest bit of the first byte must be 0)",
            ],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '192.0.2.10', ip = 1 }",
            &[
                "9:61 .vtep: 192.0.2.10 is the overlay's own local_ip (another host's address stands here)",
                "9:75 .ip: unknown key",
            ],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '198.51.100.1' }",
            &[
                "9:61 .vtep: 198.51.100.1 is outside of the subnet of 192.0.2.10/24, and there is no gateway to it (give the overlay a gateway_ip, or local_ip the prefix length of its subnet)",
            ],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '2001:db8::1' }",
            &["9:61 .vtep: 2001:db8::1 is IPv6, local_ip is IPv4 (an overlay has one family)"],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '239.1.1.1' }",
            &[
                "9:61 .vtep: 239.1.1.1 is a multicast group (one host's address stands here; tunnels' group is `multicast_group`)",
            ],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '192.0.2.11' },\n\
             { mac_address = '02:00:00:00:00:01', vtep = '192.0.2.12' }",
            &["10:17 .mac_address: 02:00:00:00:00:01 is listed twice, first in line 9"],
        ),
        (
            "{ mac_address = '02:00:00:00:00:01', vtep = '192.0.2.11', fixed_ips = ['10.0.0.5', 'fe80::5'] },\n\
             { mac_address = '02:00:00:00:00:02', vtep = '192.0.2.11', fixed_ips = ['10.0.0.6', '10.0.0.5', '::', '10.0.0.5/8'] }",
            &[
                "10:84 .fixed_ips: 10.0.0.5 is listed twice, first in line 9",
                "10:96 .fixed_ips: :: is no address of a host in a network (one host's address stands here)",
                "10:102 .fixed_ips: `10.0.0.5/8` is not an address like 192.0.2.5 or 2001:db8::5",
            ],
        ),
    ];
    for (text, expected) in rows {
        let text = format!("{ALONE}{NETWORK}segmentation_id = 7\nremote_ports = [{text}]");
        let found: Vec<String> =
            judged(&text).iter().map(|found| found.replacen("network[n].remote_ports", "", 1)).collect();
        assert_eq!(found, *expected, "in {text}");
    }
    assert_eq!(
        judged(&format!("{ALONE}{NETWORK}segmentation_id = 7\nremote_ports = 1")),
        [
            "9:16 network[n].remote_ports: there can be several, so this is a list of tables (write remote_ports = [{ mac_address = \"…\", vtep = \"…\" }])"
        ]
    );
    // The nested path has its name in messages for people.
    let text = format!("{ALONE}{NETWORK}segmentation_id = 7\n[[network.remote_ports]]\nvtep = '192.0.2.11'");
    let found = load(&text, "f.toml").unwrap_err();
    assert_eq!(found[0].to_string(), "f.toml:9:1: network \"n\": remote_ports.mac_address: is missing");
}

/// A station is on one host: this one or another, whether its MAC was given or generated.
#[test]
fn a_remote_port_is_no_port_of_ours() {
    let port = "[[port]]\nname = 'web1'\nnetwork = 'n'\nstatic_macs = ['02:00:00:00:00:02']\n\
                interface = { kind = 'tap', name = 't', address = '10.0.0.5/24' }\n";
    let judge = |network: &str, remote: &str| {
        judged(&format!(
            "{ALONE}{NETWORK}segmentation_id = 7\nremote_ports = [{{ {remote}, vtep = '192.0.2.11' }}]\n\
             [[network]]\nname = 'other'\n{}",
            port.replace("'n'", &format!("'{network}'"))
        ))
    };
    let ours = |column: &str, what: &str| {
        [format!("9:{column}: {what} is that of port `web1` of line 12 (list ports of other hosts only)")]
    };
    let rows = [
        ("mac_address = 'fa:16:3e:41:b8:66'", "33 network[n].remote_ports.mac_address", "fa:16:3e:41:b8:66"),
        ("mac_address = '02:00:00:00:00:02'", "33 network[n].remote_ports.mac_address", "02:00:00:00:00:02"),
        (
            "mac_address = '02:00:00:00:00:01', fixed_ips = ['10.0.0.5']",
            "67 network[n].remote_ports.fixed_ips",
            "10.0.0.5",
        ),
    ];
    for (remote, at, what) in rows {
        assert_eq!(judge("n", remote), ours(at, what));
        assert_eq!(judge("other", remote), [""; 0]);
    }
    assert_eq!(judge("n", "mac_address = '02:00:00:00:00:01', fixed_ips = ['10.0.0.6']"), [""; 0]);
}

#[test]
fn an_overlay_has_room_for_4096_peers_and_groups() {
    let peers = |count: u32| {
        let peers: Vec<String> =
            (0..count).map(|n| format!("'{}'", std::net::Ipv4Addr::from_bits(0x0a00_0001 + n))).collect();
        format!("[overlay]\ninterface = 'eth2'\nlocal_ip = '10.255.0.1/8'\npeers = [{}]\n", peers.join(","))
    };
    let network =
        format!("{NETWORK}segmentation_id = 7\nmulticast_group = '239.1.1.1'\npeers = ['10.0.0.1']");
    assert_eq!(judged(&format!("{}{network}", peers(4095))), [""; 0]);
    assert_eq!(
        judged(&format!("{}{network}", peers(4096))),
        ["9:19 network[n]: an overlay has at most 4096 peers and groups"]
    );
}

#[test]
fn what_an_overlay_leaves_out_is_filled_in() {
    let text = r#"
[overlay]
interface = "eth2"
local_ip = "192.0.2.10/24"
vni_ranges = ["20:21", "10:10"]
peers = ["192.0.2.12", "192.0.2.11"]
multicast_group = "239.1.1.1"
[[network]]
name = "a"
network_type = "vxlan"
[[network]]
name = "b"
network_type = "vxlan"
peers = ["192.0.2.13"]
multicast_group = "239.1.1.2"
mtu = 1400
remote_ports = [
  { mac_address = "02:00:00:00:00:02", vtep = "192.0.2.13" },
  { mac_address = "02:00:00:00:00:01", fixed_ips = ["2001:db8::5", "10.0.0.5"], vtep = "192.0.2.9" }]
[[network]]
name = "c"
network_type = "vxlan"
segmentation_id = 20
l2population = true
peers = []
[[network.remote_ports]]
mac_address = "02:00:00:00:00:01"
vtep = "192.0.2.9"
[[network]]
name = "plain"
[[port]]
name = "t"
network = "a"
interface = { kind = "tap", name = "t" }
"#;
    let model = load(text, "f.toml").unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let vni = |vni| crate::types::Vni::new(vni).unwrap();
    let mac = |last| crate::types::Mac([2, 0, 0, 0, 0, last]);
    let overlay = Overlay {
        interface: Interface::Best { name: "eth2".into(), shared: None },
        local_ip: ip("192.0.2.10"),
        prefix_len: 24,
        gateway_ip: None,
        mtu: 1500,
        udp_port: 4789,
        ttl: 64,
        dscp: 0,
        vni_ranges: vec![(vni(20), vni(21)), (vni(10), vni(10))],
        learn_peers: false,
        origin: Origin { file: "f.toml".into(), line: 2 },
    };
    assert_eq!(model.overlay, Some(overlay));
    let tunnels = Tunnels {
        peers: vec![ip("192.0.2.11"), ip("192.0.2.12")],
        multicast_group: Some(ip("239.1.1.1")),
        remote_ports: vec![],
        l2population: false,
    };
    assert_eq!(model.networks[0].segment, Segment::Vxlan(vni(10), tunnels));
    let remote = RemotePort { mac_address: mac(2), fixed_ips: vec![], vtep: ip("192.0.2.13") };
    let fixed_ips = vec![ip("2001:db8::5"), ip("10.0.0.5")];
    let tunnels = Tunnels {
        peers: vec![ip("192.0.2.9"), ip("192.0.2.13")],
        multicast_group: Some(ip("239.1.1.2")),
        remote_ports: vec![remote, RemotePort { mac_address: mac(1), fixed_ips, vtep: ip("192.0.2.9") }],
        l2population: false,
    };
    assert_eq!(model.networks[1].segment, Segment::Vxlan(vni(21), tunnels));
    let tunnels = Tunnels {
        peers: vec![ip("192.0.2.9")],
        multicast_group: None,
        remote_ports: vec![RemotePort { mac_address: mac(1), fixed_ips: vec![], vtep: ip("192.0.2.9") }],
        l2population: true,
    };
    assert_eq!(model.networks[2].segment, Segment::Vxlan(vni(20), tunnels));
    let mtus: Vec<u16> = model.networks.iter().map(|network| network.mtu).collect();
    assert_eq!(mtus, [1450, 1400, 1450, 1500]);
    let devices: Vec<(String, u16)> = model.attachments().map(|d| (d.key.to_string(), d.mtu)).collect();
    assert_eq!(devices, [("overlay".to_owned(), 1500), ("port \"t\"".to_owned(), 1450)]);
    let carried = model.networks_of(&AttachmentKey::Overlay).map(|network| network.name.as_str());
    assert_eq!(carried.collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn what_an_overlay_says_is_taken() {
    let text = "[overlay]\ninterface = 'eth2'\ndriver = 'xdp'\nmode = 'native'\nshared = false\n\
                busy_poll = true\nlocal_ip = '2001:db8::a/56'\ngateway_ip = '2001:db8::1'\nmtu = 9000\n\
                udp_port = 8472\nttl = 1\ndscp = 46\nlearn_peers = true\n\
                [[network]]\nname = 'n'\nnetwork_type = 'vxlan'\nsegmentation_id = 16777215";
    let model = load(text, "f.toml").unwrap();
    let name = "eth2".to_owned();
    let overlay = Overlay {
        interface: Interface::Xdp { name, mode: XdpMode::Native, shared: Some(false), busy_poll: true },
        local_ip: "2001:db8::a".parse().unwrap(),
        prefix_len: 56,
        gateway_ip: Some("2001:db8::1".parse().unwrap()),
        mtu: 9000,
        udp_port: 8472,
        ttl: 1,
        dscp: 46,
        vni_ranges: vec![],
        learn_peers: true,
        origin: Origin { file: "f.toml".into(), line: 1 },
    };
    assert_eq!(model.overlay, Some(overlay));
    assert_eq!(model.networks[0].mtu, 8930);
    let vni = crate::types::Vni::MAX;
    assert_eq!(model.networks[0].segment, Segment::Vxlan(vni, Tunnels::default()));
    let packet =
        load("[overlay]\ninterface = 'eth2'\ndriver = 'packet'\nlocal_ip = '192.0.2.10/24'", "f.toml");
    assert_eq!(packet.unwrap().overlay.unwrap().interface, Interface::Packet { name: "eth2".into() });
}
