use std::fs;

use crate::config::{self, Snapshot};

/// The configuration of one document, beside which are these files.
fn load(document: &str, more: &str, others: &[(&str, &str)]) -> Result<Snapshot, String> {
    warned(document, more, others).map(|(snapshot, _)| snapshot)
}

/// The same, and what is warned of.
fn warned(
    document: &str,
    more: &str,
    others: &[(&str, &str)],
) -> Result<(Snapshot, String), String> {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in others.iter().chain(&[("api.yaml", document)]) {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }
    let file = dir.path().join("ringway.toml");
    let text = format!(
        "[[listeners]]\nbind = \"127.0.0.1:8080\"\n[openapi.api]\ndocument = \"api.yaml\"\n\
         upstream = \"app\"\n{more}\n[upstreams.app]\nendpoints = [\"127.0.0.1:8000\"]\n"
    );
    fs::write(&file, text).expect("written");
    let loaded = config::load(&file).map_err(|report| report.to_string());
    loaded.map(|(snapshot, warnings)| {
        (snapshot, warnings.iter().map(|warning| format!("{warning}\n")).collect())
    })
}

const HEAD: &str = "openapi: 3.1.0\npaths:\n  /a/{b}:\n    get:\n      parameters:\n";
const B: &str = "        - {name: b, in: path, required: true, schema: {type: string}}\n";

#[test]
fn mistakes_are_told_with_file_line_and_place() {
    let get = |text: &str| format!("{HEAD}{text}");
    let with_b = |text: &str| format!("{HEAD}{B}{text}");
    for (document, told, fix) in [
        ("swagger: '2.0'".to_owned(), "this is Swagger 2.0", "convert it to OpenAPI 3.1"),
        ("info: 1".to_owned(), "no OpenAPI 3.0 or 3.1 document", "write openapi: 3.1.0"),
        ("openapi: 3.1.0".to_owned(), "the document has no `paths`", "write paths:"),
        ("openapi: 3.1.0\npaths: [".to_owned(), "is not YAML: line 3", "path relative"),
        (
            "openapi: 3.1.0\njsonSchemaDialect: https://example.com/x\npaths: {}".to_owned(),
            "`jsonSchemaDialect` is not understood",
            "draft 2020-12",
        ),
        (
            "openapi: 3.1.0\nservers: [{url: 'api'}]\npaths: {}".to_owned(),
            "line 2, at /servers/0: the URL of its first server, `api`, has no path",
            "write path = \"/api\"",
        ),
        ("openapi: 3.1.0\npaths:\n  a: {}".to_owned(), "does not begin with a slash", "write /a"),
        ("openapi: 3.1.0\npaths:\n  '/{a': {get: {}}".to_owned(), "open brace", "close it"),
        (get("        []"), "nothing describes the path parameter `b`", "name: b, in: path"),
        (
            with_b("        - {name: c, in: path, schema: {}}"),
            "line 7, at /paths/~1a~1{b}/get/parameters/1: the path has no parameter `c`",
            "write {c} in the path",
        ),
        (with_b("        - {name: c, in: jar}"), "must say where it is", "in: query, path"),
        (with_b("        - {in: query, schema: {}}"), "must have a name", "write name: limit"),
        (with_b("        - {name: c, in: query}"), "a `schema` or `content`", "schema: {type"),
        (
            with_b("        - {name: c, in: header, style: form, schema: {}}"),
            "a parameter of the header has no such style",
            "leave `style` out",
        ),
        (
            with_b("        - {name: c, in: query, schema: {type: strin}}"),
            "the schema is wrong at /type",
            "as JSON Schema has it",
        ),
        (
            with_b("        - {name: c, in: query, schema: {$ref: '#/x'}}"),
            "`$ref` leads to `#/x`, and there is nothing",
            "#/components/schemas/Order",
        ),
        (
            with_b("        - {name: c, in: query, schema: {$ref: 'https://example.com/a.json'}}"),
            "nothing is fetched",
            "put it into a file",
        ),
        (
            with_b("        - {name: c, in: query, schema: {$ref: 'none.yaml#/x'}}"),
            "`none.yaml`, which cannot be read",
            "relative to this file",
        ),
        (
            with_b("        - {name: c, in: query, schema: {$id: 'x'}}"),
            "`$id` is not understood",
            "#/components/schemas/NAME",
        ),
        (
            with_b(
                "        - {name: c, in: query, schema: {}}\n        - {name: c, in: query, schema: {}}",
            ),
            "the parameter `c` is there twice",
            "remove one",
        ),
        (with_b("      requestBody: {}"), "a body must have a `content`", "application/json"),
        (with_b("      requestBody: {content: {json: {}}}"), "`json` is no media type", "*/*"),
        (with_b("        - {$ref: '#/paths/~1a~1{b}/get/parameters/1'}"), "leads back", "let it"),
    ] {
        let report = load(&document, "", &[]).expect_err(&document);
        assert!(report.contains(told), "{told}: {report}");
        assert!(report.contains(fix), "{fix}: {report}");
        assert!(report.contains("api.yaml"), "{report}");
    }
}

