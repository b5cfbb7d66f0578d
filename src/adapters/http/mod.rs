//! The HTTP endpoint: metrics, readiness, liveness, the state as JSON and a page for people. It only reads.
//!
//! It runs on a thread and a runtime of its own, and what a client can cost is bounded: see the limits in
//! [`connections`]. So neither many connections nor slow ones reach the pipeline, and probes are answered through them.

mod connections;
mod page;
mod routes;
mod state;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::telemetry::Telemetry;
use crate::config::InForce;
use routes::Routes;

/// Connections that the kernel holds ready until they are accepted, which takes microseconds.
const BACKLOG: u32 = 1024;

/// The settings to show.
type Settings = Arc<RwLock<Vec<InForce>>>;

/// The settings that are shown, by key.
#[derive(Debug, Clone)]
pub struct Shown(Settings);

impl Shown {
    /// Shows these in the place of those whose key is one of `which`.
    pub fn replace(&self, which: impl Fn(&str) -> bool, settings: &[InForce]) {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|setting| !which(&setting.key));
        shown.extend(settings.iter().filter(|setting| which(&setting.key)).cloned());
        shown.sort_by(|one, other| one.key.cmp(&other.key));
    }
}

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
    /// The system gives no thread, or no descriptors for its runtime.
    #[error("cannot start the thread for HTTP: {0}; raise the limits of processes and of open files")]
    Thread(#[source] io::Error),
}

/// The running endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    settings: Settings,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Http {
    /// The address it listens on, with the port that was taken for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The settings it shows, to be changed.
    pub fn shown(&self) -> Shown {
        Shown(Arc::clone(&self.settings))
    }

    /// Closes the socket and finishes answers under way, for two seconds at most.
    pub async fn stop(self) {
        drop(self.stop);
        // Nothing is ever sent: the end of the thread closes the channel.
        drop(self.ended.await);
    }
}

/// Starts the endpoint; `settings` are those to show. Must be called within a Tokio runtime.
///
/// # Errors
/// When the address cannot be listened on, or there is no thread to be had.
pub fn serve(listen: SocketAddr, telemetry: Arc<Telemetry>, settings: Vec<InForce>) -> Result<Http, HttpError> {
    let listener = bind(listen).map_err(|cause| HttpError::Bind { address: listen, cause })?;
    let address = listener.local_addr().unwrap_or(listen);
    let settings = Settings::new(RwLock::new(settings));
    let routes = Arc::new(Routes::new(telemetry, Arc::clone(&settings)));
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let (report, reported) = std::sync::mpsc::channel();
    let run = move || {
        // Closed when the thread ends, however it does.
        let _end = end;
        match runtime_with(listener) {
            Ok((runtime, listener)) => {
                drop(report.send(Ok(())));
                runtime.block_on(connections::accept(listener, routes, stopped));
            }
            Err(error) => drop(report.send(Err(error))),
        }
    };
    thread::Builder::new().name("http".to_owned()).spawn(run).map_err(HttpError::Thread)?;
    let answer = reported.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")));
    answer.map_err(HttpError::Thread)?;
    Ok(Http { address, settings, stop, ended })
}

fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)?.into_std()
}

fn runtime_with(listener: std::net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}
