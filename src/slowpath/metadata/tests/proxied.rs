//! Guests of a Nova: one of the tests' own, which checks what Nova checks.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::limits;
use super::client::{Reply, Tcp, World, run};
use super::*;
use crate::services::{SERVICE_V4, SERVICE_V6};

const SECRET: &str = "s3cret";
/// `hmac.new(b"s3cret", b"9e3f1c1e-0000-4000-8000-000000000000", sha256).hexdigest()`.
const SIGNATURE: &str = "bdfad69d8dfa712c57e9d7d2cbdc4a76f24901ae2b670d31eb265a04d5905743";

type Seen = Rc<RefCell<Vec<String>>>;

fn use_nova(world: &World, port: u16) {
    world.set(|settings| {
        settings.proxy = Some(Arc::new(Proxy {
            nova_metadata_host: "127.0.0.1".into(),
            nova_metadata_port: port,
            metadata_proxy_shared_secret: SECRET.into(),
        }));
    });
    for n in 0..2 {
        world.set_guest(n, |guest| guest.mode = Mode::Proxy);
    }
}

/// A Nova that refuses whom it does not know, and says what it was asked.
async fn nova(world: &World) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    use_nova(world, listener.local_addr().unwrap().port());
    let seen = Seen::default();
    let asked = Rc::clone(&seen);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = Rc::clone(&asked);
            let service = service_fn(move |request| answer(request, Rc::clone(&asked)));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
    });
    seen
}

async fn answer(request: Request<Incoming>, seen: Seen) -> Result<Response<Full<Bytes>>, Infallible> {
    let one = |name: &str| {
        let mut values = request.headers().get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(|value| value.to_str().unwrap().to_owned())
    };
    let known = [(guest(0).instance_id, SIGNATURE)];
    let signed = known.iter().any(|(id, signature)| {
        one("x-instance-id").as_ref() == Some(id)
            && one("x-instance-id-signature").as_deref() == Some(signature)
    });
    let status = match (signed, one("x-tenant-id").as_deref(), request.uri().path()) {
        (_, None, _) => 400,
        (false, _, _) => 403,
        (_, _, "/missing") => 404,
        (_, _, "/broken") => 500,
        _ => 200,
    };
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let body = request.into_body().collect().await;
    text += &format!("body {}\n", body.map_or(0, |body| body.to_bytes().len()));
    seen.borrow_mut().push(text.clone());
    let response =
        Response::builder().status(status).header("x-nova", "yes").header("keep-alive", "timeout=9");
    Ok(response.header("content-type", "text/x-nova").body(text.into()).unwrap())
}

