//! nats-server, one or three, with users of its own for service and harness; its streams.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;

use super::{CONSUMER, PATIENCE, PAUSE, SOURCE, TARGET, World};
use crate::judge::is_missing;
use crate::scenarios::Setup;
use crate::servers::{NatsCluster, NatsServer, NatsVersion};

/// The servers of a world, and what they are told.
pub(super) struct Nats {
    body: Body,
    /// The file system under the data, if it is a small one.
    disk: Option<Disk>,
    knobs: Knobs,
    /// The number of its version.
    pub version: String,
}

enum Body {
    One(NatsServer),
    Cluster(NatsCluster),
}

/// What can be changed by a reload.
struct Knobs {
    password: String,
    /// The harness's own password: no other world's client can stray into this one.
    harness: String,
    max_payload: String,
    denied: Vec<String>,
}

impl Knobs {
    fn config(&self) -> String {
        let denied: Vec<String> = self.denied.iter().map(|subject| format!("{subject:?}")).collect();
        format!(
            r#"max_payload: {}
            authorization {{ users = [
                {{ user: proof, password: {:?} }}
                {{ user: service, password: {:?}, permissions: {{ publish: {{ allow: [">"], deny: [{}] }} }} }}
            ] }}"#,
            self.max_payload,
            self.harness,
            self.password,
            denied.join(", "),
        )
    }
}

/// A file system in memory, mounted for one world.
#[derive(Debug)]
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn mount(mib: u32) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().display();
        let status = shell(&format!("mount -t tmpfs -o size={mib}m tmpfs {path}"));
        assert!(status, "mounting a tmpfs needs the right to: run this scenario as root");
        Self { directory }
    }

    fn fill(&self) {
        let path = self.directory.path().join("filler");
        // Ends with "no space left on device", which is what is wanted.
        shell(&format!("dd if=/dev/zero of={} bs=64k 2>/dev/null", path.display()));
    }

    fn free(&self) {
        std::fs::remove_file(self.directory.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        shell(&format!("umount -l {}", self.directory.path().display()));
    }
}

fn shell(command: &str) -> bool {
    std::process::Command::new("sh").args(["-c", command]).status().is_ok_and(|status| status.success())
}

impl Nats {
    pub fn start(version: NatsVersion, setup: &Setup, seed: u64) -> Self {
        let knobs = Knobs {
            password: format!("planted-nats-secret-{seed}"),
            harness: format!("proof-{}", fastrand::u64(..)),
            max_payload: "1MB".to_owned(),
            denied: Vec::new(),
        };
        let disk = setup.disk_mib.map(Disk::mount);
        let binary = version.binary();
        let body = match (&disk, setup.cluster) {
            (_, true) => Body::Cluster(NatsCluster::start_with(&binary, 3, &knobs.config())),
            (Some(disk), false) => {
                Body::One(NatsServer::start_in(&binary, &knobs.config(), &disk.directory.path().join("data")))
            }
            (None, false) => Body::One(NatsServer::start_with(&binary, &knobs.config())),
        };
        let version = version.number().unwrap_or_default();
        Self { body, disk, knobs, version }
    }

    pub fn password(&self) -> String {
        self.knobs.password.clone()
    }

    /// Where replicas are led to: the first node of a cluster.
    pub fn address(&self) -> SocketAddr {
        let port = match &self.body {
            Body::One(server) => server.port(),
            Body::Cluster(cluster) => cluster.nodes[0].port(),
        };
        ([127, 0, 0, 1], port).into()
    }

    /// A client of the harness.
    pub async fn client(&self) -> jetstream::Context {
        let url = match &self.body {
            Body::One(server) => server.url(),
            Body::Cluster(cluster) => cluster.url(),
        };
        let servers: Vec<async_nats::ServerAddr> = url.split(',').map(|url| url.parse().unwrap()).collect();
        let client = async_nats::ConnectOptions::with_user_and_password("proof".to_owned(), self.knobs.harness.clone())
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(servers)
            .await
            .unwrap();
        let mut context = jetstream::new(client);
        context.set_timeout(Duration::from_secs(2));
        context
    }

    fn one(&mut self) -> &mut NatsServer {
        match &mut self.body {
            Body::One(server) => server,
            Body::Cluster(cluster) => &mut cluster.nodes[0],
        }
    }

    fn reload(&mut self) {
        let config = self.knobs.config();
        self.one().reload(&config);
    }
}

impl World {
    /// Ends nats-server at once.
    pub async fn kill_nats(&mut self) {
        self.nats.one().kill();
    }

