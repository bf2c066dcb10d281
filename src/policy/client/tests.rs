use super::*;
use crate::wire::{Field, Span};

const SIX: [(&str, FieldId); 6] = [
    ("X-Forwarded-For", FieldId::XForwardedFor),
    ("X-Forwarded-Proto", FieldId::XForwardedProto),
    ("X-Forwarded-Host", FieldId::XForwardedHost),
    ("X-Forwarded-Port", FieldId::XForwardedPort),
    ("X-Real-IP", FieldId::XRealIp),
    ("Forwarded", FieldId::Forwarded),
];

/// Looks at a request to `h.com:81` with these fields, behind 10.0.0.0/8 and fd00::/8.
fn with<T>(peer: &str, fields: &[(&str, &str)], look: impl FnOnce(&Received<'_>) -> T) -> T {
    let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let mut buf = b"h.com:81".to_vec();
    let mut head = RequestHead { authority: Span::new(0, buf.len()), ..RequestHead::default() };
    for (name, value) in fields {
        let start = buf.len();
        buf.extend_from_slice(value.as_bytes());
        let value = Span::new(start, buf.len());
        let id = SIX.iter().find(|(n, _)| n == name).unwrap().1;
        head.fields.push(Field { value, id, ..Field::default() });
    }
    let peer: Option<IpAddr> = peer.parse().ok();
    let peer_text = peer.map_or_else(String::new, |ip| ip.to_canonical().to_string());
    let peer_text = peer_text.as_bytes();
    look(&Received { peer, peer_text, trusted: &trusted, scheme: "http", head: &head, buf: &buf })
}

fn xff(value: &'static str) -> (&'static str, &'static str) {
    ("X-Forwarded-For", value)
}

fn forwarded(value: &'static str) -> (&'static str, &'static str) {
    ("Forwarded", value)
}

#[test]
fn who_the_client_is() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        // Nobody vouches for what an untrusted peer says.
        ("192.0.2.1", &[], "192.0.2.1"),
        ("192.0.2.1", &[xff("198.51.100.1")], "192.0.2.1"),
        ("192.0.2.1", &[xff("10.0.0.1")], "192.0.2.1"),
        ("192.0.2.1", &[forwarded("for=198.51.100.1")], "192.0.2.1"),
        ("11.0.0.1", &[xff("198.51.100.1")], "11.0.0.1"),
        // A trusted one: the first untrusted from the right.
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &[xff("192.0.2.1")], "192.0.2.1"),
        ("10.0.0.1", &[xff("198.51.100.1, 192.0.2.1")], "192.0.2.1"),
        ("10.0.0.1", &[xff("198.51.100.1, 192.0.2.1, 10.0.0.2")], "192.0.2.1"),
        (
            "10.0.0.1",
            &[xff("198.51.100.1"), xff("192.0.2.1,10.0.0.3"), xff("10.2.0.2")],
            "192.0.2.1",
        ),
        ("10.0.0.1", &[xff("10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        // What is malformed, unknown or hidden ends the chain.
        ("10.0.0.1", &[xff("192.0.2.1, nonsense, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", &[xff("192.0.2.1, unknown")], "10.0.0.1"),
        ("10.0.0.1", &[xff("192.0.2.1, _secret")], "10.0.0.1"),
        ("10.0.0.1", &[xff("192.0.2.1, 256.1.1.1")], "10.0.0.1"),
        ("10.0.0.1", &[xff("10.0.0.2"), xff("<script>")], "10.0.0.1"),
        ("10.0.0.1", &[xff("")], "10.0.0.1"),
        // IPv6, and IPv4 in its clothes.
        ("fd00::1", &[xff("2001:db8::7")], "2001:db8::7"),
        ("fd00::1", &[xff("[2001:db8::7]:443, ::ffff:10.0.0.2")], "2001:db8::7"),
        ("::ffff:10.0.0.1", &[xff("192.0.2.1")], "192.0.2.1"),
        ("::ffff:192.0.2.1", &[xff("198.51.100.1")], "192.0.2.1"),
        // Forwarded counts where there is no X-Forwarded-For.
        (
            "10.0.0.1",
            &[forwarded("for=198.51.100.1, for=\"192.0.2.1:80\";proto=https")],
            "192.0.2.1",
        ),
        ("10.0.0.1", &[forwarded("for=192.0.2.1"), forwarded("for=10.0.0.9")], "192.0.2.1"),
        ("10.0.0.1", &[forwarded("for=192.0.2.1, proto=http")], "10.0.0.1"),
        ("10.0.0.1", &[forwarded("for=192.0.2.1, for=\"[::1\"")], "10.0.0.1"),
        ("10.0.0.1", &[forwarded("for=198.51.100.1"), xff("192.0.2.1")], "192.0.2.1"),
        ("10.0.0.1", &[forwarded("for=198.51.100.1"), xff("bad")], "10.0.0.1"),
        // A Unix socket has no address and is not trusted.
        ("unix", &[xff("192.0.2.1")], "none"),
    ];
    for (peer, fields, wanted) in cases {
        let found = with(peer, fields, |r| client_address(r.peer, r.trusted, r.head, r.buf));
        assert_eq!(found.ip, wanted.parse().ok(), "{peer} {fields:?}");
        let peer = peer.trim_start_matches("::ffff:");
        let trusted = peer.starts_with("10.") || peer.starts_with("fd00:");
        assert_eq!(found.trusted_peer, trusted, "{peer}");
    }
}

#[test]
fn what_the_upstream_is_told() {
    use ForwardedFields::{Forwarded as F, Off, XForwarded as X};
    let own = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h.com:81\r\n";
    let proto = ("X-Forwarded-Proto", "https");
    let host = ("X-Forwarded-Host", "public.com");
    let spoofed = [xff("1.2.3.4"), proto, host, forwarded("for=5.6.7.8")];
    type Case<'a> = (ForwardedFields, &'a str, &'a [(&'a str, &'a str)], String);
    let cases: &[Case<'_>] = &[
        (X, "192.0.2.1", &[], format!("X-Forwarded-For: 192.0.2.1\r\n{own}")),
        (X, "192.0.2.1", &spoofed, format!("X-Forwarded-For: 192.0.2.1\r\n{own}")),
        (X, "::ffff:192.0.2.1", &[], format!("X-Forwarded-For: 192.0.2.1\r\n{own}")),
        (X, "unix", &spoofed, own.into()),
        (X, "10.0.0.1", &[], format!("X-Forwarded-For: 10.0.0.1\r\n{own}")),
        // Only the believed part is passed on.
        (
            X,
            "10.0.0.1",
            &[xff("6.6.6.6, bad"), xff("7.7.7.7, 192.0.2.1,10.0.0.2"), proto, host],
            "X-Forwarded-For: 192.0.2.1, 10.0.0.2, 10.0.0.1\r\n".into(),
        ),
        (
            X,
            "10.0.0.1",
            &[forwarded(
                "for=\"[2001:db8::7]\";proto=https;host=\"p.com:8\", for=10.0.0.2;proto=http",
            )],
            "X-Forwarded-For: 2001:db8::7, 10.0.0.2, 10.0.0.1\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: p.com:8\r\n"
                .into(),
        ),
        (
            F,
            "192.0.2.1",
            &spoofed,
            "Forwarded: for=192.0.2.1;host=\"h.com:81\";proto=http\r\n".into(),
        ),
        (F, "unix", &spoofed, "Forwarded: for=unknown;proto=http\r\n".into()),
        (
            F,
            "fd00::1",
            &[forwarded(
                "for=6.6.6.6, for=192.0.2.1;proto=https;host=p.com, for=10.0.0.2, for=\"[fd00::2]\"",
            )],
            "Forwarded: for=192.0.2.1;host=p.com;proto=https, for=10.0.0.2, for=\"[fd00::2]\", \
             for=\"[fd00::1]\";host=\"h.com:81\";proto=http\r\n"
                .into(),
        ),
        (
            F,
            "10.0.0.1",
            &[xff("6.6.6.6, 192.0.2.1"), proto, host],
            "Forwarded: for=192.0.2.1;host=public.com;proto=https, \
             for=10.0.0.1;host=\"h.com:81\";proto=http\r\n"
                .into(),
        ),
        (Off, "192.0.2.1", &spoofed, String::new()),
        (Off, "10.0.0.1", &spoofed, String::new()),
    ];
    for (mode, peer, fields, wanted) in cases {
        let mut out = Vec::new();
        with(peer, fields, |received| write_forwarding(&mut out, *mode, received));
        assert_eq!(String::from_utf8(out).unwrap(), *wanted, "{mode:?} {peer} {fields:?}");
    }
}

/// No more than [`HOPS_MAX`] addresses are believed, however many a trusted peer lists.
#[test]
fn a_long_chain_is_bounded() {
    let list = vec!["10.0.0.2"; 1000].join(", ");
    let mut out = Vec::new();
    with("10.0.0.1", &[("X-Forwarded-For", &list)], |received| {
        write_forwarding(&mut out, ForwardedFields::XForwarded, received);
    });
    let line = String::from_utf8(out).unwrap();
    assert_eq!(line.matches("10.0.0.2").count(), HOPS_MAX);
}

#[test]
fn what_is_removed() {
    use ForwardedFields::{Forwarded as F, Off, XForwarded as X};
    for mode in [X, F, Off] {
        for (name, id) in SIX {
            assert!(drops_field(mode, false, id), "{mode:?} {name}: a client could lie");
        }
        for id in [FieldId::Host, FieldId::Other, FieldId::Via, FieldId::XRequestId] {
            assert!(!drops_field(mode, false, id), "{id:?}");
        }
    }
    let kept = |mode| -> Vec<&str> {
        SIX.iter().filter(|(_, id)| !drops_field(mode, true, *id)).map(|(n, _)| *n).collect()
    };
    assert_eq!(kept(X), ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP"]);
    assert_eq!(kept(F), ["X-Real-IP"]);
    assert_eq!(kept(Off), SIX.map(|(name, _)| name));
}
