//! Three nats-servers that replicate streams.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream;

use super::{NatsServer, free_port};

/// How long a cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster; its nodes end with this value.
#[derive(Debug)]
pub struct NatsCluster {
    /// The nodes, named `node-0` and so on.
    pub nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts one of so many nodes, each with these lines of configuration.
    pub fn start_with(binary: &Path, count: usize, config: &str) -> Self {
        let routes: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut nodes: Vec<NatsServer> = (0..count)
            .map(|index| {
                let cluster = format!(
                    "server_name: node-{index}\ncluster {{ name: proof, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                    routes[index],
                    urls.join(", ")
                );
                NatsServer::prepare(binary, &format!("{cluster}{config}"))
            })
            .collect();
        for node in &mut nodes {
            // A port that stays the same over restarts, from before its first start.
            node.spawn(free_port());
        }
        for node in &mut nodes {
            node.await_start();
        }
        Self { nodes }
    }

    /// Where its nodes listen, comma-separated.
    pub fn url(&self) -> String {
        self.nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// The node that leads a stream, once there is one.
    pub async fn leader_of_stream(&self, js: &jetstream::Context, stream: &str) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut found) = js.get_stream(stream).await
                && let Ok(info) = found.info().await
                && let Some(leader) = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone())
                && let Some(node) = leader.strip_prefix("node-").and_then(|index| index.parse().ok())
            {
                return node;
            }
            assert!(Instant::now() < deadline, "{stream} has no leader within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
