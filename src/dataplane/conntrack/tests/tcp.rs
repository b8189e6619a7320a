//! Each transition of TCP's table, and what must not be one.

use super::super::tcp::{ACK, FIN, Invalid, RST, SYN, Segment};
use super::*;
use Direction::{Original, Reply};

/// A client's and a server's first sequence numbers: one near the end of the number space.
const C: u32 = u32::MAX - 50;
const S: u32 = 9_000_000;

struct Connection {
    tracker: Tracker,
    at: EntryRef,
    now: u32,
}

fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Segment {
    Segment { seq, ack, len, window: 1000, flags, scale: None }
}

fn seen(segment: Segment) -> Seen {
    Seen { bytes: 40 + segment.len, tcp: Some(segment) }
}

/// A sequence number, relative to one's first.
fn c(n: u32) -> u32 {
    C.wrapping_add(n)
}
fn s(n: u32) -> u32 {
    S.wrapping_add(n)
}

impl Connection {
    fn begin_with(first: Segment, pick_up: bool) -> Result<Connection, Refused> {
        let mut tracker = Tracker::new(ROOM, Settings { pick_up, ..SETTINGS }, 3);
        let at = track(&mut tracker, &tuple(6, 4000), &NEW, &seen(first), 100)?;
        Ok(Connection { tracker, at, now: 100 })
    }

    fn begin() -> Connection {
        Connection::begin_with(segment(SYN, c(0), 0, 0), false).unwrap()
    }

    fn established() -> Connection {
        let mut connection = Connection::begin();
        connection.pass(Reply, segment(SYN | ACK, s(0), c(1), 0));
        connection.pass(Original, segment(ACK, c(1), s(1), 0));
        connection.is(State::Established, 7440);
        connection
    }

    fn time_wait() -> Connection {
        let mut connection = Connection::established();
        connection.pass(Original, segment(FIN | ACK, c(1), s(1), 0));
        connection.pass(Reply, segment(FIN | ACK, s(1), c(2), 0));
        connection.pass(Original, segment(ACK, c(2), s(2), 0));
        connection.is(State::TimeWait, 241);
        connection
    }

    fn reset() -> Connection {
        let mut connection = Connection::established();
        connection.pass(Reply, segment(RST, s(1), 0, 0));
        connection.is(State::Reset, 241);
        connection
    }

    fn send(&mut self, direction: Direction, segment: Segment) -> Verdict {
        self.now += 1;
        self.tracker.update(self.at, direction, &seen(segment), self.now)
    }

    #[track_caller]
    fn pass(&mut self, direction: Direction, segment: Segment) {
        assert_eq!(self.send(direction, segment), Verdict::Pass);
    }

    fn entry(&self) -> &Entry {
        self.tracker.entry(self.at).unwrap()
    }

    /// The state, and the life that the last segment gave.
    #[track_caller]
    fn is(&self, state: State, life: u32) {
        assert_eq!((self.entry().state(), self.entry().expiry() - self.now), (state, life));
    }

    /// The segment leaves state and expiry alone, and ends with this verdict.
    #[track_caller]
    fn keeps(&mut self, direction: Direction, segment: Segment, verdict: Verdict) {
        let before = (self.entry().state(), self.entry().expiry());
        assert_eq!(self.send(direction, segment), verdict, "{segment:?}");
        assert_eq!((self.entry().state(), self.entry().expiry()), before, "{segment:?}");
    }
}

