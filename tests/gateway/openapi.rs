//! Routes from OpenAPI documents.

use serde_json::Value;

use crate::harness::{Gateway, Upstream, eventually, http2::Http2};

/// The example's document, with a gateway that serves what it describes.
fn gateway(
    upstream: &Upstream,
    more: &str,
    change: impl Fn(String) -> String,
) -> (Gateway, tempfile::TempDir) {
    let text = include_str!("../../config/openapi/bookshop.yaml");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), change(text.to_owned())).unwrap();
    let toml = format!(
        "[reload]\nwatch = true\n[openapi.shop]\ndocument = \"{}/shop.yaml\"\nupstream = \"app\"\n{more}\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        folder.path().display(),
        upstream.address()
    );
    (Gateway::start(&toml), folder)
}

const BOOK: &str = r#"{"title": "Emma", "authors": [{"name": "Jane Austen", "born": null}]}"#;

fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} /api/v1{target} HTTP/1.1\r\nHost: gw.test\r\n{fields}{length}\r\n{body}")
}

#[test]
fn a_document_makes_routes_and_says_what_requests_are_like() {
    let upstream = Upstream::ok();
    let (gateway, _folder) = gateway(&upstream, "strict_query = true", |text| text);
    let mut client = gateway.client();
    let json = "Content-Type: application/json\r\n";
    let form = "X-Reason: because\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    for (method, target, fields, body, expected) in [
        ("GET", "/books", "", "", ""),
        ("HEAD", "/books", "", "", ""),
        ("GET", "/books?limit=5&status=new,used&tag=ab&tag=cd&price[min]=1.5", "", "", ""),
        ("GET", "/books?limit=101", "", "", "400 validate.parameter limit"),
        ("GET", "/books?limit=1&limit=1", "", "", "400 validate.parameter limit"),
        ("GET", "/books?status=new&status=used", "", "", "400 validate.parameter status"),
        ("GET", "/books?status=lost", "", "", "400 validate.parameter status"),
        ("GET", "/books?tag=a", "", "", "400 validate.parameter tag"),
        ("GET", "/books?price[low]=1", "", "", "400 validate.parameter price"),
        ("GET", "/books?page=2", "", "", "400 validate.parameter page"),
        ("GET", "/books", json, "{}", "415 validate.media_type"),
        ("POST", "/books", json, BOOK, ""),
        ("POST", "/books", "Content-Type: application/xml\r\n", "<book/>", ""),
        ("POST", "/books", json, r#"{"title": "x"}"#, "422 validate.body"),
        ("POST", "/books", json, "", "400 validate.body_missing"),
        ("POST", "/books", "Content-Type: text/plain\r\n", BOOK, "415 validate.media_type"),
        ("GET", "/books/12", "", "", ""),
        ("GET", "/books/0", "", "", "400 validate.parameter bookId"),
        ("GET", "/books/x", "", "", "400 validate.parameter bookId"),
        ("PUT", "/books/1", json, BOOK, "400 validate.parameter X-Reason"),
        ("PUT", "/books/1", form, "title=Emma&price=3&tags=ab&tags=cd", ""),
        ("PUT", "/books/1", form, "title=Emma&price=cheap", "422 validate.body"),
        ("PUT", "/books/1", form, "title=Emma&title=Ivan", "400 validate.malformed"),
        ("PUT", "/books/1/cover", "Content-Type: image/png\r\n", "png", ""),
        ("PUT", "/books/1/cover", "Content-Type: video/mp4\r\n", "mp4", "415 validate.media_type"),
        ("GET", "/session", "Cookie: session=0123456789\r\n", "", ""),
        ("GET", "/session", "", "", "400 validate.parameter session"),
        ("PATCH", "/books/1", json, BOOK, "405 route.method"),
        ("GET", "/users", "", "", "404 route.not_found"),
    ] {
        client.send(request(method, target, fields, body));
        let response = client.response_to(method);
        if expected.is_empty() {
            assert_eq!(response.status, 200, "{method} {target}: {}", response.text());
            let received = upstream.requests().pop().unwrap();
            assert_eq!(String::from_utf8_lossy(&received.body), body, "{method} {target}");
            assert_eq!(received.target, format!("/api/v1{target}"));
            continue;
        }
        let problem: Value = serde_json::from_str(&response.text()).expect("JSON");
        let name = problem["errors"][0]["parameter"].as_str().unwrap_or_default();
        let told = format!("{} {} {name}", response.status, response.reason());
        assert_eq!(told.trim(), expected, "{method} {target} {body}");
    }
    let mut second = Http2::connect(gateway.address());
    assert_eq!(second.get("/api/v1/books?limit=3").status, 200);
    assert_eq!(second.get("/api/v1/books?limit=0").status, 400);
    let stream =
        second.post("/api/v1/books", &[("content-type", "application/json")], BOOK.as_bytes());
    assert_eq!(second.response(stream).status, 200);
    let response = gateway.client().get("/elsewhere");
    assert_eq!(response.status, 404);
}

#[test]
fn what_is_not_described_passes_when_it_may() {
    let upstream = Upstream::ok();
    let more = "undescribed = \"pass\"\npath = \"/shop\"\nstrip_prefix = true\nshadow = true";
    let (gateway, _folder) = gateway(&upstream, more, |text| text);
    let mut client = gateway.client();
    for (target, forwarded) in [
        ("/shop/books", "/books"),
        ("/shop/books/7?x=1", "/books/7?x=1"),
        ("/shop/books/0/cover", "/books/0/cover"),
        ("/shop/users/1", "/users/1"),
        ("/shop", "/"),
    ] {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(upstream.requests().pop().unwrap().target, forwarded);
    }
    assert_eq!(client.get("/shop/books?limit=0").status, 200, "in shadow");
    let metrics = gateway.admin().get("/metrics").text();
    let line = "ringway_shadow_refusals_total{reason=\"validate.parameter\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn policies_of_the_section_are_those_of_its_routes() {
    let upstream = Upstream::ok();
    let more = "maintenance = { retry_after = \"5s\" }";
    let (gateway, _folder) = gateway(&upstream, more, |text| text);
    let response = gateway.client().get("/api/v1/books?limit=0");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("5")));
}

#[test]
fn a_document_that_changes_is_read_again() {
    let upstream = Upstream::ok();
    let (gateway, folder) = gateway(&upstream, "", |text| text);
    let mut client = gateway.client();
    assert_eq!(client.get("/api/v1/books?limit=101").status, 400);
    let file = folder.path().join("shop.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("maximum: 100 ", "maximum: 1000 ")).unwrap();
    eventually("the document is in force", || client.get("/api/v1/books?limit=101").status == 200);
    // One that is wrong changes nothing, and says where it is.
    std::fs::write(&file, text.replace("in: cookie", "in: jar")).unwrap();
    gateway.wait_for_log("a parameter must say where it is");
    assert_eq!(client.get("/api/v1/books?limit=101").status, 200);
}
