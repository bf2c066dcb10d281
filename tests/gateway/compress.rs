//! Compression of responses, decompression of requests.

use std::io::{Read, Write};

use crate::harness::{Gateway, Response, Upstream, http2::Http2};

/// Text that compresses, with its own numbers so that nothing else is like it.
fn text(bytes: usize) -> String {
    let mut text: String = (0..bytes / 8).map(|n| format!("line {n}\n")).collect();
    text.truncate(bytes);
    text
}

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).map(drop),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).map(drop),
        "zstd" => zstd::stream::copy_decode(bytes, &mut out),
        other => panic!("{other}"),
    }
    .expect(coding);
    out
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    writer.write_all(data).expect("memory");
    writer.finish().expect("memory")
}

fn encoded(coding: &str, data: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => gzip(data),
        "zstd" => zstd::encode_all(data, 3).expect("memory"),
        _ => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 18).write_all(data).expect("memory");
            out
        }
    }
}

/// By the path: the length of a text, and how it is told.
fn upstream() -> Upstream {
    Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let path = request.target.trim_start_matches('/').to_owned();
            let (kind, bytes) = path.split_once('/').unwrap_or((&path, "0"));
            let text = text(bytes.parse().unwrap_or(0));
            let plain = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
            let length = text.len();
            let response = match kind {
                "length" => format!("{plain}ETag: \"a\"\r\nContent-Length: {length}\r\n\r\n{text}"),
                "chunked" => format!(
                    "{plain}Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n{length:x}\r\n{text}\r\n0\r\nX-T: 1\r\n\r\n"
                ),
                "close" => format!("{plain}\r\n{text}"),
                "vary" => format!(
                    "{plain}Vary: Origin, accept-encoding\r\nContent-Length: {length}\r\n\r\n{text}"
                ),
                "image" => format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n{text}"
                ),
                "part" => format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-{}/{length}\r\nContent-Length: {length}\r\n\r\n{text}",
                    length - 1
                ),
                "asis" => format!(
                    "{plain}Cache-Control: no-transform\r\nContent-Length: {length}\r\n\r\n{text}"
                ),
                "head" => format!("{plain}Content-Length: 50000\r\n\r\n"),
                _ => format!(
                    "{plain}Content-Length: {}\r\n\r\n{}",
                    request.body.len(),
                    String::from_utf8_lossy(&request.body)
                ),
            };
            if !conn.send(response) || kind == "close" {
                return;
            }
        }
    })
}

const CONFIG: &str = r#"
[[routes]]
path = "/own"
respond = { body_file = "own.txt" }
compress = {}

[[routes]]
path = "/c"
upstream = "app"
strip_prefix = true
compress = {}

[[routes]]
path = "/d"
upstream = "app"
strip_prefix = true
decompress = { max_size = "1MiB", max_ratio = 50 }

[[routes]]
path = "/json"
upstream = "app"
decompress = {}
transform_request = { json = [{ set = "/by", value = "gateway" }] }
"#;

fn ask(gateway: &Gateway, path: &str, accepted: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: gw.test\r\nAccept-Encoding: {accepted}\r\n\r\n"
    ));
    client.response()
}

fn gateway(upstream: &Upstream) -> Gateway {
    let folder = std::env::temp_dir().join(format!("ringway-compress-{}.txt", std::process::id()));
    std::fs::write(&folder, text(5000)).expect("a file");
    Gateway::before(upstream.address(), &CONFIG.replace("own.txt", &folder.display().to_string()))
}

#[test]
fn responses_are_compressed_as_the_client_accepts() {
    let upstream = upstream();
    let gateway = gateway(&upstream);
    for (accepted, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br, zstd", "zstd"),
        ("*", "zstd"),
    ] {
        for kind in ["length", "chunked", "close"] {
            for bytes in [1024, 50_000, 3_000_000] {
                let response = ask(&gateway, &format!("/c/{kind}/{bytes}"), accepted);
                assert_eq!(response.field("content-encoding"), Some(coding), "{kind} {bytes}");
                assert_eq!(response.field("vary"), Some("Accept-Encoding"));
                assert!(response.body.len() < bytes * 2 / 3, "{}", response.body.len());
                assert!(decoded(coding, &response.body) == text(bytes).as_bytes(), "{kind}");
                let etag = (kind == "length").then_some("W/\"a\"");
                assert_eq!(response.field("etag"), etag);
            }
        }
        let own = ask(&gateway, "/own", accepted);
        assert_eq!(own.field("content-encoding"), Some(coding));
        assert_eq!(own.field("vary"), Some("Accept-Encoding"));
        assert_eq!(decoded(coding, &own.body), text(5000).as_bytes());
    }
    let mut client = Http2::connect(gateway.address());
    let stream = client.ask("GET", "/c/chunked/50000", &[("accept-encoding", "br")]);
    let response = client.response(stream);
    assert_eq!(decoded("br", &response.body), text(50_000).as_bytes());
}

