//! The page for people, in a real browser, against the real service in the states that people open it for.
//!
//! What was seen lies in `target/tmp/page/*.png` afterwards: look at it after every change of the page.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod chromium;
mod states;
