//! An event with what is around it: its subject and headers, as `generate` and `dead-letters show` write them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::exact::members;
use crate::demo::traffic::SourceEvent;

const EVENT: &str = "event";
const PAYLOAD: &str = "payload";
const BASE64: &str = "payload_base64";

/// An event with subject and headers around it, to be written.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    subject: &'a str,
    headers: BTreeMap<&'static str, &'a str>,
    /// The body, if it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    /// The body as a text, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl<'a> Line<'a> {
    /// A generated event.
    pub(super) fn of(event: &'a SourceEvent) -> Self {
        let json = serde_json::from_slice(&event.payload).ok();
        Self {
            subject: &event.subject,
            headers: BTreeMap::from([("Nats-Msg-Id", event.message_id.as_str())]),
            payload: json.is_none().then(|| String::from_utf8_lossy(&event.payload).into_owned()),
            event: json,
        }
    }
}

/// What was around an event, and the event.
#[derive(Debug)]
pub(super) struct Opened {
    pub subject: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

/// Takes an event out of what is around it; `None` for anything that is not around one, such as an event: what says nothing of
/// `metadata`, which every event has, or says the subject. What else a dead letter is shown with does not matter.
///
/// # Errors
/// What should be otherwise.
pub(super) fn open(whole: &Bytes) -> Option<Result<Opened, String>> {
    let object = serde_json::from_slice::<&RawValue>(whole).ok()?.get();
    let members = if object.starts_with('{') { members(object).ok()? } else { return None };
    let has = |name: &str| members.iter().any(|(own, _)| own == name);
    let around = Around(&members);
    let is_around = [EVENT, PAYLOAD, BASE64].into_iter().any(has)
        && (!has("metadata") || around.text("subject").is_ok_and(|text| text.is_some()));
    is_around.then(|| around.open(whole))
}

/// The members of an object around an event.
struct Around<'a>(&'a [(String, &'a str)]);

impl<'a> Around<'a> {
    /// A member, if it is not null.
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rfind(|(own, _)| own == name);
        found.map(|(_, value)| *value).filter(|value| *value != "null")
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        let text = self.get(name).map(serde_json::from_str).transpose();
        text.map_err(|_| format!("{name:?} should be a text"))
    }

    fn open(&self, whole: &Bytes) -> Result<Opened, String> {
        let headers = self.get("headers").map_or(Ok(BTreeMap::new()), serde_json::from_str);
        let headers = headers.map_err(|_| "\"headers\" should be names with a text each".to_owned())?;
        Ok(Opened { subject: self.text("subject")?, headers, body: self.body(whole)? })
    }

    fn body(&self, whole: &Bytes) -> Result<Bytes, String> {
        match [EVENT, PAYLOAD, BASE64].map(|name| self.get(name)) {
            [Some(event), None, None] => Ok(whole.slice_ref(event.as_bytes())),
            [None, Some(_), None] => {
                let text = self.text(PAYLOAD).map_err(|wrong| format!("{wrong}; what is JSON stands in {EVENT:?}"))?;
                Ok(text.unwrap_or_default().into())
            }
            [None, None, Some(_)] => {
                let text = self.text(BASE64)?.unwrap_or_default();
                let decoded = STANDARD.decode(text);
                decoded.map(Bytes::from).map_err(|_| format!("{BASE64:?} should be base64"))
            }
            [None, None, None] => {
                let damage =
                    self.text("damage").ok().flatten().map_or_else(String::new, |damage| format!(": {damage}"));
                Err(format!("there is nothing in {EVENT:?}, {PAYLOAD:?} or {BASE64:?}{damage}"))
            }
            _ => Err(format!("give one of {EVENT:?}, {PAYLOAD:?} and {BASE64:?}, not several")),
        }
    }
}
