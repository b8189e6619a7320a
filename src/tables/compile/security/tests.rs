//! What ports may claim, what is shared, and what is made anew.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::frame::Caps;
use crate::model::load;
use crate::stats::PortCounters;
use crate::tables::PortEntry;
use crate::tables::compile::{Device, compile};
use crate::tables::policy::Packet;
use crate::types::WorkerIdx;

const NETWORKS: &str = "network = [{ name = 'n' }, { name = 'bare' }]\n\
    subnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/24' }, { name = 't', network = 'n', cidr = '2001:db8::/64' }]\n";
const TAP: &str = "interface = { kind = 'tap', name";

fn model(text: &str) -> Model {
    load(text, "f.toml").unwrap_or_else(|found| panic!("{} in\n{text}", found[0]))
}

fn tables(model: &Model, places: &mut Places) -> Tables {
    let device = || Device {
        worker: WorkerIdx(0),
        up: true,
        caps: Caps { checksum: true, tso: true, uso: true, mtu: 1500 },
        mac: None,
        counters: Arc::new(PortCounters::default()),
    };
    compile(model, &model.attachments().map(|d| (d.key, device())).collect(), places, 1)
}

fn entry<'t>(tables: &'t Tables, name: &str) -> &'t PortEntry {
    tables.ports.iter().flatten().find(|port| &*port.name == name).unwrap()
}

fn guard<'t>(tables: &'t Tables, name: &str) -> &'t Guard {
    entry(tables, name).guard.as_deref().unwrap()
}

fn policy_of(tables: &Tables, name: &str) -> Arc<Policy> {
    guard(tables, name).policy.clone().unwrap()
}

fn texts(policy: &Policy) -> Vec<String> {
    policy.rules.iter().map(|rule| format!("{}: {}", rule.group, rule.text)).collect()
}

/// Members of a group, as prefixes.
fn members(places: &Places, name: &str) -> Vec<String> {
    let kept = &places.security;
    kept.lists[&kept.numbers.get(&name.to_owned()).unwrap()].nets.iter().map(ToString::to_string).collect()
}

fn nets<T: ToString>(nets: &[T]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

#[test]
fn a_port_claims_its_addresses_and_pairs_and_what_follows_from_macs() {
    let model = model(&format!(
        "{NETWORKS}port = [{{ name = 'a', network = 'n', mac_address = '52:54:00:00:00:01', static_macs = ['52:54:00:00:00:02'],
          fixed_ips = ['10.0.0.9', '2001:db8::9'], {TAP} = 'a', address = ['10.0.0.9/24', '192.168.0.5/16'] }},
          allowed_address_pairs = [{{ ip_address = '10.0.0.64/26' }}, {{ ip_address = '10.0.0.100', mac_address = '00:00:5e:00:01:01' }},
          {{ ip_address = '2001:db8::/64', mac_address = '00:00:5e:00:01:01' }}, {{ ip_address = '10.0.0.9/32' }}] }},
          {{ name = 'b', network = 'bare', {TAP} = 'b' }}, mac_address = '52:54:00:00:00:03' }},
          {{ name = 'c', network = 'n', {TAP} = 'c' }}, port_security_enabled = false }}]"
    ));
    let tables = tables(&model, &mut Places::default());
    let Claims { stations, any_address } = &guard(&tables, "a").claims;
    let found: Vec<_> = stations.iter().map(|s| (s.mac.to_string(), nets(&s.v4), nets(&s.v6))).collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let expected = [
        (
            "52:54:00:00:00:01".to_owned(),
            words(&["10.0.0.9/32", "192.168.0.5/32", "10.0.0.64/26"]),
            words(&["fe80::5054:ff:fe00:1/128", "2001:db8::9/128"]),
        ),
        (
            "52:54:00:00:00:02".to_owned(),
            words(&["10.0.0.9/32", "192.168.0.5/32"]),
            words(&["fe80::5054:ff:fe00:2/128", "2001:db8::9/128"]),
        ),
        (
            "00:00:5e:00:01:01".to_owned(),
            words(&["10.0.0.100/32"]),
            words(&["fe80::200:5eff:fe00:101/128", "2001:db8::/64"]),
        ),
    ];
    assert_eq!(found, expected);
    assert!(!any_address);

    let bare = guard(&tables, "b");
    assert!(bare.policy.is_none() && bare.claims.any_address);
    assert_eq!(bare.claims.stations.len(), 1);
    assert_eq!(bare.claims.stations[0].mac.to_string(), "52:54:00:00:00:03");
    assert!(entry(&tables, "c").guard.is_none());
    let others = tables.ports.iter().flatten().filter(|port| !["a", "b"].contains(&&*port.name));
    assert!(others.into_iter().all(|port| port.guard.is_none()));
}

