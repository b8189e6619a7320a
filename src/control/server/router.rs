//! Requests about routers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Answer, App, PIECE, Pairs, Switch, is_id, pairs};
use crate::control::filter;
use crate::control::select::{BindingFilter, ConnectionFilter, PageQuery, find, pick};
use crate::control::view::{ConnectionEvent, FloatingIp, Flushed, Nat, Problem, SecurityEvent};

/// Most who follow connections and the security log at once.
pub(super) const FOLLOWERS: usize = 16;

/// Connections, or whatever else happens, being followed.
#[derive(Debug)]
pub struct Follow<E = ConnectionEvent> {
    /// What happens, as it happens; ends when the switch drops the sending half, or when this half is dropped.
    pub events: mpsc::Receiver<E>,
    /// Events that were lost, since the start.
    pub missed: Arc<AtomicU64>,
}

/// What can be followed.
pub(super) trait Told: Serialize + Send + 'static {
    /// Says that so many were lost.
    fn lost(count: u64) -> Self;
}

impl Told for ConnectionEvent {
    fn lost(count: u64) -> ConnectionEvent {
        ConnectionEvent::Lost { count }
    }
}

impl Told for SecurityEvent {
    fn lost(count: u64) -> SecurityEvent {
        SecurityEvent::Lost { count }
    }
}

pub(super) fn routes<S: Switch>() -> Router<App<S>> {
    Router::new()
        .route("/v2.0/routers", get(routers::<S>))
        .route("/v2.0/routers/{name}", get(router::<S>))
        .route("/v2.0/subnets", get(subnets::<S>))
        .route("/v2.0/subnets/{name}", get(subnet::<S>))
        .route("/v2.0/floatingips", get(floating_ips::<S>))
        .route("/v2.0/floatingips/{name}", get(floating_ip::<S>))
        .route("/v2.0/floatingips/{name}/port_forwardings", get(port_forwardings::<S>))
        .route("/v2.0/floatingips/{name}/port_forwardings/{id}", get(port_forwarding::<S>))
        .route("/v1/routes", get(routes_of::<S>))
        .route("/v1/neighbours", get(neighbours::<S>))
        .route("/v1/nat", get(nat::<S>))
        .route("/v1/bindings", get(bindings::<S>))
        .route("/v1/conntrack", delete(flush::<S>).get(connections::<S>))
        .route("/v1/conntrack/events", get(follow::<S>))
}

async fn routers<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.routers().await?, &pairs(query)?).map(Json)
}

async fn router<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    let router = find(app.switch.routers().await?, "Router", &name, |router| (&router.name, router.id))?;
    filter::show(&router, "router", &pairs(query)?).map(Json)
}

async fn subnets<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.subnets(), &pairs(query)?).map(Json)
}

async fn subnet<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    let subnet = find(app.switch.subnets(), "Subnet", &name, |subnet| (&subnet.name, subnet.id))?;
    filter::show(&subnet, "subnet", &pairs(query)?).map(Json)
}

async fn floating_ips<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.floating_ips(), &pairs(query)?).map(Json)
}

/// By ID, or by address where only one network has it.
fn find_floating_ip<S: Switch>(app: &App<S>, name: &str) -> Result<FloatingIp, Problem> {
    let all = app.switch.floating_ips();
    let is =
        |floating: &&FloatingIp| is_id(floating.id, name) || floating.floating_ip_address.to_string() == name;
    let mut found = all.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(Problem::new(
            409,
            "Conflict",
            format!("More than one network has floating IP {name}; name it by its ID."),
        )),
        _ => Err(Problem::not_found("FloatingIP", name)),
    }
}

async fn floating_ip<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    filter::show(&find_floating_ip(&app, &name)?, "floatingip", &pairs(query)?).map(Json)
}

async fn port_forwardings<S: Switch>(
    State(app): State<App<S>>,
    Path(name): Path<String>,
    query: Pairs,
) -> Answer {
    filter::list(&find_floating_ip(&app, &name)?.port_forwardings, &pairs(query)?).map(Json)
}

async fn port_forwarding<S: Switch>(
    State(app): State<App<S>>,
    Path((name, id)): Path<(String, String)>,
    query: Pairs,
) -> Answer {
    let floating = find_floating_ip(&app, &name)?;
    let found = floating.port_forwardings.iter().find(|forwarding| is_id(forwarding.id, &id));
    let found = found.ok_or_else(|| Problem::not_found("PortForwarding", &id))?;
    filter::show(found, "port_forwarding", &pairs(query)?).map(Json)
}

async fn routes_of<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.routes(), &pairs(query)?).map(Json)
}

async fn neighbours<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.neighbours().await?, &pairs(query)?).map(Json)
}

async fn nat<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Result<Json<Nat>, Problem> {
    match pairs(query)?.first() {
        None => app.switch.nat().await.map(Json),
        Some((name, _)) => {
            Err(Problem::invalid(format!("This is one thing, which has no parameter {name}.")))
        }
    }
}

async fn bindings<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    let query = PageQuery::<BindingFilter>::parse(&pairs(query)?)?;
    let page = app.switch.bindings(&query.filter, query.from, query.limit).await?;
    query.answer(&page).map(Json)
}

async fn connections<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    let query = PageQuery::<ConnectionFilter>::parse(&pairs(query)?)?;
    let page = app.switch.connections(&query.filter, query.from, query.limit).await?;
    query.answer(&page).map(Json)
}

async fn flush<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Result<Json<Flushed>, Problem> {
    let filter = pick::<ConnectionFilter>(&pairs(query)?)?;
    // On a task of its own: a client that hangs up must not stop it half-way.
    let task = tokio::spawn(async move { app.switch.flush_connections(&filter).await });
    let removed = task.await.map_err(|error| Problem::internal(format!("flushing failed: {error}")))??;
    Ok(Json(Flushed { removed }))
}

async fn follow<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Result<Response, Problem> {
    let filter = pick::<ConnectionFilter>(&pairs(query)?)?;
    let follow = app.switch.follow_connections(&filter).await?;
    followed(&app, follow, Some(ConnectionEvent::Following))
}

/// Tells what happens, `first` first, if there is still room for one who follows.
pub(super) fn followed<S: Switch, E: Told>(
    app: &App<S>,
    follow: Follow<E>,
    first: Option<E>,
) -> Result<Response, Problem> {
    let place = app.followers.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::new(503, "TooManyFollowers", format!("{FOLLOWERS} follow what happens already."))
    })?;
    let mut body = FollowBody { follow, lines: Vec::new(), missed: 0, _place: place };
    if let Some(first) = first {
        body.write(&first);
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// What happens as the body of a response: a line of JSON for each event, as they come.
struct FollowBody<E> {
    follow: Follow<E>,
    lines: Vec<u8>,
    missed: u64,
    _place: OwnedSemaphorePermit,
}

impl<E: Told> FollowBody<E> {
    fn write(&mut self, event: &E) {
        let written = serde_json::to_writer(&mut self.lines, event);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        self.lines.push(b'\n');
    }

    /// Says what was lost of late.
    fn write_lost(&mut self) {
        let missed = self.follow.missed.load(Ordering::Relaxed);
        if missed > self.missed {
            self.write(&E::lost(missed - self.missed));
            self.missed = missed;
        }
    }
}

impl<E: Told> hyper::body::Body for FollowBody<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.lines.len() < PIECE {
            match self.follow.events.poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    self.write_lost();
                    self.write(&event);
                }
                Poll::Ready(None) | Poll::Pending if !self.lines.is_empty() => break,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(std::mem::take(&mut self.lines))))))
    }
}
