//! What is to be seen of security groups: how often each rule let something begin, which connections guests have and by which
//! rules, and what is logged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nuswitch::dataplane::conntrack::journal::Happened;
use nuswitch::dataplane::conntrack::{Direction, State, Why};
use nuswitch::dataplane::nat::live::Filter;
use nuswitch::dataplane::security::Side;
use nuswitch::dataplane::security::live::{Stations, admitted};
use nuswitch::dataplane::security::logbook::{Action, BURST, Line, RATE};
use nuswitch::stats::DropReason;
use nuswitch::tables::PortEntry;
use nuswitch::types::{NetIdx, RouterIdx};
use nuswitch::worker::inspect::{Facts, GUESTS, Question};
use tokio::sync::mpsc::Receiver;

use super::frames::*;
use super::nat::{EDGE, out_of};
use super::security::{LAB, ends, lab, packet, passes};
use super::switch::*;

const UDP: &str = "ingress IPv4 udp 5000-5009";
const HTTP_IN: &str = "ingress IPv4 tcp 80 from 10.0.0.0/24";
const HTTP_OUT: &str = "egress IPv4 tcp 80";

/// What the rules of a port have let begin, by what they say; those that have let nothing begin are left out.
fn hits(sw: &mut Switch, port: &str) -> BTreeMap<String, u64> {
    let index = sw.index(port);
    let answer = sw.ask_home(port, Question::Hits(index));
    let Facts::Hits(hits) = answer.facts else { panic!("another answer") };
    let policy = answer.tables.port(index).and_then(PortEntry::policy).unwrap();
    let texts: HashMap<u64, String> =
        policy.rules.iter().map(|rule| (rule.id, rule.text.to_string())).collect();
    hits.into_iter().map(|(id, count)| (texts[&id].clone(), count)).collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.map(|(text, count)| (text.to_owned(), count)).into()
}

#[test]
fn a_rule_counts_connections_at_each_port_and_not_their_packets() {
    let mut sw = lab();
    for _ in 0..3 {
        passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
        passes(&mut sw, 'a', 'c', "udp sport=5000 dport=40000");
    }
    passes(&mut sw, 'c', 'a', "udp sport=40001 dport=5009");
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    // What ends counts with no rule, though its sender's lets it out.
    ends(&mut sw, 'd', 'a', "tcp sport=40000 dport=443 flags=S", "security_ingress");
    assert_eq!(hits(&mut sw, "a"), counts([(UDP, 2), (HTTP_OUT, 1)]));
    assert_eq!(hits(&mut sw, "b"), counts([(HTTP_IN, 1)]), "the same group, another port");
    assert_eq!(hits(&mut sw, "d"), counts([]));
    // A trace counts nothing.
    sw.explain("c", packet('c', 'a', "udp sport=40002 dport=5000"));
    assert_eq!(hits(&mut sw, "a"), counts([(UDP, 2), (HTTP_OUT, 1)]));
}

