//! Pure decisions about one exchange. No I/O and no clock: `now` and random numbers are passed in.
//!
//! A policy is a plain value compiled from the configuration, plus (where it needs one) a state
//! value that the worker owns and indexes by id. Nothing here knows about sockets.

pub mod addresses;
pub mod admit;
pub mod auth;
pub mod authorize;
pub mod balance;
pub mod client;
pub mod client_cert;
pub mod compress;
pub mod consumers;
pub mod cors;
pub mod csrf;
pub mod frames;
pub mod grpc;
pub mod grpc_web;
pub mod identity;
pub mod jwt;
pub mod key_text;
pub mod keys;
pub mod limit;
pub mod oidc;
pub mod pairs;
pub mod passthrough;
pub mod password;
pub mod permit;
pub mod refusal;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod seal;
pub mod template;
pub mod transform;
pub mod user_agents;
pub mod validate;

pub use refusal::Refusal;