#[test]
fn what_is_not_for_compressing_stays() {
    let upstream = upstream();
    let gateway = gateway(&upstream);
    for (path, accepted, vary) in [
        ("/c/length/50000", "", Some("Accept-Encoding")),
        ("/c/length/50000", "identity, gzip;q=0", Some("Accept-Encoding")),
        ("/c/length/1000", "gzip", None),
        ("/c/image/50000", "gzip", None),
        ("/c/part/50000", "gzip", None),
        ("/c/asis/50000", "gzip", None),
    ] {
        let response = ask(&gateway, path, accepted);
        assert_eq!(response.field("content-encoding"), None, "{path}");
        assert_eq!(response.field("vary"), vary, "{path} {accepted}");
        let bytes: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        assert!(response.body == text(bytes).as_bytes(), "{path}");
    }
    let response = ask(&gateway, "/c/vary/50000", "gzip");
    assert_eq!(response.field("vary"), Some("Origin, accept-encoding"));
    assert_eq!(decoded("gzip", &response.body), text(50_000).as_bytes());
    let mut client = gateway.client();
    client.send("HEAD /c/head HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!(head.field("content-encoding"), Some("gzip"));
    assert_eq!(head.field("content-length"), None);
}

/// What an upstream sends and then waits can be read at once.
#[test]
fn a_stream_does_not_wait_for_its_end() {
    let upstream = Upstream::scripted(|conn| {
        let _ = conn.request();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        conn.send(format!("{head}9\r\ndata: 1\n\n\r\n"));
        // Until the client has it and says so.
        let _ = conn.request();
    });
    let gateway = gateway(&upstream);
    let mut client = gateway.client();
    client.send("GET /c/x HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("content-encoding"), Some("gzip"));
    let mut reader = flate2::write::GzDecoder::new(Vec::new());
    while reader.get_ref().len() < 9 {
        let size = client.reader.through(b"\r\n").expect("a chunk");
        let size = String::from_utf8(size).unwrap();
        let bytes = client.reader.exactly(usize::from_str_radix(size.trim(), 16).unwrap());
        reader.write_all(&bytes.expect("a chunk")).expect("gzip");
        reader.flush().expect("gzip");
        client.reader.exactly(2).expect("a chunk's end");
    }
    assert_eq!(reader.get_ref(), b"data: 1\n\n");
}

fn post(path: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

#[test]
fn requests_are_forwarded_decompressed() {
    let upstream = upstream();
    let gateway = gateway(&upstream);
    let mut client = gateway.client();
    for coding in ["gzip", "br", "zstd", "x-gzip"] {
        for bytes in [0, 10, 5000, 300_000] {
            let plain = text(bytes);
            client.send(post(
                "/d/echo",
                coding,
                &encoded(coding.trim_start_matches("x-"), plain.as_bytes()),
            ));
            let response = client.response();
            assert_eq!(response.status, 200, "{coding} {bytes}: {}", response.text());
            assert!(response.body == plain.as_bytes(), "{coding} {bytes}");
            assert_eq!(upstream.requests().pop().unwrap().field("content-encoding"), None);
        }
    }
    // In pieces, slowly, and with what follows.
    let body = gzip(text(10_000).as_bytes());
    client.send("POST /d/echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().start_line, "HTTP/1.1 100 Continue");
    for piece in body.chunks(1000) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    client.send("0\r\n\r\nGET /d/length/5 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response().body == text(10_000).as_bytes());
    assert_eq!(client.response().text(), text(5));
    // What has no coding passes, and what is decompressed can be changed.
    client.send("POST /d/echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(client.response().text(), "ab");
    client.send(post("/json", "br", &encoded("br", b"{\"a\":1}")));
    assert_eq!(client.response().text(), r#"{"a":1,"by":"gateway"}"#);
    let mut client = Http2::connect(gateway.address());
    let stream =
        client.post("/d/echo", &[("content-encoding", "zstd")], &encoded("zstd", b"plain"));
    assert_eq!(client.response(stream).text(), "plain");
}

#[test]
fn bombs_and_broken_bodies_are_refused_within_their_bounds() {
    let upstream = upstream();
    let gateway = gateway(&upstream);
    let zeros = vec![0; 16 << 20];
    let before = gateway.rss_bytes();
    for coding in ["gzip", "br", "zstd"] {
        let bomb = encoded(coding, &zeros);
        let mut client = gateway.client();
        client.send(post("/d/echo", coding, &bomb));
        let response = client.response();
        assert_eq!((response.status, &*response.reason()), (413, "decompress.bytes"), "{coding}");
    }
    // Not much of a ratio, but more than the route takes.
    let noise: Vec<u8> =
        (0..3u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = gateway.client();
    client.try_send(post("/d/echo", "gzip", &gzip(&noise)));
    assert_eq!(client.response().reason(), "decompress.bytes");
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 14 << 20, "{grown} bytes");

    let whole = gzip(text(5000).as_bytes());
    for (coding, body, status, reason) in [
        ("gzip", &b"no gzip"[..], 400, "decompress.malformed"),
        ("gzip", &whole[..whole.len() - 9], 400, "decompress.malformed"),
        ("br", b"\xff\xff\xff\xff", 400, "decompress.malformed"),
        ("zstd", b"no zstd", 400, "decompress.malformed"),
        ("deflate", b"x", 415, "decompress.coding"),
        ("gzip, br", b"x", 415, "decompress.coding"),
    ] {
        let mut client = gateway.client();
        client.send(post("/d/echo", coding, body));
        let response = client.response();
        assert_eq!((response.status, &*response.reason()), (status, reason), "{coding}");
        let accepted = (status == 415).then_some("zstd, br, gzip");
        assert_eq!(response.field("accept-encoding"), accepted);
    }
    // As many as may be decoded at once, and more, each of which gives its place back.
    for n in 0..70 {
        let mut client = gateway.client();
        client.send(post("/d/echo", "gzip", b"no gzip"));
        assert_eq!(client.response().reason(), "decompress.malformed", "{n}");
    }
}