#[test]
fn what_cannot_be_served_is_warned_of() {
    let document = "openapi: 3.1.0\npaths:\n  /a:\n    get: {}\n    trace: {}\n";
    let (snapshot, told) = warned(document, "", &[]).expect("a configuration");
    assert_eq!(snapshot.routes.len(), 1);
    let place = "api.yaml, line 5, at /paths/~1a/trace: no request with the method TRACE";
    assert!(told.contains(place) && told.contains("remove this operation"), "{told}");
    let (_, told) = warned(&document.replace("    trace: {}\n", ""), "", &[]).expect("one");
    assert_eq!(told, "");
}

#[test]
fn every_mistake_is_told_at_once_up_to_a_bound() {
    let many: String = (0..30).map(|n| format!("  a{n}: {{}}\n")).collect();
    let report = load(&format!("openapi: 3.1.0\npaths:\n{many}"), "", &[]).expect_err("wrong");
    assert!(report.contains("10 errors"), "{report}");
}

#[test]
fn paths_become_routes() {
    let document = "
openapi: 3.0.3
servers:
  - url: 'https://{host}/{version}/'
    variables: {host: {default: example.com}, version: {default: v2}}
paths:
  /a: {$ref: 'others.yaml#/item'}
  /a/{id}.json:
    parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
    get: {operationId: one}
  /b/{first-name}/x:
    parameters: [{$ref: 'others.yaml#/name'}]
    head: {}
    get: {}
";
    let others = "
item:
  post: {requestBody: {content: {application/json: {schema: {$ref: '#/thing'}}}}}
thing: {type: object, nullable: true, properties: {n: {type: integer, minimum: 0, exclusiveMinimum: true}, next: {$ref: '#/thing'}}}
name: {name: first-name, in: path, required: true, schema: {type: string}}
";
    let snapshot = load(document, "", &[("others.yaml", others)]).expect("a configuration");
    let names: Vec<(&str, &str)> =
        snapshot.routes.iter().map(|route| (&*route.name, &*route.pattern)).collect();
    assert_eq!(
        names,
        [
            ("api.POST /a", "/v2/a"),
            ("api.one", "/v2/a/([^/]+)\\.json"),
            ("api.HEAD /b/{first-name}/x", "/v2/b/([^/]+)/x"),
            ("api.GET /b/{first-name}/x", "/v2/b/([^/]+)/x"),
        ]
    );
    assert_eq!(snapshot.files.len(), 2, "{:?}", snapshot.files);
    let rule = snapshot.routes[0].policies.policies().expect("policies");
    let body = rule.validate.as_ref().expect("a rule").body.as_ref().expect("a body");
    for (text, is_good) in [
        ("null", true),
        (r#"{"n": 1, "next": {"n": 2, "next": null}}"#, true),
        (r#"{"n": 0}"#, false),
        (r#"{"next": {"next": {"n": -1}}}"#, false),
    ] {
        let decided = body.contents[0].kind.check(text.as_bytes(), 9);
        assert_eq!(decided.is_ok(), is_good, "{text}: {decided:?}");
    }
}

/// From wherever it is referred to: what is outside of the document's folder is not looked for.
#[test]
fn references_stay_in_the_documents_folder() {
    let document = |reference: &str| {
        let schema = format!("{{$ref: '{reference}'}}");
        let body = format!("{{content: {{application/json: {{schema: {schema}}}}}}}");
        format!("openapi: 3.1.0\npaths:\n  /a:\n    put: {{requestBody: {body}}}\n")
    };
    let outside = tempfile::NamedTempFile::new().expect("a file");
    let outside = outside.path().to_str().expect("a name");
    for (first, second, is_inside) in [
        ("in/a.yaml#/a", "../b.yaml#/b", true),
        ("./in/../in/a.yaml#/a", "b.yaml#/b", true),
        ("in/a.yaml#/a", "../in/./../in/b.yaml#/b", true),
        ("in/a.yaml#/a", "%2e%2e/b.yaml#/b", true),
        ("in/a.yaml#/a", "../../b.yaml#/b", false),
        ("in/a.yaml#/a", "..%2f..%2fb.yaml#/b", false),
        ("in/a.yaml#/a", outside, false),
        ("in/../../b.yaml#/b", "b.yaml#/b", false),
        ("../b.yaml#/b", "b.yaml#/b", false),
        (outside, "b.yaml#/b", false),
    ] {
        let a = format!("a: {{$ref: '{second}'}}\n");
        let b = "b: {type: string}\n";
        let others = [("in/a.yaml", &*a), ("b.yaml", b), ("in/b.yaml", b)];
        let report = load(&document(first), "", &others).err().unwrap_or_default();
        assert_eq!(report.is_empty(), is_inside, "{first} {second}: {report}");
        assert!(is_inside || report.contains("out of the document's folder"), "{report}");
    }
}

/// What is beside a reference counts in OpenAPI 3.1, and whatever else is compiled from what it
/// refers to.
#[test]
fn keywords_beside_a_reference_belong_to_that_place_alone() {
    let (plain, narrow) =
        ("{$ref: '#/components/schemas/T'}", "{$ref: '#/components/schemas/T', maxLength: 2}");
    let described = "{$ref: '#/components/schemas/T', description: x}";
    for (version, first, second, expected) in [
        ("3.1.0", plain, narrow, [true, false]),
        ("3.1.0", narrow, plain, [false, true]),
        ("3.1.0", narrow, described, [false, true]),
        ("3.0.3", plain, narrow, [true, true]),
        ("3.0.3", narrow, plain, [true, true]),
    ] {
        let operation = |name: &str, schema: &str| {
            format!(
                "    {name}: {{requestBody: {{content: {{application/json: {{schema: {schema}}}}}}}}}\n"
            )
        };
        let document = format!(
            "openapi: {version}\npaths:\n  /a:\n{}{}components:\n  schemas:\n    T: {{type: string}}\n",
            operation("put", first),
            operation("post", second)
        );
        let snapshot = load(&document, "", &[]).expect("a configuration");
        let takes = |at: usize| {
            let rule = snapshot.routes[at].policies.policies().expect("policies");
            let body = rule.validate.as_ref().expect("a rule").body.as_ref().expect("a body");
            let kind = &body.contents[0].kind;
            assert!(kind.check(b"1", 9).is_err(), "a number");
            kind.check(b"\"abc\"", 9).is_ok()
        };
        assert_eq!([takes(0), takes(1)], expected, "{version} {first} {second}");
    }
}

/// Each schema refers to the next one, as long as may be.
#[test]
fn a_long_chain_of_schemas_is_read_or_refused() {
    for (count, told) in [(1900, ""), (2100, "a schema refers to more than 2000 others")] {
        let one = |n| {
            format!(
                "    T{n}: {{properties: {{a: {{$ref: '#/components/schemas/T{}'}}}}}}\n",
                n + 1
            )
        };
        let schemas: String = (0..count).map(one).collect();
        let body = "{content: {application/json: {schema: {$ref: '#/components/schemas/T0'}}}}";
        let document = format!(
            "openapi: 3.1.0\npaths:\n  /a:\n    put: {{requestBody: {body}}}\n\
             components:\n  schemas:\n{schemas}    T{count}: {{type: string}}\n"
        );
        let report = load(&document, "", &[]).err().unwrap_or_default();
        assert!(report.contains(told) && report.is_empty() == told.is_empty(), "{report}");
    }
}