#[test]
fn a_connection_from_syn_to_time_wait() {
    let mut tcp = Connection::begin();
    tcp.is(State::SynSent, 240);
    tcp.pass(Original, segment(SYN, c(0), 0, 0));
    tcp.is(State::SynSent, 240);
    tcp.pass(Reply, segment(SYN | ACK, s(0), c(1), 0));
    tcp.is(State::SynReceived, 240);
    tcp.pass(Reply, segment(SYN | ACK, s(0), c(1), 0));
    tcp.pass(Original, segment(SYN, c(0), 0, 0));
    tcp.is(State::SynReceived, 240);
    tcp.pass(Original, segment(ACK, c(1), s(1), 0));
    tcp.is(State::Established, 7440);
    tcp.pass(Original, segment(ACK, c(1), s(1), 500));
    tcp.pass(Reply, segment(ACK, s(1), c(501), 900));
    tcp.pass(Original, segment(ACK, c(1), s(1), 500));
    tcp.is(State::Established, 7440);
    tcp.pass(Original, segment(FIN | ACK, c(501), s(901), 0));
    tcp.is(State::HalfClosed, 7440);
    tcp.pass(Reply, segment(ACK, s(901), c(502), 800));
    tcp.is(State::HalfClosed, 7440);
    tcp.pass(Reply, segment(FIN | ACK, s(1701), c(502), 0));
    tcp.is(State::Closing, 241);
    tcp.pass(Original, segment(ACK, c(502), s(1702), 0));
    tcp.is(State::TimeWait, 241);
    tcp.pass(Reply, segment(FIN | ACK, s(1701), c(502), 0));
    tcp.is(State::TimeWait, 241);
    let entry = tcp.entry();
    assert_eq!((entry.packets(Original), entry.packets(Reply)), (8, 6));
    assert_eq!((entry.bytes(Original), entry.bytes(Reply)), (8 * 40 + 1000, 6 * 40 + 1700));
    assert_eq!(tcp.tracker.stats().invalid, 0);
}

#[test]
fn both_fins_at_once_and_a_fin_that_acknowledges_one() {
    let mut tcp = Connection::established();
    tcp.pass(Original, segment(FIN | ACK, c(1), s(1), 0));
    tcp.pass(Reply, segment(FIN | ACK, s(1), c(1), 0));
    tcp.is(State::Closing, 241);
    tcp.pass(Original, segment(ACK, c(2), s(2), 0));
    tcp.is(State::Closing, 241);
    tcp.pass(Reply, segment(ACK, s(2), c(2), 0));
    tcp.is(State::TimeWait, 241);
}

#[test]
fn simultaneous_open() {
    let mut tcp = Connection::begin();
    tcp.pass(Reply, segment(SYN, s(0), 0, 0));
    tcp.is(State::SynReceived, 240);
    tcp.pass(Reply, segment(SYN, s(0), 0, 0));
    tcp.pass(Original, segment(SYN | ACK, c(0), s(1), 0));
    tcp.is(State::SynReceived, 240);
    tcp.pass(Reply, segment(SYN | ACK, s(0), c(1), 0));
    tcp.is(State::Established, 7440);
    // RFC 9293, figure 7 ends with plain ACKs as well.
    let mut tcp = Connection::begin();
    tcp.pass(Reply, segment(SYN, s(0), 0, 0));
    tcp.pass(Reply, segment(ACK, s(1), c(1), 0));
    tcp.is(State::SynReceived, 240);
    tcp.pass(Original, segment(ACK, c(1), s(1), 0));
    tcp.is(State::Established, 7440);
}

#[test]
fn only_a_syn_begins_unless_pick_up_is_allowed() {
    for flags in [ACK, SYN | ACK, RST, RST | ACK, FIN | ACK] {
        let begun = Connection::begin_with(segment(flags, c(0), s(0), 0), false).map(|_| ());
        assert_eq!(begun, Err(Refused::Invalid(Invalid::NoHandshake)));
        if flags != ACK {
            let begun = Connection::begin_with(segment(flags, c(0), s(0), 0), true).map(|_| ());
            assert_eq!(begun, Err(Refused::Invalid(Invalid::NoHandshake)));
        }
    }
    for flags in [0, SYN | FIN, SYN | RST, FIN, FIN | RST | ACK, SYN | FIN | ACK, SYN | RST | ACK] {
        let begun = Connection::begin_with(segment(flags, c(0), s(0), 0), true).map(|_| ());
        assert_eq!(begun, Err(Refused::Invalid(Invalid::Flags)));
        Connection::established().keeps(
            Original,
            segment(flags, c(1), s(1), 0),
            Verdict::Invalid(Invalid::Flags),
        );
    }
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    assert_eq!(
        track(&mut tracker, &tuple(6, 1), &NEW, &DATA, 1),
        Err(Refused::Invalid(Invalid::NoHandshake)),
        "a fragment without a header"
    );
}

