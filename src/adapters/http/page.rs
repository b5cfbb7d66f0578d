//! The page for people, put together from its three parts: one document that loads nothing but `/status.json`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page, ready to be sent.
pub(super) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = FRAME.replace("/* page.css */", STYLE).replace("/* page.js */", SCRIPT);
        // Only these very bytes may run or style: whatever might get into the page otherwise does not.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            fingerprint(SCRIPT),
            fingerprint(STYLE),
        );
        // Base64 and the text above are visible ASCII; if they were not, nothing would be allowed.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { html: html.into(), policy }
    }

    /// The document.
    pub(super) fn html(&self) -> Bytes {
        self.html.clone()
    }

    /// Its Content-Security-Policy.
    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }
}

pub(super) fn fingerprint(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
