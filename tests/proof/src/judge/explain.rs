//! Holds what was stored against what the program says that it would do.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{Harvest, Stored};
use crate::traffic::{Expect, Identity, Sent, hash};

/// What differs between `explain` and the target, for so many of the changes whose bodies are kept: half of them of those that
/// came late, as far as there are any. A change that is not in the target is the judge's affair.
pub async fn explain(binary: &Path, sent: &[Sent], harvest: &Harvest, count: usize) -> Vec<String> {
    let stored: HashMap<&Identity, &Stored> =
        harvest.stored.iter().filter_map(|event| Some((&event.told.as_ref().ok()?.identity, event))).collect();
    let kept = sent.iter().filter(|sent| sent.body.is_some() && matches!(sent.expect, Expect::Target(_)));
    let found = kept.filter_map(|sent| Some((sent, *stored.get(&sent.identity)?)));
    let mut differences = Vec::new();
    for (sent, found) in picked(found.collect(), count) {
        let said = said(binary, sent).await;
        let payload = said["payload"].as_str().map(|text| hash(text.as_bytes()));
        let id = said["headers"]["Nats-Msg-Id"].as_str();
        if payload != Some(found.body) || said["subject"] != found.subject.as_str() || id != found.id.as_deref() {
            differences.push(format!("change {} is not what explain says: {said}, {found:?}", sent.number));
        }
    }
    differences
}

/// So many of them, from one end to the other.
fn picked<'a>(all: Vec<(&'a Sent, &'a Stored)>, count: usize) -> Vec<(&'a Sent, &'a Stored)> {
    let (late, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, event)| event.late.is_some());
    let late = spread(&late, count / 2);
    let rest = spread(&others, count - late.len());
    [late, rest].concat()
}

fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let step = (all.len() / count.max(1)).max(1);
    all.iter().copied().step_by(step).take(count).collect()
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