/// Two groups and four ports: `a` and `b` of `web`, `c` of both, `d` of `default`.
const SHARED: &str = "security_group = [
  { name = 'web', rules = [{ direction = 'ingress', protocol = 'tcp', ports = '80,443', remote = '192.0.2.0/24' },
                           { direction = 'egress', ethertype = 'IPv6' }] },
  { name = 'db', rules = [{ direction = 'ingress', ethertype = 'IPv4', remote_group = 'web' },
                          { direction = 'egress', ethertype = 'IPv4', remote_address_group = 'office' }] }]
address_group = [{ name = 'office', addresses = ['198.51.100.0/24'] }]
port = [
  { name = 'a', network = 'n', interface = { kind = 'tap', name = 'a' }, security_groups = ['web'], fixed_ips = ['10.0.0.11'] },
  { name = 'b', network = 'n', interface = { kind = 'tap', name = 'b', address = '172.16.0.1/24' }, security_groups = ['web'], fixed_ips = ['10.0.0.12'],
    allowed_address_pairs = [{ ip_address = '10.0.0.99' }, { ip_address = '0.0.0.0/0' }] },
  { name = 'c', network = 'n', interface = { kind = 'tap', name = 'c' }, security_groups = ['web', 'db'], fixed_ips = ['10.0.0.13'] },
  { name = 'd', network = 'n', interface = { kind = 'tap', name = 'd' }, fixed_ips = ['10.0.0.14', '2001:db8::14'] }]
";

fn shared(from: &str, to: &str) -> Model {
    assert!(SHARED.contains(from), "{from}");
    model(&format!("{NETWORKS}{}", SHARED.replacen(from, to, 1)))
}

#[test]
fn ports_with_the_same_groups_share_a_policy() {
    let mut places = Places::default();
    let tables = tables(&shared("", ""), &mut places);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| policy_of(&tables, name));
    assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
    let web = [
        "web: ingress IPv4 tcp 80 from 192.0.2.0/24",
        "web: ingress IPv4 tcp 443 from 192.0.2.0/24",
        "web: egress IPv6",
    ];
    assert_eq!(texts(&a), web);
    // Groups by name, ingress before egress.
    let both = [
        "db: ingress IPv4 from group web",
        web[0],
        web[1],
        "db: egress IPv4 to address group office",
        web[2],
    ];
    assert_eq!(texts(&c), both);
    assert_eq!(nets(&c.groups), ["db", "web"]);
    assert_eq!(c.ingress_rule(2).map(|rule| &*rule.text), Some("ingress IPv4 tcp 443 from 192.0.2.0/24"));
    assert_eq!(c.egress_rule(1).map(|rule| &*rule.text), Some("egress IPv6"));
    assert!(c.ingress_rule(3).is_none() && c.egress_rule(2).is_none());
    // A rule is one rule, whoever has it.
    assert_eq!(a.rules[0].id, c.rules[1].id);
    assert!(a.is_stateful && texts(&d).len() == 4);
    let epochs: HashSet<u32> = [&a, &c, &d].iter().map(|policy| policy.epoch).collect();
    assert!(epochs.len() == 3 && !epochs.contains(&0));

    assert_eq!(
        members(&places, "web"),
        ["10.0.0.11/32", "10.0.0.12/32", "10.0.0.13/32", "10.0.0.99/32", "172.16.0.1/32"]
    );
    assert_eq!(members(&places, "default"), ["10.0.0.14/32", "2001:db8::14/128"]);
    // No rule is about it.
    assert_eq!(places.security.numbers.get(&"db".to_owned()), None);
}

/// Which of the policies of `a`, `c` and `d` are the same as before, and which are another epoch.
fn after(from: &str, to: &str) -> [&'static str; 3] {
    let mut places = Places::default();
    let old = tables(&shared("", ""), &mut places);
    let all = |tables: &Tables| -> HashSet<u64> {
        let policies = tables.ports.iter().flatten().filter_map(PortEntry::policy);
        policies.flat_map(|policy| policy.rules.iter().map(|rule| rule.id)).collect()
    };
    let known_ids = all(&old);
    let new = tables(&shared(from, to), &mut places);
    ["a", "c", "d"].map(|name| {
        let (old, new) = (policy_of(&old, name), policy_of(&new, name));
        match (Arc::ptr_eq(&old, &new), old.epoch == new.epoch) {
            (true, true) => "same",
            (false, false) => {
                // Hits of rules that stay are counted on.
                for rule in new.rules.iter() {
                    let known = old
                        .rules
                        .iter()
                        .find(|known| (&known.group, &known.text) == (&rule.group, &rule.text));
                    assert!(known.is_none_or(|known| known.id == rule.id), "{}", rule.text);
                    assert_eq!(known.is_none(), !known_ids.contains(&rule.id));
                }
                "new"
            }
            _ => panic!("{name}: a policy is the same one, or has another epoch"),
        }
    })
}

