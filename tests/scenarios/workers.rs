//! Several workers, devices that fill up or vanish, buffers that run out, and captures.

use super::frames::*;
use super::switch::*;
use super::{CAMPUS, LAN};
use nuswitch::pcapng::Direction;
use nuswitch::stats::DropReason;

/// `a` and `c` belong to worker 0, `b` to worker 1.
fn two_workers() -> Switch {
    Build::from(&format!("[switch]\nworkers = [0, 1]\n{LAN}")).worker("b", 1).start()
}

#[test]
fn a_frame_for_another_workers_port_is_handed_over() {
    let mut sw = two_workers();
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.expect("b", frame().from(A).to(BROADCAST));
    sw.expect("c", frame().from(A).to(BROADCAST));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
    sw.send("b", frame().from(B).to(A));
    sw.expect("a", frame().from(B).to(A));
    sw.expect_counters("b: rx_frames 1, rx_bytes 60, forwarded 1; a: tx_frames 1, tx_bytes 60");
}

#[test]
fn what_one_worker_learns_the_other_knows() {
    let mut sw = two_workers();
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.send("b", frame().from(B).to(BROADCAST));
    for worker in [0, 1] {
        assert_eq!(sw.worker_knows(worker, "lan", A), Some("a".into()));
        assert_eq!(sw.worker_knows(worker, "lan", B), Some("b".into()));
    }
    // A move is told too.
    sw.send("b", frame().from(A).to(BROADCAST));
    assert_eq!([0, 1].map(|worker| sw.worker_knows(worker, "lan", A)), [Some("b".into()), Some("b".into())]);
    sw.forget();
}

#[test]
fn a_talker_stays_known_to_workers_that_do_not_hear_it() {
    let mut sw = two_workers();
    sw.send("b", frame().from(B).to(BROADCAST));
    sw.send("a", frame().from(A).to(BROADCAST));
    sw.forget();
    for _ in 0..20 {
        sw.advance(secs(40));
        sw.send("a", frame().from(A).to(B));
        sw.send("b", frame().from(B).to(A));
    }
    assert_eq!([0, 1].map(|worker| sw.worker_knows(worker, "lan", A)), [Some("a".into()), Some("a".into())]);
    assert_eq!([0, 1].map(|worker| sw.worker_knows(worker, "lan", B)), [Some("b".into()), Some("b".into())]);
    let expected = "a: rx_frames 20, rx_bytes 1200, forwarded 20, tx_frames 20, tx_bytes 1200; \
                    b: rx_frames 20, rx_bytes 1200, forwarded 20, tx_frames 20, tx_bytes 1200";
    sw.expect_counters(expected);
    for _ in 0..20 {
        sw.expect("b", frame().from(A).to(B));
        sw.expect("a", frame().from(B).to(A));
    }
}

#[test]
fn a_full_ring_between_workers_loses_and_counts() {
    let mut sw = two_workers();
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    for _ in 0..1030 {
        assert!(sw.queue("a", frame()));
    }
    while sw.turn(0) > 0 {}
    sw.expect_counters("a: rx_frames 1030, rx_bytes 61800, forwarded 1030; b: handoff_full 6");
    sw.settle();
    for _ in 0..1024 {
        sw.expect("b", frame());
    }
    sw.expect_counters("b: tx_frames 1024, tx_bytes 61440");
}

#[test]
fn an_event_about_a_port_that_left_the_network_teaches_nothing() {
    let red_and_blue = |b: &str| {
        format!("[switch]\nworkers = [0, 1]\n{}", CAMPUS.replace("name = \"b\"\nnetwork = \"blue\"", b))
    };
    let mut sw = Build::from(&red_and_blue("name = \"b\"\nnetwork = \"blue\"")).worker("b", 1).start();
    // Worker 1 learns A behind `b` in blue; worker 0 sees the new tables, with `b` in red, before it hears of that.
    assert!(sw.queue("b", frame().from(A).to(mac(9))));
    sw.turn(1);
    sw.reload_only(&red_and_blue("name = \"b\"\nnetwork = \"red\""));
    sw.settle();
    assert!(sw.is_current());
    sw.forget();
    assert_eq!([0, 1].map(|worker| sw.worker_knows(worker, "blue", A)), [None, None]);
    // So a frame for A in blue is flooded there, and never reaches red.
    sw.send("all", frame().from(C).to(A).tag(20));
    sw.expect_nothing("b");
    sw.expect("up", frame().from(C).to(A).tag(20));
    sw.expect("some", frame().from(C).to(A).tag(20));
    sw.expect_counters(
        "all: rx_frames 1, rx_bytes 64, flooded 1; up: tx_frames 1, tx_bytes 64; some: tx_frames 1, tx_bytes 64",
    );
}

