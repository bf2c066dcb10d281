//! Signatures over requests: whose pass, what is told of others, that bodies are what was signed,
//! and that a nonce counts once on whichever worker.

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::harness::{
    Client, Gateway, Response, Upstream, eventually, http2::Http2, is, token_issuer::now_s, told,
};

const ALICE: &str = "alice's secret of thirty-two bytes or more";
const BOB: &str = "bob's secret, which is as long as alice's is";

fn gateway(upstream: &Upstream, workers: u32, keys: &str) -> Gateway {
    Gateway::start(&toml(upstream, workers, keys))
}

fn toml(upstream: &Upstream, workers: u32, keys: &str) -> String {
    // As the tests are many, and the folder is for all of them.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, secret) in [("alice", ALICE.to_owned()), ("bob", STANDARD.encode(BOB))] {
        // Whole at once: another test may read it.
        let own = folder.join(format!("{name}.{:?}", std::thread::current().id()));
        std::fs::write(&own, secret).unwrap();
        std::fs::rename(&own, folder.join(name)).unwrap();
    }
    format!(
        r#"
        [runtime]
        workers = {workers}
        [[routes]]
        path = "/signed"
        upstream = "app"
        authenticate = ["signed"]
        consumer_fields = true
        [[routes]]
        path = "/staff"
        upstream = "app"
        authenticate = ["signed"]
        authorize = [{{ groups = ["staff"], effect = "allow" }}]
        [[routes]]
        path = "/anybody"
        upstream = "app"
        authenticate = ["signed"]
        anonymous = true
        [signatures.signed]
        consumers = ["alice", "bob"]
        {keys}
        [consumers.alice]
        groups = ["staff"]
        signature_keys = [{{ id = "alice-1", algorithm = "hmac-sha256", secret = "file:{folder}/alice" }}]
        [consumers.bob]
        signature_keys = [
            {{ id = "bob-1", algorithm = "hmac-sha256", secret = "file:{folder}/bob", encoding = "base64" }},
        ]
        [consumers.carol]
        signature_keys = [{{ id = "carol-1", algorithm = "hmac-sha256", secret = "file:{folder}/alice" }}]
        [upstreams.app]
        endpoints = ["{}"]
        "#,
        upstream.address(),
        folder = folder.display(),
    )
}

/// A request that is to be signed.
struct Signer<'s> {
    method: &'s str,
    target: &'s str,
    key: &'s str,
    body: &'s str,
    /// Parameters beside `created` and `keyid`.
    params: String,
    created: i64,
}

fn signer<'s>(method: &'s str, target: &'s str) -> Signer<'s> {
    let created = i64::try_from(now_s()).unwrap();
    Signer { method, target, key: "alice-1", body: "", params: String::new(), created }
}

impl Signer<'_> {
    /// Signature-Input, Signature, and Content-Digest where there is a body.
    fn fields(&self) -> Vec<(String, String)> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let mut base = format!(
            "\"@method\": {}\n\"@authority\": app.test\n\"@path\": {path}\n\"@query\": ?{query}\n",
            self.method
        );
        let mut list = r#""@method" "@authority" "@path" "@query""#.to_owned();
        let mut fields = Vec::new();
        if !self.body.is_empty() {
            let digest = digest::digest(&digest::SHA256, self.body.as_bytes());
            let digest = format!("sha-256=:{}:", STANDARD.encode(digest.as_ref()));
            base.push_str(&format!("\"content-digest\": {digest}\n"));
            list.push_str(r#" "content-digest""#);
            fields.push(("content-digest".to_owned(), digest));
        }
        let input =
            format!("({list});created={};keyid=\"{}\"{}", self.created, self.key, self.params);
        base.push_str(&format!("\"@signature-params\": {input}"));
        let secret = if self.key == "bob-1" { BOB } else { ALICE };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, base.as_bytes()).as_ref());
        fields.push(("signature-input".to_owned(), format!("sig1={input}")));
        fields.push(("signature".to_owned(), format!("sig1=:{signature}:")));
        fields
    }

    fn text(&self) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: app.test\r\n", self.method, self.target);
        for (name, value) in self.fields() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text + "\r\n" + self.body
    }

    fn send(&self, client: &mut Client) -> Response {
        client.send(self.text());
        client.response()
    }
}

