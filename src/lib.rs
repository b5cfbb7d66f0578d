//! The service: domain, adapters, configuration and bootstrap around `cdc-actors`.

pub mod adapters;
pub mod cli;
pub mod config;
pub mod domain;
pub mod logging;