/// A Nova that says these bytes, whatever it is asked, and then closes or waits.
async fn says(world: &World, bytes: &'static [u8], closes: bool) -> Rc<RefCell<usize>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    use_nova(world, listener.local_addr().unwrap().port());
    let accepted = Rc::new(RefCell::new(0));
    let count = Rc::clone(&accepted);
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            *count.borrow_mut() += 1;
            tokio::task::spawn_local(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
                if !closes {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    accepted
}

#[test]
fn nova_is_told_who_asks_and_nothing_that_the_guest_says_of_itself() {
    run(2, false, async |world| {
        nova(&world).await;
        let headers = "X-Instance-ID: evil\r\nX-Instance-ID: worse\r\nX_Instance_ID: evil\r\nX-Instance-ID-Signature: evil\r\n\
                       X-Tenant-ID: evil\r\nX_TENANT-ID: evil\r\nX-Forwarded-For: 192.0.2.66\r\nForwarded: for=192.0.2.66\r\n\
                       X-Metadata-Provider: evil\r\nX-Metadata-Provider-Signature: evil\r\nTE: trailers\r\nUpgrade: evil\r\n\
                       X-Hop: evil\r\nConnection: X-Hop\r\nProxy-Authorization: evil\r\nAccept: a\r\nAccept: b\r\nX-Other: kept\r\n";
        let reply = world.ask(0, "GET", "/latest/meta-data/x%20y?a=b&c", headers).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(
            !reply.body.contains("evil")
                && !reply.body.contains("worse")
                && !reply.body.contains("192.0.2.66")
        );
        let lines: Vec<&str> = reply.body.lines().collect();
        assert_eq!(lines[0], "GET /latest/meta-data/x%20y?a=b&c");
        let id = format!("x-instance-id: {}", guest(0).instance_id);
        let signature = format!("x-instance-id-signature: {SIGNATURE}");
        for line in [
            &*id,
            &signature,
            "x-tenant-id: 3c5d",
            "x-forwarded-for: 10.0.0.5",
            "accept: a",
            "accept: b",
            "x-other: kept",
        ] {
            assert!(lines.contains(&line), "{line} is not in {lines:?}");
        }
        assert_eq!((reply.header("x-nova"), reply.header("keep-alive")), (Some("yes"), None));
        assert_eq!(reply.header("content-type"), Some("text/x-nova"));
        assert_eq!(world.ask(1, "GET", "/", "").await.status, 403, "a Nova that does not know the guest");
        world.set_guest(1, |guest| guest.project_id = None);
        assert_eq!(world.ask(1, "GET", "/", "").await.status, 400);
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V6.into());
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(Reply::of(&client.rest().await).body.contains("x-forwarded-for: fe80::5\n"));
    });
}

#[test]
fn bodies_go_both_ways_and_the_guests_connection_is_kept() {
    run(2, false, async |world| {
        let seen = nova(&world).await;
        assert_eq!((world.get(0, "/missing").await.status, world.get(0, "/broken").await.status), (404, 500));
        let mut client = Tcp::new(&world, 0, 50_000, SERVICE_V4.into());
        let body = "p".repeat(60_000);
        let post = format!(
            "POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{body}"
        );
        client.send(post.as_bytes()).await;
        let reply = Reply::of(&client.until(|got| got.ends_with(b"body 60000\n")).await);
        assert_eq!(reply.status, 200);
        client.send(b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let reply = Reply::of(&client.rest().await);
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        assert!(seen.borrow()[3].starts_with("HEAD /x\n"));
        let said = format!("Content-Length: {}\r\n", limits::BODY + 1);
        assert_eq!(world.ask(0, "POST", "/", &said).await.status, 413);
        let mut chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..17 {
            chunked.extend(b"1000\r\n");
            chunked.extend([b'z'; 0x1000]);
            chunked.extend(b"\r\n");
        }
        assert_eq!(Reply::of(&world.exchange(0, 50_002, &chunked).await).status, 413);
    });
}

#[test]
fn a_nova_that_fails_is_a_bad_gateway() {
    run(2, false, async |world| {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        use_nova(&world, free);
        assert_eq!(world.get(0, "/").await.status, 502, "refused");
        for garbage in [
            &b""[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-L",
        ] {
            says(&world, garbage, true).await;
            assert_eq!(world.get(0, "/").await.status, 502, "{garbage:?}");
        }
        world.set(|settings| settings.proxy = None);
        assert_eq!(world.get(0, "/").await.status, 502, "none");
        assert_eq!(world.counter("proxy_failed"), 6);
        says(&world, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", true).await;
        let cut = world.exchange(0, 50_000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!cut.ends_with(b"0\r\n\r\n"), "it looks whole: {:?}", String::from_utf8_lossy(&cut));
    });
}

#[test]
fn a_nova_that_is_silent_is_a_gateway_timeout() {
    run(2, true, async |world| {
        says(&world, b"", false).await;
        let begin = tokio::time::Instant::now();
        let reply = world.get(0, "/").await;
        assert_eq!(reply.status, 504);
        assert!(begin.elapsed() <= limits::PROXY_ANSWER_IN + Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[test]
fn one_guest_has_few_requests_at_nova_and_another_is_served() {
    run(2, false, async |world| {
        let accepted = says(&world, b"", false).await;
        let mut clients: Vec<Tcp> =
            (0..10).map(|n| Tcp::new(&world, 0, 50_000 + n, SERVICE_V4.into())).collect();
        for client in &mut clients {
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(*accepted.borrow(), limits::PROXY_REQUESTS);
        let mut other = Tcp::new(&world, 1, 50_000, SERVICE_V4.into());
        other.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(*accepted.borrow(), limits::PROXY_REQUESTS + 1);
    });
}
