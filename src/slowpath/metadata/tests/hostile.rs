//! Guests that mean harm, and those beside them.

use std::time::Duration;

use smoltcp::socket::tcp::State;

use super::super::limits;
use super::client::{Reply, Tcp, World, frame, run};
use super::*;
use crate::services::{SERVICE_MAC, SERVICE_V4};

const SECOND: Duration = Duration::from_secs(1);

/// A TCP segment of a guest to the service, with right checksums.
fn segment(from: [u8; 4], tcp: u16, flags: u8) -> Vec<u8> {
    let to = SERVICE_V4.octets();
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([from, to].concat());
    packet.extend(tcp.to_be_bytes());
    packet.extend([0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = |bytes: &[u8], first: u32| {
        let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let mut sum = first + words.sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    };
    let header = sum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&header);
    let pseudo = packet[12..20].to_vec();
    let check = sum(&[&pseudo, &packet[20..]].concat(), 6 + 20);
    packet[36..38].copy_from_slice(&check);
    packet
}

fn syn(world: &World, n: u16, from: [u8; 4], tcp: u16) {
    world.service.receive(PortIdx(n), &frame(SERVICE_MAC, client::mac(n), &segment(from, tcp, 2)));
}

/// Seconds until the service ends a connection.
async fn ended(client: &mut Tcp) -> u64 {
    let begin = tokio::time::Instant::now();
    while matches!(client.state(), State::SynSent | State::Established) {
        client.step(SECOND).await;
        assert!(begin.elapsed() < 600 * SECOND, "never");
    }
    begin.elapsed().as_secs()
}

#[test]
fn a_header_that_drips_ends_the_connection() {
    run(1, true, async |world| {
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        let begin = tokio::time::Instant::now();
        client.send(b"GET / HTTP/1.1\r\n").await;
        while client.state() == State::Established {
            client.send(b"X: y\r\n").await;
            client.wait(SECOND).await;
            assert!(begin.elapsed() < 60 * SECOND);
        }
        let seconds = begin.elapsed().as_secs();
        assert!((9..=13).contains(&seconds), "{seconds}");
        assert_eq!(world.counter("timeouts_header"), 1);
    });
}

#[test]
fn silence_ends_a_connection_before_and_after_a_request() {
    run(1, true, async |world| {
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        client.wait(SECOND / 10).await;
        let seconds = ended(&mut client).await;
        assert!((9..=12).contains(&seconds), "{seconds}");
        let mut client = Tcp::new(&world, 0, 50_001, SERVICE_V4.into());
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.until(|got| got.ends_with(b"latest")).await;
        let seconds = ended(&mut client).await;
        assert!((59..=62).contains(&seconds), "{seconds}");
        assert_eq!((world.counter("timeouts_header"), world.counter("timeouts_idle")), (1, 1));
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(world.service.load(), (0, 0), "nothing stays");
    });
}

#[test]
fn a_body_that_drips_is_answered_with_408() {
    run(1, true, async |world| {
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        let begin = tokio::time::Instant::now();
        client
            .send(b"POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            .await;
        while client.state() == State::Established && !client.socket().can_recv() {
            client.send(b"x").await;
            client.wait(SECOND).await;
            assert!(begin.elapsed() < 90 * SECOND);
        }
        let seconds = begin.elapsed().as_secs();
        assert!((29..=33).contains(&seconds), "{seconds}");
        assert_eq!(Reply::of(&client.rest().await).status, 408);
        assert_eq!(world.counter("timeouts_request"), 1);
    });
}

#[test]
fn an_answer_that_nobody_takes_ends_the_connection() {
    run(1, true, async |world| {
        world.set_guest(0, |guest| guest.user_data = Some(vec![b'x'; 60_000].into()));
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        client.send(b"GET /latest/user-data HTTP/1.1\r\nHost: x\r\n\r\n").await;
        // Its window closes, and it acknowledges each probe.
        client.wait(100 * SECOND).await;
        assert_ne!(client.state(), State::Established);
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(world.counter("timeouts_answer") + world.counter("timeouts_idle"), 1);
        assert_eq!(world.service.load(), (0, 0));
    });
}

#[test]
fn half_open_connections_cost_their_guest_alone() {
    run(2, true, async |world| {
        let mut beside = Tcp::new(&world, 1, 50_000, SERVICE_V4.into());
        for round in 0..200u16 {
            for n in 0..50 {
                syn(&world, 0, [10, 0, 0, 7], 1000 + round * 50 + n);
            }
            beside.send(b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let begin = tokio::time::Instant::now();
            let reply = Reply::of(&beside.until(|got| got.ends_with(b"guest-1")).await);
            assert_eq!(reply.status, 200);
            assert!(begin.elapsed() < SECOND / 5, "round {round}: {:?}", begin.elapsed());
            assert!(world.service.load().1 <= limits::CONNECTIONS + 1);
        }
        assert!(world.counter("connections_evicted") > 5_000);
        assert_eq!(world.get(0, "/latest/meta-data/hostname").await.body, "guest-0", "it still has its own");
        assert_eq!(world.counter("dropped_queue_full"), 0);
        beside.close().await;
        tokio::time::sleep(40 * SECOND).await;
        assert_eq!(world.service.load(), (0, 0), "and they go");
        assert!(world.counter("timeouts_tcp") > 0);
    });
}

#[test]
fn a_flood_in_one_go_is_cut_off_and_the_others_get_their_turn() {
    run(2, true, async |world| {
        for n in 0..5_000 {
            syn(&world, 0, [10, 0, 0, 7], 1000 + n);
        }
        assert_eq!(world.counter("dropped_queue_full"), 5_000 - limits::WAITING_FRAMES as u64);
        assert_eq!(world.get(1, "/latest/meta-data/hostname").await.body, "guest-1");
    });
}

#[test]
fn connections_in_use_never_make_room() {
    run(1, true, async |world| {
        let mut clients = Vec::new();
        for n in 0..limits::CONNECTIONS as u16 {
            let mut client = Tcp::new(&world, 0, 50_000 + n, SERVICE_V4.into());
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            client.until(|got| got.ends_with(b"latest")).await;
            clients.push(client);
        }
        let mut late = Tcp::new(&world, 0, 60_000, SERVICE_V4.into());
        late.wait(SECOND / 2).await;
        assert_eq!(late.state(), State::SynSent);
        assert!(world.counter("connections_refused") > 0);
        clients.pop().unwrap().close().await;
        late.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert_eq!(Reply::of(&late.rest().await).status, 200, "its SYN is sent again");
        clients[0].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(Reply::of(&clients[0].until(|got| got.ends_with(b"latest")).await).status, 200);
    });
}

#[test]
fn a_stack_that_has_failed_costs_its_guest_alone() {
    run(2, true, async |world| {
        let mut clients: Vec<Tcp> = (0..2).map(|n| Tcp::new(&world, n, 50_000, SERVICE_V4.into())).collect();
        for client in &mut clients {
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            client.until(|got| got.ends_with(b"latest")).await;
        }
        syn(&world, 0, [10, 0, 0, 7], 1000);
        tokio::time::sleep(SECOND).await;
        assert_eq!(world.service.load(), (2, 3));
        world.service.fail(PortIdx(0));
        tokio::time::sleep(SECOND).await;
        assert_eq!(world.service.load(), (1, 1));
        clients[1].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(Reply::of(&clients[1].until(|got| got.ends_with(b"latest")).await).status, 200);
        clients[0].send(b"GET / HTTP/1.1\r\n").await;
        clients[0].wait(SECOND).await;
        assert_eq!(clients[0].state(), State::Closed, "it is told when it speaks");
        assert_eq!(world.get(0, "/latest/meta-data/hostname").await.body, "guest-0", "and may come again");
    });
}

#[test]
fn a_guest_may_close_and_connect_again_and_again() {
    run(1, true, async |world| {
        // The same port each time: the server closes first, so each meets what is left of the one before.
        for _ in 0..100 {
            assert_eq!(world.get(0, "/latest/meta-data/hostname").await.body, "guest-0");
        }
        assert_eq!(world.counter("connections"), 100);
        assert_eq!(world.counter("connections_refused"), 0);
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(world.service.load(), (0, 0));
    });
}

#[test]
fn frames_that_are_not_for_the_service_are_dropped_by_their_reason() {
    run(1, true, async |world| {
        let good = frame(SERVICE_MAC, client::mac(0), &segment([10, 0, 0, 7], 1000, 2));
        let with = |at: usize, bytes: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            // The IP header's checksum is made good again.
            frame[24..26].fill(0);
            let mut sum: u32 =
                frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let sum = !(sum as u16);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let drops = |frame: &[u8], reason: &str| {
            let before = world.counter(reason);
            world.service.receive(PortIdx(0), frame);
            assert_eq!(world.counter(reason), before + 1, "{reason}");
        };
        drops(&with(36, &[0, 81]), "dropped_not_ours");
        drops(&with(33, &[253]), "dropped_not_ours");
        drops(&with(23, &[17]), "dropped_not_ours");
        drops(&with(0, &[0xff; 6]), "dropped_not_ours");
        drops(&with(6, &[1]), "dropped_not_ours");
        for source in
            [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], SERVICE_V4.octets()]
        {
            drops(&with(26, &source), "dropped_not_ours");
        }
        drops(&with(20, &[0x20, 0]), "dropped_malformed");
        drops(&with(12, &[0x81, 0]), "dropped_malformed");
        drops(&good[..40], "dropped_malformed");
        drops(&[], "dropped_malformed");
        drops(&[&good[..], &[0; limits::FRAME]].concat(), "dropped_malformed");
        assert_eq!(world.service.load(), (0, 0));
        world.service.receive(PortIdx(7), &good);
        assert_eq!(world.counter("dropped_unknown_guest"), 1);
        // A wrong TCP checksum makes no connection.
        let inbox = world.inbox(PortIdx(0), 1000);
        world.service.receive(PortIdx(0), &with(50, &[0x12, 0x34]));
        tokio::time::sleep(SECOND).await;
        assert_eq!(world.service.load(), (0, 0));
        assert!(inbox.frames.borrow().is_empty());
        // What belongs to no connection is reset, to where it came from.
        world
            .service
            .receive(PortIdx(0), &frame(SERVICE_MAC, client::mac(9), &segment([10, 0, 0, 7], 1000, 0x10)));
        tokio::time::sleep(SECOND).await;
        let answers = inbox.frames.borrow();
        assert_eq!(answers.len(), 1);
        assert_eq!((&answers[0][..6], answers[0][47] & 4), (&client::mac(9).0[..], 4));
        assert_eq!(world.service.load(), (0, 0));
    });
}
