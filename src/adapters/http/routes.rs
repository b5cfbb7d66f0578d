//! What is answered to which request.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::Settings;
use super::page::Page;
use super::state::State;
use crate::adapters::telemetry::Telemetry;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The Prometheus text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every answer carries: it is of this moment, it is what it says it is, and no other site may show or read it.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// The policy of everything but the page.
const NOTHING_ALLOWED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The methods there are; neither changes anything.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

type Answer = Response<Full<Bytes>>;

/// Everything there is to ask for.
pub(super) struct Routes {
    telemetry: Arc<Telemetry>,
    settings: Settings,
    page: Page,
}

impl Routes {
    pub(super) fn new(telemetry: Arc<Telemetry>, settings: Settings) -> Self {
        Self { telemetry, settings, page: Page::new() }
    }

    /// The answer to a request. Its query, headers and body are not looked at.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Answer {
        let route = match request.uri().path() {
            "/" => Self::page,
            "/status.json" => Self::state,
            "/metrics" => Self::metrics,
            "/healthz" => Self::healthz,
            "/readyz" => Self::readyz,
            _ => return answer(StatusCode::NOT_FOUND, TEXT, "not found\n"),
        };
        if [Method::GET, Method::HEAD].contains(request.method()) {
            return route(self);
        }
        let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, METHODS);
        refusal
    }

    fn page(&self) -> Answer {
        let mut page = answer(StatusCode::OK, HTML, self.page.html());
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, self.page.policy());
        page
    }

    fn state(&self) -> Answer {
        let text = self.telemetry.render();
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        json(StatusCode::OK, &State::new(&self.telemetry, &text, &settings))
    }

    fn metrics(&self) -> Answer {
        answer(StatusCode::OK, METRICS, self.telemetry.render())
    }

    fn healthz(&self) -> Answer {
        let liveness = self.telemetry.status().liveness();
        json(verdict(liveness.alive), &liveness)
    }

    fn readyz(&self) -> Answer {
        let readiness = self.telemetry.status().readiness();
        json(verdict(readiness.ready), &readiness)
    }
}

fn verdict(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(status, JSON, body),
        // What is written here has text for keys and finite numbers: nothing that JSON cannot say.
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot be written as JSON\n"),
    }
}

fn answer(status: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.extend(ALWAYS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(CONTENT_SECURITY_POLICY, NOTHING_ALLOWED);
    answer
}
