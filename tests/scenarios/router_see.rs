//! What a worker tells of connections: in steps, one a turn, filtered where they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nuswitch::dataplane::conntrack::journal::Happened;
use nuswitch::dataplane::conntrack::{Direction, State, Why};
use nuswitch::dataplane::nat::live::{BindingFilter, Filter};
use nuswitch::types::RouterIdx;
use nuswitch::worker::inspect::{Event, Facts, Question, STEP};

use super::frames::{A, B};
use super::nat::{EDGE, FLOATING, from_world, out_of, settled};
use super::switch::*;

/// More than two steps' worth of guest `a`'s connections, and three of `b`'s.
const MANY: u16 = 2500;

fn busy() -> Switch {
    let mut sw = settled(EDGE);
    for port in 0..MANY {
        let port = 2000 + port;
        sw.send("a", out_of(A, &format!("ip src=10.0.0.10 dst=198.51.100.9 udp sport={port} dport=53")));
        sw.forget();
    }
    for port in 0..3 {
        sw.send("b", out_of(B, &format!("ip src=10.0.0.11 dst=198.51.100.77 udp sport=700{port} dport=99")));
        sw.forget();
    }
    sw
}

/// All source ports of the connections that are meant, and the number of steps.
fn ports(sw: &mut Switch, filter: &Filter) -> (Vec<u16>, usize) {
    let (mut found, mut steps, mut next) = (Vec::new(), 0, Some(0));
    while let Some(from) = next {
        let (filter, into) = (Arc::new(filter.clone()), Vec::with_capacity(STEP as usize));
        let answer = sw.ask(Question::Connections { from, filter, into });
        let Facts::Connections(entries) = answer.facts else { panic!("another answer") };
        assert!(entries.len() <= STEP as usize);
        found.extend(entries.iter().map(|(_, entry)| entry.tuple(Direction::Original).source_port));
        (next, steps) = (answer.next, steps + 1);
    }
    (found, steps)
}

fn net(text: &str) -> Vec<ipnet::IpNet> {
    vec![text.parse().unwrap()]
}

#[test]
fn many_connections_are_told_in_steps_and_filtered_there() {
    let mut sw = busy();
    let (all, steps) = ports(&mut sw, &Filter::default());
    assert_eq!((all.len(), steps), (usize::from(MANY) + 3, 3));
    let of_b = vec![7000, 7001, 7002];
    let b = sw.index("b");
    for filter in [
        Filter { sources: net("10.0.0.11/32"), ..Filter::default() },
        Filter { destinations: net("198.51.100.64/26"), ..Filter::default() },
        Filter { guests: vec![b], ..Filter::default() },
        Filter { ports: vec![99], ..Filter::default() },
        Filter { ports: vec![7000, 7001, 7002], protocols: vec![6, 17], ..Filter::default() },
    ] {
        assert_eq!(ports(&mut sw, &filter).0, of_b, "{filter:?}");
    }
    for filter in [
        Filter { routers: vec![RouterIdx(7)], ..Filter::default() },
        Filter { protocols: vec![6], ..Filter::default() },
        Filter { states: vec![State::Replied, State::Reset], ..Filter::default() },
        Filter { sources: net("2001:db8::/32"), ..Filter::default() },
        Filter { sources: net("10.0.0.11/32"), ports: vec![53], ..Filter::default() },
    ] {
        assert_eq!(ports(&mut sw, &filter).0, [0; 0], "{filter:?}");
    }
    let translated = Filter { sources: net("203.0.113.100/32"), ..Filter::default() };
    assert_eq!(ports(&mut sw, &translated).0.len(), usize::from(MANY) + 3, "the translated source, too");
    sw.advance(secs(300));
    assert_eq!(ports(&mut sw, &Filter::default()).0, [0; 0], "what is over is not told");
    sw.forget();
}

