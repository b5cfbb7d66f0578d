//! Builds the service from its configuration: connections, streams, ports, pipeline, HTTP.

pub mod reload;
pub mod settings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_actors::pipeline::{self, Pipeline, Ports};
use cdc_actors::ports::{Clock, DedupStore, Dependency, Failure, Source, SystemClock, Transform};
use cdc_actors::retry::Backoff;
use cdc_actors::supervisor::Ended;
use slog::{Logger, error, info, warn};

use crate::adapters::http;
use crate::adapters::memory::MemoryStore;
use crate::adapters::nats::{
    self, ConnectError, Connection, ConnectionEvent, DeadLetterSettings, JetStreamDeadLetters, JetStreamPublisher,
    JetStreamSource, PublisherSettings, SetupError, SourceSettings, consumers, streams,
};
use crate::adapters::redis::{InvalidRedis, RedisStore};
use crate::adapters::telemetry::Telemetry;
use crate::cli::ExitStatus;
use crate::config::{Config, DedupKind, WhenUnavailable};
use crate::domain::CdcTransform;

/// Between two attempts while a dependency is away at the start.
const START_BACKOFF: Backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1) };
/// Between two upkeeps of the metrics, which histograms need whether they are scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the ack of a dead letter is waited for.
const LETTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing a connection may take at the end.
const CLOSE: Duration = Duration::from_secs(2);

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A dependency was away for `start_timeout`.
    #[error("{dependency} could not be reached within {} s", after.as_secs())]
    Unreachable {
        /// Which.
        dependency: Dependency,
        /// For how long it was tried.
        after: Duration,
        /// What the last attempt said.
        #[source]
        source: Failure,
    },
    /// The NATS settings make no sense.
    #[error("the NATS settings cannot be used")]
    Nats(#[from] ConnectError),
    /// A stream or consumer is not what the delivery protocol needs.
    #[error("the streams cannot be used")]
    Setup(#[from] SetupError),
    /// The Redis settings make no sense.
    #[error("the Redis settings cannot be used")]
    Redis(#[from] InvalidRedis),
    /// What may be in flight has no room for two of the largest messages.
    #[error(
        "in_flight.bytes is {configured}, but the server accepts messages of {max_payload} bytes: allow at least twice as much"
    )]
    InFlightBytes {
        /// The setting.
        configured: usize,
        /// The server's.
        max_payload: usize,
    },
    /// The port for HTTP is not to be had.
    #[error(transparent)]
    Http(#[from] http::HttpError),
}

impl StartError {
    /// What the process ends with.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::Unreachable { .. } => ExitStatus::Unreachable,
            _ => ExitStatus::BadConfig,
        }
    }
}

/// The running service.
pub struct Service {
    config: Config,
    transform: Arc<CdcTransform>,
    pipeline: Pipeline,
    http: http::Http,
    telemetry: Arc<Telemetry>,
    /// That of the source, and that of the target.
    connections: Vec<Connection>,
    upkeep: actix_rt::task::JoinHandle<()>,
    logger: Logger,
}