#[test]
fn whose_signatures_pass_and_what_others_are_told() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, 1, "");
    let mut client = gateway.client();
    let get = || signer("GET", "/signed?a=b");
    let forged = |text: String| text.replacen("signature: sig1=:", "signature: sig1=:AAAA", 1);
    for (text, wanted) in [
        (get().text(), is(200, "")),
        (Signer { key: "bob-1", ..get() }.text(), is(200, "")),
        (forged(get().text()), is(401, "auth.invalid")),
        (get().text().replace("a=b", "a=c"), is(401, "auth.invalid")),
        (get().text().replace("GET", "PUT"), is(401, "auth.invalid")),
        (get().text().replace("app.test", "app.test:81"), is(401, "auth.invalid")),
        (get().text().replace("app.test", "APP.test:80"), is(200, "")),
        (Signer { key: "dave-1", ..get() }.text(), is(401, "auth.key_unknown")),
        (Signer { key: "carol-1", ..get() }.text(), is(403, "auth.consumer")),
        (Signer { created: get().created - 400, ..get() }.text(), is(401, "auth.expired")),
        (Signer { created: get().created + 100, ..get() }.text(), is(401, "auth.not_yet")),
        (get().text().replace("\"@query\"", "\"x\""), is(401, "auth.uncovered")),
        ("GET /signed HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(), is(401, "auth.missing")),
        ("GET /anybody HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(), is(200, "")),
        (signer("GET", "/staff").text(), is(200, "")),
        (Signer { key: "bob-1", ..signer("GET", "/staff") }.text(), is(403, "authz.denied")),
    ] {
        client.send(&text);
        let response = client.response();
        assert_eq!(told(&response), wanted, "{text}");
        let asked = response.field("www-authenticate").unwrap_or_default();
        assert_eq!(asked == "Signature realm=\"signed\"", wanted.0 == 401, "{asked}");
        let accepts = "signed=(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\");\
                       created;keyid";
        assert_eq!(response.field("accept-signature") == Some(accepts), wanted.0 == 401);
    }
    let requests = upstream.requests();
    let names: Vec<_> = requests.iter().map(|request| request.field("x-consumer-name")).collect();
    let (alice, bob) = (Some("alice"), Some("bob"));
    assert_eq!(names, [alice, bob, alice, None, None]);
    assert_eq!(requests[0].field("x-consumer-groups"), Some("staff"));
    assert!(requests[0].head.has("signature") && requests[0].head.has("signature-input"));
}

#[test]
fn over_http2_as_over_http1() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, 1, "forward_signature = false");
    let mut client = Http2::connect(gateway.address());
    let ask = |client: &mut Http2, signer: &Signer<'_>, body: &str| {
        let own = signer.fields();
        let mut fields = vec![
            (":method", signer.method),
            (":scheme", "http"),
            (":authority", "app.test"),
            (":path", signer.target),
        ];
        fields.extend(own.iter().map(|(name, value)| (&**name, &**value)));
        let stream = client.open(&fields, body.is_empty());
        if !body.is_empty() {
            client.body(stream, body.as_bytes(), true);
        }
        told(&client.response(stream))
    };
    assert_eq!(ask(&mut client, &signer("GET", "/signed?x"), ""), is(200, ""));
    let request = upstream.request_for("/signed?x");
    assert!(!request.head.has("signature") && !request.head.has("signature-input"));
    let post = Signer { body: "{\"a\":1}", ..signer("POST", "/signed/2") };
    assert_eq!(ask(&mut client, &post, "{\"a\":1}"), is(200, ""));
    assert_eq!(upstream.request_for("/signed/2").body, b"{\"a\":1}");
    assert_eq!(ask(&mut client, &signer("POST", "/signed/4"), "x"), is(401, "auth.uncovered"));
    let post = Signer { body: "{\"a\":1}", ..signer("POST", "/signed/3") };
    assert_eq!(ask(&mut client, &post, "{\"a\":2}"), is(400, "auth.digest"));
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn bodies_are_what_was_signed() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream, 1, "max_digested_body = \"1KiB\"");
    fn post(body: &str) -> Signer<'_> {
        Signer { body, ..signer("POST", "/signed") }
    }
    let long = "x".repeat(1025);
    let chunked = |body: &str, sent: &str| {
        let text = post(body).text();
        let (head, _) = text.split_once("Content-Length").unwrap();
        let length = sent.len();
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{sent}\r\n0\r\n\r\n")
    };
    let twice = post("abc").text().replace("content-digest: ", "content-digest: sha-512=:AAAA:, ");
    for (text, wanted) in [
        (post("abc").text(), is(200, "")),
        (post("abc").text().replace("\r\n\r\nabc", "\r\n\r\nabd"), is(400, "auth.digest")),
        (chunked("abcd", "abcd"), is(200, "")),
        (chunked("abcd", "abcde"), is(400, "auth.digest")),
        (chunked("abcd", &long), is(413, "limit.body_bytes")),
        (post(&long).text(), is(413, "limit.body_bytes")),
        (post("").text().replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), is(200, "")),
        (
            post("").text().replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
            is(401, "auth.uncovered"),
        ),
        (twice, is(401, "auth.invalid")),
        (
            "POST /anybody HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
            is(200, ""),
        ),
    ] {
        let mut client = gateway.client();
        client.send(&text);
        assert_eq!(told(&client.response()), wanted, "{text}");
    }
    let bodies: Vec<Vec<u8>> = upstream.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [&b"abc"[..], b"abcd", b"", b"abc"]);
    let first = &upstream.requests()[0];
    assert!(first.head.has("content-digest"), "the upstream may look as well");
    // A client that waits to be asked for its body is asked.
    let text = post("late").text().replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let (head, body) = text.split_at(text.len() - 4);
    let mut client = gateway.client();
    client.send(head);
    assert!(client.head().start_line.contains(" 100 "));
    client.send(body);
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.requests().last().unwrap().body, b"late");
}

