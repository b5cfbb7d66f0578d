//! The proof: the real binary between real servers, faults by seed, and a judge that shares no code with the service.
#![allow(clippy::unwrap_used, reason = "a harness that cannot go on must stop, and say where")]

pub mod judge;
pub mod postgres;
pub mod proxy;
pub mod replica;
pub mod runner;
pub mod scenarios;
pub mod servers;
pub mod traffic;
pub mod world;