    /// Starts nats-server again with what it has stored.
    pub async fn restart_nats(&mut self) {
        self.nats.one().restart();
    }

    /// Lets nats-server stand still.
    pub fn freeze_nats(&mut self) {
        self.nats.one().stop();
    }

    /// Lets nats-server go on.
    pub fn thaw_nats(&mut self) {
        self.nats.one().cont();
    }

    /// A copy of what the target holds, while nats-server is down.
    pub fn copy_target(&mut self) -> TempDir {
        let copy = TempDir::new().unwrap();
        let path = self.target_directory();
        assert!(shell(&format!("cp -a '{}/.' '{}'", path.display(), copy.path().display())), "copying the target");
        copy
    }

    /// Puts the copy in place of what the target holds, while nats-server is down.
    pub fn restore_target(&mut self, copy: &TempDir) {
        self.sampler.stream_changes();
        let path = self.target_directory();
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(shell(&format!("cp -a '{}/.' '{}'", copy.path().display(), path.display())), "restoring the target");
        self.sampler.target_changed();
        self.target_changed = true;
        self.authors.begin_again();
    }

    /// Where nats-server keeps the target.
    fn target_directory(&mut self) -> PathBuf {
        self.nats.one().store().join("jetstream/$G/streams").join(TARGET)
    }

    /// Forbids the service to publish to these subjects, and allows all others.
    pub async fn deny_publish(&mut self, subjects: &[&str]) {
        self.nats.knobs.denied = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        self.nats.reload();
    }

    /// Sets the largest payload that the server takes.
    pub async fn set_max_payload(&mut self, size: &str) {
        self.nats.knobs.max_payload = size.to_owned();
        self.nats.reload();
        // A client goes by what it was told when it connected.
        self.js = self.nats.client().await;
    }

    /// Fills the file system under nats-server.
    pub fn fill_disk(&mut self) {
        match &self.nats.disk {
            Some(disk) => disk.fill(),
            None => self.expect(false, "the scenario has a disk of its own"),
        }
    }

    /// Gives room again.
    pub fn free_disk(&mut self) {
        match &self.nats.disk {
            Some(disk) => disk.free(),
            None => self.expect(false, "the scenario has a disk of its own"),
        }
    }

    /// Ends the leader of a stream at once: which node it was.
    pub async fn kill_leader(&mut self, stream: &str) -> usize {
        let Body::Cluster(cluster) = &mut self.nats.body else { panic!("the scenario has a cluster") };
        let node = cluster.leader_of_stream(&self.js, stream).await;
        cluster.nodes[node].kill();
        self.tell(format!("killed node {node}, leader of {stream}"));
        node
    }

    /// Starts a node again.
    pub async fn restart_node(&mut self, node: usize) {
        let Body::Cluster(cluster) = &mut self.nats.body else { panic!("the scenario has a cluster") };
        cluster.nodes[node].restart();
    }

    /// Deletes the durable consumer.
    pub async fn delete_consumer(&mut self) {
        self.insist("the consumer goes", |js| async move {
            let Ok(stream) = js.get_stream(SOURCE).await else { return false };
            let _ = stream.delete_consumer(CONSUMER).await;
            true
        })
        .await;
    }

    /// Has the consumer pass everything that the source holds, as that of a server that was killed may have: one that looks for
    /// a single message, the last, and has it behind it. Nothing but a consumer made anew gives what lies before.
    pub async fn pass_everything(&mut self) {
        self.delete_consumer().await;
        self.insist("the consumer passes everything", |js| async move { pass(&js).await.is_some() }).await;
    }

    /// Deletes the target and all it holds.
    pub async fn delete_target(&mut self) {
        self.sampler.stream_changes();
        self.insist("the target goes", |js| async move { delete(&js, TARGET).await }).await;
        self.sampler.target_changed();
        self.target_changed = true;
        self.authors.begin_again();
    }

    /// Creates the target as the service would.
    pub async fn create_target(&mut self) {
        self.insist("the target comes", |js| async move {
            let config = stream::Config {
                name: TARGET.to_owned(),
                subjects: vec!["wa.>".to_owned()],
                duplicate_window: Duration::from_secs(120),
                ..Default::default()
            };
            js.get_or_create_stream(config).await.is_ok()
        })
        .await;
    }

