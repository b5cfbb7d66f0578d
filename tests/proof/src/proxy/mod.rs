//! A TCP proxy that breaks what passes: whole connections, directions, or frames of NATS and Redis.

mod authors;
mod connection;
pub mod frames;
mod nats;
mod resp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use self::authors::{Author, Authors, LifeId};
use self::connection::Connection;
use self::frames::{Frame, FrameFilter};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The NATS client protocol.
    Nats,
    /// RESP 2 or 3.
    Redis,
}

impl Protocol {
    /// The length of the first frame, if it is there as a whole.
    fn frame(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Nats => nats::frame(bytes),
            Self::Redis => resp::frame(bytes),
        }
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What is wrong with the link at present.
#[derive(Debug, Default)]
struct Faults {
    cut: bool,
    to_server_blocked: bool,
    to_client_blocked: bool,
    delay: Duration,
    drops: Vec<(FrameFilter, usize)>,
    forgery: Option<Forgery>,
    healed_by: Option<FrameFilter>,
    trip: Option<Trip>,
    dropped: u64,
}

/// What clients are told in place of the truth. Both are of one length, so that frames stay what they are.
#[derive(Debug)]
struct Forgery {
    truth: &'static [u8],
    told: &'static [u8],
}

#[derive(Debug)]
struct Trip {
    filter: FrameFilter,
    left: usize,
    /// Another link that nothing passes any more from that moment on.
    with: Option<Arc<Link>>,
    tripped: oneshot::Sender<()>,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    /// It passes, and nothing after it.
    PassLast,
}

impl Faults {
    fn blocked(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.to_server_blocked,
            Direction::ToClient => self.to_client_blocked,
        }
    }

    /// Whether frames need to be looked at one by one.
    fn watches_frames(&self) -> bool {
        !self.drops.is_empty() || self.healed_by.is_some() || self.trip.is_some()
    }

    fn heal(&mut self) {
        *self = Self { dropped: self.dropped, ..Self::default() };
    }

    /// Forges what goes to a client, if anything is to be forged.
    fn forge(&self, direction: Direction, bytes: &mut [u8]) {
        let Some(Forgery { truth, told }) = &self.forgery else { return };
        if direction == Direction::ToClient
            && let Some(at) = bytes.windows(truth.len()).position(|part| part == *truth)
        {
            bytes[at..at + told.len()].copy_from_slice(told);
        }
    }

    fn fate(&mut self, frame: &Frame<'_>) -> Fate {
        if self.healed_by.as_ref().is_some_and(|filter| filter.matches(frame)) {
            self.heal();
            return Fate::Pass;
        }
        if let Some((_, left)) = self.drops.iter_mut().find(|(filter, left)| *left > 0 && filter.matches(frame)) {
            *left -= 1;
            self.dropped += 1;
            self.drops.retain(|(_, left)| *left > 0);
            return Fate::Drop;
        }
        let Some(mut trip) = self.trip.take_if(|trip| trip.filter.matches(frame)) else { return Fate::Pass };
        trip.left -= 1;
        if trip.left > 0 {
            self.trip = Some(trip);
            return Fate::Pass;
        }
        (self.to_server_blocked, self.to_client_blocked) = (true, true);
        if let Some(link) = &trip.with {
            link.change(|faults| (faults.to_server_blocked, faults.to_client_blocked) = (true, true));
        }
        // Nobody may wait for it any more.
        let _ = trip.tripped.send(());
        Fate::PassLast
    }
}