#[test]
fn a_connection_that_is_under_way_is_picked_up() {
    let mut tcp = Connection::begin_with(segment(ACK, c(700), s(800), 100), true).unwrap();
    tcp.is(State::PickedUp, 240);
    tcp.pass(Original, segment(ACK, c(800), s(800), 100));
    tcp.is(State::PickedUp, 240);
    tcp.keeps(Reply, segment(ACK, s(800), c(901), 0), Verdict::Invalid(Invalid::AcksUnsent));
    tcp.pass(Reply, segment(ACK, s(800), c(800), 5));
    tcp.is(State::Established, 7440);
    tcp.pass(Original, segment(FIN | ACK, c(900), s(805), 0));
    tcp.is(State::HalfClosed, 7440);
    let mut tcp = Connection::begin_with(segment(ACK, c(700), s(800), 100), true).unwrap();
    assert_eq!(tcp.send(Original, segment(SYN, c(9000), 0, 0)), Verdict::Restarted);
    tcp.is(State::SynSent, 240);
    let mut tcp = Connection::begin_with(segment(ACK, c(700), s(800), 100), true).unwrap();
    tcp.pass(Reply, segment(RST, s(800), 0, 0));
    tcp.is(State::Reset, 241);
}

#[test]
fn nothing_but_the_handshake_that_is_due() {
    let mut tcp = Connection::begin();
    tcp.keeps(Original, segment(ACK, c(1), s(1), 0), Verdict::Invalid(Invalid::NoHandshake));
    tcp.keeps(Original, segment(SYN | ACK, c(0), s(1), 0), Verdict::Invalid(Invalid::NoHandshake));
    tcp.keeps(Reply, segment(SYN | ACK, s(0), c(2), 0), Verdict::Invalid(Invalid::AcksUnsent));
    tcp.keeps(Reply, segment(SYN | ACK, s(0), c(0), 0), Verdict::Invalid(Invalid::AcksTooOld));
    // A challenge of a server that still has an older connection, and the answer (RFC 5961, section 4.2).
    tcp.keeps(Reply, segment(ACK, s(7000), c(9999), 0), Verdict::Pass);
    tcp.keeps(Original, segment(RST, c(9999), 0, 0), Verdict::Pass);
    tcp.pass(Original, segment(SYN, c(40), 0, 0));
    tcp.pass(Reply, segment(SYN | ACK, s(0), c(41), 0));
    tcp.keeps(Original, segment(ACK, c(41), s(2), 0), Verdict::Invalid(Invalid::AcksUnsent));
    tcp.pass(Original, segment(ACK, c(41), s(1), 0));
    tcp.is(State::Established, 7440);
}

#[test]
fn data_with_the_syn_may_be_acknowledged_or_not() {
    for acknowledged in [1, 50, 101] {
        let mut tcp = Connection::begin_with(segment(SYN, c(0), 0, 100), false).unwrap();
        tcp.pass(Reply, segment(SYN | ACK, s(0), c(acknowledged), 0));
        tcp.pass(Original, segment(ACK, c(acknowledged), s(1), 101 - acknowledged));
        tcp.is(State::Established, 7440);
    }
}

#[test]
fn segments_outside_of_the_window_are_invalid() {
    let mut tcp = Connection::established();
    tcp.pass(Original, segment(ACK, c(1), s(1), 1000));
    tcp.keeps(Original, segment(ACK, c(1003), s(1), 10), Verdict::Invalid(Invalid::BeyondWindow));
    tcp.pass(Reply, segment(ACK, s(1), c(1001), 0));
    tcp.pass(Original, segment(ACK, c(1001), s(1), 1000));
    tcp.keeps(Original, segment(ACK, c(1), s(1), 999), Verdict::Invalid(Invalid::TooOld));
    tcp.pass(Original, segment(ACK, c(1), s(1), 1000));
    tcp.keeps(Original, segment(ACK, c(2001), s(2), 0), Verdict::Invalid(Invalid::AcksUnsent));
    tcp.keeps(
        Reply,
        segment(ACK, s(1), c(2001).wrapping_sub(66_002), 0),
        Verdict::Invalid(Invalid::AcksTooOld),
    );
    tcp.pass(Reply, segment(ACK, s(1), c(1001), 0));
    assert_eq!(tcp.tracker.stats().invalid, 4);
    assert_eq!(tcp.entry().packets(Original), 2 + 3, "what is invalid is not counted");
}