impl Service {
    /// Connects, creates what is missing, and starts. `arrange` may put something in front of the ports: an observer that
    /// counts, or one that makes trouble.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start<T: Transform>(
        config: &Config,
        logger: Logger,
        arrange: impl FnOnce(Ports<CdcTransform>) -> Ports<T>,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let transform = Arc::new(CdcTransform::new(settings::transform(config)));
        let tables = transform.tables();
        let telemetry = Arc::new(Telemetry::new(logger.clone(), Arc::clone(&clock), &tables));
        let http = http::serve(config.http.listen, Arc::clone(&telemetry), config.in_force().to_vec())?;
        info!(logger, "answering over HTTP"; "http" => %http.address());
        for warning in config.warnings() {
            warn!(logger, "{}", warning);
        }
        let attempts = Attempts::new(config.start_timeout, logger.clone(), Arc::clone(&telemetry));
        let intake = attempts.connect(config, "source", Dependency::Source).await?;
        let outlet = attempts.connect(config, "target", Dependency::Target).await?;
        let settings = settings::pipeline(config, intake.client().server_info().max_payload);
        if settings.in_flight.bytes < settings.largest_message.saturating_mul(2) {
            let (configured, max_payload) = (settings.in_flight.bytes, settings.largest_message);
            return Err(StartError::InFlightBytes { configured, max_payload });
        }
        // The target first: if it cannot be used, the consumer stays as it is.
        let publisher = Arc::new(attempts.publisher(config, &outlet).await?);
        let source = Arc::new(attempts.source(config, &intake, &logger).await?);
        let rest = async {
            Ok::<_, StartError>((attempts.dedup(config, &logger).await?, attempts.dead_letters(config, &outlet).await?))
        };
        let (dedup, dead_letters) = tokio::select! {
            rest = rest => rest?,
            never = tell_backlog(&*source, &telemetry, &*clock) => match never {},
        };
        let ports = Ports {
            publisher,
            source,
            transform: Arc::clone(&transform),
            dedup,
            dead_letters: Arc::new(dead_letters),
            observer: Arc::clone(&telemetry) as _,
            clock,
        };
        let (workers, threads) = (settings.workers, settings.threads);
        let pipeline = pipeline::start(arrange(ports), settings);
        telemetry.status().set_started(true);
        info!(logger, "started"; "http" => %http.address(), "workers" => workers, "threads" => threads,
            "source" => &config.source.stream, "target" => &config.target.stream);
        let upkeep = actix_rt::spawn(keep_up(Arc::clone(&telemetry)));
        let (config, connections) = (config.clone(), vec![intake, outlet]);
        Ok(Self { config, transform, pipeline, http, telemetry, connections, upkeep, logger })
    }

    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Its metrics and readiness.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Asks for the controlled shutdown.
    pub fn shutdown(&self) {
        info!(self.logger, "shutting down");
        self.pipeline.shutdown();
    }

    /// Waits until the pipeline has ended; cancel-safe.
    pub async fn ended(&mut self) -> Ended {
        self.pipeline.ended().await
    }

    /// Closes what is left once the pipeline has ended.
    pub async fn close(self, ended: &Ended) {
        self.upkeep.abort();
        for connection in &self.connections {
            connection.close(CLOSE).await;
        }
        self.http.stop().await;
        if ended.drained {
            info!(self.logger, "drained: everything in flight is settled and the server has heard of it");
        } else {
            warn!(
                self.logger,
                "ended before the server had heard that everything in flight is settled: the source delivers the rest again"
            );
        }
    }
}

/// What waits, and for how long, must be known also while the service waits for another dependency.
async fn tell_backlog(source: &dyn Source, telemetry: &Telemetry, clock: &dyn Clock) -> Infallible {
    loop {
        if let Ok(backlog) = source.backlog().await {
            backlog.tell(telemetry, clock.unix_nanos());
        }
        actix_rt::time::sleep(UPKEEP).await;
    }
}

async fn keep_up(telemetry: Arc<Telemetry>) {
    let mut ticks = actix_rt::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        telemetry.upkeep();
    }
}

/// Tries until it works or `start_timeout` is over.
struct Attempts {
    started: Instant,
    timeout: Duration,
    logger: Logger,
    telemetry: Arc<Telemetry>,
}

/// What one attempt came to.
enum Attempt {
    /// Worth another.
    Failed(Failure),
    /// Not.
    Hopeless(StartError),
}

impl From<SetupError> for Attempt {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Failed(failure) => Self::Failed(failure),
            hopeless => Self::Hopeless(hopeless.into()),
        }
    }
}

impl Attempts {
    fn new(timeout: Duration, logger: Logger, telemetry: Arc<Telemetry>) -> Self {
        Self { started: Instant::now(), timeout, logger, telemetry }
    }

    async fn until_it_works<R>(
        &self,
        dependency: Dependency,
        attempt: impl AsyncFn() -> Result<R, Attempt>,
    ) -> Result<R, StartError> {
        let mut failures = 0;
        loop {
            let source = match attempt().await {
                Ok(result) => {
                    self.telemetry.reached(dependency);
                    return Ok(result);
                }
                Err(Attempt::Hopeless(error)) => return Err(error),
                Err(Attempt::Failed(failure)) => failure,
            };
            failures += 1;
            if self.started.elapsed() >= self.timeout {
                return Err(StartError::Unreachable { dependency, after: self.timeout, source });
            }
            self.telemetry.waiting(dependency, &source);
            actix_rt::time::sleep(START_BACKOFF.ceiling(failures)).await;
        }
    }

    async fn connect(
        &self,
        config: &Config,
        role: &'static str,
        dependency: Dependency,
    ) -> Result<Connection, StartError> {
        let nats = settings::nats(config, role);
        self.until_it_works(dependency, async || {
            let on_event = connection_log(role, Arc::clone(&self.telemetry), self.logger.clone());
            Connection::connect(&nats, on_event).await.map_err(|error| match error.class() {
                Some(class) => Attempt::Failed(Failure::new("connect to NATS", class, error)),
                None => Attempt::Hopeless(error.into()),
            })
        })
        .await
    }

