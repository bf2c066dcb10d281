//! What is decided before any route is looked for: methods that no route may serve, the one reading
//! of the path, and requests that end here by themselves. Framing and sizes are the codec's.

use super::{
    Refusal,
    refusal::{self, MethodSet},
};
use crate::wire::{
    FieldId, Method, RequestHead,
    path::{NormalPath, PathRules},
    request::TargetForm,
};

/// Every known method but CONNECT and TRACE.
pub const SERVED: MethodSet = MethodSet(
    (1 << Method::Get as u16)
        | (1 << Method::Head as u16)
        | (1 << Method::Post as u16)
        | (1 << Method::Put as u16)
        | (1 << Method::Delete as u16)
        | (1 << Method::Patch as u16)
        | (1 << Method::Options as u16),
);

/// What becomes of an admitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Its route decides.
    Routed,
    /// It asks the gateway itself: 204 with [`SERVED`] (RFC 9110 §9.3.7, §7.6.2).
    Options,
}

/// Admits a request whose head, parsed from `bytes`, is well-formed, and settles its path. Refuses
/// CONNECT and TRACE with 405, and paths that `rules` do not accept with 400.
pub fn admit(
    head: &RequestHead,
    bytes: &[u8],
    rules: PathRules,
    path: &mut NormalPath,
) -> Result<Admitted, Refusal> {
    if matches!(head.method, Method::Connect | Method::Trace) {
        return Err(Refusal { allow: SERVED, ..refusal::METHOD_REFUSED.into() });
    }
    if head.form == TargetForm::Asterisk {
        return Ok(Admitted::Options);
    }
    path.normalise(raw_path(head, bytes), rules)?;
    let is_last_hop = head.method == Method::Options && max_forwards(head, bytes) == Some(0);
    Ok(if is_last_hop { Admitted::Options } else { Admitted::Routed })
}

/// The path as received; an absolute target may have none.
pub fn raw_path<'b>(head: &RequestHead, bytes: &'b [u8]) -> &'b [u8] {
    match head.path.of(bytes) {
        b"" => b"/",
        path => path,
    }
}

/// Value of Max-Forwards, when there is a valid one (RFC 9110 §7.6.2).
pub fn max_forwards(head: &RequestHead, bytes: &[u8]) -> Option<u64> {
    let field = head.fields.iter().find(|f| f.id == FieldId::MaxForwards)?;
    std::str::from_utf8(field.value.of(bytes)).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Parsed};

    fn admitted(request: &str) -> Result<Admitted, (u16, &'static str)> {
        let limits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 8192, fields_max: 100 };
        let mut head = RequestHead::default();
        let parsed = head.parse(request.as_bytes(), &limits);
        assert!(matches!(parsed, Ok(Parsed::Complete(()))), "{request:?}");
        let mut path = NormalPath::default();
        admit(&head, request.as_bytes(), PathRules::default(), &mut path)
            .map_err(|refusal| (refusal.reason.status, refusal.reason.token))
    }

    #[test]
    fn methods_paths_and_last_hops() {
        for (start, field, wanted) in [
            ("GET /a", "", Ok(Admitted::Routed)),
            ("GET http://h", "", Ok(Admitted::Routed)),
            ("OPTIONS *", "", Ok(Admitted::Options)),
            ("OPTIONS /a", "Max-Forwards: 0\r\n", Ok(Admitted::Options)),
            ("OPTIONS /a", "Max-Forwards: 1\r\n", Ok(Admitted::Routed)),
            ("OPTIONS /a", "Max-Forwards: x\r\n", Ok(Admitted::Routed)),
            ("GET /a", "Max-Forwards: 0\r\n", Ok(Admitted::Routed)),
            ("GET /a/../../b", "", Err(400)),
            ("OPTIONS /a/../../b", "Max-Forwards: 0\r\n", Err(400)),
            ("TRACE /a", "", Err(405)),
            ("CONNECT h:1", "", Err(405)),
        ] {
            let request = format!("{start} HTTP/1.1\r\nHost: h\r\n{field}\r\n");
            let request = request.replace("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n", CONNECT);
            assert_eq!(admitted(&request).map_err(|(status, _)| status), wanted, "{start} {field}");
        }
    }

    /// Its Host must repeat the target.
    const CONNECT: &str = "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n";
}
