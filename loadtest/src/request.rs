//! What may be sent, prepared once: every request as HTTP/1.1 bytes and as HTTP/2 parts, what its
//! response must be, and the order in which requests are taken.
//!
//! Prepared requests live as long as the process, so sending one copies and allocates nothing in
//! the HTTP/1.1 driver. Invariant: every index in [`Requests::order`] names a prepared request.

use http::{HeaderName, HeaderValue, Method, Uri};

use crate::body;
use crate::tally::Failure;

/// All prepared request bodies together; more is refused before anything is sent.
const BODY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Sizes that a range of body sizes stands for, both ends included.
pub const SIZES_PER_RANGE: usize = 16;

/// What makes a response right. What is `None` is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The only right status.
    pub status: u16,
    /// The only right length of its body, bytes.
    pub length: Option<u64>,
    /// The only right CRC-32 of its body.
    pub checksum: Option<u32>,
}

impl Expect {
    /// Judges a complete response.
    pub fn judge(&self, status: u16, length: u64, checksum: Option<u32>) -> Result<(), Failure> {
        if status != self.status {
            Err(Failure::Status)
        } else if self.length.is_some_and(|right| right != length) {
            Err(Failure::Length)
        } else if self.checksum.is_some() && self.checksum != checksum {
            Err(Failure::Checksum)
        } else {
            Ok(())
        }
    }
}

/// One kind of request, as flags or a mix describe it.
#[derive(Clone, Debug)]
pub struct Template {
    /// How often it is taken, relative to the others.
    pub weight: u32,
    /// Such as GET.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Further fields.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Smallest and largest body in bytes; `None` sends neither body nor `Content-Length`.
    pub body: Option<(usize, usize)>,
    /// Pause of the connection after the response, in the closed loop.
    pub think_ns: u64,
    /// What its response must be.
    pub expect: Expect,
}

#[cfg(test)]
impl Template {
    /// A GET without anything special about it.
    pub fn get(path: &str) -> Template {
        Template {
            weight: 1,
            method: Method::GET,
            path: path.to_owned(),
            fields: Vec::new(),
            body: None,
            think_ns: 0,
            expect: Expect { status: 200, length: None, checksum: None },
        }
    }
}

/// A request ready to be sent.
pub struct Request {
    /// As HTTP/1.1.
    pub wire: &'static [u8],
    /// As HTTP/2, without body.
    pub head: http::Request<()>,
    /// Its body.
    pub body: &'static [u8],
    /// Whether its response has no body whatever its head says (HEAD).
    pub bodiless: bool,
    /// Pause of the connection after the response, in the closed loop.
    pub think_ns: u64,
    /// What its response must be.
    pub expect: Expect,
}

/// All prepared requests.
pub struct Requests {
    /// The distinct ones.
    pub all: Vec<Request>,
    /// Which is taken when; goes round.
    pub order: Vec<u32>,
}

/// What all requests of a run have in common.
pub struct Frame<'a> {
    /// Host field and `:authority`.
    pub host: &'a str,
    /// `https` rather than `http`.
    pub tls: bool,
    /// Ask the server to close after each response.
    pub close: bool,
}

impl Requests {
    /// Prepares templates; one that has a range of body sizes becomes [`SIZES_PER_RANGE`] requests.
    pub fn prepare(templates: &[Template], frame: &Frame<'_>) -> Result<Self, String> {
        let mut all = Vec::new();
        let mut of_template = Vec::new();
        let mut total = 0;
        for template in templates {
            let first = all.len() as u32;
            for size in sizes(template.body) {
                total += size.unwrap_or(0);
                if total > BODY_BYTES_MAX {
                    return Err(format!(
                        "the request bodies need more than {} MiB: use smaller or fewer sizes",
                        BODY_BYTES_MAX >> 20
                    ));
                }
                all.push(Request::prepare(template, size, frame)?);
            }
            of_template.push((first, all.len() as u32 - first));
        }
        let weights: Vec<u32> = templates.iter().map(|t| t.weight).collect();
        Ok(Self { all, order: order(&weights, &of_template) })
    }
}

