//! Servers that are there and are not what they should be: `check` says what to look at, one line each.

use std::io::{Read, Write};
use std::net::TcpListener;

use async_nats::jetstream::stream::Config;

use crate::support::nats::{NatsServer, nats_servers};
use crate::support::world::{TARGET, World};
use crate::{json_tool, tool};

/// What listens, says `greeting` to whoever comes, and nothing more.
fn greets(greeting: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(greeting.as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    port
}

/// The lines that begin with `error: `, without that.
fn errors(world: &World, status: i32) -> Vec<String> {
    let (code, out, _) = tool(&world.settings, &["check"]);
    assert_eq!(code, status, "{out}");
    let known = ["configuration: ", "nats: ", "stream ", "consumer ", "dedup: ", "error: ", "warning: "];
    assert!(out.lines().all(|line| known.iter().any(|known| line.starts_with(known))), "more than a line each: {out}");
    out.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn without_jetstream_that_is_said_once() {
    for server in nats_servers() {
        let mut world = World::on(&server).await;
        // As it is started by somebody who does not know of it.
        let bare = NatsServer::start_with(&server, "jetstream: disabled");
        world.set("nats.url", &bare.url());
        let errors = errors(&world, 69);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("nats: ") && errors[0].contains("is JetStream enabled"), "{errors:?}");
        assert!(!errors[0].contains("no responders: no responders"), "{errors:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_asked_about() {
    let mut world = World::new().await;
    let nats = world.nats.url().replace("nats://", "tls://");
    let redis = world.redis.url().replace("redis://", "rediss://");
    world.set("nats.url", &nats).set("dedup.url", &redis);
    let errors = errors(&world, 69);
    let [nats, dedup] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(nats.starts_with("nats: ") && nats.ends_with("does that server speak TLS?"), "{nats}");
    assert!(dedup.starts_with("dedup: ") && dedup.ends_with("does that server speak TLS?"), "{dedup}");
}

#[tokio::test]
async fn what_is_no_nats_server_or_no_redis_is_asked_about() {
    let mut world = World::new().await;
    let (silent, nats) = (greets(""), world.nats.url().replace("nats://", "redis://"));
    world.set("nats.url", &format!("nats://127.0.0.1:{silent}")).set("dedup.url", &nats);
    let errors = errors(&world, 69);
    let [nats, dedup] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(nats.starts_with("nats: ") && nats.contains("timed out") && nats.contains("for clients"), "{nats}");
    assert!(dedup.starts_with("dedup: ") && dedup.ends_with("is that Redis?"), "{dedup}");
    assert!(!dedup.contains("Unexpected"), "{dedup}");
    let http = greets("HTTP/1.1 400 Bad Request\r\n\r\n");
    world.set("dedup.url", &format!("redis://127.0.0.1:{http}"));
    assert!(self::errors(&world, 69)[1].ends_with("is that Redis?"));
}

#[tokio::test]
async fn a_target_that_forgets_too_soon_is_told_as_the_target() {
    let world = World::new().await;
    let window = std::time::Duration::from_secs(10);
    let subjects = vec!["wa.>".to_owned()];
    let config = Config { name: TARGET.to_owned(), subjects, duplicate_window: window, ..Default::default() };
    world.jetstream().create_stream(config).await.unwrap();
    let said = json_tool(&world.settings, &["check"], 78).remove(0);
    let wrong: Vec<_> = said["findings"].as_array().unwrap().iter().filter(|found| found["ok"] == false).collect();
    assert!(wrong.len() == 1 && wrong[0]["about"] == "stream wa_stream", "{said}");
    assert!(wrong[0]["said"].as_str().unwrap().contains("10s"), "{said}");
}
