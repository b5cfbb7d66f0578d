//! Who is connected, and for how long: one request a connection, bounds on everything a client can make us hold.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::routes::Routes;

/// Connections at once; probes and scrapers need a handful. When one more comes, the oldest of those that have not asked
/// is closed, and only if all have asked the oldest of all: whoever asks is answered, however many others hold
/// connections and say nothing, or are in no hurry to.
pub(super) const MAX_CONNECTIONS: usize = 512;
/// What every connection has to ask before it is closed for another, which waits that long to be accepted. So at most 2 560 a second are accepted while all are taken.
pub(super) const LEAST_TIME: Duration = Duration::from_millis(200);
/// The largest head of a request, in bytes. Bodies are not read at all.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Time for a client to send the head of its request.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a connection from accepted to closed: a client that reads slowly does not hold it for ever.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);
/// What is read and thrown away of a request that goes on after its answer, so that the client gets to see the answer.
const LINGER: u64 = 256 * 1024;
/// Time for that.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);
/// Time for answers under way at an orderly stop.
pub(super) const STOP: Duration = Duration::from_secs(2);
/// After the system has refused a connection for want of descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Whether a connection has sent the whole head of its request. Only ever set, and by its own task.
type Asked = Arc<AtomicBool>;

struct Connection {
    accepted: Instant,
    asked: Asked,
    task: JoinHandle<()>,
}

/// Connections by age, the oldest first.
#[derive(Default)]
struct Connections {
    open: VecDeque<Connection>,
}

impl Connections {
    fn admit(&mut self, stream: TcpStream, routes: Arc<Routes>) {
        let asked = Asked::default();
        let task = tokio::spawn(serve(stream, routes, Arc::clone(&asked)));
        self.open.push_back(Connection { accepted: Instant::now(), asked, task });
    }

    /// Returns when there is room for one more; may be dropped at any time.
    async fn make_room(&mut self) {
        while self.open.len() >= MAX_CONNECTIONS {
            self.open.retain(|connection| !connection.task.is_finished());
            let Some(connection) = self.open.get(self.least_missed()) else { return };
            if self.open.len() < MAX_CONNECTIONS {
                return;
            }
            sleep_until(connection.accepted + LEAST_TIME).await;
            // What has arrived meanwhile is looked at first: it may have asked by now, and the next one must have its time too.
            yield_now().await;
            let had_its_time = |connection: &Connection| connection.accepted.elapsed() >= LEAST_TIME;
            if self.open.get(self.least_missed()).is_some_and(had_its_time) {
                self.close_one();
            }
        }
    }

    /// The place of the one that is missed least: the oldest that has not asked, or if all have the oldest.
    fn least_missed(&self) -> usize {
        self.open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Closes the one that is missed least.
    fn close_one(&mut self) {
        if let Some(connection) = self.open.remove(self.least_missed()) {
            connection.task.abort();
        }
    }

    async fn finish(&mut self) {
        for connection in &mut self.open {
            // Its end is all that matters here.
            drop((&mut connection.task).await);
        }
    }
}

/// Accepts and serves connections until `stopped`.
pub(super) async fn accept(listener: TcpListener, routes: Arc<Routes>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = Connections::default();
    loop {
        let next = async {
            connections.make_room().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            biased;
            _ = &mut stopped => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.admit(stream, Arc::clone(&routes)),
            // Descriptors are the pipeline's too: give one back rather than wait for clients to do so.
            Err(_) => {
                connections.close_one();
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
    drop(listener);
    // The process is about to end: who is not done by then is closed with it.
    drop(timeout(STOP, connections.finish()).await);
}

/// Serves one connection to its end, which comes within [`LIFETIME`].
async fn serve(stream: TcpStream, routes: Arc<Routes>, asked: Asked) {
    let exchange = async {
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            ready(Ok::<_, Infallible>(routes.answer(&request)))
        });
        let mut connection = http1::Builder::new()
            .keep_alive(false)
            .half_close(true)
            .max_buf_size(MAX_HEAD)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(stream), service);
        // What hyper makes of a bad request it has told the client; there is nothing to tell anybody else.
        drop(poll_fn(|context| connection.poll_without_shutdown(context)).await);
        close(connection.into_parts().io.into_inner()).await;
    };
    // An answer that is not taken in time is not taken.
    drop(timeout(LIFETIME, exchange).await);
}

/// Closes in a way that leaves the client its answer: closing while it still sends would reset the connection.
async fn close(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let (mut rest, mut nowhere) = (stream.take(LINGER), tokio::io::sink());
        drop(timeout(LINGER_TIME, tokio::io::copy(&mut rest, &mut nowhere)).await);
    }
}
