//! The routes of the admin listener.
//!
//! Owns: paths, formats, status codes.
//! May depend on: axum, `bridge::{admin, message}`, `metrics::exposition`.
//! Invariants: health is judged as on the main port, and told with its bodies, codes and header.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{AdminRequest, Scrape, Status};
use crate::{
    bridge::health::Grade,
    metrics::exposition::{self, Exposition},
};

/// What the routes share.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub requests: mpsc::Sender<AdminRequest>,
    pub exposition: Arc<Exposition>,
}

pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics.json", get(metrics_json))
        .route("/debug/shards", get(debug_shards))
        .route("/up", get(up))
        .route("/ready", get(ready))
        .route("/live", get(async || plain(StatusCode::OK, "OK")))
        .with_state(admin)
}

const JSON: &str = "application/json";

/// `?format=json`, and Soketi's `?json=1`.
#[derive(Debug, serde::Deserialize)]
struct Format {
    format: Option<String>,
    json: Option<String>,
}

async fn metrics(
    State(admin): State<Admin>,
    Query(format): Query<Format>,
    headers: HeaderMap,
) -> Response {
    let wants_json = format.format.as_deref() == Some("json")
        || format
            .json
            .is_some_and(|value| value == "1" || value == "true");
    if wants_json {
        return metrics_json(State(admin)).await;
    }
    let Some(scrape) = scrape(&admin).await else {
        return busy();
    };
    if accepts(&headers, "application/openmetrics-text") {
        let body = exposition::open_metrics(&scrape.families);
        return typed(exposition::OPEN_METRICS_CONTENT_TYPE, body);
    }
    match exposition::text(&scrape.families) {
        Ok(body) => typed(exposition::TEXT_CONTENT_TYPE, body),
        Err(error) => {
            tracing::warn!(%error, "a scrape cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn metrics_json(State(admin): State<Admin>) -> Response {
    let Some(scrape) = scrape(&admin).await else {
        return busy();
    };
    let timestamp = exposition::rfc3339(scrape.unix_s);
    typed(
        JSON,
        admin
            .exposition
            .json(&scrape.families, &timestamp)
            .to_string(),
    )
}

async fn debug_shards(State(admin): State<Admin>) -> Response {
    match scrape(&admin).await {
        Some(scrape) => typed(JSON, scrape.shards.to_string()),
        None => busy(),
    }
}

/// As `/ready`, and there must be an app to serve.
async fn up(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let Some(status) = status(&admin).await else {
        return busy();
    };
    judged(&status, status.has_apps, &headers)
}

async fn ready(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    match status(&admin).await {
        Some(status) => judged(&status, true, &headers),
        None => busy(),
    }
}

fn judged(status: &Status, has_apps: bool, headers: &HeaderMap) -> Response {
    let judgement = status.health.judge(has_apps);
    let (code, word) = match judgement.grade {
        Grade::Unready => (StatusCode::SERVICE_UNAVAILABLE, "ERROR"),
        Grade::Degraded => (StatusCode::OK, "DEGRADED"),
        Grade::Well => (StatusCode::OK, "OK"),
    };
    if !accepts(headers, JSON) {
        return plain(code, word);
    }
    let body = json!({
        "status": word.to_lowercase(),
        "reasons": judgement.reasons,
        "node": status.node,
        "draining": status.health.draining,
    });
    health(code, word, JSON, body.to_string())
}

fn plain(code: StatusCode, word: &'static str) -> Response {
    health(code, word, "text/plain; charset=utf-8", word.to_owned())
}

fn health(
    code: StatusCode,
    word: &'static str,
    content_type: &'static str,
    body: String,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (HeaderName::from_static("x-health-check"), word),
    ];
    (code, headers, body).into_response()
}

/// The loop is stopping, or too many ask at the same time.
fn busy() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "ERROR")
}

fn typed(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn accepts(headers: &HeaderMap, content_type: &str) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains(content_type))
}

async fn scrape(admin: &Admin) -> Option<Scrape> {
    let (sender, receiver) = oneshot::channel();
    admin
        .requests
        .send(AdminRequest::Scrape(sender))
        .await
        .ok()?;
    receiver.await.ok()
}

async fn status(admin: &Admin) -> Option<Status> {
    let (sender, receiver) = oneshot::channel();
    admin
        .requests
        .send(AdminRequest::Status(sender))
        .await
        .ok()?;
    receiver.await.ok()
}