#[test]
fn hits_go_on_over_changes_that_leave_the_rule_in_force() {
    let mut sw = lab();
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    // Every rule gets another number.
    let first = r#"{ direction = "ingress", protocol = "tcp", ports = "21" }, { direction = "egress", protocol = "tcp", ports = "80,443" }"#;
    let more = LAB.replace(r#"{ direction = "egress", protocol = "tcp", ports = "80,443" }"#, first);
    sw.reload(&more);
    passes(&mut sw, 'c', 'a', "udp sport=40001 dport=5000");
    // Asked again by the connection's packet, it begins nothing.
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    assert_eq!(hits(&mut sw, "a"), counts([(UDP, 2), (HTTP_OUT, 1)]));
    // A rule that goes and comes back begins anew, others go on.
    sw.reload(&LAB.replace(r#"{ direction = "ingress", protocol = "udp", ports = "5000-5009" },"#, ""));
    assert_eq!(hits(&mut sw, "a"), counts([(HTTP_OUT, 1)]));
    sw.reload(LAB);
    assert_eq!(hits(&mut sw, "a"), counts([(HTTP_OUT, 1)]));
    assert_eq!(hits(&mut sw, "b"), counts([(HTTP_IN, 1)]));
    // So does a port that leaves the group.
    sw.reload(&LAB.replacen(r#"security_groups = ["web"]"#, r#"security_groups = ["default"]"#, 1));
    assert_eq!(hits(&mut sw, "a"), counts([]));
    assert_eq!(hits(&mut sw, "b"), counts([(HTTP_IN, 1)]));
}

#[test]
fn where_nothing_is_remembered_packets_are_counted() {
    let mut sw =
        Switch::from(&LAB.replace(r#"{ name = "web", rules"#, r#"{ name = "web", stateful = false, rules"#));
    sw.settle();
    for _ in 0..3 {
        passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    }
    assert_eq!(hits(&mut sw, "a"), counts([(UDP, 3)]));
}

#[test]
fn each_worker_counts_for_its_own_ports() {
    let two = format!("switch = {{ workers = [0, 1] }}\n{LAB}");
    let mut sw = Build::from(&two).worker("a", 0).worker("b", 1).worker("c", 1).worker("d", 0).start();
    sw.settle();
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    assert_eq!(hits(&mut sw, "a"), counts([(UDP, 1), (HTTP_OUT, 1)]));
    assert_eq!(hits(&mut sw, "b"), counts([(HTTP_IN, 1)]));
}

/// What is told of a connection: source port, state, and the rules that let it begin.
type Told = (u16, State, [Option<String>; 2]);

/// All connections that are meant, those of guests with their rules.
fn connections(sw: &mut Switch, filter: &Filter) -> Vec<(bool, Told)> {
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let question = Question::Connections { from, filter: Arc::new(filter.clone()), into: Vec::new() };
        let answer = sw.ask(question);
        let Facts::Connections(entries) = answer.facts else { panic!("another answer") };
        let stations = Stations::of(&answer.tables);
        for (at, entry) in entries {
            let of_guest = at >= GUESTS;
            let rules = if of_guest { admitted(&entry, &answer.tables, &stations) } else { [None; 2] };
            let rules = rules.map(|rule| rule.map(|rule| rule.text.to_string()));
            found.push((of_guest, (entry.tuple(Direction::Original).source_port, entry.state(), rules)));
        }
        next = answer.next;
    }
    found
}

fn guests(sw: &mut Switch, filter: &Filter) -> Vec<Told> {
    let found = connections(sw, filter);
    assert!(found.iter().all(|(of_guest, _)| *of_guest));
    found.into_iter().map(|(_, told)| told).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn guests_connections_are_told_with_the_rules_that_let_them_begin() {
    let mut sw = lab();
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'b', "tcp sport=40001 dport=80 flags=S seq=100");
    passes(&mut sw, 'd', 'c', "udp sport=40002 dport=53");
    let outside = (40000, State::Unreplied, [None, some(UDP)]);
    let between = (40001, State::SynSent, [some(HTTP_OUT), some(HTTP_IN)]);
    let of_d = (40002, State::Unreplied, [some("egress IPv4"), None]);
    assert_eq!(guests(&mut sw, &Filter::default()), [outside.clone(), between.clone(), of_d.clone()]);
    let of = |sw: &Switch, port: &str| Filter { guests: vec![sw.index(port)], ..Filter::default() };
    for (port, expected) in [
        ("a", vec![outside.clone(), between.clone()]),
        ("b", vec![between.clone()]),
        ("d", vec![of_d.clone()]),
        ("c", Vec::new()),
    ] {
        let filter = of(&sw, port);
        assert_eq!(guests(&mut sw, &filter), expected, "of {port}");
    }
    let all = |filter: Filter, sw: &mut Switch| guests(sw, &filter).len();
    assert_eq!(all(Filter { networks: vec![NetIdx(0)], ..Filter::default() }, &mut sw), 3);
    assert_eq!(all(Filter { networks: vec![NetIdx(7)], ..Filter::default() }, &mut sw), 0);
    assert_eq!(all(Filter { routers: vec![RouterIdx(0)], ..Filter::default() }, &mut sw), 0);
    assert_eq!(all(Filter { ports: vec![53], protocols: vec![17], ..Filter::default() }, &mut sw), 1);
    let [of_b, of_its] = ["b", "d"].map(|port| of(&sw, port));
    // After a change of the group its rules have not been asked yet; the next packet does that.
    sw.reload(&LAB.replace(r#"{ direction = "egress", protocol = "udp" },"#, ""));
    assert_eq!(guests(&mut sw, &of_b)[0].2, [None, None]);
    passes(&mut sw, 'a', 'b', "tcp sport=40001 dport=80 flags=S seq=100");
    assert_eq!(guests(&mut sw, &of_b), [between]);
    assert_eq!(guests(&mut sw, &of_its), [of_d], "other groups are not concerned");
}

#[test]
fn a_flushed_connection_is_judged_anew() {
    let mut sw = lab();
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'd', 'c', "udp sport=40002 dport=53");
    passes(&mut sw, 'c', 'a', "tcp sport=40000 dport=80 flags=S seq=100");
    let of_a = Arc::new(Filter { guests: vec![sw.index("a")], ..Filter::default() });
    let (mut removed, mut next) = (0, Some(0));
    while let Some(from) = next {
        let answer = sw.ask(Question::Flush { from, filter: of_a.clone() });
        let Facts::Flushed(count) = answer.facts else { panic!("another answer") };
        (removed, next) = (removed + count, answer.next);
    }
    assert_eq!(removed, 2);
    assert_eq!(guests(&mut sw, &Filter::default()).len(), 1);
    // No rule lets this out but as an answer.
    ends(&mut sw, 'a', 'c', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101", "security_egress");
    let Facts::Tracker(Some((now, bindings, stats))) = sw.ask(Question::GuestTracker).facts else {
        panic!("no tracker")
    };
    assert_eq!((now, bindings, stats.created, stats.removed), (1, 0, 3, 2));
    assert!(matches!(sw.ask(Question::Tracker).facts, Facts::Tracker(None)), "there is no router");
}

#[test]
fn followers_hear_of_guests_connections() {
    let mut sw = lab();
    let (mut of_b, missed) = sw.follow(Filter { guests: vec![sw.index("b")], ..Filter::default() }, 16);
    let (mut of_routers, _) = sw.follow(Filter { routers: vec![RouterIdx(0)], ..Filter::default() }, 16);
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'b', "udp sport=40001 dport=5000");
    passes(&mut sw, 'b', 'a', "udp sport=5000 dport=40001");
    sw.advance(secs(400));
    sw.settle();
    let told: Vec<_> = std::iter::from_fn(|| of_b.try_recv().ok())
        .map(|event| (event.of_guest, event.what, event.entry.state()))
        .collect();
    let expected = [
        (true, Happened::New, State::Unreplied),
        (true, Happened::Changed, State::Replied),
        (true, Happened::Ended(Why::Expired), State::Replied),
    ];
    assert_eq!((told.as_slice(), missed.load(Ordering::Relaxed)), (&expected[..], 0));
    assert!(of_routers.try_recv().is_err());
    drop((of_b, of_routers));
    sw.settle();
    assert!(sw.keeps_no_journal(), "nobody follows");
    sw.forget();
}

#[test]
fn what_leaves_by_a_router_is_the_guests_and_the_routers() {
    let secured = EDGE.replacen(
        r#"fixed_ips = ["10.0.0.10"]"#,
        "fixed_ips = [\"10.0.0.10\"]\nport_security_enabled = true",
        1,
    );
    let mut sw = super::nat::settled(&secured);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4001 dport=53"));
    sw.forget();
    let of_router = |port| (false, (port, State::Unreplied, [None, None]));
    let of_guest = (true, (4000, State::Unreplied, [some("egress IPv4"), None]));
    assert_eq!(
        connections(&mut sw, &Filter::default()),
        [of_router(4000), of_router(4001), of_guest.clone()]
    );
    let of_a = Filter { guests: vec![sw.index("a")], ..Filter::default() };
    assert_eq!(connections(&mut sw, &of_a), [of_router(4000), of_guest.clone()]);
    let routers = Filter { routers: vec![RouterIdx(0)], ..Filter::default() };
    assert_eq!(connections(&mut sw, &routers), [of_router(4000), of_router(4001)]);
    let blue = sw.tables().networks.iter().position(|n| n.as_ref().is_some_and(|n| &*n.name == "blue"));
    let blue = vec![NetIdx(blue.unwrap() as u16)];
    let networks = Filter { networks: blue.clone(), ..Filter::default() };
    assert_eq!(connections(&mut sw, &networks), [of_guest]);
    let either = Filter { networks: blue, ..routers };
    assert_eq!(connections(&mut sw, &either).len(), 3);
}

fn logging(what: &str) -> String {
    LAB.replace(r#"{ name = "web", rules"#, &format!(r#"{{ name = "web", log = "{what}", rules"#))
}

fn logged(lines: &mut Receiver<Line>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).map(|line| text(&line)).collect()
}

fn text(line: &Line) -> String {
    let side = match line.side {
        Side::Egress => "egress",
        Side::Ingress => "ingress",
    };
    let what = match &line.action {
        Action::Accepted(rule) => format!("accepted by {}: {}", rule.group, rule.text),
        Action::Dropped(reason, groups) => format!("dropped by {}: {}", groups.join(", "), reason.name()),
    };
    let packet = line.packet.map(|packet| {
        let ports = packet.ports.map(|(from, to)| format!(" {from} {to}")).unwrap_or_default();
        let icmp = packet.icmp.map(|(kind, code)| format!(" {kind}/{code}")).unwrap_or_default();
        format!(" {} {} > {}{ports}{icmp}", packet.protocol, packet.source, packet.destination)
    });
    let left_out = if line.suppressed > 0 { format!(" after {}", line.suppressed) } else { String::new() };
    format!("{} {} {side}{} {what}{left_out}", line.network, line.port, packet.unwrap_or_default())
}

#[test]
fn a_group_logs_what_begins_and_what_is_dropped() {
    let mut sw = Switch::from(&logging("all"));
    sw.settle();
    let (mut lines, missed) = sw.log(64);
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    assert_eq!(
        logged(&mut lines),
        [
            "lan a egress 6 10.0.0.10 > 10.0.0.11 40000 80 accepted by web: egress IPv4 tcp 80",
            "lan b ingress 6 10.0.0.10 > 10.0.0.11 40000 80 accepted by web: ingress IPv4 tcp 80 from 10.0.0.0/24",
        ],
        "each end for itself"
    );
    // What belongs to it is not worth a line.
    passes(&mut sw, 'b', 'a', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=A seq=101 ack=501");
    assert_eq!(logged(&mut lines), [""; 0]);
    passes(&mut sw, 'c', 'a', "v6 icmp echo id=7");
    ends(&mut sw, 'c', 'a', "tcp sport=40000 dport=25 flags=S", "security_ingress");
    ends(&mut sw, 'a', 'c', "tcp sport=40000 dport=25 flags=S", "security_egress");
    ends(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=A seq=3000000000 ack=501", "conntrack_invalid");
    assert_eq!(
        logged(&mut lines),
        [
            "lan a ingress 58 2001:db8::12 > 2001:db8::10 128/0 accepted by web: ingress IPv6 ipv6-icmp type 128",
            "lan a ingress 6 10.0.0.12 > 10.0.0.10 40000 25 dropped by web: security_ingress",
            "lan a egress 6 10.0.0.10 > 10.0.0.12 40000 25 dropped by web: security_egress",
            "lan a egress 6 10.0.0.10 > 10.0.0.11 40000 80 dropped by web: conntrack_invalid",
        ]
    );
    // The group of `d` logs nothing.
    passes(&mut sw, 'd', 'c', "udp sport=40002 dport=53");
    ends(&mut sw, 'c', 'd', "udp sport=40002 dport=54", "security_ingress");
    assert_eq!((logged(&mut lines), missed.load(Ordering::Relaxed)), (Vec::new(), 0));
}

#[test]
fn a_group_logs_only_what_it_is_asked_to() {
    for (what, expected) in [
        ("none", vec![]),
        (
            "accepted",
            vec!["lan a ingress 17 10.0.0.12 > 10.0.0.10 1 5000 accepted by web: ingress IPv4 udp 5000-5009"],
        ),
        ("dropped", vec!["lan a ingress 17 10.0.0.12 > 10.0.0.10 1 4000 dropped by web: security_ingress"]),
    ] {
        let mut sw = Switch::from(&logging(what));
        sw.settle();
        let (mut lines, _) = sw.log(64);
        passes(&mut sw, 'c', 'a', "udp sport=1 dport=5000");
        ends(&mut sw, 'c', 'a', "udp sport=1 dport=4000", "security_ingress");
        assert_eq!(logged(&mut lines), expected, "{what}");
    }
}

#[test]
fn a_flood_of_drops_costs_its_port_its_lines_alone() {
    let mut sw = Switch::from(&logging("dropped"));
    sw.settle();
    let (mut lines, missed) = sw.log(4096);
    let burst = u64::from(BURST);
    for port in 0..burst + 40 {
        sw.send("c", packet('c', 'a', &format!("udp sport={port} dport=4000")));
    }
    let many = logged(&mut lines);
    assert_eq!(many.len() as u64, burst);
    assert!(many.iter().all(|line| !line.contains("after")));
    sw.send("c", packet('c', 'b', "udp sport=1 dport=4000"));
    assert_eq!(logged(&mut lines).len(), 1, "another port has lines of its own");
    // A hundredth of a second later there is one more, which tells how many there were in between.
    sw.advance(secs(1) / RATE);
    for _ in 0..3 {
        sw.send("c", packet('c', 'a', "udp sport=7 dport=4000"));
    }
    let next = logged(&mut lines);
    assert_eq!(
        next,
        ["lan a ingress 17 10.0.0.12 > 10.0.0.10 7 4000 dropped by web: security_ingress after 40"]
    );
    assert_eq!(missed.load(Ordering::Relaxed), 0);
    sw.forget();
}

#[test]
fn lines_that_find_no_room_are_counted() {
    let mut sw = Switch::from(&logging("dropped"));
    sw.settle();
    let (mut lines, missed) = sw.log(2);
    for port in 0..5 {
        sw.send("c", packet('c', 'a', &format!("udp sport={port} dport=4000")));
    }
    assert_eq!((logged(&mut lines).len(), missed.load(Ordering::Relaxed)), (2, 3));
    sw.forget();
}

#[test]
fn what_cannot_be_read_is_logged_without_addresses() {
    let mut sw = Switch::from(&logging("dropped"));
    sw.settle();
    let (mut lines, _) = sw.log(8);
    // A TCP header that is cut off, from a port that is trusted.
    let mut cut = packet('c', 'a', "tcp sport=1 dport=80 flags=S").bytes;
    cut.truncate(14 + 20 + 8);
    cut[16..18].copy_from_slice(&28u16.to_be_bytes());
    super::ipv4::seal(&mut cut[14..]);
    sw.send("c", cut);
    let line = lines.try_recv().unwrap();
    assert!(matches!(line.action, Action::Dropped(DropReason::TransportTruncated, _)), "{line:?}");
    assert_eq!((line.packet, line.side, &*line.port), (None, Side::Ingress, "a"));
    sw.forget();
}
