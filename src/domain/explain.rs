//! One event in, the decision out, for people.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Delivery, DeliveryId, Event, Headers, OrderKey, Reason, Receipt, Verdict};
use cdc_actors::ports::{PublishError, Transform};
use serde::Serialize;

use super::transform::CdcTransform;

/// What the service would do with an event; what has no meaning for the verdict is `None`, and `null` in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `publish`, `skip` or `dead_letter`; `not_received` where two configurations are compared.
    pub verdict: &'static str,
    /// The reason of a dead letter.
    pub reason: Option<&'static str>,
    /// Why it is a dead letter, else how subject and metadata contradict each other, if they do.
    pub detail: Option<String>,
    /// The subject it would be stored under.
    pub subject: Option<String>,
    /// `LSN:Table:PK`.
    pub event_id: Option<String>,
    /// The identity for dedup.
    pub event_key: Option<String>,
    /// The headers that follow from the event alone.
    pub headers: Option<BTreeMap<String, String>>,
    /// The body, exactly: the enriched event, or the original of a dead letter if it is text.
    pub payload: Option<String>,
    /// Names of fields that the table does not know.
    pub unhandled_fields: Option<Vec<String>>,
    /// The order key, unless it is skipped: what is not published is in nobody's way. Part of the decision, but not of what is
    /// shown of it: [`Trace`](super::Trace) shows it with what it is made of.
    #[serde(skip)]
    pub order_key: Option<String>,
}

impl Explanation {
    /// Of a message that a configuration's `source.subjects` do not let through.
    pub fn not_received() -> Self {
        nothing("not_received")
    }
}

/// An event as the source would deliver it.
pub(super) fn delivery(subject: &str, headers: Headers, payload: Bytes) -> Delivery {
    let id = DeliveryId { stream_created: 0, sequence: 0, timestamp: 0 };
    Delivery {
        receipt: Receipt { id, consumer: 0, reply: "".into() },
        subject: subject.into(),
        headers,
        payload,
        deliveries: 1,
        received: Instant::now(),
    }
}

/// Runs the service's own transform on one event.
pub fn explain(
    transform: &CdcTransform,
    subject: &str,
    headers: Headers,
    payload: Bytes,
    dead_letter_prefix: &str,
) -> Explanation {
    explain_for(transform, subject, headers, payload, dead_letter_prefix, |_| Ok(()))
}

/// The same for a target of which it is known what `fits`: what does not is a dead letter, `too_large`.
pub fn explain_for(
    transform: &CdcTransform,
    subject: &str,
    headers: Headers,
    payload: Bytes,
    dead_letter_prefix: &str,
    fits: impl Fn(&Event) -> Result<(), PublishError>,
) -> Explanation {
    let delivery = delivery(subject, headers, payload);
    let (order, parsed) = transform.order(&delivery);
    let decision = transform.decide(&delivery, parsed);
    let order_key = Some(written(order));
    let (unhandled, mismatch) = (decision.remarks.unhandled_fields, decision.remarks.subject_mismatch);
    let (table, reason, detail) = match decision.verdict {
        Verdict::Publish(event) => match fits(&event) {
            Ok(()) => return Explanation { order_key, ..published(&event, unhandled, mismatch) },
            Err(error) => (Some(event.table), Reason::TooLarge, error.to_string()),
        },
        Verdict::Skip { .. } => return Explanation { detail: mismatch, ..nothing("skip") },
        Verdict::DeadLetter { table, reason, detail } => (table, reason, detail),
    };
    let to = format!("{dead_letter_prefix}.{}.{reason}", table.unwrap_or("unknown"));
    let unhandled_fields = Some(unhandled);
    Explanation { subject: Some(to), unhandled_fields, order_key, ..dead(&delivery, reason, detail) }
}

/// An order key for people: 32 hex digits.
pub(super) fn written(key: OrderKey) -> String {
    format!("{:032x}", key.0)
}

fn published(event: &Event, unhandled: Vec<String>, mismatch: Option<String>) -> Explanation {
    let mut headers: BTreeMap<_, _> = event.headers.iter().cloned().collect();
    headers.insert("Nats-Msg-Id".to_owned(), event.key.to_string());
    Explanation {
        detail: mismatch,
        subject: Some(event.subject.to_string()),
        event_id: Some(event.event_id.to_string()),
        event_key: Some(event.key.to_string()),
        headers: Some(headers),
        payload: String::from_utf8(event.payload.to_vec()).ok(),
        unhandled_fields: Some(unhandled),
        ..nothing("publish")
    }
}

fn dead(delivery: &Delivery, reason: Reason, detail: String) -> Explanation {
    let headers = [
        ("Cdc-Reason", reason.name().to_owned()),
        ("Cdc-Detail", detail.clone()),
        ("Cdc-Subject", delivery.subject.to_string()),
    ];
    Explanation {
        reason: Some(reason.name()),
        detail: Some(detail),
        headers: Some(headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        payload: String::from_utf8(delivery.payload.to_vec()).ok(),
        ..nothing("dead_letter")
    }
}

/// A verdict without anything else.
fn nothing(verdict: &'static str) -> Explanation {
    Explanation {
        verdict,
        reason: None,
        detail: None,
        subject: None,
        event_id: None,
        event_key: None,
        headers: None,
        payload: None,
        unhandled_fields: None,
        order_key: None,
    }
}