#[test]
fn a_device_that_takes_no_more_loses_and_counts() {
    let mut sw = Build::from(LAN).depth(4).start();
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    for _ in 0..4 {
        assert!(sw.queue("a", frame()));
        assert!(sw.queue("c", frame().from(C)));
    }
    assert!(!sw.queue("a", frame()), "the device's own queue is bounded");
    sw.settle();
    for _ in 0..4 {
        sw.expect("b", frame());
    }
    sw.expect_counters(
        "a: rx_frames 4, rx_bytes 240, forwarded 4; c: rx_frames 4, rx_bytes 240, forwarded 4; \
         b: tx_frames 4, tx_bytes 240, tx_full 4",
    );
}

#[test]
fn a_device_that_vanishes_is_told_once_and_comes_back() {
    let mut sw = Switch::from(LAN);
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    sw.vanish("b");
    sw.advance(secs(1));
    assert_eq!(sw.gone(), ["b"], "once");
    sw.take_down("b");
    sw.send("a", frame());
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, port_down 1");
    sw.send("a", frame().to(BROADCAST));
    sw.expect("c", frame().to(BROADCAST));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, flooded 1; c: tx_frames 1, tx_bytes 60");
    sw.bring_back("b");
    sw.send("a", frame());
    sw.expect("b", frame());
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, forwarded 1; b: tx_frames 1, tx_bytes 60");
    assert!(sw.gone().is_empty());
}

#[test]
fn what_a_vanished_device_had_received_still_arrives() {
    let mut sw = Switch::from(LAN);
    for _ in 0..40 {
        assert!(sw.queue("b", frame().from(B).to(BROADCAST)));
    }
    sw.vanish("b");
    for _ in 0..40 {
        sw.expect("a", frame().from(B).to(BROADCAST));
        sw.expect("c", frame().from(B).to(BROADCAST));
    }
    sw.expect_counters(
        "b: rx_frames 40, rx_bytes 2400, flooded 40; a: tx_frames 40, tx_bytes 2400; c: tx_frames 40, tx_bytes 2400",
    );
    assert_eq!(sw.gone(), ["b"]);
}

#[test]
fn a_pool_that_is_empty_counts_and_recovers() {
    let mut sw = Build::from(LAN).chunks(4, 0).start();
    sw.hold(true);
    // One frame and one copy; the devices keep both.
    sw.send("a", frame().to(BROADCAST));
    sw.expect("b", frame().to(BROADCAST));
    sw.expect("c", frame().to(BROADCAST));
    sw.forget();
    assert!(sw.queue("a", frame().to(BROADCAST)) && sw.queue("a", frame().to(BROADCAST)));
    assert!(!sw.queue("a", frame()), "no chunk is left");
    sw.settle();
    // No copy for `b` of either; the frames themselves go to `c`.
    sw.expect("c", frame().to(BROADCAST));
    sw.expect("c", frame().to(BROADCAST));
    sw.expect_nothing("b");
    sw.expect_counters("a: rx_frames 2, rx_bytes 120, flooded 2, no_buffer 2; c: tx_frames 2, tx_bytes 120");
    sw.hold(false);
    sw.send("a", frame().to(BROADCAST));
    sw.expect("b", frame().to(BROADCAST));
    sw.expect("c", frame().to(BROADCAST));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn a_capture_sees_both_directions_and_why_a_frame_was_dropped() {
    let mut sw = Switch::from(CAMPUS);
    let mut records = sw.capture("some", 40);
    sw.send("some", frame().to(BROADCAST).tag(10));
    sw.send("some", frame().tag(30));
    sw.send("r", frame().from(B).to(A));
    sw.forget();
    let mut seen = Vec::new();
    while let Ok(record) = records.try_recv() {
        assert_eq!(&*record.interface, "some");
        let expected: [Wire; 3] =
            [frame().to(BROADCAST).tag(10).wire(), frame().tag(30).wire(), frame().from(B).to(A).wire()];
        assert_eq!(
            record.bytes,
            expected[seen.len()].bytes[..40],
            "as on the wire, cut to the snapshot length"
        );
        seen.push((record.direction, record.original_len, record.dropped));
    }
    assert_eq!(
        seen,
        [
            (Direction::Rx, 64, None),
            (Direction::Rx, 64, Some(DropReason::VlanNotAllowed)),
            (Direction::Tx, 60, None)
        ]
    );
    // Nobody reads any more: traffic goes on.
    drop(records);
    sw.send("some", frame().to(BROADCAST));
    assert!(sw.counters("some").rx_frames.get() == 3);
    sw.forget();
}
