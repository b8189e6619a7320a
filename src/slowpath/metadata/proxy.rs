//! A guest's request, given to Nova: signed, without what the guest must not say, and the answer back, as it comes.
//!
//! Each request has a connection of its own to Nova, which ends with it: nothing of one guest's is left for the next, and a Nova
//! that was restarted is no error. What the guest says of itself is dropped, also with underscores in place of hyphens, which
//! are the same to a WSGI server.

use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hmac::Mac as _;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, timeout, timeout_at};

use super::counters::count;
use super::http::{BodyError, Content, plain, too_large};
use super::service::{Inner, Slot};
use super::{Guest, Proxy, limits, token};

const INSTANCE: HeaderName = HeaderName::from_static("x-instance-id");
const SIGNATURE: HeaderName = HeaderName::from_static("x-instance-id-signature");
const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers by which Nova knows, or could take, a guest.
const TRUSTED: &[&str] =
    &["x-instance-id", "x-instance-id-signature", "x-tenant-id", "x-forwarded-for", "forwarded", "x-real-ip"];
/// And those that begin so.
const TRUSTED_PREFIX: &str = "x-metadata-provider";
/// Headers of one connection (RFC 9110, 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Why there is no answer of Nova's.
enum Failed {
    /// Not reached, or what it says is no HTTP.
    Bad,
    /// It takes too long.
    Late,
    /// The guest's body is too long.
    TooLarge,
    /// An identifier that no header can have.
    Unspeakable,
}

/// The answer of Nova to a guest's request, or one that says why there is none.
pub(super) async fn forward(
    service: &Inner,
    slot: &Slot,
    guest: &Guest,
    source: IpAddr,
    request: Request<Incoming>,
) -> Response<Content> {
    let Some(proxy) = service.proxy() else {
        count(&service.counters.proxy_failed);
        return plain(StatusCode::BAD_GATEWAY, "no Nova is configured");
    };
    let deadline = Instant::now() + limits::PROXY_ANSWER_IN;
    let asked = async {
        let permits = (permit(&slot.nova).await?, permit(&service.nova).await?);
        count(&service.counters.proxied);
        ask(&proxy, guest, source, request, permits).await
    };
    let failed = match timeout_at(deadline, asked).await {
        Ok(Ok(answer)) => return answer,
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Late,
    };
    if let Failed::TooLarge = failed {
        return too_large();
    }
    count(&service.counters.proxy_failed);
    match failed {
        Failed::Late => plain(StatusCode::GATEWAY_TIMEOUT, "Nova did not answer in time"),
        Failed::Unspeakable => {
            plain(StatusCode::BAD_GATEWAY, "the instance's identifiers cannot be told to Nova")
        }
        Failed::Bad | Failed::TooLarge => {
            plain(StatusCode::BAD_GATEWAY, "Nova cannot be reached, or its answer is no HTTP")
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failed> {
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| Failed::Late)
}

async fn ask(
    proxy: &Proxy,
    guest: &Guest,
    source: IpAddr,
    request: Request<Incoming>,
    permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> Result<Response<Content>, Failed> {
    let request = signed(proxy, guest, source, request).ok_or(Failed::Unspeakable)?;
    let address = (proxy.nova_metadata_host.as_str(), proxy.nova_metadata_port);
    let stream = match timeout(limits::PROXY_CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err(Failed::Bad),
        Err(_) => return Err(Failed::Late),
    };
    // Without it the request is only later.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HEADER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failed::Bad)?;
    let driver = Driver(tokio::task::spawn_local(async move { drop(connection.await) }));
    let answer = sender.send_request(request).await.map_err(|error| {
        let too_long =
            |error: &hyper::Error| error.source().is_some_and(|source| source.is::<LengthLimitError>());
        if too_long(&error) { Failed::TooLarge } else { Failed::Bad }
    })?;
    if answer.status().is_informational() {
        return Err(Failed::Bad);
    }
    let (mut head, body) = answer.into_parts();
    head.version = hyper::Version::HTTP_11;
    head.headers = passed_on(&head.headers, |name| !is_hop_by_hop(name));
    head.extensions.clear();
    let body = NovaBody {
        body: Limited::new(body, limits::PROXY_ANSWER),
        stalled: Box::pin(tokio::time::sleep(Duration::ZERO)),
        waits: false,
        _driver: driver,
        _permits: permits,
    };
    Ok(Response::from_parts(head, Content::Nova(body)))
}

/// The request as Nova gets it: `X-Instance-ID-Signature` is the HMAC-SHA256 of the instance's identifier under the shared
/// secret, in hexadecimal digits. Nothing when an identifier cannot stand in a header.
fn signed(
    proxy: &Proxy,
    guest: &Guest,
    source: IpAddr,
    request: Request<Incoming>,
) -> Option<Request<Limited<Incoming>>> {
    let (head, body) = request.into_parts();
    let mut headers =
        passed_on(&head.headers, |name| !is_hop_by_hop(name) && !is_trusted(name) && name != HOST);
    let secret = proxy.metadata_proxy_shared_secret.as_bytes();
    let signature = token::hex(&token::mac(secret, &[guest.instance_id.as_bytes()]).finalize().into_bytes());
    let value = |text: &str| HeaderValue::from_str(text).ok();
    let host = match proxy.nova_metadata_host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", proxy.nova_metadata_port),
        _ => format!("{}:{}", proxy.nova_metadata_host, proxy.nova_metadata_port),
    };
    headers.insert(HOST, value(&host)?);
    headers.insert(FORWARDED, value(&source.to_string())?);
    headers.insert(INSTANCE, value(&guest.instance_id)?);
    headers.insert(SIGNATURE, value(&signature)?);
    if let Some(project) = &guest.project_id {
        headers.insert(TENANT, value(project)?);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(Limited::new(body, limits::BODY));
    *request.method_mut() = head.method;
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// The headers that go on: those that `keep` takes and that `Connection` does not name.
fn passed_on(headers: &HeaderMap, keep: impl Fn(&str) -> bool) -> HeaderMap {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let kept = headers
        .iter()
        .filter(|(name, _)| keep(name.as_str()) && !named.iter().any(|named| named == name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

fn is_trusted(name: &str) -> bool {
    let name = name.replace('_', "-");
    TRUSTED.contains(&name.as_str()) || name.starts_with(TRUSTED_PREFIX)
}

/// The task that drives a connection to Nova; it ends with this.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Nova's answer as it comes, bounded in length and in the time between two pieces.
pub(super) struct NovaBody {
    body: Limited<Incoming>,
    stalled: Pin<Box<Sleep>>,
    /// Nova is waited for, and not the guest.
    waits: bool,
    _driver: Driver,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Body for NovaBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waits = false;
            return Poll::Ready(frame);
        }
        if !this.waits {
            this.waits = true;
            this.stalled.as_mut().reset(Instant::now() + limits::PROXY_STALLED);
        }
        this.stalled.as_mut().poll(cx).map(|()| Some(Err("Nova's answer has stalled".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
