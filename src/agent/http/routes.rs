//! The routes. docs/openapi.json describes each; a test holds the two together.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Query, State, rejection::QueryRejection};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _};

use super::Stays;
use super::guard;
use crate::agent::dashboard::{self, View, view};
use crate::agent::shared::{Event, Shared, Snapshot};
use crate::config::duration;
use crate::output::prometheus::Exposition;
use crate::store::{self, SeriesQuery};
use crate::sys::clock;
use crate::time::Span;

/// Every path that there is.
pub const PATHS: [&str; 11] = [
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/v1/report",
    "/api/v1/findings",
    "/api/v1/events",
    "/api/v1/wire",
    "/api/v1/series",
    "/api/v1/history",
    "/api/v1/openapi.json",
];

/// Those that need no token.
pub const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// Listeners for events at once.
const LISTENERS: usize = 16;

/// A silent stream says so this often, for what lies between.
const KEEP_ALIVE: Span = Span::from_secs(15);

/// The document that describes the routes.
pub const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let listeners = Arc::new(Semaphore::new(LISTENERS));
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/api/v1/report", get(report))
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/events", get(events))
        .route("/api/v1/wire", get(wire))
        .route("/api/v1/series", get(series))
        .route("/api/v1/history", get(history))
        .route("/api/v1/openapi.json", get(openapi))
        .fallback(guard::not_found)
        .method_not_allowed_fallback(async || {
            failure(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served")
        })
        .layer(Extension(listeners))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

/// An answer that says what is wrong.
pub fn failure(status: StatusCode, text: &str) -> Response {
    let body = json!({ "error": text }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn json_text(text: &Arc<str>) -> Response {
    let body = axum::body::Bytes::from_owner(Text(Arc::clone(text)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A shared text as a body, without a copy for each of a thousand scrapes.
struct Text(Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// With the newest verdict, or an answer that there is none yet.
fn told(shared: &Shared, tell: impl FnOnce(&Snapshot) -> Response) -> Response {
    match shared.current() {
        Some(snapshot) => tell(&snapshot),
        None => first_look(),
    }
}

async fn page(
    State(shared): State<Arc<Shared>>,
    asked: Result<Query<view::Asked>, QueryRejection>,
) -> Response {
    let view = match asked {
        Ok(Query(asked)) => View::from(asked),
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let Some(snapshot) = shared.current() else {
        // A program gets the same status, and need not read it.
        return html(StatusCode::SERVICE_UNAVAILABLE, dashboard::waiting());
    };
    // On a thread of its own: the history may be on a slow disk, and scrapes must not wait for it.
    let make = move || snapshot.page(view, || shared.past(&snapshot, view));
    match tokio::task::spawn_blocking(make).await {
        Ok(text) => html(StatusCode::OK, axum::body::Bytes::from_owner(Text(text))),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made"),
    }
}

/// A page for people, under its policy.
pub fn html(status: StatusCode, body: impl Into<axum::body::Bytes>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, dashboard::policy()),
    ];
    (status, headers, body.into()).into_response()
}

fn first_look() -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, "the first look is under way")
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let exposition = accept.map_or(Exposition::Prometheus, Exposition::accepted);
    told(&shared, |snapshot| {
        let body = axum::body::Bytes::from_owner(Text(snapshot.metrics(exposition)));
        ([(header::CONTENT_TYPE, exposition.content_type())], body).into_response()
    })
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_well() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent's loop hangs\n").into_response()
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_ready() && shared.is_well() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first look is under way\n").into_response()
    }
}

async fn report(State(shared): State<Arc<Shared>>) -> Response {
    told(&shared, |snapshot| json_text(&snapshot.report_json()))
}

async fn findings(State(shared): State<Arc<Shared>>) -> Response {
    told(&shared, |snapshot| json_text(&snapshot.findings_json()))
}

/// On a thread of its own: a megabyte of text is made, and the loop waits for the lock meanwhile, but no scrape does.
async fn wire(State(shared): State<Arc<Shared>>) -> Response {
    let made = tokio::task::spawn_blocking(move || {
        let wire = shared.wire();
        wire.is_on().then(|| wire.record(clock::now()))
    });
    match made.await {
        Ok(Some(Ok(text))) => ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response(),
        Ok(None) => failure(
            StatusCode::NOT_FOUND,
            "no log of the wire is kept: agent.wire_log_kib is 0",
        ),
        Ok(Some(Err(_))) | Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "making the record failed"),
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(listeners): Extension<Arc<Semaphore>>,
    stays: Option<Extension<Stays>>,
) -> Response {
    let Ok(place) = listeners.try_acquire_owned() else {
        return failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "all places for listeners are taken",
        );
    };
    if let Some(Extension(stays)) = stays {
        stays.set();
    }
    let stream = BroadcastStream::new(shared.listen()).map(move |received| {
        // Kept until the stream ends.
        let _place = &place;
        Ok::<_, Infallible>(event(received))
    });
    let keep = KeepAlive::new().interval(KEEP_ALIVE).text("silence");
    Sse::new(hello(&shared).chain(stream))
        .keep_alive(keep)
        .into_response()
}

/// The first event, so that a listener knows at once that it is connected, and how things are.
fn hello(shared: &Shared) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<> {
    let data = match shared.current() {
        Some(snapshot) => json!({
            "generated_at": snapshot.report.generated_at.millis(),
            "status": snapshot.report.status.name(),
        }),
        None => json!({ "status": null }),
    };
    let event = sse::Event::default().event("hello").data(data.to_string());
    tokio_stream::once(Ok(event))
}

fn event(received: Result<Arc<Event>, BroadcastStreamRecvError>) -> sse::Event {
    match received {
        Ok(event) => {
            let data = json!({ "at": event.at, "data": event.data }).to_string();
            sse::Event::default()
                .id(event.id.to_string())
                .event(event.kind)
                .data(data)
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => sse::Event::default()
            .event("missed")
            .data(json!({ "missed": missed }).to_string()),
    }
}

/// What `/api/v1/series` and `/api/v1/history` take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// A metric's name; with none, the names that there are.
    name: Option<String>,
    /// `label=value`, or several with commas: only series that have them.
    labels: Option<String>,
    /// How far back, as `24h`; by default an hour.
    since: Option<String>,
    /// The most points of a series that are wanted.
    points: Option<usize>,
}

/// By default an hour is told.
const SINCE: Span = Span::from_secs(3600);

impl Asked {
    /// How far back, or what is wrong with what was asked.
    fn read(asked: Result<Query<Self>, QueryRejection>) -> Result<(Self, Span), String> {
        let Query(asked) = asked.map_err(|error| error.body_text())?;
        let span = match &asked.since {
            None => SINCE,
            Some(text) => duration::parse(text).map_err(|error| format!("since: {error}"))?,
        };
        Ok((asked, span))
    }
}

async fn series(State(shared): State<Arc<Shared>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let (asked, span) = match Asked::read(asked) {
        Ok(read) => read,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
    };
    let now = clock::now();
    let query = SeriesQuery {
        name: asked.name,
        labels: asked.labels,
        from: now.before(span),
        to: now,
        points: asked.points.unwrap_or(store::POINTS).clamp(1, store::POINTS_MAX),
    };
    from_history(&shared, move |reader| reader.series_json(&query)).await
}

async fn history(State(shared): State<Arc<Shared>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let span = match Asked::read(asked) {
        Ok((_, span)) => span,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
    };
    let from = clock::now().before(span);
    from_history(&shared, move |reader| reader.history_json(from)).await
}

/// Reads on a thread of its own: a disk may be slow, and scrapes must not wait for it.
async fn from_history(
    shared: &Arc<Shared>,
    read: impl FnOnce(&store::Reader) -> Result<String, store::StoreError> + Send + 'static,
) -> Response {
    let shared = Arc::clone(shared);
    let answer = tokio::task::spawn_blocking(move || shared.history.as_ref().map(read)).await;
    match answer {
        Ok(Some(Ok(text))) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Some(Err(error))) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Ok(None) => failure(
            StatusCode::NOT_FOUND,
            "no history is kept: start the agent with --store FILE",
        ),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "reading the history failed"),
    }
}
