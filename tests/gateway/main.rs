//! The running gateway over real sockets: one module per feature.
//!
//! Every test starts the built program on a port of its own, with its own configuration file, and
//! talks to it as clients and upstreams do. `RINGWAY_TEST_IO=io_uring` or `epoll` runs the same
//! suite on that driver; without it the gateway chooses.
//!
//! House rules: no test sleeps in order to be right (it waits for a condition, with a deadline),
//! every test owns what it starts, and every byte an upstream receives is kept.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod harness;

mod access_log;
mod acme;
mod address_lists;
mod admin;
mod api_keys;
mod authentication;
mod authorization;
mod balance;
mod basic_auth;
mod certificates;
mod client_certificates;
mod commands;
mod compress;
mod concurrency;
mod consumers;
mod cors;
mod fleet_limits;
mod forward_auth;
mod forwarding;
mod framing;
mod grpc;
mod grpc_web;
mod handshake_rate;
mod http2;
mod http2_upstream;
mod identities;
mod introspection;
mod jwt;
mod kernel_tls;
mod lifecycle;
mod limits;
mod limits_exact;
mod mailbox;
mod oidc;
mod openapi;
mod own_log;
mod pages;
mod passthrough;
mod policies;
mod proxy_header;
mod proxy_protocol;
mod proxying;
mod quotas;
mod rate_limits;
mod reload;
mod routing;
mod signatures;
mod smoke;
mod splice;
mod staples;
mod status_page;
mod streaming;
mod systemd;
mod tickets;
mod tls;
mod tls_faults;
mod top;
mod tracing;
mod transform;
mod upgrade;
mod upgrade_binary;
mod upstream_certificates;
mod upstream_tls;
mod upstreams;
mod validate;
mod watch;
mod web_security;
mod websocket;
mod websocket_http2;
