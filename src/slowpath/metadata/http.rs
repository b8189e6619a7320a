//! One request: what it may be, and who answers it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use smoltcp::iface::SocketHandle;

use super::counters::{Counters, count};
use super::service::{Inner, Slot};
use super::stream::{Phase, Stream, Watch};
use super::{Guest, Mode, builtin, limits, proxy, token};

/// Any error of a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

const TEXT: &str = "text/plain; charset=utf-8";
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FORWARDED: &str = "x-forwarded-for";

/// Serves HTTP on a connection until either side has enough of it, or a phase of it has taken too long.
pub(super) async fn serve(service: Rc<Inner>, slot: Rc<Slot>, source: IpAddr, handle: SocketHandle) {
    let (watch, reset) = (Rc::new(Watch::new()), Rc::new(Cell::new(false)));
    let stream = Stream::new(Rc::clone(&slot), handle, Rc::clone(&watch), Rc::clone(&reset));
    let asked = Asked { service: Rc::clone(&service), slot, source, watch: Rc::clone(&watch) };
    let answer = service_fn(move |request| {
        let asked = asked.clone();
        async move { Ok::<_, Infallible>(asked.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .max_headers(limits::HEADERS)
        .max_buf_size(limits::HEADER)
        .header_read_timeout(None);
    let mut connection = pin!(builder.serve_connection(stream, answer));
    let mut sleep = pin!(tokio::time::sleep_until(watch.deadline()));
    let done = poll_fn(|cx| {
        if let Poll::Ready(done) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if sleep.deadline() != watch.deadline() {
            sleep.as_mut().reset(watch.deadline());
        }
        sleep.as_mut().poll(cx).map(|()| None)
    });
    match done.await {
        Some(Ok(())) => {}
        Some(Err(error)) if error.is_parse() => count(&service.counters.requests_malformed),
        // The answer is cut off: a reset says so where its length does not.
        Some(Err(_)) => reset.set(true),
        None => {
            count(timed_out(&service.counters, watch.phase()));
            reset.set(watch.phase() != Phase::Idle);
        }
    }
}

fn timed_out(counters: &Counters, phase: Phase) -> &AtomicU64 {
    match phase {
        Phase::Header => &counters.timeouts_header,
        Phase::Request => &counters.timeouts_request,
        Phase::Answer => &counters.timeouts_answer,
        Phase::Idle => &counters.timeouts_idle,
    }
}

/// Where a request came from.
#[derive(Clone)]
struct Asked {
    service: Rc<Inner>,
    slot: Rc<Slot>,
    source: IpAddr,
    watch: Rc<Watch>,
}

impl Asked {
    async fn answer(self, request: Request<Incoming>) -> Response<Answer> {
        self.watch.enter(Phase::Request);
        // Requests that were sent ahead take turns with everyone's.
        tokio::task::yield_now().await;
        let counters = &self.service.counters;
        let answer = match tokio::time::timeout(limits::REQUEST, self.answered(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                count(&counters.timeouts_request);
                closing(plain(StatusCode::REQUEST_TIMEOUT, "the request did not come in within 30 seconds"))
            }
        };
        count(match answer.status().as_u16() / 100 {
            2 => &counters.requests_2xx,
            3 => &counters.requests_3xx,
            4 => &counters.requests_4xx,
            _ => &counters.requests_5xx,
        });
        self.watch.enter(Phase::Answer);
        answer.map(|body| Answer { body, watch: self.watch })
    }

    async fn answered(&self, request: Request<Incoming>) -> Response<Content> {
        let Some(guest) = self.service.guest(self.slot.port) else {
            return closing(plain(StatusCode::NOT_FOUND, "there is no metadata for this port"));
        };
        if request.uri().to_string().len() > limits::TARGET {
            return plain(StatusCode::URI_TOO_LONG, "the request's target is longer than 2048 bytes");
        }
        if request.body().size_hint().lower() > limits::BODY as u64 {
            return too_large();
        }
        match guest.mode {
            Mode::BuiltIn => self.built_in(&guest, request).await,
            Mode::Proxy => proxy::forward(&self.service, &self.slot, &guest, self.source, request).await,
        }
    }

    async fn built_in(&self, guest: &Guest, request: Request<Incoming>) -> Response<Content> {
        let (head, body) = request.into_parts();
        if let Err(error) = Limited::new(body, limits::BODY).collect().await {
            let too_long = error.is::<http_body_util::LengthLimitError>();
            return if too_long {
                too_large()
            } else {
                closing(plain(StatusCode::BAD_REQUEST, "the request's body is malformed"))
            };
        }
        let path = head.uri.path();
        if path == TOKEN_PATH {
            return self.token(guest, &head.method, &head.headers);
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        if let Some(claimed) = head.headers.get(TOKEN) {
            let Inner { secret, clock, counters, .. } = &*self.service;
            let holds = |token| token::holds(secret, self.slot.port, guest, token, clock.seconds());
            if !claimed.to_str().is_ok_and(holds) {
                count(&counters.tokens_refused);
                return plain(StatusCode::UNAUTHORIZED, "the token is not valid, or no longer");
            }
        }
        match builtin::answer(guest, path) {
            Some(content) => document(StatusCode::OK, content.kind, content.body),
            None => plain(StatusCode::NOT_FOUND, "there is no such document"),
        }
    }

    /// IMDSv2: a token for a time that the guest says. A request that was forwarded gets none, for it is not the guest's own.
    fn token(&self, guest: &Guest, method: &Method, headers: &HeaderMap) -> Response<Content> {
        if method != Method::PUT {
            return not_allowed("PUT");
        }
        if headers.contains_key(FORWARDED) {
            return plain(StatusCode::FORBIDDEN, "a forwarded request gets no token");
        }
        let ttl = headers.get(TOKEN_TTL).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=token::MAX_TTL).contains(ttl)) else {
            let text = "X-aws-ec2-metadata-token-ttl-seconds must be a number from 1 to 21600";
            return plain(StatusCode::BAD_REQUEST, text);
        };
        let Inner { secret, clock, counters, .. } = &*self.service;
        count(&counters.tokens_issued);
        let token = token::issue(secret, self.slot.port, guest, clock.seconds() + ttl);
        let mut answer = document(StatusCode::OK, TEXT, token.into());
        answer.headers_mut().insert(TOKEN_TTL, ttl.into());
        answer
    }
}

fn document(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Content> {
    let len = body.len();
    let mut answer = Response::new(Content::Whole(Full::new(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CONTENT_LENGTH, len.into());
    answer
}

/// An answer that is one line of text.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Content> {
    document(status, TEXT, format!("{} {text}\n", status.as_u16()).into())
}

fn not_allowed(methods: &'static str) -> Response<Content> {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "this document has no such method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn too_large() -> Response<Content> {
    closing(plain(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is longer than 64 KiB"))
}

/// The connection ends with this answer, since there may be something left of the request.
fn closing(mut answer: Response<Content>) -> Response<Content> {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer's body.
pub(super) enum Content {
    /// Ours.
    Whole(Full<Bytes>),
    /// Nova's, as it comes.
    Nova(proxy::NovaBody),
}

/// An answer's body, which tells the connection when it ends.
struct Answer {
    body: Content,
    watch: Rc<Watch>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.body {
            Content::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Content::Nova(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Content::Whole(body) => body.is_end_stream(),
            Content::Nova(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Content::Whole(body) => body.size_hint(),
            Content::Nova(body) => body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.enter(Phase::Idle);
    }
}
