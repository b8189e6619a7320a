//! Whole texts: what loads, and each mistake with its place.

mod boot;
mod l3;
mod l3_mistakes;
mod security;
mod tunnels;

use std::path::Path;

use super::*;

#[test]
fn every_example_loads() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let loaded = load(&text, &path.display().to_string());
            assert!(loaded.is_ok(), "{}", render(loaded, &text));
            seen += 1;
        }
    }
    assert!(seen >= 5);
}

fn render(loaded: Result<Model, Vec<Diagnostic>>, text: &str) -> String {
    loaded.err().unwrap_or_default().iter().map(|d| d.render(text) + "\n").collect()
}

/// Each mistake as `line:column path: message`.
fn mistakes(text: &str) -> Vec<String> {
    let found = load(text, "f.toml").err().unwrap_or_default();
    found.iter().map(|d| format!("{}:{} {}: {}", d.line, d.column, d.path, d.message)).collect()
}

/// Each mistake as `line:column path: message (hint)`.
fn judged(text: &str) -> Vec<String> {
    let found = load(text, "f.toml").err().unwrap_or_default();
    let hint = |d: &Diagnostic| d.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    found.iter().map(|d| format!("{}:{} {}: {}{}", d.line, d.column, d.path, d.message, hint(d))).collect()
}

/// Objects that mistakes are made around: lines are counted from behind it.
const BASE: &str = r#"
physical_network = [{ name = "p", interface = "eth1", vlan_ranges = ["100:101"] }, { name = "q" }]
network = [
  { name = "flat", network_type = "flat", physical_network = "p" },
  { name = "v100", network_type = "vlan", physical_network = "p", segmentation_id = 100 },
  { name = "home" }, { name = "small", mtu = 1000 }]
"#;

/// Rows of a text and the mistakes of it.
fn table(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        assert_eq!(mistakes(text), *expected, "in {text}");
    }
}

/// Checks a port named `a` behind [`BASE`]: rows are `column path: message`, columns from 1 in `text`.
fn check_port(text: &str, expected: &[&str]) {
    let start = "port=[{name='a',";
    let found = mistakes(&format!("{BASE}{start}{text}}}]")).into_iter().map(|mistake| {
        let rest = mistake.strip_prefix("7:").unwrap_or_else(|| panic!("elsewhere: {mistake}"));
        let (column, rest) = rest.split_once(" port[a].").unwrap();
        format!("{} {rest}", column.parse::<i64>().unwrap() - start.len() as i64)
    });
    assert_eq!(found.collect::<Vec<_>>(), *expected, "in {text}");
}

#[test]
fn mistakes_of_syntax_and_of_shape() {
    table(&[
        ("", &[]),
        ("port = 1", &["1:8 port: there can be several, so this is a list of tables"]),
        ("[port]\nname = \"a\"", &["1:1 port: there can be several, so this is a list of tables"]),
        ("network = [1]", &["1:12 network: expected a table"]),
        ("switch = 1", &["1:10 switch: expected a table, found a whole number"]),
        ("colour = 1", &["1:1 colour: unknown key"]),
        (
            "[switch]\nidle =\nworkrs = 3\n[[network]]\nname = \"n\"\nmtu = 1\n",
            &[
                "2:7 : string values must be quoted, expected literal string",
                "6:7 network[n].mtu: 1 is outside of 68 to 9216 bytes",
            ],
        ),
    ]);
}

/// A header that the parser could not read hides its section from judgement, and no other.
#[test]
fn a_broken_section_raises_no_false_alarms() {
    let text = "[switch]\nidle = 1\n[[port]\nname = 'a'\nmtu = 1\n[[network]]\nname = 'n'\nnmae = 'n'\n\
                [[port]]\nname = 'p'\nnetwork = 'a'\ninterface = {}";
    assert_eq!(
        mistakes(text),
        [
            "2:8 switch.idle: expected a string, found integer `1`",
            "3:8 : unclosed array table, expected `]`",
            "8:1 network[n].nmae: unknown key",
            "12:13 port[p].interface.kind: is missing",
        ]
    );
}