#[test]
fn a_closed_window_is_probed_and_keep_alives_pass() {
    let closed = |segment: Segment| Segment { window: 0, ..segment };
    let mut tcp = Connection::begin();
    tcp.pass(Reply, closed(segment(SYN | ACK, s(0), c(1), 0)));
    tcp.pass(Original, segment(ACK, c(1), s(1), 0));
    tcp.pass(Original, segment(ACK, c(0), s(1), 1));
    tcp.pass(Original, segment(ACK, c(0), s(1), 0));
    tcp.pass(Original, segment(ACK, c(1), s(1), 1));
    tcp.pass(Reply, closed(segment(ACK, s(1), c(1), 0)));
    tcp.is(State::Established, 7440);
}

#[test]
fn windows_scale_if_both_sides_offer_it() {
    let scaled = |segment: Segment, scale: u8| Segment { scale: Some(scale), ..segment };
    for (client, server, in_window) in
        [(Some(7), Some(2), 4 * 1000), (Some(7), None, 1000), (None, Some(2), 1000)]
    {
        let offer =
            |segment: Segment, scale: Option<u8>| scale.map_or(segment, |scale| scaled(segment, scale));
        let mut tcp = Connection::begin_with(offer(segment(SYN, c(0), 0, 0), client), false).unwrap();
        tcp.pass(Reply, offer(segment(SYN | ACK, s(0), c(1), 0), server));
        tcp.pass(Original, segment(ACK, c(1), s(1), 0));
        // The server's window: of its SYN as it is, of what follows scaled.
        tcp.keeps(Original, segment(ACK, c(1003), s(1), 10), Verdict::Invalid(Invalid::BeyondWindow));
        tcp.pass(Original, segment(ACK, c(1001), s(1), 0));
        tcp.pass(Reply, segment(ACK, s(1), c(1), 0));
        tcp.keeps(
            Original,
            segment(ACK, c(in_window + 3), s(1), 10),
            Verdict::Invalid(Invalid::BeyondWindow),
        );
        tcp.pass(Original, segment(ACK, c(in_window + 1), s(1), 10));
    }
    let mut tcp = Connection::begin_with(scaled(segment(SYN, c(0), 0, 0), 255), false).unwrap();
    tcp.pass(Reply, scaled(segment(SYN | ACK, s(0), c(1), 0), 255));
    tcp.pass(Original, segment(ACK, c(1), s(1), 0));
    tcp.pass(Reply, segment(ACK, s(1), c(1), 0));
    tcp.pass(Original, segment(ACK, c(1 + (1000 << 14)), s(1), 0));
}

#[test]
fn a_reset_must_be_exact() {
    let mut tcp = Connection::established();
    tcp.pass(Reply, segment(ACK, s(1), c(1), 500));
    // In the window, but not what the client expects next: it asks, and so must we wait.
    for seq in [s(2), s(500), s(502), s(1000)] {
        tcp.keeps(Reply, segment(RST, seq, 0, 0), Verdict::Pass);
    }
    for seq in [s(5000), s(1).wrapping_sub(5000), 0] {
        tcp.keeps(Reply, segment(RST, seq, 0, 0), Verdict::Invalid(Invalid::Reset));
    }
    // The end of what is under way, and what was acknowledged last: either may be next.
    for seq in [s(501), s(1)] {
        let mut tcp = Connection::established();
        tcp.pass(Reply, segment(ACK, s(1), c(1), 500));
        tcp.pass(Reply, segment(RST | ACK, seq, c(1), 0));
        tcp.is(State::Reset, 241);
    }
    let mut tcp = Connection::begin();
    tcp.keeps(Reply, segment(RST, c(1), 0, 0), Verdict::Invalid(Invalid::Reset));
    tcp.keeps(Reply, segment(RST | ACK, 0, c(2), 0), Verdict::Invalid(Invalid::Reset));
    tcp.pass(Reply, segment(RST | ACK, 0, c(1), 0));
    tcp.is(State::Reset, 241);
    let mut tcp = Connection::begin();
    tcp.pass(Original, segment(RST, c(1), 0, 0));
    tcp.is(State::Reset, 241);
    for from in [Original, Reply] {
        let mut tcp = Connection::begin();
        tcp.pass(Reply, segment(SYN | ACK, s(0), c(1), 0));
        tcp.pass(from, segment(RST, if from == Original { c(1) } else { s(1) }, 0, 0));
        tcp.is(State::Reset, 241);
    }
}

