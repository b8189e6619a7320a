//! Requests about security groups.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};

use super::router::followed;
use super::{Answer, App, Pairs, Switch, find_port, pairs};
use crate::control::filter;
use crate::control::select::find;
use crate::control::view::{PortRules, Problem, SecurityEvent, SecurityGroupRule};

pub(super) fn routes<S: Switch>() -> Router<App<S>> {
    Router::new()
        .route("/v2.0/security-groups", get(groups::<S>))
        .route("/v2.0/security-groups/{name}", get(group::<S>))
        .route("/v2.0/security-group-rules", get(rules::<S>))
        .route("/v2.0/security-group-rules/{id}", get(rule::<S>))
        .route("/v2.0/address-groups", get(address_groups::<S>))
        .route("/v2.0/address-groups/{name}", get(address_group::<S>))
        .route("/v1/ports/{name}/rules", get(port_rules::<S>))
        .route("/v1/security-log", get(log::<S>))
}

async fn groups<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.security_groups(), &pairs(query)?).map(Json)
}

async fn group<S: Switch>(State(app): State<App<S>>, Path(name): Path<String>, query: Pairs) -> Answer {
    let group = find(app.switch.security_groups(), "SecurityGroup", &name, |group| (&group.name, group.id))?;
    filter::show(&group, "security_group", &pairs(query)?).map(Json)
}

fn all_rules<S: Switch>(app: &App<S>) -> Vec<SecurityGroupRule> {
    app.switch.security_groups().into_iter().flat_map(|group| group.security_group_rules).collect()
}

async fn rules<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&all_rules(&app), &pairs(query)?).map(Json)
}

async fn rule<S: Switch>(State(app): State<App<S>>, Path(id): Path<String>, query: Pairs) -> Answer {
    let rule = find(all_rules(&app), "SecurityGroupRule", &id, |rule| ("", rule.id))?;
    filter::show(&rule, "security_group_rule", &pairs(query)?).map(Json)
}

async fn address_groups<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Answer {
    filter::list(&app.switch.address_groups(), &pairs(query)?).map(Json)
}

async fn address_group<S: Switch>(
    State(app): State<App<S>>,
    Path(name): Path<String>,
    query: Pairs,
) -> Answer {
    let group = find(app.switch.address_groups(), "AddressGroup", &name, |group| (&group.name, group.id))?;
    filter::show(&group, "address_group", &pairs(query)?).map(Json)
}

async fn port_rules<S: Switch>(
    State(app): State<App<S>>,
    Path(name): Path<String>,
    query: Pairs,
) -> Result<Json<PortRules>, Problem> {
    if let Some((key, _)) = pairs(query)?.first() {
        return Err(Problem::invalid(format!("This is one thing, which has no parameter {key}.")));
    }
    let port = find_port(&app, &name)?;
    app.switch.port_rules(&port.name).await.map(Json)
}

async fn log<S: Switch>(State(app): State<App<S>>, query: Pairs) -> Result<Response, Problem> {
    let mut follow = true;
    for (key, value) in pairs(query)? {
        follow = match (key.as_str(), value.as_str()) {
            ("follow", "true") => true,
            ("follow", "false") => false,
            ("follow", _) => {
                return Err(Problem::invalid(format!("follow: `{value}` is neither true nor false")));
            }
            _ => {
                return Err(Problem::invalid(format!(
                    "The security log has no parameter {key}; it has follow."
                )));
            }
        };
    }
    let followed_log = app.switch.security_log(follow)?;
    followed(&app, followed_log, follow.then_some(SecurityEvent::Following))
}