    /// Deletes the source and creates it again, empty, with the same configuration: the last sequence that it had. The story takes
    /// away by it what was not acknowledged then; nothing may be fed or acknowledged meanwhile.
    pub async fn recreate_source(&mut self) -> u64 {
        let seen = self.insist_on("the source tells of itself", |js| async move {
            let mut stream = js.get_stream(SOURCE).await.ok()?;
            let mut consumer = stream.get_consumer::<consumer::pull::Config>(CONSUMER).await.ok()?;
            let floor = consumer.info().await.ok()?.ack_floor.stream_sequence;
            let info = stream.info().await.ok()?;
            Some((floor, info.state.last_sequence, info.config.clone()))
        });
        let Some((floor, last, config)) = seen.await else { return 0 };
        self.excused.extend(self.ledger.numbers_above(floor));
        self.sampler.stream_changes();
        self.insist("the source goes", |js| async move { delete(&js, SOURCE).await }).await;
        self.insist("the source comes", |js| {
            let config = config.clone();
            async move { js.get_or_create_stream(config).await.is_ok() }
        })
        .await;
        self.ledger.source_recreated();
        self.sampler.source_changed();
        last
    }

    /// Makes the target refuse what is new, or takes this back.
    pub async fn limit_target(&mut self, full: bool) {
        self.insist("the target changes", |js| async move {
            let Ok(mut stream) = js.get_stream(TARGET).await else { return false };
            let Ok(info) = stream.info().await else { return false };
            let mut config = info.config.clone();
            // With some room left: a server that finds itself above a new limit takes the oldest away.
            let room = i64::try_from(info.state.messages + 500).unwrap_or(i64::MAX);
            config.max_messages = if full { room } else { -1 };
            js.update_stream(config).await.is_ok()
        })
        .await;
    }

    /// How many events the target holds.
    pub async fn target_count(&self) -> u64 {
        self.target_state().await.map_or(0, |state| state.messages)
    }

    /// The last sequence of the target under a subject; 0 if there is none.
    pub async fn target_last_under(&mut self, subject: &str) -> u64 {
        let last = self.insist_on("the target tells of its last event", |js| async move {
            let stream = js.get_stream(TARGET).await.ok()?;
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Some(message.sequence),
                Err(error) => (error.kind() == stream::LastRawMessageErrorKind::NoMessageFound).then_some(0),
            }
        });
        last.await.unwrap_or_default()
    }

    /// The last sequence of the target; `None` if it is away.
    pub(super) async fn target_last(&self) -> Option<u64> {
        self.target_state().await.map(|state| state.last_sequence)
    }

    async fn target_state(&self) -> Option<stream::State> {
        let mut stream = self.js.get_stream(TARGET).await.ok()?;
        stream.info().await.ok().map(|info| info.state.clone())
    }

    /// Does something to the server until it has been done.
    async fn insist<F>(&mut self, what: &str, done: impl Fn(jetstream::Context) -> F)
    where
        F: Future<Output = bool>,
    {
        self.insist_on(what, |js| done(js).map(|done| done.then_some(()))).await;
    }

    /// Asks the server until it has answered.
    async fn insist_on<F, R>(&mut self, what: &str, answer: impl Fn(jetstream::Context) -> F) -> Option<R>
    where
        F: Future<Output = Option<R>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answered = answer(self.js.clone()).await;
            if answered.is_some() {
                return answered;
            }
            if Instant::now() > deadline {
                self.expect(false, format!("{what} within {PATIENCE:?}"));
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Deletes a stream; whether it is gone, be it by an attempt whose answer was not heard.
async fn delete(js: &jetstream::Context, name: &str) -> bool {
    js.delete_stream(name).await.is_ok() || js.get_stream(name).await.is_err_and(|error| is_missing(&error))
}

/// `None` where it has to be tried again.
async fn pass(js: &jetstream::Context) -> Option<()> {
    // Of a table that the service skips.
    const MARK: &str = "sequin.changes.daisi_db.daisi.marks.insert";
    let config = consumer::pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        filter_subject: MARK.to_owned(),
        ..Default::default()
    };
    let mut consumer = js.get_stream(SOURCE).await.ok()?.get_or_create_consumer(CONSUMER, config).await.ok()?;
    let mark = js.publish(MARK, "{}".into()).await.ok()?.await.ok()?.sequence;
    while consumer.info().await.ok()?.ack_floor.stream_sequence < mark {
        let mut messages = consumer.fetch().max_messages(1).messages().await.ok()?;
        while let Some(Ok(message)) = messages.next().await {
            message.ack().await.ok()?;
        }
    }
    Some(())
}
