//! Requests about guests.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::{Answer, App, Pairs, Switch, find_port, pairs};
use crate::control::filter;
use crate::control::view::{Document, GuestPort, Problem};

pub(super) fn routes<S: Switch>() -> Router<App<S>> {
    Router::new()
        .route("/v1/guests/{port}", get(guest_port::<S>))
        .route("/v1/metadata", get(metadata::<S>))
        .route("/v1/leases", get(leases::<S>))
}

async fn guest_port<S: Switch>(
    State(app): State<App<S>>,
    Path(name): Path<String>,
) -> Result<Json<GuestPort>, Problem> {
    app.switch.guest_port(&find_port(&app, &name)?.name).map(Json)
}

async fn leases<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.leases().await, &pairs(query)?).map(Json)
}

/// All documents of a port's guest; with `path`, that one; with `raw` besides, its bytes as they are.
async fn metadata<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Result<Response, Problem> {
    let (mut port, mut path, mut raw) = (None, None, false);
    for (key, value) in pairs(query)? {
        match key.as_str() {
            "port" => port = Some(value),
            "path" => path = Some(value),
            "raw" => {
                let invalid = |_| Problem::invalid(format!("raw: `{value}` is not true or false"));
                raw = value.parse().map_err(invalid)?;
            }
            _ => {
                let message = format!("Metadata has no parameter {key}; it has port, path and raw.");
                return Err(Problem::invalid(message));
            }
        }
    }
    let port = port.ok_or_else(|| Problem::invalid("port: whose metadata must be said"))?;
    let port = find_port(&app, &port)?.name;
    let Some(path) = path else {
        if raw {
            return Err(Problem::invalid("raw: needs a path"));
        }
        return Ok(Json(json!({ "metadata": app.switch.metadata(&port)? })).into_response());
    };
    let (kind, body) = app.switch.metadata_document(&port, &path)?;
    if raw {
        return Ok(([(header::CONTENT_TYPE, kind)], body).into_response());
    }
    Ok(Json(json!({ "metadata": [Document::of(&path, kind, &body)] })).into_response())
}
