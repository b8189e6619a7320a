//! What a guest asks and gets, over TCP.

use super::super::limits;
use super::client::{Reply, Tcp, run};
use super::*;
use crate::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6};

#[test]
fn each_path_of_the_tree_answers_with_what_the_tree_says() {
    run(1, true, async |world| {
        let tree = tree(&guest(0));
        assert!(tree.len() > 30);
        for (path, body) in tree {
            let reply = world.get(0, &path).await;
            assert_eq!((reply.status, &reply.body), (200, &body), "{path}");
            assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()));
            let kind = match path.as_str() {
                "/latest/user-data" | "/nocloud/user-data" | "/openstack/latest/user_data" => {
                    "application/octet-stream"
                }
                path if path.ends_with(".json") => "application/json",
                _ => "text/plain; charset=utf-8",
            };
            assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        }
        assert_eq!(world.get(0, "/latest/nothing").await.status, 404);
        assert_eq!(world.get(0, "/").await.body.lines().last(), Some("latest"));
        assert_eq!(world.counter("requests_4xx"), 1);
    });
}

#[test]
fn both_addresses_answer_and_to_the_mac_that_asked_last() {
    run(1, true, async |world| {
        for address in [IpAddr::from(SERVICE_V4), IpAddr::from(SERVICE_V6)] {
            let mut client = Tcp::new(&world, 0, 50_000, address);
            client.send(b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let reply = Reply::of(&client.until(|got| got.ends_with(b"guest-0")).await);
            assert_eq!(reply.status, 200);
            assert!(client.seen().iter().all(|seen| *seen == (SERVICE_MAC, client::mac(0))));
            let (router, moved) = (Mac([0xfa, 0x16, 0x3e, 0, 0, 1]), Mac([2, 0, 0, 0, 9, 9]));
            let before = client.seen().len();
            client.by(moved, router);
            client.send(b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\n\r\n").await;
            client.until(|got| got.ends_with(b"guest-0")).await;
            client.close().await;
            assert!(client.seen().len() > before);
            assert!(client.seen()[before..].iter().all(|seen| *seen == (router, moved)));
        }
        assert_eq!(world.counter("connections"), 2);
    });
}

#[test]
fn guests_with_the_same_address_and_port_do_not_meet() {
    run(3, true, async |world| {
        let mut clients: Vec<Tcp> = (0..3).map(|n| Tcp::new(&world, n, 50_000, SERVICE_V4.into())).collect();
        for client in &mut clients {
            client.send(b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: x\r\n").await;
        }
        for client in &mut clients {
            client.send(b"Connection: close\r\n\r\n").await;
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let reply = Reply::of(&client.rest().await);
            assert!(reply.body.contains(&format!("\"guest-{n}\"")), "{}", reply.body);
        }
    });
}

#[test]
fn a_connection_is_kept_and_requests_may_be_sent_ahead() {
    run(1, true, async |world| {
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        let one = "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: x\r\n\r\n";
        let head = "HEAD /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\n\r\n";
        let last = "GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.send([one, head, one, last].concat().as_bytes()).await;
        let got = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(got.matches("HTTP/1.1 200 OK\r\n").count(), 4);
        assert_eq!(got.matches(&guest(0).instance_id).count(), 2);
        assert_eq!(got.matches("content-length: 7\r\n").count(), 2);
        assert_eq!(got.matches("\r\n\r\nguest-0").count(), 1, "HEAD has no body");
        assert_eq!(world.counter("connections"), 1);
        let old = world.exchange(0, 50_001, b"GET /latest/meta-data/hostname HTTP/1.0\r\n\r\n").await;
        assert_eq!(Reply::of(&old).body, "guest-0");
    });
}

#[test]
fn a_long_document_comes_whole() {
    run(1, true, async |world| {
        let long: Vec<u8> = (0..60_000u32).map(|n| b'a' + (n % 23) as u8).collect();
        let data: Arc<[u8]> = long.clone().into();
        world.set_guest(0, move |guest| guest.user_data = Some(Arc::clone(&data)));
        let reply = world.get(0, "/latest/user-data").await;
        assert_eq!(reply.body.as_bytes(), long);
    });
}

#[test]
fn what_is_no_request_for_us_is_refused_in_words() {
    run(1, true, async |world| {
        for method in ["POST", "DELETE", "PATCH", "BREW"] {
            let reply = world.ask(0, method, "/latest/meta-data/hostname", "Content-Length: 0\r\n").await;
            assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
            assert!(reply.body.starts_with("405 "));
        }
        let long = format!("/latest/{}", "x".repeat(limits::TARGET));
        assert_eq!(world.get(0, &long).await.status, 414);
        let many = (0..=limits::HEADERS).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
        assert_eq!(world.ask(0, "GET", "/", &many).await.status, 431);
        let wide = format!("X-Wide: {}\r\n", "y".repeat(limits::HEADER));
        assert_eq!(world.ask(0, "GET", "/", &wide).await.status, 431);
        let said = format!("Content-Length: {}\r\n", limits::BODY + 1);
        assert_eq!(world.ask(0, "POST", "/openstack/latest/password", &said).await.status, 413);
        let mut chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..17 {
            chunked.extend(b"1000\r\n");
            chunked.extend([b'z'; 0x1000]);
            chunked.extend(b"\r\n");
        }
        assert_eq!(Reply::of(&world.exchange(0, 50_002, &chunked).await).status, 413);
        for bad in [
            "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ] {
            assert_eq!(Reply::of(&world.exchange(0, 50_003, bad.as_bytes()).await).status, 400, "{bad:?}");
        }
        assert_eq!(world.counter("requests_malformed"), 5);
    });
}

#[test]
fn a_token_is_given_and_asked_for_as_by_imdsv2() {
    run(2, true, async |world| {
        let put = async |n, headers: &str| world.ask(n, "PUT", "/latest/api/token", headers).await;
        let ttl = |ttl: &str| format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}\r\nContent-Length: 0\r\n");
        for bad in ["0", "21601", "", "-1", "x"] {
            assert_eq!(put(0, &ttl(bad)).await.status, 400, "{bad}");
        }
        assert_eq!(put(0, "").await.status, 400);
        assert_eq!(put(0, &format!("{}X-Forwarded-For: 192.0.2.1\r\n", ttl("60"))).await.status, 403);
        assert_eq!(world.get(0, "/latest/api/token").await.header("allow"), Some("PUT"));
        let reply = put(0, &ttl("60")).await;
        assert_eq!((reply.status, reply.header("x-aws-ec2-metadata-token-ttl-seconds")), (200, Some("60")));
        let with = format!("X-aws-ec2-metadata-token: {}\r\n", reply.body);
        let path = "/latest/meta-data/hostname";
        assert_eq!(world.ask(0, "GET", path, &with).await.body, "guest-0");
        assert_eq!(world.ask(1, "GET", path, &with).await.status, 401, "another guest's");
        assert_eq!(world.ask(0, "GET", path, "X-aws-ec2-metadata-token: x\r\n").await.status, 401);
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(world.ask(0, "GET", path, &with).await.status, 401, "its time is over");
        assert_eq!(world.get(0, path).await.status, 200, "none is needed");
        assert_eq!((world.counter("tokens_issued"), world.counter("tokens_refused")), (1, 3));
    });
}

#[test]
fn a_guest_that_is_gone_is_told_nothing_more() {
    run(1, true, async |world| {
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(Reply::of(&client.until(|got| got.ends_with(b"latest")).await).status, 200);
        world.set(|settings| settings.guests.clear());
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.wait(std::time::Duration::from_secs(5)).await;
        assert!(!client.socket().can_recv());
        assert!(world.counter("dropped_unknown_guest") > 0);
    });
}
