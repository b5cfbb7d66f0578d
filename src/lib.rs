//! The service: domain, adapters, configuration and bootstrap around `cdc-actors`.

pub mod adapters;