#[test]
fn a_nonce_counts_once_on_whichever_worker() {
    let upstream = Upstream::ok();
    let toml = toml(&upstream, 4, "parameters = [\"nonce\"]\nnonces = 100");
    let gateway = Gateway::start(&toml);
    let with =
        |nonce: u32| Signer { params: format!(";nonce=\"{nonce}\""), ..signer("GET", "/signed") };
    // Every request twice, at once, over connections of all workers.
    let mut clients: Vec<Client> = (0..16).map(|_| gateway.client()).collect();
    for nonce in 0..40u32 {
        let text = with(nonce).text();
        let (one, other) = ((nonce % 16) as usize, ((nonce * 7 + 3) % 16) as usize);
        let (one, other) = if one == other { (one, (one + 1) % 16) } else { (one, other) };
        clients[one].send(&text);
        clients[other].send(&text);
        let mut both = [one, other].map(|at| told(&clients[at].response()));
        both.sort();
        assert_eq!(both, [is(200, ""), is(401, "auth.replayed")], "{nonce}");
        assert_eq!(told(&with(nonce).send(&mut clients[0])), is(401, "auth.replayed"));
    }
    assert_eq!(upstream.requests().len(), 40);
    // A forged one uses nothing.
    let forged = with(1000).text().replacen("signature: sig1=:", "signature: sig1=:AAAA", 1);
    clients[1].send(forged);
    assert_eq!(told(&clients[1].response()), is(401, "auth.invalid"));
    assert_eq!(told(&with(1000).send(&mut clients[2])), is(200, ""));
    let text = signer("GET", "/signed").text();
    clients[1].send(text);
    assert_eq!(told(&clients[1].response()), is(401, "auth.uncovered"));
    // Of another key it is another one; a reload forgets none.
    let bob = Signer { key: "bob-1", ..with(7) };
    assert_eq!(told(&bob.send(&mut clients[3])), is(200, ""));
    assert!(gateway.reload(&format!("{toml}\n")));
    assert_eq!(told(&bob.send(&mut clients[4])), is(401, "auth.replayed"));
    // As many as are remembered: no guess beyond.
    for nonce in 40..99 {
        assert_eq!(told(&with(nonce).send(&mut clients[5])), is(200, ""), "{nonce}");
    }
    let full = with(2000).send(&mut clients[6]);
    assert_eq!(told(&full), is(503, "auth.unavailable"));
    let metrics = gateway.admin().get("/metrics").text();
    for line in [
        "ringway_signature_nonces_total{outcome=\"new\"} 101",
        "ringway_signature_nonces_total{outcome=\"used\"} 81",
        "ringway_signature_nonces_total{outcome=\"unknown\"} 1",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}\n{metrics}");
    }
}

#[test]
fn a_nonce_is_kept_for_as_long_as_any_way_takes_it() {
    let upstream = Upstream::ok();
    let more = r#"
        parameters = ["nonce"]
        [signatures.short]
        parameters = ["nonce"]
        max_age = "2s"
        skew = "0s"
        [[routes]]
        path = "/signed"
        headers = { "X-Way" = "short" }
        upstream = "app"
        authenticate = ["short"]
        "#;
    let gateway = Gateway::start(&toml(&upstream, 1, more));
    let mut client = gateway.client();
    let in_short = |text: &str| text.replace("\r\n\r\n", "\r\nX-Way: short\r\n\r\n");
    let (mut nonce, mut text) = (0, String::new());
    eventually("it is used in time", || {
        nonce += 1;
        let params = format!(";nonce=\"{nonce}\"");
        text = Signer { params, ..signer("GET", "/signed") }.text();
        client.send(in_short(&text));
        told(&client.response()) == is(200, "")
    });
    eventually("the short way does not take it any more", || {
        client.send(in_short(&text));
        told(&client.response()) == is(401, "auth.expired")
    });
    // The other one does, and goes by the same keys.
    client.send(&text);
    assert_eq!(told(&client.response()), is(401, "auth.replayed"));
}
