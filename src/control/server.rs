//! The switch's side of the control socket. It runs on the daemon's control thread (a current-thread runtime) and asks
//! the switch through [`Switch`].
//!
//! Bounds: 64 connections, of which 16 may be captures and 16 may follow connections or the security log; 1 MiB of request body; 10 s to send a request's headers, the
//! next request or a body. Who may open the socket may do everything: its file's mode and group are the protection, so
//! a client that keeps connections busy harms other clients of the socket only, never the traffic.

mod guest;
mod router;
mod security;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::select::{BindingFilter, ConnectionFilter, Marker, Page, find};
use super::socket::ControlSocket;
use super::view::{
    self, Drop, FdbEntry, Network, Port, Problem, ReloadReport, Status, Trace, TraceRequest, Tunnels,
};
use super::{filter, hex};
use crate::frame::MAX_FRAME;
use crate::pcapng::{CaptureRecord, Writer};
use crate::stats::{DropReason, PortSnapshot};
pub use router::Follow;

const CONNECTIONS: usize = 64;
const CAPTURES: usize = 16;
const BODY: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of one piece of a capture, about.
const PIECE: usize = 64 << 10;

/// A running capture of one port.
#[derive(Debug)]
pub struct Capture {
    /// Frames as they pass; the capture ends when the switch drops the sending half (the port is gone, the switch
    /// stops), or when this half is dropped (nobody listens any more).
    pub records: mpsc::Receiver<CaptureRecord>,
    /// Frames that were not recorded because `records` was full, since the start of the capture.
    pub missed: Arc<AtomicU64>,
}

