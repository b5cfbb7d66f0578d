//! Implementations of the ports: what the service talks to.