#[test]
fn a_half_closed_and_a_closing_connection_can_be_reset() {
    let mut tcp = Connection::established();
    tcp.pass(Original, segment(FIN | ACK, c(1), s(1), 0));
    tcp.pass(Reply, segment(RST | ACK, s(1), c(2), 0));
    tcp.is(State::Reset, 241);
    let mut tcp = Connection::established();
    tcp.pass(Original, segment(FIN | ACK, c(1), s(1), 0));
    tcp.pass(Reply, segment(FIN | ACK, s(1), c(1), 0));
    tcp.pass(Original, segment(RST, c(2), 0, 0));
    tcp.is(State::Reset, 241);
}

#[test]
fn a_reset_connection_lives_while_it_is_used_and_time_wait_is_not_reset() {
    let mut tcp = Connection::reset();
    tcp.now += 200;
    tcp.pass(Original, segment(ACK, c(1), s(1), 20));
    tcp.is(State::Reset, 241);
    tcp.keeps(Original, segment(ACK, c(9999), s(1), 20), Verdict::Invalid(Invalid::BeyondWindow));
    tcp.keeps(Reply, segment(RST, s(1), 0, 0), Verdict::Pass);
    Connection::time_wait().keeps(Reply, segment(RST, s(2), 0, 0), Verdict::Pass);
}

#[test]
fn a_syn_after_the_end_begins_anew() {
    for mut tcp in [Connection::time_wait(), Connection::reset()] {
        tcp.keeps(Reply, segment(SYN, s(8000), 0, 0), Verdict::Renew);
        assert_eq!(tcp.send(Original, segment(SYN, c(70_000), 0, 0)), Verdict::Restarted);
        tcp.is(State::SynSent, 240);
        tcp.pass(Reply, segment(SYN | ACK, s(1_000_000), c(70_001), 0));
        tcp.pass(Original, segment(ACK, c(70_001), s(1_000_001), 0));
        tcp.is(State::Established, 7440);
    }
}

#[test]
fn a_syn_within_a_connection_changes_nothing() {
    let mut tcp = Connection::established();
    tcp.keeps(Original, segment(SYN, c(5000), 0, 0), Verdict::Pass);
    tcp.keeps(Reply, segment(SYN, s(5000), 0, 0), Verdict::Pass);
    tcp.keeps(Reply, segment(SYN | ACK, s(0), c(1), 0), Verdict::Pass);
    // The challenge, the RST that answers it, and the SYN again: a host that was started anew comes through.
    tcp.pass(Reply, segment(ACK, s(1), c(1), 0));
    tcp.pass(Original, segment(RST, c(1), 0, 0));
    assert_eq!(tcp.send(Original, segment(SYN, c(5000), 0, 0)), Verdict::Restarted);
}

#[test]
fn a_fin_that_is_not_the_end_is_taken_back() {
    let mut tcp = Connection::established();
    tcp.pass(Reply, segment(FIN | ACK, s(1), c(1), 0));
    tcp.is(State::HalfClosed, 7440);
    tcp.pass(Reply, segment(ACK, s(1), c(1), 300));
    tcp.is(State::Established, 7440);
}

#[test]
fn a_fragment_without_a_header_changes_nothing() {
    let mut tcp = Connection::established();
    let before = tcp.entry().expiry();
    assert_eq!(tcp.tracker.update(tcp.at, Reply, &DATA, tcp.now + 9), Verdict::Pass);
    assert_eq!((tcp.entry().expiry(), tcp.entry().bytes(Reply)), (before, 140));
}