#[test]
fn what_does_not_change_stays_as_it_is() {
    assert_eq!(after("", ""), ["same", "same", "same"]);
    assert_eq!(after("ports = '80,443'", "ports = '80,443', description = 'HTTP'"), ["same", "same", "same"]);
    assert_eq!(after("ports = '80,443'", "ports = '80,444'"), ["new", "new", "same"]);
    assert_eq!(after("{ name = 'web',", "{ name = 'web', stateful = true,"), ["same", "same", "same"]);
    assert_eq!(after("198.51.100.0/24", "198.51.100.0/25"), ["same", "new", "same"]);
    // `db` is about members of `web`, `default` about its own.
    assert_eq!(after("10.0.0.11", "10.0.0.21"), ["same", "new", "same"]);
    assert_eq!(after("10.0.0.99", "10.0.0.98"), ["same", "new", "same"]);
    assert_eq!(after("10.0.0.14", "10.0.0.24"), ["same", "same", "new"]);
    assert_eq!(
        after("fixed_ips = ['10.0.0.11']", "fixed_ips = ['10.0.0.11'], admin_state_up = false"),
        ["same", "same", "same"]
    );
    assert_eq!(
        after("security_groups = ['web'], fixed_ips = ['10.0.0.12']", "fixed_ips = ['10.0.0.12']"),
        ["same", "new", "new"]
    );
}

#[test]
fn members_are_made_anew_only_when_they_change() {
    let mut places = Places::default();
    let first = tables(&shared("", ""), &mut places);
    let same = tables(&shared("'80,443'", "'81'"), &mut places);
    assert!(Arc::ptr_eq(&first.members, &same.members));
    let other = tables(&shared("10.0.0.11", "10.0.0.21"), &mut places);
    assert!(!Arc::ptr_eq(&first.members, &other.members));
}

#[test]
fn numbers_of_groups_come_back() {
    let mut places = Places::default();
    for round in 0..100 {
        let text = format!(
            "security_group = [{{ name = 'g{round}', rules = [{{ direction = 'ingress', remote_group = 'g{round}' }}] }}]"
        );
        tables(&model(&format!("{NETWORKS}{text}")), &mut places);
    }
    assert!(places.security.numbers.len() <= 3);
    assert_eq!((places.security.groups.len(), places.security.lists.len()), (2, 2));
}

/// Rules of groups, of which `{}` is a group.
const RULES: &[&str] = &[
    "{ direction = 'egress' }",
    "{ direction = 'ingress', protocol = 'tcp', ports = '22,80-90' }",
    "{ direction = 'ingress', remote_group = 'g0' }",
    "{ direction = 'egress', protocol = 'udp', remote_group = 'g1' }",
    "{ direction = 'ingress', protocol = 'icmp', remote_group = 'default' }",
    "{ direction = 'ingress', remote_address_group = 'x' }",
    "{ direction = 'egress', protocol = 'tcp', remote = '10.0.0.0/28' }",
];

/// Models of the same few names.
fn any_model() -> impl Strategy<Value = Model> {
    let rules = || prop::sample::subsequence(RULES, 0..=RULES.len());
    let groups = prop::collection::vec((rules(), any::<bool>()), 3);
    let chosen = || prop::option::of(prop::sample::subsequence(vec![0_usize, 1, 2], 0..=3));
    let port = (chosen(), 10..14_u8, any::<bool>(), 0..6_u8);
    let ports = prop::collection::btree_map(0..4_u8, port, 0..4);
    (groups, ports, 0..2_u8).prop_map(|(groups, ports, office)| {
        let mut text = format!("{NETWORKS}address_group = [{{ name = 'x', addresses = ['198.51.10{office}.0/24'] }}]\n");
        for (index, (rules, stateful)) in groups.iter().enumerate() {
            text += &format!("[[security_group]]\nname = 'g{index}'\nstateful = {stateful}\nrules = [{}]\n", rules.join(", "));
        }
        for (name, (chosen, ip, pair, kind)) in &ports {
            text += &format!("[[port]]\nname = 'p{name}'\nnetwork = 'n'\n{TAP} = 'p{name}' }}\nfixed_ips = ['10.0.0.{}']\n", ip * 10 + name);
            if *kind == 0 {
                text += "port_security_enabled = false\n";
                continue;
            }
            if let Some(chosen) = chosen {
                // Of one kind.
                let kind = chosen.first().map(|first| groups[*first].1);
                let chosen = chosen.iter().filter(|group| Some(groups[**group].1) == kind);
                text += &format!("security_groups = [{}]\n", chosen.map(|g| format!("'g{g}'")).collect::<Vec<_>>().join(", "));
            }
            if *pair {
                text += "allowed_address_pairs = [{ ip_address = '10.0.0.200' }]\n";
            }
        }
        model(&text)
    })
}

