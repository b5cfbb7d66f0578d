//! Holds what was stored against what the program says that it would do.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::Harvest;
use crate::traffic::{Expect, Sent, hash};

/// What differs between `explain` and the target, for so many of the changes whose bodies are kept.
pub async fn explain(binary: &Path, sent: &[Sent], harvest: &Harvest, count: usize) -> Vec<String> {
    let kept: Vec<&Sent> =
        sent.iter().filter(|sent| sent.body.is_some() && matches!(sent.expect, Expect::Target(_))).collect();
    let step = (kept.len() / count.max(1)).max(1);
    let mut differences = Vec::new();
    for sent in kept.into_iter().step_by(step).take(count) {
        let found =
            harvest.stored.iter().find(|event| event.told.as_ref().is_ok_and(|told| told.identity == sent.identity));
        let Some(found) = found else { continue };
        let said = said(binary, sent).await;
        let payload = said["payload"].as_str().map(|text| hash(text.as_bytes()));
        let id = said["headers"]["Nats-Msg-Id"].as_str();
        if payload != Some(found.body) || said["subject"] != found.subject.as_str() || id != found.id.as_deref() {
            differences.push(format!("change {} is not what explain says: {said}, {found:?}", sent.number));
        }
    }
    differences
}

async fn said(binary: &Path, sent: &Sent) -> Value {
    let mut child = tokio::process::Command::new(binary)
        .args(["explain", "--subject", &sent.subject])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(sent.body.as_deref().unwrap_or_default()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}
