//! The HTTP endpoint: metrics, readiness, liveness and a page for people. It only reads.

mod page;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::{App, HttpResponse, HttpServer, Resource, web};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::telemetry::Telemetry;

/// Time for a client to send the head of its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time for a client to close its side.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections at once; probes and scrapers need a handful.
const MAX_CONNECTIONS: usize = 256;
/// Seconds that an orderly stop waits for answers under way.
const STOP_SECONDS: u64 = 2;

/// The Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why there is no HTTP endpoint.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; set http.listen to an address and port that are free here")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// The running endpoint. Dropping it leaves it running; call [`Http::stop`].
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
}

impl Http {
    /// The address it listens on, with the port that was taken for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes answers under way, for two seconds at most, and closes the socket.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        // The process is about to end: an error of a server that has stopped is of no use to anybody.
        let _ = self.server.await;
    }
}

/// Starts the endpoint on one thread of its own. Must be called within a Tokio runtime.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(listen: SocketAddr, telemetry: Arc<Telemetry>) -> Result<Http, HttpError> {
    let bind_error = |cause| HttpError::Bind { address: listen, cause };
    let data = web::Data::from(telemetry);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .service(get("/", page))
            .service(get("/metrics", metrics))
            .service(get("/healthz", healthz))
            .service(get("/readyz", readyz))
            .default_service(web::to(|| async { HttpResponse::NotFound().body("not found\n") }))
    })
    .workers(1)
    .disable_signals()
    .client_request_timeout(REQUEST_TIMEOUT)
    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .max_connections(MAX_CONNECTIONS)
    .shutdown_timeout(STOP_SECONDS)
    .bind(listen)
    .map_err(bind_error)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    let server = server.run();
    Ok(Http { address, handle: server.handle(), server: tokio::spawn(server) })
}

/// A resource that can be read and nothing else.
fn get(path: &str, answer: fn(&Telemetry) -> HttpResponse) -> Resource {
    let handler = move |telemetry: web::Data<Telemetry>| async move { answer(&telemetry) };
    let refuse = || async { HttpResponse::MethodNotAllowed().insert_header((ALLOW, "GET")).body("only GET\n") };
    web::resource(path.to_owned()).route(web::get().to(handler)).default_service(web::to(refuse))
}

fn metrics(telemetry: &Telemetry) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, METRICS_TYPE)).body(telemetry.render())
}

fn healthz(telemetry: &Telemetry) -> HttpResponse {
    let liveness = telemetry.status().liveness();
    verdict(liveness.alive, &liveness)
}

fn readyz(telemetry: &Telemetry) -> HttpResponse {
    let readiness = telemetry.status().readiness();
    verdict(readiness.ready, &readiness)
}

fn verdict(good: bool, body: &impl Serialize) -> HttpResponse {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).insert_header((CACHE_CONTROL, "no-store")).json(body)
}

fn page(telemetry: &Telemetry) -> HttpResponse {
    let status = telemetry.status();
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(page::render(&status.readiness(), &status.liveness(), &telemetry.figures()))
}
