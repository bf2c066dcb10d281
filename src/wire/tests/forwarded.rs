use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::{HeadLimits, Method, Parsed, ResponseHead};
use super::*;

/// A parsed head with these lines, to iterate over.
fn head(lines: &[&str], name: &str) -> (Vec<u8>, ResponseHead) {
    let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
    for line in lines {
        bytes.extend_from_slice(format!("{name}: {line}\r\nOther: 9.9.9.9\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    let limits = HeadLimits { head_bytes_max: 65536, target_bytes_max: 0, fields_max: 64 };
    let mut head = ResponseHead::default();
    assert_eq!(head.parse(&bytes, Method::Get, &limits), Ok(Parsed::Complete(())));
    (bytes, head)
}

fn x_forwarded_for(lines: &[&str]) -> Vec<String> {
    let (bytes, head) = head(lines, "X-Forwarded-For");
    ForwardedFor::new(&bytes, &head.fields).map(|node| show(&node)).collect()
}

fn show(node: &Result<Node<'_>, Malformed>) -> String {
    match node {
        Ok(Node::Ip(ip, None)) => ip.to_string(),
        Ok(Node::Ip(ip, Some(port))) => format!("{ip} {port}"),
        Ok(Node::Unknown) => "unknown".into(),
        Ok(Node::Obfuscated(name)) => String::from_utf8_lossy(name).into_owned(),
        Err(Malformed) => "!".into(),
    }
}

#[test]
fn x_forwarded_for_from_the_right() {
    for (lines, want) in [
        (&[][..], &[][..]),
        (&[""], &[]),
        (&["1.2.3.4"], &["1.2.3.4"]),
        (&["1.1.1.1, 2.2.2.2 ,3.3.3.3:80"], &["3.3.3.3 80", "2.2.2.2", "1.1.1.1"]),
        (&["1.1.1.1", "2.2.2.2, 3.3.3.3"], &["3.3.3.3", "2.2.2.2", "1.1.1.1"]),
        (&[",1.1.1.1,,\t,"], &["1.1.1.1"]),
        (&["2001:db8::1, [2001:db8::2], [::3]:443"], &["::3 443", "2001:db8::2", "2001:db8::1"]),
        (&["_hidden, unknown, UNKNOWN"], &["unknown", "unknown", "_hidden"]),
        (&["1.1.1.1, x, 2.2.2.2"], &["2.2.2.2", "!"]),
        (&["1.1.1.1, 2.2.2.2", "1.2.3"], &["!"]),
        (&["01.2.3.4"], &["!"]),
        (&["1.2.3.4:"], &["!"]),
        (&["1.2.3.4:65536"], &["!"]),
        (&["1.2.3.4:000080"], &["!"]),
        (&["1.2.3.4:_p"], &["1.2.3.4"]),
        (&["[1.2.3.4]"], &["!"]),
        (&["[::1"], &["!"]),
        (&["[::1]80"], &["!"]),
        (&["fe80::1%eth0"], &["!"]),
        (&["\"1.2.3.4\""], &["!"]),
        (&["example.com"], &["!"]),
        (&["_"], &["!"]),
        (&["_a b"], &["!"]),
        (&["1.2.3.4 5.6.7.8"], &["!"]),
        (&["\u{e9}"], &["!"]),
        (&["for=1.2.3.4"], &["!"]),
    ] {
        assert_eq!(x_forwarded_for(lines), want, "{lines:?}");
    }
}

fn forwarded(lines: &[&str]) -> Vec<String> {
    let (bytes, head) = head(lines, "Forwarded");
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"-")).into_owned();
    Forwarded::new(&bytes, &head.fields)
        .map(|element| match element {
            Ok(element) => {
                let node = element.for_node.map_or("-".into(), |node| show(&Ok(node)));
                format!("{node} {} {}", text(element.proto), text(element.host))
            }
            Err(Malformed) => "!".into(),
        })
        .collect()
}

/// RFC 7239 §4 to §6.
#[test]
fn forwarded_from_the_right() {
    for (line, want) in [
        ("for=1.2.3.4", &["1.2.3.4 - -"][..]),
        ("For=\"[2001:db8::1]:80\";proto=http;HOST=\"h:81\"", &["2001:db8::1 80 http h:81"]),
        ("for=1.1.1.1, for=2.2.2.2;proto=https", &["2.2.2.2 https -", "1.1.1.1 - -"]),
        ("for=\"_a.b-c\", for=unknown", &["unknown - -", "_a.b-c - -"]),
        ("for=\"1.2.3.4:_p\"", &["1.2.3.4 - -"]),
        ("proto=http; for=1.2.3.4 ;by=_x", &["1.2.3.4 http -"]),
        (";for=1.2.3.4;;", &["1.2.3.4 - -"]),
        ("x=\"a,b;c=\\\"d\\\\\", for=1.2.3.4", &["1.2.3.4 - -", "- - -"]),
        ("x=\",\"", &["- - -"]),
        ("x=\"\\\",for=6.6.6.6\", for=1.2.3.4", &["1.2.3.4 - -", "- - -"]),
        // What is left of a sound element is not believed, however it is quoted.
        ("for=\"6.6.6.6, for=1.2.3.4", &["1.2.3.4 - -", "!"]),
        ("for=\", for=\"[::1]:80\"", &["::1 80 - -", "!"]),
        ("for=1.1.1.1, bad, for=2.2.2.2", &["2.2.2.2 - -", "!"]),
        ("for=1.2.3.4\"", &["!"]),
        ("for=1.2.3.4:80", &["!"]),
        ("for=[::1]", &["!"]),
        ("for=\"::1\"", &["!"]),
        ("for=\"1.2.3\\.4\"", &["!"]),
        ("for=1.2.3.4;for=1.2.3.5", &["!"]),
        ("for =1.2.3.4", &["!"]),
        ("for= 1.2.3.4", &["!"]),
        ("for=", &["!"]),
        ("for", &["!"]),
        ("=1.2.3.4", &["!"]),
        ("for=1.2.3.4 proto=http", &["!"]),
        ("for=1.2.3.4;proto=\"a b\"", &["!"]),
        ("for=1.2.3.4;proto=1a", &["!"]),
        ("for=1.2.3.4;host=\"u@h\"", &["!"]),
        ("host=\"\"", &["!"]),
        ("for=\"a\\", &["!"]),
    ] {
        assert_eq!(forwarded(&[line]), want, "{line:?}");
    }
    assert_eq!(forwarded(&["for=1.1.1.1", "for=2.2.2.2"]), ["2.2.2.2 - -", "1.1.1.1 - -"]);
}

#[test]
fn written_elements_are_quoted_where_needed() {
    let mut out = Vec::new();
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    write_forwarded_element(&mut out, v4, "http", b"example.com", None);
    out.push(b'|');
    write_forwarded_element(&mut out, Ipv6Addr::LOCALHOST.into(), "https", b"h:8\"\\", Some(v4));
    out.push(b'|');
    write_forwarded_element(&mut out, v4, "http", b"", Some(Ipv6Addr::UNSPECIFIED.into()));
    let want = "for=127.0.0.1;host=example.com;proto=http|\
                for=\"[::1]\";by=127.0.0.1;host=\"h:8\\\"\\\\\";proto=https|\
                for=127.0.0.1;by=\"[::]\";proto=http";
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

proptest! {
    #[test]
    fn what_was_written_is_what_is_read(
        nodes in proptest::collection::vec((any::<IpAddr>(), "[a-z]{1,5}(:[1-9][0-9]{0,3})?"), 1..6),
    ) {
        let mut line = Vec::new();
        for (index, (ip, host)) in nodes.iter().enumerate() {
            if index > 0 {
                line.extend_from_slice(b", ");
            }
            write_forwarded_element(&mut line, *ip, "https", host.as_bytes(), Some(*ip));
        }
        let line = String::from_utf8(line).unwrap();
        let want: Vec<_> =
            nodes.iter().rev().map(|(ip, host)| format!("{ip} https {host}")).collect();
        prop_assert_eq!(forwarded(&[&line]), want);
    }
}
