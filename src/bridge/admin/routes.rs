//! The routes of the admin listener.
//!
//! Owns: paths, formats, status codes.
//! May depend on: axum, `bridge::admin`, `metrics::exposition`.
//! Invariants: health bodies, codes and the header are those of the main port.

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
use crate::metrics::exposition::{self, Exposition};

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
        .route(
            "/live",
            get(async || health(StatusCode::OK, "OK", &HeaderMap::new(), None)),
        )
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
    let mut status = status(&admin).await;
    if let Some(status) = status.as_mut().filter(|status| !status.has_apps) {
        status.unready.push("no_apps");
    }
    judge(status, &headers)
}

async fn ready(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    judge(status(&admin).await, &headers)
}

fn judge(status: Option<Status>, headers: &HeaderMap) -> Response {
    let Some(status) = status else { return busy() };
    let (code, word) = match (status.unready.is_empty(), status.is_degraded) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "ERROR"),
        (true, true) => (StatusCode::OK, "DEGRADED"),
        (true, false) => (StatusCode::OK, "OK"),
    };
    health(code, word, headers, Some(status))
}

fn health(
    code: StatusCode,
    word: &'static str,
    headers: &HeaderMap,
    status: Option<Status>,
) -> Response {
    let (content_type, body) = match status.filter(|_| accepts(headers, JSON)) {
        Some(status) => {
            let queue = status.is_degraded.then_some("webhook_queue");
            let reasons: Vec<&str> = status.unready.iter().copied().chain(queue).collect();
            let body = json!({
                "status": word.to_lowercase(),
                "reasons": reasons,
                "node": status.node,
                "draining": status.is_draining,
            });
            (JSON, body.to_string())
        }
        None => ("text/plain; charset=utf-8", word.to_owned()),
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (HeaderName::from_static("x-health-check"), word),
    ];
    (code, headers, body).into_response()
}

/// The loop is stopping, or too many ask at the same time.
fn busy() -> Response {
    health(
        StatusCode::SERVICE_UNAVAILABLE,
        "ERROR",
        &HeaderMap::new(),
        None,
    )
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