/// What the server asks of the switch. Ports are passed by name, and were there a moment ago.
pub trait Switch: Send + Sync + 'static {
    /// The process and its workers.
    fn status(&self) -> impl Future<Output = Status> + Send;

    /// All networks.
    fn networks(&self) -> Vec<Network>;

    /// All ports, also those of physical networks, with their counters.
    fn ports(&self) -> Vec<Port>;

    /// The local VTEP, its peers and the networks in tunnels.
    fn tunnels(&self) -> Tunnels;

    /// The names and counters of all routers' interfaces.
    fn interfaces(&self) -> Vec<(String, PortSnapshot)>;

    /// All MAC table entries.
    fn fdb(&self) -> impl Future<Output = Result<Vec<FdbEntry>, Problem>> + Send;

    /// Reads the configuration file anew and applies what changed. Runs to its end even when the client hangs up.
    fn reload(&self) -> impl Future<Output = Result<ReloadReport, Problem>> + Send;

    /// What would become of `frame`, received on this port now.
    fn trace(&self, port: &str, frame: Vec<u8>) -> impl Future<Output = Result<Trace, Problem>> + Send;

    /// All routers, with what they are doing.
    fn routers(&self) -> impl Future<Output = Result<Vec<view::Router>, Problem>> + Send;

    /// All security groups.
    fn security_groups(&self) -> Vec<view::SecurityGroup>;

    /// All address groups.
    fn address_groups(&self) -> Vec<view::AddressGroup>;

    /// The rules in force at a port.
    fn port_rules(&self, port: &str) -> impl Future<Output = Result<view::PortRules, Problem>> + Send;

    /// What security groups log from now on; without `follow` what they have logged of late.
    ///
    /// # Errors
    /// 503: the switch stops.
    fn security_log(&self, follow: bool) -> Result<Follow<view::SecurityEvent>, Problem>;

    /// All subnets.
    fn subnets(&self) -> Vec<view::Subnet>;

    /// All floating IPs.
    fn floating_ips(&self) -> Vec<view::FloatingIp>;

    /// The FIBs of all routers.
    fn routes(&self) -> Vec<view::Route>;

    /// The neighbours of all routers' interfaces.
    fn neighbours(&self) -> impl Future<Output = Result<Vec<view::Neighbour>, Problem>> + Send;

    /// What routers translate, and how much room they have for it.
    fn nat(&self) -> impl Future<Output = Result<view::Nat, Problem>> + Send;

    /// A page of the bindings that are meant.
    fn bindings(
        &self,
        filter: &BindingFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> impl Future<Output = Result<Page<view::Binding>, Problem>> + Send;

    /// A page of the connections that are meant.
    fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> impl Future<Output = Result<Page<view::Connection>, Problem>> + Send;

    /// Removes the connections that are meant; gives how many.
    fn flush_connections(
        &self,
        filter: &ConnectionFilter,
    ) -> impl Future<Output = Result<u64, Problem>> + Send;

    /// Begins to tell what happens to the connections that are meant.
    fn follow_connections(
        &self,
        filter: &ConnectionFilter,
    ) -> impl Future<Output = Result<Follow, Problem>> + Send;

    /// What a hypervisor must know of a `guest` port.
    ///
    /// # Errors
    /// 409: it is of another kind.
    fn guest_port(&self, port: &str) -> Result<view::GuestPort, Problem>;

    /// All that the metadata service tells the guest of a port.
    ///
    /// # Errors
    /// 409: it tells it nothing.
    fn metadata(&self, port: &str) -> Result<Vec<view::Document>, Problem>;

    /// What the guest of a port gets for a path: its MIME type and its bytes.
    ///
    /// # Errors
    /// As [`Switch::metadata`]; 404: there is no such document.
    fn metadata_document(&self, port: &str, path: &str) -> Result<(&'static str, Bytes), Problem>;

    /// Addresses that DHCP gives.
    fn leases(&self) -> impl Future<Output = Vec<view::Lease>> + Send;

    /// Begins to capture a port: at most `snaplen` bytes of each frame; with `inner`, frames in tunnels without these, and
    /// no others.
    fn capture(
        &self,
        port: &str,
        snaplen: usize,
        inner: bool,
    ) -> impl Future<Output = Result<Capture, Problem>> + Send;
}

struct App<S> {
    switch: Arc<S>,
    captures: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl<S> Clone for App<S> {
    fn clone(&self) -> App<S> {
        App {
            switch: self.switch.clone(),
            captures: self.captures.clone(),
            followers: self.followers.clone(),
        }
    }
}

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;
type Answer = Result<Json<Value>, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// Answers on `socket` until `shutdown` is done; then connections get a second to end. Captures end with the switch's
/// half of their channel.
pub async fn serve<S: Switch>(socket: ControlSocket, switch: Arc<S>, shutdown: impl Future<Output = ()>) {
    let router = router(switch);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (place, socket.listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (place, accepted) = accept => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => {
                    let connection = connection(stream, router.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                (_, Err(error)) => {
                    // Out of descriptors, most likely: the next try would fail as well.
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                (Err(_), _) => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(socket);
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, all).await;
}

async fn connection(stream: UnixStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(PIECE);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = &mut serving => result,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a control connection ended early");
    }
}

fn router<S: Switch>(switch: Arc<S>) -> Router {
    Router::new()
        .route("/", get(versions))
        .route("/v2.0", get(resources))
        .route("/v2.0/", get(resources))
        .route("/v2.0/networks", get(networks::<S>))
        .route("/v2.0/networks/{name}", get(network::<S>))
        .route("/v2.0/ports", get(ports::<S>))
        .route("/v2.0/ports/{name}", get(port::<S>))
        .route("/v1/status", get(status::<S>))
        .route("/v1/tunnels", get(tunnels::<S>))
        .route("/v1/fdb", get(fdb::<S>))
        .route("/v1/drops", get(drops::<S>))
        .route("/v1/reload", post(reload::<S>))
        .route("/v1/trace", post(trace::<S>))
        .route("/v1/capture/{port}", get(capture::<S>))
        .merge(guest::routes())
        .merge(router::routes())
        .merge(security::routes())
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_method)
        .with_state(App {
            switch,
            captures: Arc::new(Semaphore::new(CAPTURES)),
            followers: Arc::new(Semaphore::new(router::FOLLOWERS)),
        })
}

async fn nothing_there(uri: Uri) -> Problem {
    Problem::new(404, "HTTPNotFound", format!("The resource {} could not be found.", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        405,
        "HTTPMethodNotAllowed",
        format!("The method {method} is not allowed for {}.", uri.path()),
    )
}

async fn versions() -> Json<Value> {
    let link = json!([{"rel": "self", "href": "http://localhost/v2.0/"}]);
    Json(json!({"versions": [{"id": "v2.0", "status": "CURRENT", "links": link}]}))
}

async fn resources() -> Json<Value> {
    let resource = |name: &str, collection: &str| {
        let link = json!([{"rel": "self", "href": format!("http://localhost/v2.0/{collection}")}]);
        json!({"name": name, "collection": collection, "links": link})
    };
    Json(json!({"resources": [
        resource("network", "networks"),
        resource("port", "ports"),
        resource("subnet", "subnets"),
        resource("router", "routers"),
        resource("floatingip", "floatingips"),
        resource("security_group", "security-groups"),
        resource("security_group_rule", "security-group-rules"),
        resource("address_group", "address-groups"),
    ]}))
}

fn pairs(query: Pairs) -> Result<Vec<(String, String)>, Problem> {
    query.map(|Query(pairs)| pairs).map_err(|error| Problem::invalid(error.body_text()))
}

async fn networks<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.networks(), &pairs(query)?).map(Json)
}

async fn network<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    let network = find(app.switch.networks(), "Network", &name, |network| (&network.name, network.id))?;
    filter::show(&network, "network", &pairs(query)?).map(Json)
}

async fn ports<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.ports(), &pairs(query)?).map(Json)
}

fn find_port<S: Switch>(app: &App<S>, name: &str) -> Result<Port, Problem> {
    find(app.switch.ports(), "Port", name, |port| (&port.name, port.id))
}

fn is_id(id: uuid::Uuid, name: &str) -> bool {
    uuid::Uuid::try_parse(name) == Ok(id)
}

async fn port<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    filter::show(&find_port(&app, &name)?, "port", &pairs(query)?).map(Json)
}