/// What a policy says, with names of groups instead of their numbers, and who their members are.
type Said = (bool, Vec<String>, Vec<String>, Vec<(String, Vec<IpNet>)>);

/// What each port of some tables is held to.
fn said(model: &Model, tables: &Tables, places: &Places) -> BTreeMap<String, (Claims, Option<Said>)> {
    let kept = &places.security;
    let number = |group: &SecurityGroup| Some((kept.numbers.get(&group.name)?, group.name.clone()));
    let names: BTreeMap<u16, String> = model.security_groups.iter().filter_map(number).collect();
    let rule = |rule: &Rule| match rule.remote {
        Remote::Group(group) => format!("{rule:?} is {}", names[&u16::try_from(group).unwrap()])
            .replace(&format!("Group({group})"), "Group"),
        _ => format!("{rule:?}"),
    };
    let policy = |policy: &Arc<Policy>| {
        let compiled = kept.policies.values().find(|compiled| Arc::ptr_eq(&compiled.policy, policy)).unwrap();
        let groups = &compiled.groups;
        let rules = groups.iter().flat_map(|g| &g.ingress).chain(groups.iter().flat_map(|g| &g.egress));
        let lists = compiled.lists.iter().map(|(n, _)| (names[n].clone(), kept.lists[n].nets.clone()));
        let mut lists: Vec<_> = lists.collect();
        lists.sort();
        (policy.is_stateful, texts(policy), rules.map(|(r, _)| rule(r)).collect(), lists)
    };
    let ports = tables.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let guard = port.guard.as_ref()?;
            Some((port.name.to_string(), (guard.claims.clone(), guard.policy.as_ref().map(policy))))
        })
        .collect()
}

/// What some packets find, by port.
fn admitted(tables: &Tables) -> Vec<(String, Vec<[Option<u32>; 2]>)> {
    let remotes =
        ["10.0.0.100", "10.0.0.111", "10.0.0.200", "198.51.100.1", "198.51.101.1", "10.0.0.1", "2001:db8::7"];
    let packets: Vec<Packet> = remotes
        .iter()
        .flat_map(|remote| {
            [(6, 22), (6, 85), (6, 99), (17, 53), (1, 0x0800)]
                .map(|(protocol, port)| (remote, protocol, port))
        })
        .map(|(remote, protocol, port)| Packet { remote: remote.parse().unwrap(), protocol, port })
        .collect();
    let policies =
        tables.ports.iter().flatten().filter_map(|port| Some((port, port.guard.as_ref()?.policy.as_ref()?)));
    let admits = |policy: &Policy, packet: &Packet| {
        [&policy.ingress, &policy.egress].map(|set| set.admits(packet, &tables.members))
    };
    let mut all: Vec<_> = policies
        .map(|(port, policy)| {
            (port.name.to_string(), packets.iter().map(|packet| admits(policy, packet)).collect())
        })
        .collect();
    // Slots are in the order of their coming.
    all.sort();
    all
}

