//! Credentials, encryption, permissions and secrets: real servers, the adapters and the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod jwt;
mod least_privilege;
mod letters;
mod link;
mod nats_login;
mod nats_tls;
mod redis;
mod secrets;
mod shipped;
mod whole;
