//! One connection through the proxy.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::frames::Frame;
use super::{Author, Direction, Fate, Link, Protocol};

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Requests of Redis that were not answered yet, oldest first: replies do not say what they answer.
type Asked = Arc<Mutex<VecDeque<Vec<u8>>>>;

/// One that was accepted. From that moment it counts as open, and a reset closes it.
pub(super) struct Connection {
    link: Arc<Link>,
    client: TcpStream,
    epoch: watch::Receiver<u64>,
    author: Option<Author>,
    counted: Counted,
}

/// Counts as an open connection until it is dropped.
struct Counted(Arc<Link>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Connection {
    pub(super) fn accepted(link: &Arc<Link>, client: TcpStream) -> Self {
        link.open.send_modify(|open| *open += 1);
        let (epoch, author) = (link.epoch.subscribe(), link.author.lock().unwrap().clone());
        Self { link: Arc::clone(link), client, epoch, author, counted: Counted(Arc::clone(link)) }
    }

    /// Passes bytes both ways until one side closes or all connections are to be closed.
    pub(super) async fn run(self) {
        // Dropped last: what counts as gone passes nothing any more.
        let Self { link, client, mut epoch, author, counted: _counted } = self;
        let Ok(server) = TcpStream::connect(link.upstream).await else { return };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let shared = Shared { link, asked: Asked::default(), author };
        let mut up = Pump::new(&shared, Direction::ToServer, from_client, to_server);
        let mut down = Pump::new(&shared, Direction::ToClient, from_server, to_client);
        tokio::select! {
            _ = up.run() => {}
            _ = down.run() => {}
            _ = epoch.changed() => {
                for half in [&up.to, &down.to] {
                    // With no time to linger the other side sees a reset and not an orderly end.
                    #[expect(deprecated, reason = "blocks for the time given, which is none")]
                    let _ = AsRef::<TcpStream>::as_ref(half).set_linger(Some(std::time::Duration::ZERO));
                }
            }
        }
    }
}

/// What both directions of a connection share.
#[derive(Clone)]
struct Shared {
    link: Arc<Link>,
    asked: Asked,
    /// Whose connection it is, if that is noted.
    author: Option<Author>,
}

/// One direction of a connection.
struct Pump {
    shared: Shared,
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    changed: watch::Receiver<u64>,
    buffer: Vec<u8>,
}

impl Pump {
    fn new(shared: &Shared, direction: Direction, from: OwnedReadHalf, to: OwnedWriteHalf) -> Self {
        let (shared, changed) = (shared.clone(), shared.link.changed.subscribe());
        Self { shared, direction, from, to, changed, buffer: Vec::new() }
    }

    /// Ends with the connection.
    async fn run(&mut self) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(());
            }
            self.buffer.extend_from_slice(&chunk[..count]);
            let delay = self.shared.link.faults.lock().unwrap().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.pass().await?;
        }
    }

    /// Passes every whole frame of the buffer.
    async fn pass(&mut self) -> std::io::Result<()> {
        loop {
            self.until_open().await;
            let (passed, consumed, all) = self.sort();
            if !passed.is_empty() {
                self.to.write_all(&passed).await?;
            }
            self.buffer.drain(..consumed);
            if all {
                return Ok(());
            }
        }
    }

    /// What may pass now, how much of the buffer is dealt with, and whether that was every whole frame of it.
    fn sort(&mut self) -> (Vec<u8>, usize, bool) {
        let mut faults = self.shared.link.faults.lock().unwrap();
        let (mut passed, mut at) = (Vec::new(), 0);
        while let Some(length) = self.shared.link.protocol.frame(&self.buffer[at..]) {
            if faults.blocked(self.direction) {
                return (passed, at, false);
            }
            let bytes = &self.buffer[at..at + length];
            let request = self.request(bytes);
            let frame = Frame { direction: self.direction, bytes, request: request.as_deref() };
            let fate = if faults.watches_frames() { faults.fate(&frame) } else { Fate::Pass };
            if let Some(author) = &self.shared.author {
                author.note(self.direction, bytes, fate != Fate::Drop);
            }
            if fate != Fate::Drop {
                let start = passed.len();
                passed.extend_from_slice(bytes);
                faults.forge(self.direction, &mut passed[start..]);
            }
            at += length;
        }
        (passed, at, true)
    }

    /// The Redis request that this is, or that it answers.
    fn request(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.shared.link.protocol == Protocol::Nats {
            return None;
        }
        let mut asked = self.shared.asked.lock().unwrap();
        match self.direction {
            Direction::ToServer => {
                asked.push_back(bytes.to_vec());
                Some(bytes.to_vec())
            }
            // A push of RESP 3 answers nothing.
            Direction::ToClient if bytes.starts_with(b">") => None,
            Direction::ToClient => asked.pop_front(),
        }
    }

    /// Waits until this direction is open.
    async fn until_open(&mut self) {
        while self.shared.link.faults.lock().unwrap().blocked(self.direction) {
            // The sender lives as long as the link.
            let _ = self.changed.changed().await;
        }
    }
}