/// Each word that is promised for later is refused as such, wherever it stands.
#[test]
fn words_of_later_versions_are_refused() {
    let refused = |text: &str, word: &str| {
        let found = load(text, "f.toml").unwrap_err();
        let said =
            found.iter().find(|d| d.message.ends_with("is not built yet in this version") && d.line == 3);
        assert!(said.is_some_and(|d| d.hint.is_some()), "{word}: {found:?}");
    };
    for (word, _) in later::ROOT {
        refused(&format!("\n\n[[{word}]]\nname = 'x'"), word);
    }
    let tables = [
        ("[switch]", later::SWITCH),
        ("[[physical_network]]", later::PHYSICAL_NETWORK),
        ("[[network]]", later::NETWORK),
        ("[[port]]", later::PORT),
        ("[[subnet]]", later::SUBNET),
        ("[[router]]", later::ROUTER),
        ("[[floating_ip]]", later::FLOATING_IP),
        ("[port.interface]", later::INTERFACE),
    ];
    for (header, words) in tables {
        let header = header.replace("[port.interface]", "[[port]]\n[port.interface]");
        let blank = "\n".repeat(2 - header.lines().count());
        for (word, _) in words {
            refused(&format!("{blank}{header}\n\"{word}\" = []"), word);
        }
    }
    for (word, _) in later::NETWORK_TYPES {
        refused(&format!("\n[[network]]\nnetwork_type = '{word}'"), word);
    }
    for (word, _) in later::KINDS {
        refused(&format!("\n[[port]]\ninterface.kind = '{word}'"), word);
    }
}

#[test]
fn mistakes_of_the_switch() {
    table(&[
        ("switch.workers = [1, 2, 1]", &["1:25 switch.workers: CPU 1 is listed twice"]),
        (
            "switch.workers = [-1, 1024, \"x\", 0]",
            &[
                "1:19 switch.workers: -1 is outside of 0 to 1023",
                "1:23 switch.workers: 1024 is outside of 0 to 1023",
                "1:29 switch.workers: expected a whole number, found string \"x\"",
            ],
        ),
        ("switch.workers = 2", &["1:18 switch.workers: expected a list, found a whole number"]),
        ("switch.idle = \"pol\"", &["1:15 switch.idle: `pol` is not known here"]),
        ("switch.control = \"\"", &["1:18 switch.control: is empty"]),
        (
            "switch.control_mode = \"0880\"",
            &["1:23 switch.control_mode: `0880` is not an octal mode like \"0660\""],
        ),
        (
            "switch.control_mode = \"4755\"",
            &["1:23 switch.control_mode: `4755` is not an octal mode like \"0660\""],
        ),
        ("switch.control_mode = 432", &["1:23 switch.control_mode: expected a string, found integer `432`"]),
        ("switch.mac_aging_time = 0", &["1:25 switch.mac_aging_time: 0 is outside of 10 to 1000000 s"]),
        (
            "switch.mac_aging_time = 1000001",
            &["1:25 switch.mac_aging_time: 1000001 is outside of 10 to 1000000 s"],
        ),
        ("switch.buffers = 512", &["1:18 switch.buffers: 512 is outside of 1024 to 1048576"]),
        ("switch.buffers = 5000", &["1:18 switch.buffers: 5000 is not a power of two"]),
        ("switch.wrokers = []", &["1:8 switch.wrokers: unknown key"]),
        ("switch.state = 1", &["1:16 switch.state: expected a string, found integer `1`"]),
    ]);
    let long = format!("switch.control = \"/{}\"", "x".repeat(107));
    let message = "1:18 switch.control: 108 bytes are too long for a socket's path: at most 107";
    assert_eq!(mistakes(&long), [message]);
}