impl Request {
    fn prepare(
        template: &Template,
        size: Option<usize>,
        frame: &Frame<'_>,
    ) -> Result<Self, String> {
        let Template { method, path, .. } = template;
        let scheme = if frame.tls { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{}{path}", frame.host)
            .parse()
            .map_err(|e| format!("`{path}` of host `{}` is no path to ask for: {e}", frame.host))?;
        let body: &'static [u8] = size.map_or(&[], |size| body::bytes(size).leak());
        let mut wire = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", frame.host).into_bytes();
        let mut head = http::Request::builder().method(method.clone()).uri(uri);
        if let Some(size) = size {
            wire.extend_from_slice(format!("Content-Length: {size}\r\n").as_bytes());
            head = head.header(http::header::CONTENT_LENGTH, size);
        }
        for (name, value) in &template.fields {
            wire.extend_from_slice(name.as_str().as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
            head = head.header(name, value);
        }
        if frame.close {
            wire.extend_from_slice(b"Connection: close\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(body);
        Ok(Self {
            wire: wire.leak(),
            head: head.body(()).map_err(|e| e.to_string())?,
            body,
            bodiless: method == Method::HEAD,
            think_ns: template.think_ns,
            expect: template.expect,
        })
    }
}

/// The sizes that a range stands for.
fn sizes(range: Option<(usize, usize)>) -> Vec<Option<usize>> {
    match range {
        None => vec![None],
        Some((least, most)) if least == most => vec![Some(least)],
        Some((least, most)) => {
            let at = |i: usize| least + (most - least) * i / (SIZES_PER_RANGE - 1);
            // Stepping by 7 visits all sixteen in scrambled order.
            (0..SIZES_PER_RANGE).map(|i| Some(at(i * 7 % SIZES_PER_RANGE))).collect()
        }
    }
}

/// The order in which templates are taken: each as often as its weight says, spread evenly (smooth
/// weighted round robin), its sizes in turn. Every template equal: just one after the other.
fn order(weights: &[u32], of_template: &[(u32, u32)]) -> Vec<u32> {
    let round: u32 = weights.iter().sum();
    let ranges = of_template.iter().any(|(_, count)| *count > 1);
    if !ranges && weights.iter().all(|w| *w == weights[0]) {
        return of_template.iter().map(|(first, _)| *first).collect();
    }
    let rounds = if ranges { SIZES_PER_RANGE as u32 } else { 1 };
    let mut credit = vec![0i64; weights.len()];
    let mut taken = vec![0u32; weights.len()];
    let mut order = Vec::new();
    for _ in 0..round * rounds {
        credit.iter_mut().zip(weights).for_each(|(c, w)| *c += i64::from(*w));
        let best = (0..credit.len()).max_by_key(|i| (credit[*i], std::cmp::Reverse(*i)));
        let best = best.expect("invariant: at least one template");
        credit[best] -= i64::from(round);
        let (first, count) = of_template[best];
        order.push(first + taken[best] % count);
        taken[best] += 1;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_spread() {
        let order = order(&[3, 1, 2], &[(0, 1), (1, 1), (2, 1)]);
        assert_eq!(order, [0, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_range_takes_all_its_sizes() {
        let found: std::collections::BTreeSet<_> = sizes(Some((10, 100))).into_iter().collect();
        assert_eq!(found.len(), SIZES_PER_RANGE);
        assert_eq!((found.first(), found.last()), (Some(&Some(10)), Some(&Some(100))));
        let order = order(&[1, 2], &[(0, 1), (1, 16)]);
        let count = |index| order.iter().filter(|i| **i == index).count();
        assert_eq!((count(0), count(1), count(16)), (16, 2, 2));
    }

    #[test]
    fn the_first_fault_is_named() {
        let right = Expect { status: 200, length: Some(3), checksum: Some(7) };
        for (status, length, checksum, verdict) in [
            (200, 3, Some(7), Ok(())),
            (201, 4, Some(8), Err(Failure::Status)),
            (200, 4, Some(8), Err(Failure::Length)),
            (200, 3, Some(8), Err(Failure::Checksum)),
            (200, 3, None, Err(Failure::Checksum)),
        ] {
            assert_eq!(right.judge(status, length, checksum), verdict);
        }
        let lax = Expect { status: 200, length: None, checksum: None };
        assert_eq!(lax.judge(200, 9, None), Ok(()));
    }

    #[test]
    fn both_forms_say_the_same() {
        let template = Template {
            weight: 1,
            method: Method::POST,
            path: "/a?b".into(),
            fields: vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("b"))],
            body: Some((3, 3)),
            think_ns: 0,
            expect: Expect { status: 200, length: None, checksum: None },
        };
        let frame = Frame { host: "h", tls: true, close: true };
        let request = Request::prepare(&template, Some(3), &frame).unwrap();
        assert_eq!(
            std::str::from_utf8(request.wire).unwrap(),
            "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nx-a: b\r\n\
             Connection: close\r\n\r\nabc"
        );
        assert_eq!(request.head.uri(), "https://h/a?b");
        assert_eq!(request.head.headers().len(), 2);
        assert_eq!(request.body, b"abc");
    }
}