#[test]
fn a_turn_answers_one_question() {
    let mut sw = busy();
    let question = || Question::Connections { from: 0, filter: Arc::default(), into: Vec::new() };
    let answers = sw.ask_at_once([question(), question(), question()]);
    assert_eq!(answers.iter().filter(|answer| answer.is_some()).count(), 1);
    // Who does not wait for the answer leaves no harm, and the others get theirs.
    let answers = sw.ask_at_once([Question::Tracker]);
    assert!(answers[0].is_none(), "questions before it take a turn each");
    let facts = sw.ask_at_once([]);
    assert!(facts.is_empty());
    sw.settle();
    let Facts::Tracker(Some((connections, bindings, stats))) = sw.ask(Question::Tracker).facts else {
        panic!("no tracker")
    };
    let all = u32::from(MANY) + 3;
    assert_eq!((connections, bindings, stats.created), (all, all, u64::from(all)));
    sw.forget();
}

#[test]
fn a_flush_in_steps_ends_what_is_meant_and_releases_its_bindings() {
    let mut sw = busy();
    let filter = Arc::new(Filter { sources: net("10.0.0.10/32"), ..Filter::default() });
    let (mut removed, mut steps, mut next) = (0, 0, Some(0));
    while let Some(from) = next {
        let answer = sw.ask(Question::Flush { from, filter: filter.clone() });
        let Facts::Flushed(count) = answer.facts else { panic!("another answer") };
        assert!(count <= 256);
        (removed, next, steps) = (removed + count, answer.next, steps + 1);
    }
    assert_eq!((removed, steps), (u32::from(MANY), 10));
    assert_eq!(ports(&mut sw, &Filter::default()).0, [7000, 7001, 7002]);
    let (mut inside, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let answer = sw.ask(Question::Bindings { from, filter: Arc::default(), into: Vec::new() });
        let Facts::Bindings(bindings) = answer.facts else { panic!("another answer") };
        inside
            .extend(bindings.iter().map(|(_, binding)| (binding.inside.address & 0xff, binding.inside.port)));
        next = answer.next;
    }
    assert_eq!(inside, [(11, 7000), (11, 7001), (11, 7002)]);
    let filter = BindingFilter { inside: net("10.0.0.10/32"), ..BindingFilter::default() };
    let answer = sw.ask(Question::Bindings { from: 2 * STEP, filter: Arc::new(filter), into: Vec::new() });
    assert!(matches!(answer.facts, Facts::Bindings(none) if none.is_empty()), "b's are there, and not meant");
    assert_eq!(answer.next, None);
    let (mut counts, mut next) = (vec![0; 1], Some(0));
    while let Some(from) = next {
        let answer = sw.ask(Question::Count { from, counts });
        let Facts::Counts(so_far) = answer.facts else { panic!("another answer") };
        (counts, next) = (so_far, answer.next);
    }
    assert_eq!(counts, [3]);
    // Others' packets go on.
    sw.send("w", from_world("ip src=198.51.100.77 dst=203.0.113.100 udp sport=99 dport=7001"));
    assert_eq!(sw.take("b").bytes[36..38], 7001u16.to_be_bytes());
    sw.forget();
}

fn told(event: &Event) -> (Happened, State) {
    (event.what, event.entry.state())
}

#[test]
fn followers_hear_of_what_they_asked_for_and_of_what_they_missed() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    let b = sw.index("b");
    let (mut of_b, missed_b) = sw.follow(Filter { guests: vec![b], ..Filter::default() }, 16);
    let (mut narrow, missed) = sw.follow(Filter::default(), 1);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.150 udp sport=7 dport=80"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=80 dport=7"));
    sw.forget();
    let events = [of_b.try_recv().unwrap(), of_b.try_recv().unwrap()];
    assert_eq!(
        events.each_ref().map(told),
        [(Happened::New, State::Unreplied), (Happened::Changed, State::Replied)]
    );
    assert!(events[0].entry.is_inbound());
    assert!(of_b.try_recv().is_err(), "the other guest's is none of its business");
    assert_eq!(missed_b.load(Ordering::Relaxed), 0);
    assert_eq!(told(&narrow.try_recv().unwrap()), (Happened::New, State::Unreplied));
    assert_eq!(missed.load(Ordering::Relaxed), 2, "two found no room");

    drop(narrow);
    sw.advance(secs(300));
    sw.settle();
    assert_eq!(told(&of_b.try_recv().unwrap()), (Happened::Ended(Why::Expired), State::Replied));
    drop(of_b);
    sw.settle();
    assert!(sw.keeps_no_journal(), "nobody follows");
    sw.forget();
}
