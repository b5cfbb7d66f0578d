//! Controls: a service that is just good enough to keep the promise, slowly, and that can leave out any one of its defences.
//! A scenario in which it keeps the promise without a defence proves nothing about that defence.

mod event;
mod records;
mod service;

use std::fmt;
use std::process::ExitCode;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A defence that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flaw {
    /// Marks an event in Redis before it is published, as the service that this one replaces did.
    MarkFirst,
    /// Publishes without `Nats-Msg-Id`.
    NoMsgId,
    /// Publishes without `Nats-Msg-Id`, and neither checks nor records.
    NoDedup,
    /// Acknowledges the source before the target has confirmed.
    AckFirst,
    /// Publishes a row's events in any order, as a pool without keys does.
    Spread,
    /// Takes any record for valid, whatever target it was made for.
    NoRecordGeneration,
    /// Acknowledges what can never be published, and forgets it.
    DropPoison,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("hidden", |value| value.get_name()))
    }
}

/// Runs until SIGTERM, with the settings of the real service in the environment.
pub async fn run(flaw: Option<Flaw>) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut term = signal(SignalKind::terminate()).unwrap();
    let mut service = service::Service::connect(flaw).await;
    eprintln!(r#"{{"msg":"started","http":"{}"}}"#, listener.local_addr().unwrap());
    tokio::spawn(pages(listener));
    tokio::select! {
        () = service.run() => {}
        _ = term.recv() => {}
    }
    ExitCode::SUCCESS
}

/// Answers every page as a service that is well does.
async fn pages(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 1024];
        // Whoever goes away before the answer does not want it.
        let _ = stream.read(&mut request).await;
        let body = "cdc_consumer_in_flight 0\n";
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}
