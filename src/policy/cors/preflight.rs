//! A preflight: a browser asks whether a page of another origin may make a request (Fetch §4.8).

use crate::{
    policy::route::RequestView,
    wire::{Method, RequestHead},
};

/// What a browser asks.
#[derive(Clone, Copy)]
pub struct Preflight<'a> {
    /// Of the page.
    pub origin: &'a [u8],
    /// Of the request that it wants to make.
    pub method: &'a [u8],
    /// The page is of a network that is less private than the route.
    pub private_network: bool,
    head: &'a RequestHead,
    buf: &'a [u8],
}

/// The only value of a field; `None` when there is none, or several.
pub fn single<'a>(head: &RequestHead, buf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = all(head, buf, name);
    let value = lines.next()?;
    lines.next().is_none().then_some(value)
}

fn all<'a>(head: &RequestHead, buf: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let is_it = move |field: &&crate::wire::Field| field.name.of(buf).eq_ignore_ascii_case(name);
    head.fields.iter().filter(is_it).map(move |field| field.value.of(buf))
}

/// The preflight that a request is, if it is one.
pub fn of<'a>(request: &RequestView<'a>) -> Option<Preflight<'a>> {
    if request.method != Method::Options {
        return None;
    }
    let (head, buf) = (request.head, request.buf);
    let method = single(head, buf, b"access-control-request-method")?;
    let origin = single(head, buf, b"origin")?;
    let private = single(head, buf, b"access-control-request-private-network");
    Some(Preflight { origin, method, private_network: private == Some(b"true"), head, buf })
}

impl<'a> Preflight<'a> {
    /// Names of the fields that the page wants to send, as the browser wrote them.
    pub fn headers(&self) -> impl Iterator<Item = &'a [u8]> {
        let values = all(self.head, self.buf, b"access-control-request-headers");
        values
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
    }
}
