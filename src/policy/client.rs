//! stub
use std::net::IpAddr;
use ipnet::IpNet;
use crate::wire::{RequestHead, FieldId};
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress { pub ip: Option<IpAddr>, pub trusted_peer: bool }
pub fn client_address(peer: Option<IpAddr>, _t: &[IpNet], _h: &RequestHead, _b: &[u8]) -> ClientAddress { ClientAddress { ip: peer, trusted_peer: false } }
pub fn is_replaced(_id: FieldId, _m: crate::config::snapshot::ForwardedFields, _t: bool) -> bool { false }
pub fn write_forwarding(_o: &mut Vec<u8>, _m: crate::config::snapshot::ForwardedFields, _c: &ClientAddress, _s: &str, _a: &[u8], _h: &RequestHead, _b: &[u8]) {}