/// What proxy and connections share. The number in `epoch` rises when all connections are to be closed.
#[derive(Debug)]
struct Link {
    protocol: Protocol,
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    /// Whose connections are opened from now on, if that is noted.
    author: Mutex<Option<Author>>,
    /// Told whenever the faults have changed.
    changed: watch::Sender<u64>,
    epoch: watch::Sender<u64>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

impl Link {
    fn change(&self, how: impl FnOnce(&mut Faults)) {
        how(&mut self.faults.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
    }
}

/// A proxy on a free port of 127.0.0.1; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before a server.
    pub async fn start(upstream: SocketAddr, protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (changed, epoch, open) = (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new(0));
        let (faults, author) = (Mutex::default(), Mutex::default());
        let link = Arc::new(Link { protocol, upstream, faults, author, changed, epoch, open });
        let shared = Arc::clone(&link);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // While it is cut, whoever connects is turned away at once.
                if !shared.faults.lock().unwrap().cut {
                    tokio::spawn(Connection::accepted(&shared, client).run());
                }
            }
        });
        Self { address, link, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Notes what passes over connections that are opened from now on: they are this author's.
    pub fn belongs_to(&self, author: Author) {
        *self.link.author.lock().unwrap() = Some(author);
    }

    /// Closes every connection and turns new ones away.
    pub fn cut(&self) {
        self.link.change(|faults| faults.cut = true);
        self.reset();
    }

    /// Ends every fault. What was held back passes; what was dropped is gone.
    pub fn heal(&self) {
        self.link.change(Faults::heal);
    }

    /// Closes every connection abruptly, once.
    pub fn reset(&self) {
        self.link.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Closes every connection abruptly, with all that is held back on them, and ends every fault once the last is gone: what
    /// the client had sent until then reaches nobody any more.
    pub async fn sever(&self) {
        self.reset();
        // The sender lives as long as the link.
        let _ = self.link.open.subscribe().wait_for(|open| *open == 0).await;
        self.heal();
    }

    /// Lets nothing pass in either direction, while connections stay open.
    pub fn stall(&self) {
        self.link.change(|faults| (faults.to_server_blocked, faults.to_client_blocked) = (true, true));
    }

    /// Lets nothing pass in one direction, while connections stay open.
    pub fn block(&self, direction: Direction) {
        self.link.change(|faults| match direction {
            Direction::ToServer => faults.to_server_blocked = true,
            Direction::ToClient => faults.to_client_blocked = true,
        });
    }

    /// Makes everything take this much longer, each way.
    pub fn delay(&self, time: Duration) {
        self.link.change(|faults| faults.delay = time);
    }

    /// Swallows the next frames of a kind, so many times.
    pub fn drop_frames(&self, filter: FrameFilter, times: usize) {
        self.link.change(|faults| faults.drops.push((filter, times)));
    }

    /// Tells the client `told` where the server says `truth`, which is as long, in every frame once.
    pub fn forge(&self, truth: &'static [u8], told: &'static [u8]) {
        assert_eq!(truth.len(), told.len(), "a frame's length is told before what it holds");
        self.link.change(|faults| faults.forgery = Some(Forgery { truth, told }));
    }

    /// Ends every fault with the next frame of a kind, which passes.
    pub fn heal_at(&self, filter: FrameFilter) {
        self.link.change(|faults| faults.healed_by = Some(filter));
    }

    /// How many frames were swallowed so far.
    pub fn dropped(&self) -> u64 {
        self.link.faults.lock().unwrap().dropped
    }

    /// Lets the `nth` frame of a kind pass, from 1, and nothing after it in either direction; the future ends then.
    pub fn trip(&self, filter: FrameFilter, nth: usize) -> impl Future<Output = ()> + use<> {
        self.trip_with(None, filter, nth)
    }

    /// As [`Self::trip`]; in the same moment nothing passes another link any more either.
    pub fn trip_with(&self, other: Option<&Self>, filter: FrameFilter, nth: usize) -> impl Future<Output = ()> + use<> {
        let (tripped, wire) = oneshot::channel();
        let with = other.map(|other| Arc::clone(&other.link));
        self.link.change(|faults| faults.trip = Some(Trip { filter, left: nth.max(1), with, tripped }));
        async move {
            // An error says that the link was healed before: there is nothing to wait for any more.
            let _ = wire.await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// A server that keeps everything it hears, over all connections.
    async fn listening() -> (SocketAddr, Arc<Mutex<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
        let shared = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let heard = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1_000];
                    while let Ok(count @ 1..) = client.read(&mut bytes).await {
                        heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                    }
                });
            }
        });
        (address, heard)
    }

    async fn until(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_a_dead_client_had_sent_reaches_nobody_once_its_connections_are_severed() {
        let (server, heard) = listening().await;
        let proxy = Proxy::start(server, Protocol::Nats).await;
        for killed in [true, false] {
            let mut client = TcpStream::connect(proxy.address()).await.unwrap();
            let tripwire = proxy.trip(frames::publish("wa."), 2);
            for number in 1..=9 {
                client.write_all(format!("PUB wa.{number} 0\r\n\r\n").as_bytes()).await.unwrap();
            }
            tripwire.await;
            until("the second frame passes", || heard.lock().unwrap().contains("wa.2")).await;
            client.write_all(b"PUB wa.held 0\r\n\r\n").await.unwrap();
            if killed {
                drop(client);
            }
            proxy.sever().await;
            // Were anything held back it would come before what the next life sends, or while that is waited for.
            let mut next = TcpStream::connect(proxy.address()).await.unwrap();
            next.write_all(b"PUB wa.next 0\r\n\r\n").await.unwrap();
            until("the next life is heard", || heard.lock().unwrap().contains("wa.next")).await;
            let heard = std::mem::take(&mut *heard.lock().unwrap());
            assert_eq!(heard.replace("\r\n", "|"), "PUB wa.1 0||PUB wa.2 0||PUB wa.next 0||", "killed: {killed}");
        }
    }

    /// A server that confirms whatever it is sent, under one sequence after the other.
    async fn confirming() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut sequence = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                sequence += 1;
                tokio::spawn(async move {
                    let mut request = vec![0; 1_000];
                    while let Ok(1..) = client.read(&mut request).await {
                        let ack = format!(r#"{{"stream":"wa_stream","seq":{sequence}}}"#);
                        let text = String::from_utf8_lossy(&request);
                        let reply = text.split(' ').nth(2).unwrap();
                        let frame = format!("MSG {reply} 1 {}\r\n{ack}\r\n", ack.len());
                        client.write_all(frame.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }

    /// Publishes and waits for the ack.
    async fn publish(client: &mut TcpStream, reply: &str) {
        let headers = "NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n";
        let (head, all) = (headers.len(), headers.len() + 2);
        let frame = format!("HPUB wa.x {reply} {head} {all}\r\n{headers}{{}}\r\n");
        client.write_all(frame.as_bytes()).await.unwrap();
        assert!(client.read(&mut [0; 1_000]).await.unwrap() > 0);
    }

    #[tokio::test]
    async fn a_connection_stays_the_life_s_that_opened_it() {
        let proxy = Proxy::start(confirming().await, Protocol::Nats).await;
        let authors = Arc::<Authors>::default();
        let (mut clients, mut stored_by) = (Vec::new(), Vec::new());
        for life in [1, 2] {
            proxy.belongs_to(Author { life: LifeId(life), authors: Arc::clone(&authors) });
            let mut client = TcpStream::connect(proxy.address()).await.unwrap();
            publish(&mut client, &format!("_INBOX.{life}.1")).await;
            clients.push(client);
            stored_by.push(authors.of("a", u64::from(life)));
        }
        publish(&mut clients[0], "_INBOX.1.2").await;
        stored_by.push(authors.of("a", 1));
        assert_eq!(stored_by, [1, 2, 1].map(|life| Some(LifeId(life))));
    }
}