/// 10 000 rules in 200 groups, and 1000 ports with three groups each.
#[test]
fn one_change_among_many_touches_what_it_concerns() {
    let text = |port: u16, host: u16| {
        let mut text =
            "network = [{ name = 'n' }]\nsubnet = [{ name = 's', network = 'n', cidr = '10.0.0.0/16' }]\n"
                .to_owned();
        for group in 0..200_u16 {
            let rule = |index: u16| {
                let port = if (group, index) == (7, 0) { port } else { 1000 + index };
                let remote = if index == 1 {
                    format!("remote_group = 'g{group}', ethertype = 'IPv4'")
                } else {
                    format!("remote = '10.{index}.0.0/16'")
                };
                format!("{{ direction = 'ingress', protocol = 'tcp', ports = {port}, {remote} }}")
            };
            let rules: Vec<String> = (0..50).map(rule).collect();
            text += &format!("[[security_group]]\nname = 'g{group}'\nrules = [{}]\n", rules.join(",\n"));
        }
        for port in 0..1000_u16 {
            let groups = [port % 200, (port + 1 + port / 200) % 200, (port + 30 + port / 200) % 200];
            let host = if port == 0 { host } else { 256 + port };
            text += &format!(
                "[[port]]\nname = 'p{port}'\nnetwork = 'n'\nfixed_ips = ['10.0.{}.{}']\n{TAP} = 'p{port}' }}\n",
                host / 256,
                host % 256
            );
            text += &format!("security_groups = ['g{}', 'g{}', 'g{}']\n", groups[0], groups[1], groups[2]);
        }
        model(&text)
    };
    let mut places = Places::default();
    let [base, rule, member] = [(80, 9), (81, 9), (81, 10)].map(|(port, host)| text(port, host));
    let [first, second, third] = [base, rule, member].map(|model| tables(&model, &mut places));
    let differ = |old: &Tables, new: &Tables| -> (usize, usize) {
        let pairs = || {
            (0..1000)
                .map(|port| format!("p{port}"))
                .map(|name| (policy_of(old, &name), policy_of(new, &name)))
        };
        let has =
            |policy: &Policy, groups: &[&str]| policy.groups.iter().any(|group| groups.contains(&&**group));
        for (old, new) in pairs() {
            let changed = !Arc::ptr_eq(&old, &new);
            // Of the rule; or of those that a port is a member of.
            let concerned = has(&new, &["g7"]) || has(&new, &["g0", "g1", "g30"]);
            assert!(!changed || concerned, "{:?}", new.groups);
        }
        let of = |groups: &[&str]| pairs().filter(|(_, new)| has(new, groups)).count();
        let changed = pairs().filter(|(old, new)| !Arc::ptr_eq(old, new)).count();
        (
            changed,
            if Arc::ptr_eq(&old.members, &new.members) { of(&["g7"]) } else { of(&["g0", "g1", "g30"]) },
        )
    };
    let (changed, concerned) = differ(&first, &second);
    assert!(changed == concerned && changed == 15, "{changed} of {concerned}");
    let (changed, concerned) = differ(&second, &third);
    assert!(changed == concerned && changed > 30 && changed < 60, "{changed} of {concerned}");
}

#[test]
fn what_groups_log_is_with_their_rules() {
    let says = |log: &str| {
        let mut places = Places::default();
        let old = tables(&shared("", ""), &mut places);
        let logging = shared("name = 'web', rules", &format!("name = 'web', log = '{log}', rules"));
        let new = tables(&logging, &mut places);
        let [was, a, d] = [policy_of(&old, "a"), policy_of(&new, "a"), policy_of(&new, "d")];
        assert!(!d.logs_dropped && d.rules.iter().all(|rule| !rule.is_logged), "only ports of the group");
        let ids = |policy: &Policy| policy.rules.iter().map(|rule| rule.id).collect::<Vec<_>>();
        assert_eq!(ids(&was), ids(&a), "its rules are the same ones");
        (a.rules.iter().all(|rule| rule.is_logged), a.logs_dropped)
    };
    assert_eq!(says("none"), (false, false));
    assert_eq!(says("accepted"), (true, false));
    assert_eq!(says("dropped"), (false, true));
    assert_eq!(says("all"), (true, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However tables came about, they say what the model says; and what is told apart has another epoch.
    #[test]
    fn a_change_gives_what_a_fresh_start_gives(models in prop::collection::vec(any_model(), 2..6)) {
        let mut places = Places::default();
        let mut before: HashMap<Vec<String>, (Arc<Policy>, Said)> = HashMap::new();
        for model in &models {
            let tables = tables(model, &mut places);
            let mut fresh_places = Places::default();
            let fresh = self::tables(model, &mut fresh_places);
            let said = self::said(model, &tables, &places);
            prop_assert_eq!(&said, &self::said(model, &fresh, &fresh_places));
            prop_assert_eq!(admitted(&tables), admitted(&fresh));

            let mut now = HashMap::new();
            for (name, (_, said)) in said {
                let Some(said) = said else { continue };
                let policy = policy_of(&tables, &name);
                let names: Vec<String> = nets(&policy.groups);
                if let Some((old, was)) = before.get(&names) {
                    prop_assert_eq!(Arc::ptr_eq(old, &policy), *was == said);
                    prop_assert_eq!(old.epoch == policy.epoch, *was == said);
                }
                prop_assert!(policy.epoch != 0);
                now.insert(names, (policy, said));
            }
            let epochs: HashSet<u32> = now.values().map(|(policy, _)| policy.epoch).collect();
            prop_assert_eq!(epochs.len(), now.len());
            before = now;
        }
    }
}