async fn status<S: Switch>(State(app): State<App<S>>) -> Json<Status> {
    Json(app.switch.status().await)
}

async fn tunnels<S: Switch>(State(app): State<App<S>>) -> Json<Tunnels> {
    Json(app.switch.tunnels())
}

async fn fdb<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.fdb().await?, &pairs(query)?).map(Json)
}

async fn drops<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    let mut drops = Vec::new();
    let ports = app.switch.ports().into_iter().map(|port| (port.name, port.counters));
    let peers = app.switch.tunnels().peers.into_iter().map(|peer| (peer.name, peer.counters));
    let interfaces = app.switch.interfaces();
    for (port, counters) in ports.chain(peers).chain(interfaces) {
        for (&reason, &count) in &counters.drops {
            let meaning = DropReason::from_name(reason).map_or("", DropReason::meaning).to_owned();
            drops.push(Drop { port: port.clone(), reason: reason.to_owned(), meaning, count });
        }
    }
    filter::list(&drops, &pairs(query)?).map(Json)
}

async fn reload<S: Switch>(State(app): State<App<S>>) -> Result<Json<ReloadReport>, Problem> {
    // On a task of its own: a client that hangs up must not stop a reload half-way.
    let task = tokio::spawn(async move { app.switch.reload().await });
    task.await.map_err(|error| Problem::internal(format!("the reload failed: {error}")))?.map(Json)
}

async fn trace<S: Switch>(State(app): State<App<S>>, request: Request) -> Result<Json<Trace>, Problem> {
    let too_long =
        || Problem::new(413, "HTTPRequestEntityTooLarge", format!("The body is longer than {BODY} bytes."));
    if hyper::body::Body::size_hint(request.body()).lower() > BODY as u64 {
        return Err(too_long());
    }
    let body = tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), BODY)).await;
    let body = body.map_err(|_| Problem::new(408, "HTTPRequestTimeout", "The body did not come in time."))?;
    let body = body.map_err(|_| too_long())?;
    let request: TraceRequest = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(400, "HTTPBadRequest", format!("The body is not a trace request: {error}."))
    })?;
    let frame = hex::decode(&request.frame).map_err(|error| Problem::invalid(format!("frame: {error}")))?;
    if frame.len() > MAX_FRAME {
        let message = format!("frame: {} bytes, the longest frame has {MAX_FRAME}", frame.len());
        return Err(Problem::invalid(message));
    }
    let port = find_port(&app, &request.port)?;
    app.switch.trace(&port.name, frame).await.map(Json)
}

async fn capture<S: Switch>(
    State(app): State<App<S>>,
    Path(name): Path<String>,
    query: Pairs,
) -> Result<Response, Problem> {
    let (mut snaplen, mut inner) = (0, false);
    for (key, value) in pairs(query)? {
        let invalid = |what| Problem::invalid(format!("{key}: `{value}` is not {what}"));
        match key.as_str() {
            "snaplen" => snaplen = value.parse().map_err(|_| invalid("a number of bytes"))?,
            "inner" => inner = value.parse().map_err(|_| invalid("true or false"))?,
            _ => {
                let message = format!("A capture has no parameter {key}; it has snaplen and inner.");
                return Err(Problem::invalid(message));
            }
        }
    }
    let port = find_port(&app, &name)?;
    let place = app.captures.clone().try_acquire_owned();
    let place = place
        .map_err(|_| Problem::new(503, "TooManyCaptures", format!("{CAPTURES} captures run already.")))?;
    let most = if snaplen == 0 { MAX_FRAME } else { snaplen as usize };
    let capture = app.switch.capture(&port.name, most, inner).await?;
    let body = CaptureBody::new(capture, &port.name, snaplen, place)
        .map_err(|error| Problem::internal(format!("the capture cannot begin: {error}")))?;
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], Body::new(body)).into_response())
}

/// A capture as the body of a response: pcapng in pieces, as the frames come.
struct CaptureBody {
    capture: Capture,
    writer: Writer<Vec<u8>>,
    missed: u64,
    _place: OwnedSemaphorePermit,
}

impl CaptureBody {
    fn new(
        capture: Capture,
        port: &str,
        snaplen: u32,
        place: OwnedSemaphorePermit,
    ) -> std::io::Result<CaptureBody> {
        let mut writer = Writer::new(Vec::new(), snaplen)?;
        writer.interface(&Arc::from(port))?;
        Ok(CaptureBody { capture, writer, missed: 0, _place: place })
    }

    fn write(&mut self, record: &CaptureRecord) {
        let missed = self.capture.missed.load(Ordering::Relaxed);
        let written = self.writer.write(record, missed.saturating_sub(self.missed));
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        self.missed = missed;
    }
}

impl hyper::body::Body for CaptureBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.writer.get_mut().len() < PIECE {
            match self.capture.records.poll_recv(context) {
                Poll::Ready(Some(record)) => self.write(&record),
                Poll::Ready(None) | Poll::Pending if !self.writer.get_mut().is_empty() => break,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        let piece = std::mem::take(self.writer.get_mut());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }
}
