//! Port security and security groups: what loads, and each mistake with its place.

use super::*;

const NETWORKS: &str = "network = [{ name = 'n' }, { name = 'bare' }, { name = 'open', port_security_enabled = false }]\n\
    subnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/24' }, { name = 'o', network = 'open', cidr = '10.1.0.0/24' }]\n\
    physical_network = [{ name = 'p' }]\n";
const GROUPS: &str =
    "security_group = [{ name = 'web' }, { name = 'db' }, { name = 'loose', stateful = false }]\n";

fn model(text: &str) -> Model {
    load(text, "f.toml").unwrap_or_else(|found| panic!("{} in\n{text}", found[0]))
}

/// The rules that one line of a group says, as people read them.
fn says(rule: &str) -> Vec<String> {
    let text = format!(
        "security_group = [{{ name = 'web', rules = [{{ {rule} }}] }}]\naddress_group = [{{ name = 'a', addresses = [] }}]"
    );
    let model = model(&text);
    let web = model.security_groups.iter().find(|group| group.name == "web").unwrap();
    web.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn a_group_says_what_it_logs() {
    let log = |said: &str| {
        let model = model(&format!("security_group = [{{ name = 'web'{said} }}]"));
        let web = model.security_groups.iter().find(|group| group.name == "web").unwrap();
        (web.log.to_string(), web.log.has_accepted(), web.log.has_dropped())
    };
    assert_eq!(log(""), ("none".to_owned(), false, false));
    for (word, accepted, dropped) in
        [("none", false, false), ("accepted", true, false), ("dropped", false, true), ("all", true, true)]
    {
        assert_eq!(log(&format!(", log = '{word}'")), (word.to_owned(), accepted, dropped));
    }
    let found = load("security_group = [{ name = 'web', log = 'droped' }]", "f.toml").unwrap_err();
    assert!(found[0].to_string().contains("`droped` is not known here"), "{}", found[0]);
    assert_eq!(found[0].hint.as_deref(), Some("did you mean `dropped`?"));
    assert_eq!(model("switch.security_log = '/x'").switch.security_log, Some("/x".into()));
    assert_eq!(model("").switch.security_log, None);
}

#[test]
fn a_line_says_one_rule_for_each_version_and_range() {
    let rows: &[(&str, &[&str])] = &[
        ("direction = 'egress'", &["egress IPv4", "egress IPv6"]),
        ("direction = 'egress', ethertype = 'IPv6'", &["egress IPv6"]),
        ("direction = 'ingress', protocol = 'any', ethertype = 'IPv4'", &["ingress IPv4"]),
        ("direction = 'ingress', protocol = 0, ethertype = 'IPv4'", &["ingress IPv4"]),
        (
            "direction = 'ingress', protocol = 'tcp', ports = 22",
            &["ingress IPv4 tcp 22", "ingress IPv6 tcp 22"],
        ),
        (
            "direction = 'ingress', protocol = '17', ports = '443, 8000-8010,80', remote = '192.0.2.0/24'",
            &[
                "ingress IPv4 udp 80 from 192.0.2.0/24",
                "ingress IPv4 udp 443 from 192.0.2.0/24",
                "ingress IPv4 udp 8000-8010 from 192.0.2.0/24",
            ],
        ),
        (
            "direction = 'egress', protocol = 'sctp', ports = '1-65535', remote = '::/0'",
            &["egress IPv6 sctp 1-65535"],
        ),
        ("direction = 'egress', remote = '2001:db8::1'", &["egress IPv6 to 2001:db8::1/128"]),
        ("direction = 'ingress', protocol = 'icmp'", &["ingress IPv4 icmp"]),
        ("direction = 'ingress', protocol = 'icmp', icmp_type = 8", &["ingress IPv4 icmp type 8"]),
        (
            "direction = 'ingress', protocol = 1, icmp_type = 3, icmp_code = 0",
            &["ingress IPv4 icmp type 3 code 0"],
        ),
        ("direction = 'ingress', protocol = 'icmpv6', icmp_type = 128", &["ingress IPv6 ipv6-icmp type 128"]),
        ("direction = 'ingress', protocol = 'ipv6-icmp'", &["ingress IPv6 ipv6-icmp"]),
        // Neutron's: ICMP of IPv6 is ICMPv6.
        ("direction = 'ingress', protocol = 'icmp', ethertype = 'IPv6'", &["ingress IPv6 ipv6-icmp"]),
        ("direction = 'ingress', protocol = 99, ethertype = 'IPv4'", &["ingress IPv4 protocol 99"]),
        (
            "direction = 'ingress', ethertype = 'IPv4', remote_group = 'default'",
            &["ingress IPv4 from group default"],
        ),
        (
            "direction = 'egress', remote_address_group = 'a'",
            &["egress IPv4 to address group a", "egress IPv6 to address group a"],
        ),
    ];
    for (rule, expected) in rows {
        assert_eq!(says(rule), *expected, "in {rule}");
    }
}

#[test]
fn the_group_default_is_always_there() {
    let rules = |text: &str| -> Vec<String> {
        let model = model(text);
        let mut defaults = model.security_groups.iter().filter(|group| group.name == DEFAULT_GROUP);
        let default = defaults.next().unwrap();
        assert!(
            defaults.next().is_none() && default.stateful && default.id == id("security_group", "default")
        );
        default.rules.iter().map(ToString::to_string).collect()
    };
    let neutrons =
        ["egress IPv4", "egress IPv6", "ingress IPv4 from group default", "ingress IPv6 from group default"];
    assert_eq!(rules(""), neutrons);
    assert_eq!(rules(GROUPS), neutrons);
    let own =
        "security_group = [{ name = 'default', rules = [{ direction = 'egress', ethertype = 'IPv4' }] }]";
    assert_eq!(rules(own), ["egress IPv4"]);
    assert!(!model(own).security_groups[0].is_built_in());
}

/// The security of a port named `a`, in words.
fn security(port: &str) -> String {
    let model = model(&format!("{NETWORKS}{GROUPS}port = [{{ name = 'a', {port} }}]"));
    let Some(PortSecurity { security_groups, allowed_address_pairs }) = &model.ports[0].port_security else {
        return "off".to_owned();
    };
    let pair = |pair: &AddressPair| format!(" {}@{}", pair.ip_address, pair.mac_address);
    let groups = security_groups.as_ref().map_or("MACs alone".to_owned(), |groups| groups.join(","));
    groups + &allowed_address_pairs.iter().map(pair).collect::<String>()
}

#[test]
fn guests_have_port_security_and_others_by_choice() {
    let tap = "interface = { kind = 'tap', name = 'a' }";
    let guest = "interface = { kind = 'guest', name = 'a' }, mac_address = '52:54:00:00:00:01'";
    let packet = "interface = { kind = 'packet', name = 'a' }";
    let rows = [
        (format!("network = 'n', {tap}"), "default"),
        (format!("network = 'n', {guest}"), "default"),
        (format!("network = 'n', {packet}"), "off"),
        (format!("network = 'bare', {tap}"), "MACs alone"),
        (format!("network = 'open', {tap}"), "off"),
        (format!("network = 'open', {tap}, port_security_enabled = true"), "default"),
        (format!("network = 'n', {tap}, port_security_enabled = false"), "off"),
        (format!("network = 'n', {tap}, port_security_enabled = false, security_groups = []"), "off"),
        (
            format!(
                "network = 'n', {packet}, port_security_enabled = true, mac_address = '52:54:00:00:00:01'"
            ),
            "default",
        ),
        (format!("trunk = {{ physical_network = 'p' }}, {tap}"), "off"),
        (format!("network = 'n', {tap}, security_groups = []"), ""),
        (format!("network = 'n', {tap}, security_groups = ['web', 'default', 'db']"), "db,default,web"),
        (format!("network = 'n', {tap}, security_groups = ['loose']"), "loose"),
        (
            format!(
                "network = 'n', {guest}, allowed_address_pairs = [{{ ip_address = '10.0.0.100' }}, \
                     {{ ip_address = '0.0.0.0/0', mac_address = '00:00:5e:00:01:01' }}]"
            ),
            "default 10.0.0.100/32@52:54:00:00:00:01 0.0.0.0/0@00:00:5e:00:01:01",
        ),
    ];
    for (port, expected) in rows {
        assert_eq!(security(&port), expected, "in {port}");
    }
}

#[test]
fn mistakes_of_groups() {
    table(&[
        ("security_group = [{ description = 'x' }]", &["1:19 security_group[#1].name: is missing"]),
        (
            "security_group = [{ name = 'a' },\n{ name = 'a' }]",
            &["2:10 security_group[a].name: this name is taken, by line 1"],
        ),
        (
            "address_group = [{ name = 'a', addresses = [] },\n{ name = 'a', addresses = [] }]",
            &["2:10 address_group[a].name: this name is taken, by line 1"],
        ),
        ("address_group = [{ name = 'a' }]", &["1:18 address_group[a].addresses: is missing"]),
        (
            "address_group = [{ name = 'a', addresses = ['10.0.0.1/24', '10.0.0.0/24', '10.0.0.0/24', 'x', '::1/129'] }]",
            &[
                "1:45 address_group[a].addresses: `10.0.0.1/24` has bits set behind its prefix",
                "1:75 address_group[a].addresses: 10.0.0.0/24 is listed twice",
                "1:90 address_group[a].addresses: `x` is not an address like 192.0.2.5 or 2001:db8::5",
                "1:95 address_group[a].addresses: `::1/129` has a prefix length outside of 0 to 128",
            ],
        ),
        (
            "security_group = [{ name = 'a', statefull = true, rules = 1 }]",
            &[
                "1:33 security_group[a].statefull: unknown key",
                "1:59 security_group[a].rules: there can be several, so this is a list of tables",
            ],
        ),
    ]);
}

/// Rows of a rule of a group `a` and its mistakes as `column key: message (hint)`, columns from 1 in the rule.
#[test]
fn mistakes_of_rules() {
    let rows: &[(&str, &[&str])] = &[
        ("", &["-1 direction: is missing (\"ingress\": what enters the guest; \"egress\": what leaves it)"]),
        ("direction = 'in'", &["13 direction: `in` is not known here (one of `ingress`, `egress`)"]),
        (
            "direction = 'egress', ethertype = 'ipv4'",
            &["35 ethertype: `ipv4` is not known here (one of `IPv4`, `IPv6`)"],
        ),
        (
            "direction = 'egress', protocol = 'tpc'",
            &["34 protocol: `tpc` is no protocol that is known by name; did you mean `tcp`?"],
        ),
        (
            "direction = 'egress', protocol = 'quantum'",
            &["34 protocol: `quantum` is no protocol that is known by name: give its number, 0 to 255"],
        ),
        (
            "direction = 'egress', protocol = 256",
            &["34 protocol: 256 is outside of 0 to 255, a protocol's numbers"],
        ),
        (
            "direction = 'egress', protocol = true",
            &["34 protocol: expected a protocol's name or number, found boolean `true`"],
        ),
        (
            "direction = 'egress', ports = 80",
            &["31 ports: `ports` needs a `protocol` (write protocol = \"tcp\", or udp, udplite, sctp, dccp)"],
        ),
        (
            "direction = 'egress', protocol = 'gre', ports = 80",
            &["49 ports: `gre` has no ports (write protocol = \"tcp\", or udp, udplite, sctp, dccp)"],
        ),
        (
            "direction = 'egress', protocol = 'icmp', ports = 8",
            &["50 ports: `icmp` has no ports (ICMP has `icmp_type` and `icmp_code`)"],
        ),
        (
            "direction = 'egress', protocol = 'tcp', ports = 0",
            &["49 ports: a port is a number from 1 to 65535"],
        ),
        (
            "direction = 'egress', protocol = 'tcp', ports = '0-9'",
            &["49 ports: `0-9` is neither a port (1 to 65535) nor a range of ports like \"8000-8010\""],
        ),
        (
            "direction = 'egress', protocol = 'tcp', ports = '9-8'",
            &["49 ports: the range 9-8 is upside down: write 8-9"],
        ),
        (
            "direction = 'egress', protocol = 'tcp', ports = '80,70-90'",
            &["49 ports: port 80 is listed twice in \"80,70-90\""],
        ),
        (
            "direction = 'egress', protocol = 'tcp', ports = '80,'",
            &["49 ports: `` is neither a port (1 to 65535) nor a range of ports like \"8000-8010\""],
        ),
        (
            "direction = 'egress', protocol = 'icmp', icmp_code = 1",
            &["54 icmp_code: `icmp_code` needs `icmp_type` (a code is one of a type's: give that too)"],
        ),
        (
            "direction = 'egress', protocol = 'icmp', icmp_type = 256",
            &["54 icmp_type: 256 is outside of 0 to 255"],
        ),
        (
            "direction = 'egress', protocol = 'tcp', icmp_type = 1",
            &["53 icmp_type: `icmp_type` needs protocol = \"icmp\" or \"ipv6-icmp\""],
        ),
        (
            "direction = 'egress', icmp_type = 1",
            &["35 icmp_type: `icmp_type` needs protocol = \"icmp\" or \"ipv6-icmp\""],
        ),
        (
            "direction = 'egress', remote = '10.0.0.0/8', remote_group = 'a'",
            &["46 remote_group: `remote_group` and `remote` exclude each other (write a rule for each)"],
        ),
        (
            "direction = 'egress', remote_address_group = 'a', remote_group = 'a'",
            &[
                "23 remote_address_group: `remote_address_group` and `remote_group` exclude each other (write a rule for each)",
            ],
        ),
        (
            "direction = 'egress', remote = '10.0.0.1/8'",
            &["32 remote: `10.0.0.1/8` has bits set behind its prefix (did you mean `10.0.0.0/8`?)"],
        ),
        (
            "direction = 'egress', ethertype = 'IPv6', remote = '10.0.0.0/8'",
            &["52 remote: 10.0.0.0/8 is IPv4, and the rule is of IPv6"],
        ),
        (
            "direction = 'egress', protocol = 'icmp', remote = '::/0'",
            &["51 remote: ::/0 is IPv6, and the rule is of IPv4 (`ipv6-icmp` is the ICMP of IPv6)"],
        ),
        (
            "direction = 'egress', protocol = 58, remote = '10.0.0.0/8'",
            &["47 remote: 10.0.0.0/8 is IPv4, and the rule is of IPv6"],
        ),
        (
            "direction = 'egress', protocol = 'icmpv6', ethertype = 'IPv4'",
            &[
                "56 ethertype: no IPv4 packet carries `ipv6-icmp` (leave `ethertype` out, or choose another protocol)",
            ],
        ),
        (
            "direction = 'egress', remote_group = 'b'",
            &["38 remote_group: there is no security_group `b` (did you mean `a`?)"],
        ),
        (
            "direction = 'egress', remote_address_group = 'b'",
            &["46 remote_address_group: there is no address_group `b` (the file has no address_group)"],
        ),
        (
            "direction = 'egress', port_range_min = 1, remote_ip_prefix = '::/0'",
            &[
                "23 port_range_min: unknown key (write `ports`)",
                "43 remote_ip_prefix: unknown key (write `remote`)",
            ],
        ),
        (
            "direction = 'egress' }, { direction = 'egress', ethertype = 'IPv4', remote = '0.0.0.0/0'",
            &["25 : `egress IPv4` is what the rule of line 1 says (leave one of them out)"],
        ),
        ("direction = 'egress', description = 'x' }, { direction = 'ingress', description = 'x'", &[]),
    ];
    let start = "security_group = [{ name = 'a', rules = [{ ";
    for (rule, expected) in rows {
        let found = judged(&format!("{start}{rule} }}] }}]")).into_iter().map(|mistake| {
            let rest = mistake.strip_prefix("1:").unwrap_or_else(|| panic!("elsewhere: {mistake}"));
            let (column, rest) = rest.split_once(" security_group[a].rules").unwrap();
            let rest = rest.strip_prefix('.').map_or_else(|| rest.to_owned(), str::to_owned);
            let rest = rest.strip_prefix(": ").map_or(rest.clone(), |rest| format!(": {rest}"));
            format!("{} {rest}", column.parse::<i64>().unwrap() - start.len() as i64)
        });
        assert_eq!(found.collect::<Vec<_>>(), *expected, "in {rule}");
    }
}

/// Rows of a port named `a` and its mistakes as `column key: message (hint)`, columns from 1 in the port.
#[test]
fn mistakes_of_ports() {
    let tap = "network='n',interface={kind='tap',name='a'},";
    let bare = "network='bare',interface={kind='tap',name='a'},";
    let open = "network='open',interface={kind='tap',name='a'},";
    let packet = "network='n',interface={kind='packet',name='a'},";
    let trunk = "trunk={physical_network='p'},interface={kind='tap',name='a'},";
    let off = "port security is off at this port (write `port_security_enabled = true`, or leave this out)";
    let no_trunk = "a trunk has no port security (leave it out: a trunk is in several networks, and who is behind it is not known)";
    let no_subnets = "network `bare` has no subnets, so that nothing is known of addresses there (leave it out: MACs alone are checked; or write [[subnet]] with its `network` and `cidr`)";
    let on = |start: &str, text: &str, expected: &[&str]| {
        let before = format!("port=[{{name='a',{start}");
        let found = judged(&format!("{NETWORKS}{GROUPS}{before}{text}}}]")).into_iter().map(|mistake| {
            let rest = mistake.strip_prefix("5:").unwrap_or_else(|| panic!("elsewhere: {mistake}"));
            let (column, rest) = rest.split_once(" port[a].").unwrap();
            format!("{} {rest}", column.parse::<usize>().unwrap() - before.len())
        });
        assert_eq!(found.collect::<Vec<_>>(), *expected, "in {text}");
    };
    on(
        tap,
        "security_groups=['wbe']",
        &["18 security_groups: there is no security_group `wbe` (did you mean `web`?)"],
    );
    on(tap, "security_groups=['web','web']", &["24 security_groups: `web` is listed twice"]);
    on(tap, "security_groups=['web',1]", &["24 security_groups: expected a string, found integer `1`"]);
    on(
        tap,
        "security_groups=['web','loose']",
        &[
            "1 security_groups: `web` is stateful and `loose` is not, and a port is one of both (take groups that say the same of `stateful`)",
        ],
    );
    on(
        tap,
        "security_groups=['loose','default']",
        &[
            "1 security_groups: `default` is stateful and `loose` is not, and a port is one of both (take groups that say the same of `stateful`)",
        ],
    );
    on(
        tap,
        "port_security_enabled='no'",
        &["23 port_security_enabled: expected true or false, found string \"no\""],
    );
    on(tap, "port_security_enabled=false,security_groups=['web']", &[&format!("29 security_groups: {off}")]);
    on(open, "security_groups=['web']", &[&format!("1 security_groups: {off}")]);
    on(
        packet,
        "allowed_address_pairs=[{ip_address='10.0.0.9'}]",
        &[&format!("1 allowed_address_pairs: {off}")],
    );
    on(
        packet,
        "port_security_enabled=true",
        &[
            "23 port_security_enabled: the port has no MAC that it could be held to (give the port its `mac_address`)",
        ],
    );
    on(trunk, "port_security_enabled=true", &[&format!("23 port_security_enabled: {no_trunk}")]);
    on(trunk, "security_groups=['web']", &[&format!("1 security_groups: {no_trunk}")]);
    on(trunk, "port_security_enabled=false,security_groups=[],allowed_address_pairs=[]", &[]);
    on(bare, "security_groups=[]", &[&format!("1 security_groups: {no_subnets}")]);
    on(
        bare,
        "security_groups=['web'],allowed_address_pairs=[{ip_address='10.0.0.9'}]",
        &[&format!("1 security_groups: {no_subnets}"), &format!("25 allowed_address_pairs: {no_subnets}")],
    );
    let pair = |text: &str, expected: &[&str]| {
        on(tap, &format!("mac_address='52:54:00:00:00:01',allowed_address_pairs=[{text}]"), expected);
    };
    pair("{}", &["56 allowed_address_pairs.ip_address: is missing"]);
    pair(
        "{ip_address='10.0.0.9/24'}",
        &[
            "68 allowed_address_pairs.ip_address: `10.0.0.9/24` has bits set behind its prefix (did you mean `10.0.0.0/24`?)",
        ],
    );
    pair(
        "{ip_address='224.0.0.0/8'}",
        &["68 allowed_address_pairs.ip_address: 224.0.0.0/8 is multicast: nobody sends from there"],
    );
    pair("{ip_address='0.0.0.0'}", &["68 allowed_address_pairs.ip_address: 0.0.0.0 is no host's address"]);
    pair(
        "{ip_address='::1'}",
        &["68 allowed_address_pairs.ip_address: ::1 is loopback, which is on no network"],
    );
    pair(
        "{ip_address='10.0.0.9',mac_address='ff:ff:ff:ff:ff:ff'}",
        &[
            "91 allowed_address_pairs.mac_address: ff:ff:ff:ff:ff:ff is a group address, which no station has (the lowest bit of the first byte must be 0)",
        ],
    );
    pair(
        "{ip_address='10.0.0.9'},{ip_address='10.0.0.9/32',mac_address='52:54:00:00:00:01'}",
        &["80 allowed_address_pairs: 10.0.0.9 with 52:54:00:00:00:01 is listed twice"],
    );
    pair("{ip_address='10.0.0.9'},{ip_address='10.0.0.9',mac_address='52:54:00:00:00:02'}", &[]);
}

/// Leases out of a pool are for MACs without port security, or where a prefix is allowed.
#[test]
fn a_leased_address_is_none_that_port_security_knows() {
    let of = |port: &str| {
        judged(&format!(
            "switch.state = 's'\nnetwork = [{{ name = 'n', dynamic_leases = true }}]\n\
             subnet = [{{ name = 's', network = 'n', cidr = '10.0.0.0/24' }}]\n\
             port = [{{ name = 'a', network = 'n', interface = {{ kind = 'guest', name = 'a' }}{port} }}]"
        ))
    };
    assert_eq!(
        of(", fixed_ips = []"),
        [
            "4:82 port[a].fixed_ips: with port security it could not use an address that the switch leases to it (leave it out: the port has an address of its own then; or write allowed_address_pairs with a prefix of the pool, or `port_security_enabled = false`)"
        ]
    );
    for fine in [
        "",
        ", fixed_ips = [], port_security_enabled = false",
        ", fixed_ips = [], allowed_address_pairs = [{ ip_address = '10.0.0.0/24' }]",
    ] {
        assert_eq!(of(fine), [""; 0], "{fine}");
    }
}

/// A subnet with a mistake may be the one that a network is said to lack.
#[test]
fn a_wrong_subnet_raises_no_false_alarm() {
    let text = "network = [{ name = 'n' }]\nsubnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/33' }]\n\
                port = [{ name = 'a', network = 'n', interface = { kind = 'tap', name = 'a' }, security_groups = ['default'] }]";
    assert_eq!(mistakes(text), ["2:47 subnet[s].cidr: `10.0.0.0/33` has a prefix length outside of 0 to 32"]);
}