    async fn source(
        &self,
        config: &Config,
        connection: &Connection,
        logger: &Logger,
    ) -> Result<JetStreamSource, StartError> {
        let stream = settings::source_stream(config);
        let consumer = settings::consumer(config);
        self.until_it_works(Dependency::Source, async || {
            let found = streams::ensure_stream(connection, &stream).await?;
            let misfit = nats::fit(connection, &stream, &found).await?;
            for note in consumers::ensure_consumer(connection, &stream.name, &found.subjects, &consumer).await? {
                warn!(logger, "{}", note);
            }
            misfit.iter().for_each(|misfit| warn!(logger, "{}", misfit));
            Ok(())
        })
        .await?;
        let logger = logger.clone();
        let on_note = move |note| warn!(logger, "{}", note);
        let stale_after = consumer.ack_wait + config.dedup.ttl / 2;
        let settings = SourceSettings { stream, consumer, stalled_after: config.source.stalled_after, stale_after };
        Ok(JetStreamSource::new(connection.clone(), settings, on_note))
    }

    async fn publisher(&self, config: &Config, connection: &Connection) -> Result<JetStreamPublisher, StartError> {
        let (target, ack_wait) = (settings::target_stream(config), config.source.ack_wait);
        self.until_it_works(Dependency::Target, async || {
            let found = streams::ensure_target(connection, &target, ack_wait).await?;
            let misfit = nats::fit(connection, &target, &found).await?;
            let started = JetStreamPublisher::new(connection.clone(), PublisherSettings::new(&target.name)).await;
            let started = started.map_err(Attempt::Failed)?;
            misfit.iter().for_each(|misfit| warn!(self.logger, "{}", misfit));
            Ok(started)
        })
        .await
    }

    async fn dead_letters(&self, config: &Config, connection: &Connection) -> Result<JetStreamDeadLetters, StartError> {
        let stream = settings::dead_letter_stream(config);
        let letters = &config.dead_letter;
        let settings = DeadLetterSettings {
            stream: letters.stream.clone(),
            subject_prefix: letters.subject_prefix.clone(),
            source_stream: config.source.stream.clone(),
            ack_timeout: LETTER_TIMEOUT,
        };
        self.until_it_works(Dependency::DeadLetter, async || {
            let found = streams::ensure_stream(connection, &stream).await?;
            let misfit = nats::fit(connection, &stream, &found).await?;
            let made = JetStreamDeadLetters::new(connection.clone(), settings.clone()).await;
            let made = made.map_err(Attempt::Failed)?;
            misfit.iter().for_each(|misfit| warn!(self.logger, "{}", misfit));
            Ok(made)
        })
        .await
    }

    async fn dedup(&self, config: &Config, logger: &Logger) -> Result<Arc<dyn DedupStore>, StartError> {
        if config.dedup.store == DedupKind::Memory {
            return Ok(Arc::new(MemoryStore::new(config.dedup.ttl, config.dedup.memory_max_entries)));
        }
        let store = RedisStore::new(&settings::redis(config))?;
        let asked = self.until_it_works(Dependency::Dedup, async || store.warnings().await.map_err(Attempt::Failed));
        match asked.await {
            Ok(warnings) => warnings.iter().for_each(|warning| warn!(logger, "{}", warning)),
            Err(error) if config.dedup.when_unavailable == WhenUnavailable::Bypass => {
                // The actors hear of changes alone, and begin with a store that is there.
                self.telemetry.reached(Dependency::Dedup);
                warn!(logger, "starting without the dedup store, dedup.when_unavailable being bypass"; "error" => %error);
            }
            Err(error) => return Err(error),
        }
        Ok(Arc::new(store))
    }
}

fn connection_log(
    role: &'static str,
    telemetry: Arc<Telemetry>,
    logger: Logger,
) -> impl Fn(ConnectionEvent) + Send + Sync + 'static {
    let connected_before = std::sync::atomic::AtomicBool::new(false);
    move |event| match event {
        ConnectionEvent::Connected => {
            if connected_before.swap(true, std::sync::atomic::Ordering::Relaxed) {
                telemetry.nats_reconnected();
                info!(logger, "connected to NATS again"; "dependency" => role);
            }
        }
        ConnectionEvent::Disconnected => warn!(logger, "lost the connection to NATS"; "dependency" => role),
        ConnectionEvent::LameDuck => info!(logger, "the NATS server is shutting down"; "dependency" => role),
        ConnectionEvent::Closed => {}
        ConnectionEvent::SlowConsumer => error!(logger, "a subscription overflowed"; "dependency" => role),
        ConnectionEvent::ServerError(text) => {
            error!(logger, "the NATS server complained"; "dependency" => role, "error" => text)
        }
        ConnectionEvent::ClientError(text) => {
            warn!(logger, "the NATS client complained"; "dependency" => role, "error" => text)
        }
    }
}
