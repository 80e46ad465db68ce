//! What every request passes and every answer carries: access, safe headers, a count.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::routes::{OPEN, PATHS, failure, html};
use crate::agent::access::Refusal;
use crate::agent::dashboard;
use crate::agent::shared::Shared;

/// Headers that each answer gets where it has none of that name.
const SAFE: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Wraps every route.
pub async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let route = PATHS.into_iter().find(|known| *known == path).unwrap_or("other");
    let for_a_person = is_for_a_person(&request);
    let checked = check(&shared, &request);
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(Refusal::Token) => refuse(for_a_person),
        Err(Refusal::Host) => failure(
            StatusCode::MISDIRECTED_REQUEST,
            "this Host is not served: ask by address, as localhost, or by a name in agent.hosts",
        ),
    };
    for (name, value) in SAFE {
        let headers = response.headers_mut();
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    shared.answered(route, class);
    response
}

/// Whether a browser asks for the page, and not a program or the page's own script.
fn is_for_a_person(request: &Request) -> bool {
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    request.uri().path() == "/" && accept.is_some_and(|accept| accept.contains("text/html"))
}

/// No token, or another one. A browser can be made to send none but by RFC 7617 (Basic), so it is asked that way.
fn refuse(for_a_person: bool) -> Response {
    let mut response = if for_a_person {
        html(StatusCode::UNAUTHORIZED, dashboard::refused())
    } else {
        let text = "a bearer token is needed: Authorization: Bearer TOKEN";
        failure(StatusCode::UNAUTHORIZED, text)
    };
    let headers = response.headers_mut();
    let bearer = HeaderValue::from_static("Bearer realm=\"wgnat\"");
    headers.append(header::WWW_AUTHENTICATE, bearer);
    if for_a_person {
        let basic = HeaderValue::from_static(
            "Basic realm=\"wgnat: any name, the token as password\", charset=\"UTF-8\"",
        );
        headers.append(header::WWW_AUTHENTICATE, basic);
    }
    response
}

fn check(shared: &Shared, request: &Request) -> Result<(), Refusal> {
    let open = OPEN.contains(&request.uri().path());
    let text = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let host = text(header::HOST)
        .and_then(|host| std::str::from_utf8(host).ok())
        .or_else(|| request.uri().authority().map(|a| a.as_str()));
    shared.access().check(open, text(header::AUTHORIZATION), host)
}

/// What no route serves.
pub async fn not_found() -> Response {
    failure(StatusCode::NOT_FOUND, "no such page; see /api/v1/openapi.json")
}