#[test]
fn mistakes_of_physical_networks() {
    let rows: &[(&str, &[&str])] = &[
        ("", &["1:21 physical_network[#1].name: is missing"]),
        ("name = ''", &["1:30 physical_network[#1].name: is empty"]),
        (
            "name = 'p', interface = 'a/b'",
            &["1:47 physical_network[p].interface: `a/b` holds '/', which no device's name may"],
        ),
        (
            "name = 'p', interface = 'a b'",
            &["1:47 physical_network[p].interface: `a b` holds ' ', which no device's name may"],
        ),
        (
            "name = 'p', interface = 'sixteen-bytes-xx'",
            &[
                "1:47 physical_network[p].interface: `sixteen-bytes-xx` has 16 bytes; a device's name has at most 15",
            ],
        ),
        ("name = 'p', interface = ''", &["1:47 physical_network[p].interface: a device needs a name"]),
        (
            "name = 'p', interface = 'e', driver = 'dpdk'",
            &["1:61 physical_network[p].driver: `dpdk` is not known here"],
        ),
        (
            "name = 'p', interface = 'e', mode = 'native'",
            &["1:52 physical_network[p].mode: `mode` belongs to driver = \"xdp\""],
        ),
        (
            "name = 'p', interface = 'e', driver = 'packet', shared = true",
            &["1:71 physical_network[p].shared: `shared` belongs to driver = \"xdp\""],
        ),
        ("name = 'p', shared = true", &["1:35 physical_network[p].shared: `shared` needs `interface`"]),
        (
            "name = 'p', vlan_ranges = ['5', '0:4', '9:8', '1:4095', '1:+3']",
            &[
                "1:50 physical_network[p].vlan_ranges: `5` is not a range of VLAN IDs (1 to 4094) like \"100:199\"",
                "1:55 physical_network[p].vlan_ranges: `0:4` is not a range of VLAN IDs (1 to 4094) like \"100:199\"",
                "1:62 physical_network[p].vlan_ranges: `9:8` is not a range of VLAN IDs (1 to 4094) like \"100:199\"",
                "1:69 physical_network[p].vlan_ranges: `1:4095` is not a range of VLAN IDs (1 to 4094) like \"100:199\"",
                "1:79 physical_network[p].vlan_ranges: `1:+3` is not a range of VLAN IDs (1 to 4094) like \"100:199\"",
            ],
        ),
        (
            "name = 'p', vlan_ranges = ['1:10', '10:20']",
            &["1:58 physical_network[p].vlan_ranges: 10:20 overlaps with 1:10"],
        ),
        ("name = 'p' }, { name = 'p'", &["1:46 physical_network[p].name: this name is taken, by line 1"]),
        (
            "name = 'p', interface = 'e' }, { name = 'q', interface = 'e'",
            &["1:80 physical_network[q].interface: device `e` is already used, by line 1"],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(mistakes(&format!("physical_network = [{{ {text} }}]")), *expected, "in {text}");
    }
}

#[test]
fn mistakes_of_networks() {
    let physical = "[[physical_network]]\nname = 'p'\nvlan_ranges = ['7:7']\n[[network]]\nname = 'n'\n";
    let rows: &[(&str, &[&str])] = &[
        ("mtu = 67", &["6:7 network[n].mtu: 67 is outside of 68 to 9216 bytes"]),
        ("mtu = 9217", &["6:7 network[n].mtu: 9217 is outside of 68 to 9216 bytes"]),
        ("mtu = '1500'", &["6:7 network[n].mtu: expected a whole number, found string \"1500\""]),
        ("mac_limit = 1048577", &["6:13 network[n].mac_limit: 1048577 is outside of 0 to 1048576"]),
        (
            "network_type = 'geneve'",
            &["6:16 network[n].network_type: `geneve` is not built yet in this version"],
        ),
        ("network_type = 'vlam'", &["6:16 network[n].network_type: `vlam` is not known here"]),
        (
            "physical_network = 'p'",
            &[
                "6:1 network[n].physical_network: `physical_network` belongs to network_type = \"flat\" or \"vlan\"",
            ],
        ),
        (
            "segmentation_id = 5",
            &[
                "6:1 network[n].segmentation_id: `segmentation_id` belongs to network_type = \"vlan\" or \"vxlan\"",
            ],
        ),
        ("network_type = 'flat'", &["4:1 network[n].physical_network: is missing"]),
        (
            "network_type = 'vlan'\nphysical_network = 'q'",
            &["7:20 network[n].physical_network: there is no physical_network `q`"],
        ),
        (
            "network_type = 'vlan'\nphysical_network = 'p'\nsegmentation_id = 4095",
            &["8:19 network[n].segmentation_id: 4095 is outside of 1 to 4094"],
        ),
        (
            "network_type = 'flat'\nphysical_network = 'p'\n[[network]]\nname = 'm'\nnetwork_type = 'flat'\nphysical_network = 'p'",
            &["11:20 network[m].physical_network: `p` already carries the flat network of line 4"],
        ),
        (
            "network_type = 'vlan'\nphysical_network = 'p'\nsegmentation_id = 8\n[[network]]\nname = 'm'\nnetwork_type = 'vlan'\nphysical_network = 'p'\nsegmentation_id = 8",
            &["13:19 network[m].segmentation_id: VLAN 8 of `p` is taken, by line 4"],
        ),
        (
            "network_type = 'vlan'\nphysical_network = 'p'\n[[network]]\nname = 'm'\nnetwork_type = 'vlan'\nphysical_network = 'p'",
            &["8:1 network[m].segmentation_id: is missing, and the vlan_ranges of `p` are used up"],
        ),
        ("[[network]]\nname = 'n'", &["7:8 network[n].name: this name is taken, by line 4"]),
        ("external = 1", &["6:12 network[n].external: expected true or false, found integer `1`"]),
        ("\"router:external\" = true", &["6:1 network[n].router:external: unknown key"]),
        ("\"provider:network_type\" = 'vlan'", &["6:1 network[n].provider:network_type: unknown key"]),
    ];
    for (text, expected) in rows {
        assert_eq!(mistakes(&format!("{physical}{text}")), *expected, "in {text}");
    }
    let text =
        physical.replace("vlan_ranges = ['7:7']", "") + "network_type = 'vlan'\nphysical_network = 'p'";
    let message = "4:1 network[n].segmentation_id: is missing, and `p` has no vlan_ranges to take one from";
    assert_eq!(mistakes(&text), [message]);
}

#[test]
fn mistakes_of_ports() {
    const TAP: &str = "network='home',interface={kind='tap',name='t1'}";
    // Each row is what stands between the braces of a port named `a`; columns count from there.
    let rows: &[(&str, &[&str])] = &[
        ("interface={kind='tap',name='t'}", &["-9 network: is missing"]),
        ("network='hom',interface={kind='tap',name='t'}", &["9 network: there is no network `hom`"]),
        (
            "network='home',trunk={physical_network='p'},interface={kind='tap',name='t'}",
            &["16 trunk: `trunk` and `network` exclude each other"],
        ),
        ("network='home'", &["-9 interface: is missing"]),
        ("network='home',interface='eth0'", &["26 interface: expected a table, found a string"]),
        ("network='home',interface={name='t'}", &["26 interface.kind: is missing"]),
        (
            "network='home',interface={kind='vhost_user'}",
            &["32 interface.kind: `vhost_user` is not built yet in this version"],
        ),
        ("network='home',interface={kind='tap'}", &["26 interface.name: is missing"]),
        (
            "network='home',interface={kind='tap',name='eth1'}",
            &["43 interface.name: device `eth1` is already used, by line 2"],
        ),
        (
            "network='home',interface={kind='tap',name='t',owner='x',adress='y'}",
            &["47 interface.owner: `owner` belongs to kind = \"guest\"", "57 interface.adress: unknown key"],
        ),
        (
            "network='home',interface={kind='tap',name='t',netns='a/b'}",
            &["53 interface.netns: `a/b` is neither a name under /run/netns nor an absolute path"],
        ),
        (
            "network='home',interface={kind='guest',name='t',owner='a b'}",
            &["55 interface.owner: `a b` is not a user's name"],
        ),
        (
            "network='home',interface={kind='guest',name='t',owner=-1}",
            &["55 interface.owner: no user has this number"],
        ),
        (
            "network='home',interface={kind='guest',name='t',owner=true}",
            &["55 interface.owner: expected a user's name or number, found boolean `true`"],
        ),
        (
            "network='home',interface={kind='packet',name='t',mode='native'}",
            &["50 interface.mode: `mode` belongs to kind = \"xdp\""],
        ),
        ("network='home',interface={kind='pcap'}", &["26 interface.read: is missing"]),
        (
            "network='home',interface={kind='pcap',read='a',write='a'}",
            &["54 interface.write: the file that is read would be overwritten"],
        ),
        (
            "network='home',interface={kind='pcap',write='a',name='x'}",
            &["49 interface.name: `name` belongs to kind = \"tap\" or \"guest\" or \"xdp\" or \"packet\""],
        ),
    ];
    for (text, expected) in rows {
        check_port(text, expected);
    }
    let more: &[(&str, &[&str])] = &[
        (
            "mac_address='01:00:5e:00:00:01'",
            &["12 mac_address: 01:00:5e:00:00:01 is a group address, which no station has"],
        ),
        ("mac_address='00:00:00:00:00:00'", &["12 mac_address: 00:00:00:00:00:00 is no station's address"]),
        ("mac_address='1'", &["12 mac_address: `1` is not a MAC address like 52:54:00:12:34:56"]),
        (
            "static_macs=['ff:ff:ff:ff:ff:ff',1]",
            &[
                "13 static_macs: ff:ff:ff:ff:ff:ff is a group address, which no station has",
                "33 static_macs: expected a string, found integer `1`",
            ],
        ),
        (
            "mac_address='02:00:00:00:00:01',static_macs=['02:00:00:00:00:01']",
            &["45 static_macs: 02:00:00:00:00:01 is listed twice"],
        ),
        ("mac_limit=-1", &["10 mac_limit: -1 is outside of 0 to 1048576"]),
        ("admin_state_up='yes'", &["15 admin_state_up: expected true or false, found string \"yes\""]),
        ("port_security_enabled=false", &[]),
        ("fixed_ips=[]", &[]),
        ("netwrok='x'", &["0 netwrok: unknown key"]),
    ];
    for (text, expected) in more {
        // Columns count from 0 in the text here, which stands behind the comma.
        let shifted: Vec<String> = expected.iter().map(|row| shift(row, TAP.len() + 2)).collect();
        check_port(&format!("{TAP},{text}"), &shifted.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn shift(row: &str, by: usize) -> String {
    let (column, rest) = row.split_once(' ').unwrap();
    format!("{} {rest}", column.parse::<usize>().unwrap() + by)
}

#[test]
fn mistakes_of_addresses() {
    let rows = [
        ("192.0.2.1", "`192.0.2.1` has no prefix length like /24"),
        ("192.0.2/24", "`192.0.2/24` is not an address like 192.0.2.5/24 or 2001:db8::5/64"),
        ("192.0.2.1/33", "`192.0.2.1/33` has a prefix length outside of 1 to 32"),
        ("192.0.2.1/0", "`192.0.2.1/0` has a prefix length outside of 1 to 32"),
        ("192.0.2.1/+4", "`192.0.2.1/+4` has a prefix length outside of 1 to 32"),
        ("2001:db8::1/129", "`2001:db8::1/129` has a prefix length outside of 1 to 128"),
        ("192.0.2.0/24", "`192.0.2.0/24` is the address of the subnet, not of a host"),
        ("192.0.2.255/24", "`192.0.2.255/24` is the broadcast address of its subnet"),
        ("224.0.0.1/24", "`224.0.0.1/24` is not an address that a device can have"),
        ("0.0.0.0/8", "`0.0.0.0/8` is not an address that a device can have"),
        ("127.0.0.1/8", "`127.0.0.1/8` is not an address that a device can have"),
        ("::1/128", "`::1/128` is not an address that a device can have"),
        ("ff02::1/64", "`ff02::1/64` is not an address that a device can have"),
        ("::ffff:192.0.2.1/96", "`::ffff:192.0.2.1/96` is an IPv4 address: write it as one"),
    ];
    for (address, message) in rows {
        let text = format!("network='home',interface={{kind='tap',name='t',address='{address}'}}");
        check_port(&text, &[&format!("55 interface.address: {message}")]);
    }
    for right in ["192.0.2.0/31", "192.0.2.1/31", "192.0.2.0/32", "2001:db8::/64", "fe80::1/64"] {
        check_port(&format!("network='home',interface={{kind='tap',name='t',address='{right}'}}"), &[]);
    }
    check_port(
        "network='home',interface={kind='tap',name='t',address=['192.0.2.1/24',1,'192.0.2.1/25']}",
        &[
            "71 interface.address: expected a string, found integer `1`",
            "73 interface.address: 192.0.2.1 is listed twice",
        ],
    );
    check_port(
        "network='small',interface={kind='tap',name='t',address='fe80::1/64'}",
        &["44 interface.address: fe80::1 needs an MTU of at least 1280, the port's network has 1000"],
    );
}

#[test]
fn mistakes_of_trunks() {
    let rows: &[(&str, &[&str])] = &[
        ("physical_network='p'", &[]),
        ("physical_network='p',native='flat',allowed=['1','100-200']", &[]),
        ("", &["7 trunk.physical_network: is missing"]),
        ("physical_network='x'", &["25 trunk.physical_network: there is no physical_network `x`"]),
        ("physical_network='p',native='x'", &["36 trunk.native: there is no network `x`"]),
        (
            "physical_network='p',native='home'",
            &["36 trunk.native: network `home` is not on physical network `p`"],
        ),
        (
            "physical_network='q',native='flat'",
            &["36 trunk.native: network `flat` is not on physical network `q`"],
        ),
        ("physical_network='p',allowed=[]", &["29 trunk.allowed: an empty list lets nothing pass"]),
        ("physical_network='p',allowed='1'", &["37 trunk.allowed: expected a list, found a string"]),
        (
            "physical_network='p',allowed=['0','5-4','1-4095','a']",
            &[
                "38 trunk.allowed: `0` is not a VLAN ID (1 to 4094) like \"120\" or a range like \"130-139\"",
                "42 trunk.allowed: `5-4` is not a VLAN ID (1 to 4094) like \"120\" or a range like \"130-139\"",
                "48 trunk.allowed: `1-4095` is not a VLAN ID (1 to 4094) like \"120\" or a range like \"130-139\"",
                "57 trunk.allowed: `a` is not a VLAN ID (1 to 4094) like \"120\" or a range like \"130-139\"",
            ],
        ),
        ("physical_network='p',alowed=['1']", &["29 trunk.alowed: unknown key"]),
    ];
    for (text, expected) in rows {
        check_port(&format!("trunk={{{text}}},interface={{kind='tap',name='t'}}"), expected);
    }
}

#[test]
fn mistakes_between_ports() {
    let port = |name: &str, rest: &str| format!("[[port]]\nname = '{name}'\n{rest}\n");
    let tap = |name: &str| format!("interface = {{ kind = 'tap', name = '{name}' }}");
    let mac = "mac_address = '02:00:00:00:00:01'";
    let two = |a: String, b: String| mistakes(&format!("{BASE}{}{}", port("a", &a), port("b", &b)));
    let on =
        |network: &str, device: &str, more: &str| format!("network = '{network}'\n{}\n{more}", tap(device));
    assert_eq!(two(on("home", "t1", mac), on("small", "t2", mac)), [""; 0]);
    assert_eq!(
        two(on("home", "t1", mac), on("home", "t2", mac)),
        ["16:15 port[b].mac_address: 02:00:00:00:00:01 is already in network `home`, at the port of line 7"]
    );
    let trunk = format!("trunk = {{ physical_network = 'p' }}\n{}\n{mac}", tap("t2"));
    assert_eq!(
        two(on("v100", "t1", mac), trunk.clone()),
        ["16:15 port[b].mac_address: 02:00:00:00:00:01 is already in network `v100`, at the port of line 7"]
    );
    // The flat network is not the trunk's native one, so it does not pass.
    assert_eq!(two(on("flat", "t1", mac), trunk), [""; 0]);
    assert_eq!(
        two(on("home", "t1", ""), on("home", "t1", "")),
        ["15:36 port[b].interface.name: device `t1` is already used, by line 10"]
    );
    let inside = "network = 'home'\ninterface = { kind = 'tap', name = 't', netns = 'lab' }";
    let same = "network = 'home'\ninterface = { kind = 'tap', name = 't', netns = '/run/netns/lab' }";
    assert_eq!(
        two(inside.into(), same.into()),
        ["14:36 port[b].interface.name: device `t` in namespace `lab` is already used, by line 10"]
    );
    assert_eq!(two(inside.into(), on("home", "t", "")), [""; 0]);
    let file = "network = 'home'\ninterface = { kind = 'pcap', write = 'f' }";
    assert_eq!(
        two(file.into(), file.replace("write", "read")),
        ["14:13 port[b].interface.read: `f` is already used by the port of line 7"]
    );
}

#[test]
fn there_is_room_for_4096_ports_and_networks() {
    let networks =
        |count: usize| (0..count).map(|n| format!("[[network]]\nname = 'n{n}'\n")).collect::<String>();
    let ports = |count: usize| {
        let port = |n| {
            format!(
                "[[port]]\nname = '{n}'\nnetwork = 'n1'\ninterface = {{ kind = 'guest', name = 'g{n}' }}\n"
            )
        };
        (0..count).map(port).collect::<String>()
    };
    let model = load(&(networks(4096) + &ports(4096)), "f.toml").unwrap();
    assert!(diff(&model, &model).is_empty());
    assert_eq!(
        mistakes(&(networks(4097) + &ports(4097))),
        [
            "8194:8 network[n4096]: a switch has at most 4096 networks",
            "24580:8 port[4096]: a switch has at most 4096 ports",
        ]
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    let text = r#"
[[physical_network]]
name = "p"
interface = "eth1"
vlan_ranges = ["20:21", "10:10"]
[[network]]
name = "a"
network_type = "vlan"
physical_network = "p"
[[network]]
name = "b"
network_type = "vlan"
physical_network = "p"
mtu = 9000
[[network]]
name = "c"
network_type = "vlan"
physical_network = "p"
segmentation_id = 20
[[port]]
name = "t"
network = "a"
interface = { kind = "tap", name = "t", netns = "/var/run/netns/lab", address = ["192.0.2.5/24", "2001:db8::5/64"] }
[[port]]
name = "trunk"
trunk = { physical_network = "p", native = "c", allowed = ["21", "30-31"] }
interface = { kind = "xdp", name = "veth7" }
"#;
    let model = load(text, "f.toml").unwrap();
    assert_eq!(model.switch, Switch::default());
    let segments: Vec<&Segment> = model.networks.iter().map(|network| &network.segment).collect();
    let vlan = |id| Segment::Vlan("p".to_owned(), crate::types::VlanId::new(id).unwrap());
    assert_eq!(segments, [&vlan(10), &vlan(21), &vlan(20)]);
    assert_eq!((model.networks[0].mtu, model.networks[0].mac_limit), (1500, 8192));
    assert_eq!(
        model.physical_networks[0].interface,
        Some(Interface::Best { name: "eth1".into(), shared: None })
    );
    let port = &model.ports[0];
    assert_eq!((port.mac_limit, port.admin_state_up, port.origin.line), (1024, true, 20));
    assert_eq!(port.mac_address.unwrap().0[..3], [0xfa, 0x16, 0x3e]);
    assert_eq!(port.id, id("port", "t"));
    assert_eq!(port.id.get_version_num(), 5);
    let address = vec![("192.0.2.5".parse().unwrap(), 24), ("2001:db8::5".parse().unwrap(), 64)];
    assert_eq!(port.interface, Interface::Tap { name: "t".into(), netns: Some("lab".into()), address });
    assert_eq!(model.ports[1].mac_address, None);

    let devices: Vec<(String, u16)> = model.attachments().map(|d| (d.key.to_string(), d.mtu)).collect();
    let expected = [("physical network \"p\"", 9000), ("port \"t\"", 1500), ("port \"trunk\"", 9000)];
    assert_eq!(devices, expected.map(|(key, mtu)| (key.to_owned(), mtu)));
    let of = |key| model.networks_of(&key).map(|network| network.name.clone()).collect::<Vec<_>>();
    assert_eq!(of(AttachmentKey::Physical("p".into())), ["a", "b", "c"]);
    assert_eq!(of(AttachmentKey::Port("trunk".into())), ["b", "c"]);
    assert_eq!(of(AttachmentKey::Port("t".into())), ["a"]);
    assert_eq!(of(AttachmentKey::Port("nobody".into())), [""; 0]);
}

/// Identifiers and MACs outlive upgrades: guests remember them. The values were computed by another implementation of
/// UUID version 5.
#[test]
fn what_follows_from_names_never_changes() {
    assert_eq!(id("port", "web1").to_string(), "855d1dc2-013c-51d6-b21c-6e5336bd8718");
    let text = "[[network]]\nname='n'\n[[port]]\nname='web1'\nnetwork='n'\ninterface={kind='guest',name='g'}";
    let mac = load(text, "f.toml").unwrap().ports[0].mac_address.unwrap();
    assert_eq!(mac.to_string(), "fa:16:3e:41:b8:66");
}

#[test]
fn everything_wrong_at_once() {
    let text = include_str!("testdata/everything_wrong.toml");
    let rendered: String =
        load(text, "everything_wrong.toml").unwrap_err().iter().map(|d| d.render(text) + "\n\n").collect();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/testdata/everything_wrong.txt");
        std::fs::write(path, &rendered).unwrap();
    }
    assert_eq!(rendered, include_str!("testdata/everything_wrong.txt"));
}

/// All words of the language, right and wrong ones, to build texts of.
const PIECES: &[&str] = &[
    "[switch]\n",
    "[[network]]\n",
    "[[port]]\n",
    "[[physical_network]]\n",
    "[port]\n",
    "name = \"a\"\n",
    "name = \"b\"\n",
    "network = \"a\"\n",
    "network_type = \"vlan\"\n",
    "physical_network = \"a\"\n",
    "segmentation_id = 5\n",
    "[overlay]\n",
    "network_type = \"vxlan\"\n",
    "local_ip = \"192.0.2.1/24\"\n",
    "gateway_ip = \"192.0.2.2\"\n",
    "vni_ranges = [\"0:16777215\"]\n",
    "peers = [\"192.0.2.2\", \"2001:db8::1\"]\n",
    "multicast_group = \"239.1.1.1\"\n",
    "l2population = true\n",
    "remote_ports = [{ mac_address = \"02:00:00:00:00:01\", fixed_ips = [\"10.0.0.5\"], vtep = \"192.0.2.2\" }]\n",
    "vlan_ranges = [\"1:4094\"]\n",
    "trunk = { physical_network = \"a\", native = \"b\", allowed = [\"1-4094\"] }\n",
    "interface = { kind = \"tap\", name = \"t\", address = \"192.0.2.1/24\" }\n",
    "interface = \"eth0\"\n",
    "mtu = 68\n",
    "interface = { kind = \"pcap\", read = \"x\", write = \"y\" }\n",
    "static_macs = [\"02:00:00:00:00:01\"]\n",
    "[[subnet]]\n",
    "[[router]]\n",
    "[[floating_ip]]\n",
    "[conntrack]\n",
    "external = true\n",
    "cidr = \"10.0.0.0/29\"\n",
    "cidr = \"2001:db8::/127\"\n",
    "gateway_ip = false\n",
    "allocation_pools = [\"10.0.0.2-10.0.0.3\"]\n",
    "fixed_ips = [\"10.0.0.5\", { subnet = \"a\" }]\n",
    "interfaces = [\"a\", { subnet = \"b\", ip = \"10.0.0.4\" }]\n",
    "external_gateway = { network = \"a\", external_fixed_ips = [{ subnet = \"a\" }] }\n",
    "routes = [{ destination = \"0.0.0.0/0\", nexthop = \"10.0.0.6\" }]\n",
    "floating_network = \"a\"\n",
    "port = \"a\"\n",
    "port_forwardings = [{ protocol = \"tcp\", external_port_range = \"1-65535\", port = \"b\" }]\n",
    "interface = { kind = \"guest\", name = \"g\" }\n",
    "[[security_group]]\n",
    "[[address_group]]\n",
    "port_security_enabled = true\n",
    "security_groups = [\"a\", \"default\"]\n",
    "allowed_address_pairs = [{ ip_address = \"10.0.0.0/24\" }, { ip_address = \"::/0\" }]\n",
    "addresses = [\"10.0.0.0/24\", \"::1\"]\n",
    "stateful = false\n",
    "rules = [{ direction = \"ingress\", protocol = \"tcp\", ports = \"1-65535\", remote_group = \"a\" }]\n",
    "rules = [{ direction = \"egress\", remote_address_group = \"a\" }, { direction = \"egress\", protocol = 1, icmp_type = 3 }]\n",
    "workers = [0]\n",
    "mtu = ",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\u{0}",
    "é",
    "\n",
    "'''",
    "#",
    "\r\n",
    ".",
];

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = render(load(&text, "f.toml"), &text);
    }

    #[test]
    fn no_mix_of_the_language_panics(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        let _ = render(load(&text, "f.toml"), &text);
    }

    #[test]
    fn no_mutation_of_a_valid_file_panics(
        edits in proptest::collection::vec((0..20000_usize, 0..20_usize, proptest::sample::select(PIECES)), 1..4),
    ) {
        let mut text: Vec<char> = include_str!("../../config/reference.toml").chars().collect();
        for (at, cut, piece) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(found) = load(&text, "f.toml") {
            proptest::prop_assert!(!found.is_empty());
            for diagnostic in found {
                let line = text.split('\n').nth(diagnostic.line - 1);
                proptest::prop_assert!(line.is_some(), "no such line: {diagnostic}");
                proptest::prop_assert!(diagnostic.column <= line.unwrap_or("").chars().count() + 1, "{diagnostic}");
            }
        }
    }
}
