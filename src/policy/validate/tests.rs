use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    fault::Location,
    parameter::{Shape, Style},
    schema::{Load, Schema, Text, Wrong},
    types::{Fuel, In},
    *,
};
use crate::{
    policy::route::{PARAMS_MAX, RequestView, RouteMatch},
    wire::{HeadLimits, Method, RequestHead, Span},
};

/// Beside which there are no other files.
fn compiled(value: &Value) -> Result<Schema, Wrong> {
    let load: Arc<Load> = Arc::new(|uri: &str| Err(format!("`{uri}` is not there")));
    let text = Text { value, whole: None, base: "schema:///-", formats: true };
    Schema::compile(&text, &load)
}

fn schema(value: &Value) -> Schema {
    compiled(value).expect("a schema")
}

fn parameter(from: Location, style: Style, explode: bool, value: &Value) -> Parameter {
    let fuel = Fuel::default();
    Parameter {
        name: "id".into(),
        from,
        captured: 0,
        required: true,
        style,
        json: false,
        explode,
        allow_empty: false,
        shape: Shape::of(In::whole(value, &fuel)),
        schema: schema(value),
    }
}

/// What is decided about a parameter in this text: of the path, the query, a field or a cookie.
fn check(parameter: &Parameter, text: &str) -> Result<(), String> {
    let head_text = match parameter.from {
        Location::Header => format!("GET / HTTP/1.1\r\nHost: a\r\nID: {text}\r\n\r\n"),
        Location::Cookie => format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {text}\r\n\r\n"),
        _ => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    };
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes_max: 65536, target_bytes_max: 100, fields_max: 10 };
    head.parse(head_text.as_bytes(), &limits).expect("a head");
    let path = format!("/{text}");
    let mut params = [Span::EMPTY; PARAMS_MAX];
    params[0] = Span::new(1, path.len());
    let matched = RouteMatch { route: 0, params, params_len: 1, prefix_len: 0 };
    let view = RequestView {
        method: Method::Get,
        method_text: b"GET",
        host: b"a",
        path: path.as_bytes(),
        query: Some(text.as_bytes()),
        head: &head,
        buf: head_text.as_bytes(),
    };
    let asked = Asked { view: &view, matched: &matched };
    let checked = parameter.readings(asked).and_then(|readings| parameter.check(&readings));
    checked.map_err(|fault| fault.sentence())
}

#[test]
fn styles_are_read_as_openapi_has_them() {
    use Location::{Cookie, Header, Path, Query};
    let list = json!({"const": [1, 2, "a b"], "type": "array",
        "items": {"type": ["integer", "string"]}});
    let object = json!({"const": {"R": 100, "G": "x,y"}, "type": "object",
        "properties": {"R": {"type": "integer"}, "G": {"type": "string"}}});
    for (from, style, explode, value, text) in [
        (Query, Style::Form, true, &list, "x=1&id=1&id=2&id=a%20b"),
        (Query, Style::Form, true, &list, "id=1&i%64=2&id=a+b"),
        (Query, Style::Form, false, &list, "id=1,2,a%20b"),
        (Query, Style::Space, false, &list, "id=1+2%20a%2520b"),
        (Query, Style::Pipe, false, &list, "id=1|2%7Ca+b"),
        (Path, Style::Simple, false, &list, "1,2,a%20b"),
        (Path, Style::Label, false, &list, ".1,2,a%20b"),
        (Path, Style::Label, true, &list, ".1.2.a%20b"),
        (Path, Style::Matrix, false, &list, ";id=1,2,a%20b"),
        (Path, Style::Matrix, true, &list, ";id=1;id=2;id=a%20b"),
        (Header, Style::Simple, false, &list, "1, 2,a b"),
        (Header, Style::Simple, false, &list, "1\r\nid: 2 , a b"),
        (Cookie, Style::Form, false, &list, "x=1; id=1,2,a%20b"),
        (Query, Style::Form, true, &object, "R=100&G=x%2Cy"),
        (Query, Style::Form, false, &object, "id=R,100,G,x%2Cy"),
        (Query, Style::Deep, true, &object, "id[R]=100&id%5BG%5D=x,y"),
        (Path, Style::Simple, false, &object, "R,100,G,x%2Cy"),
        (Path, Style::Simple, true, &object, "R=100,G=x%2Cy"),
        (Path, Style::Label, true, &object, ".R=100.G=x,y"),
        (Path, Style::Matrix, true, &object, ";R=100;G=x,y"),
        (Path, Style::Matrix, false, &object, ";id=R,100,G,x%2Cy"),
    ] {
        // The whole value is what the constant is, or it would be refused.
        let value = if text.contains("%2520") {
            json!({"const": [1, 2, "a%20b"], "type": "array", "items": list["items"]})
        } else {
            let mut all = value.clone();
            if from == Query && style == Style::Space {
                all = list.clone();
            }
            all
        };
        let own = parameter(from, style, explode, &value);
        assert_eq!(check(&own, text), Ok(()), "{from:?} {style:?} {explode} {text}");
        let mut other = value.clone();
        other["const"] = json!("another");
        let other = parameter(from, style, explode, &other);
        assert!(check(&other, text).is_err(), "{from:?} {style:?} {explode} {text}");
    }
}

#[test]
fn texts_that_no_style_writes_are_refused() {
    use Location::{Cookie, Header, Path, Query};
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let number = json!({"type": "integer"});
    for (from, style, explode, value, text, told) in [
        (Path, Style::Label, false, &list, "1,2", "must begin with a dot"),
        (Path, Style::Matrix, false, &list, "id=1", "must begin with a semicolon"),
        (Path, Style::Matrix, true, &list, ";id=1;di=2", "must begin with its name"),
        (Path, Style::Simple, true, &object, "a=1,b", "must have `=` in each part"),
        (Path, Style::Simple, false, &object, "a,1,b", "must have a value for each name"),
        (Path, Style::Simple, true, &object, "a=1,a=2", "must have no name twice"),
        (Query, Style::Deep, true, &object, "id[a]=1&id[a]=1", "must have no name twice"),
        (
            Query,
            Style::Deep,
            true,
            &object,
            "id[b][c]=1",
            "must have members that are plain values",
        ),
        (Query, Style::Form, true, &number, "id=1&id=1", "must be there once"),
        (Query, Style::Form, true, &number, "id=%FF", "must be UTF-8"),
        (Query, Style::Form, true, &number, "di=1", "is missing"),
        (Query, Style::Form, true, &number, "id=01", "must be of type integer"),
        (Query, Style::Form, true, &number, "id=", "must be of type integer"),
        (Query, Style::Form, true, &list, "id=1&id=x", "at `/1` must be of type integer"),
        (Header, Style::Simple, false, &number, "1\r\nID: 1", "must be there once"),
        (Cookie, Style::Form, true, &number, "id=1; id=2", "must be there once"),
    ] {
        let refused = check(&parameter(from, style, explode, value), text).expect_err(text);
        assert!(refused.ends_with(told), "{text}: {refused}");
    }
}

/// Some upstreams take one for the other.
#[test]
fn a_field_with_underscores_is_not_beside_one_with_dashes() {
    let mut own = parameter(Location::Header, Style::Simple, false, &json!({"type": "string"}));
    own.name = "X-Tenant-Id".into();
    for (required, fields, expected) in [
        (true, "X-TENANT-ID: a", true),
        (true, "X-Tenant-Id: a\r\nX_Tenant-Id: b", false),
        (false, "X_Tenant_Id: b", false),
        (false, "X-TenantId: b", true),
    ] {
        own.required = required;
        let told = check(&own, &format!("0\r\n{fields}"));
        assert_eq!(told.is_ok(), expected, "{fields}: {told:?}");
    }
}

#[test]
fn a_text_that_may_be_several_things_is_good_when_one_is() {
    let own = |schema| parameter(Location::Query, Style::Form, true, &schema);
    for (schema, text, is_good) in [
        (json!({"type": ["integer", "string"], "maxLength": 2}), "id=123", true),
        (json!({"type": ["boolean", "null"]}), "id=", true),
        (json!({"type": ["boolean", "null"]}), "id=maybe", false),
        (json!({"enum": [1, "1a"]}), "id=1", true),
        (json!({"enum": [1, "1a"]}), "id=1a", true),
        (json!({"enum": ["1"]}), "id=1", true),
        (json!({"pattern": "^a"}), "id=123", false),
        (json!({"minimum": 5}), "id=4", false),
        (json!({"minimum": 5}), "id=5", true),
        (json!({}), "id=anything", true),
    ] {
        let result = check(&own(schema.clone()), text);
        assert_eq!(result.is_ok(), is_good, "{schema} {text}: {result:?}");
    }
    let mut json = own(json!({"type": "object", "required": ["a"]}));
    json.json = true;
    assert_eq!(check(&json, "id=%7B%22a%22:1%7D"), Ok(()));
    assert!(check(&json, "id=%7B%22a%22:1,%22a%22:2%7D").is_err());
    let mut empty = own(json!({"type": "integer"}));
    empty.allow_empty = true;
    assert_eq!(check(&empty, "id="), Ok(()));
}

proptest! {
    #[test]
    fn a_list_is_the_same_in_every_style(items in prop::collection::vec("[a-z,;. |&=+%ä-]{1,6}", 1..5)) {
        let list = json!({"const": items, "items": {"type": "string"}, "type": "array"});
        let keep = |b: u8| b.is_ascii_alphanumeric();
        let escape = |text: &String| -> String {
            text.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
        };
        let all: Vec<String> = items.iter().map(escape).collect();
        let form: Vec<String> = all.iter().map(|text| format!("id={text}")).collect();
        let matrix: Vec<String> = all.iter().map(|text| format!(";id={text}")).collect();
        for (from, style, explode, text) in [
            (Location::Query, Style::Form, true, form.join("&")),
            (Location::Query, Style::Form, false, format!("id={}", all.join(","))),
            (Location::Path, Style::Simple, false, all.join(",")),
            (Location::Path, Style::Matrix, true, matrix.concat()),
            (Location::Path, Style::Label, true, format!(".{}", all.join("."))),
        ] {
            let own = parameter(from, style, explode, &list);
            prop_assert_eq!(check(&own, &text), Ok(()), "{:?} {}", style, text);
        }
    }

    #[test]
    fn no_text_is_read_without_an_end(text in "[a-z0-9\\[\\]=&;,.|%+ -]{0,40}") {
        for value in [json!({"type": "array", "items": {"type": "integer"}}), json!({"type": "object"}), json!({"type": "integer"})] {
            for style in [Style::Form, Style::Deep, Style::Space, Style::Pipe] {
                let _ = check(&parameter(Location::Query, style, false, &value), &text);
            }
            for style in [Style::Simple, Style::Label, Style::Matrix] {
                let _ = check(&parameter(Location::Path, style, true, &value), &text);
            }
        }
    }
}

#[test]
fn schemas_that_are_wrong_say_where() {
    for (value, pointer, told) in [
        (json!({"type": "strin"}), "/type", "`type` is string"),
        (json!({"properties": {"a": {"minimum": "x"}}}), "/properties/a/minimum", "of type number"),
        (json!({"$ref": "#/$defs/none"}), "", "leads to `/$defs/none`"),
        (json!({"$ref": "#none"}), "", "anchor `none`"),
        (json!({"$ref": "other.json"}), "", "`schema:///other.json` is not there"),
        (json!({"$schema": "https://example.com/mine"}), "", "not known here"),
        (json!({"pattern": "[a-z"}), "/pattern", "no regular expression"),
        (json!({"items": {"pattern": "(?=a)(?<b"}}), "/items/pattern", "no regular expression"),
        (
            json!({"patternProperties": {"^(?=a)": {}}}),
            "/patternProperties/^(?=a)",
            "without look-around",
        ),
        (json!(1), "", "of type"),
    ] {
        let wrong = compiled(&value).expect_err("no schema");
        assert_eq!(wrong.pointer, pointer, "{wrong:?}");
        assert!(wrong.what.contains(told), "{wrong:?}");
    }
}

#[test]
fn patterns_and_schemas_that_refer_to_themselves_end() {
    let long = json!("a".repeat(50_000) + "!");
    assert!(!schema(&json!({"pattern": "^(a+)+$"})).allows(&long));
    for value in [
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "not": false}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]},
            "b": {"if": {"$ref": "#/$defs/a"}, "then": {"$ref": "#/$defs/a"}}}}),
    ] {
        let _ = schema(&value).check(&json!({"a": [1]}));
    }
    // As deep as can be allowed.
    let tree =
        schema(&json!({"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}));
    let mut value = json!([]);
    for _ in 1..strict_json::DEPTH_MAX {
        value = json!([value]);
    }
    assert!(tree.allows(&value));
    assert!(tree.check(&json!([1])).is_err());
}

/// They have so much work, and what needs more is refused, wherever in a schema they are.
#[test]
fn patterns_that_are_not_matched_in_linear_time_end() {
    let looking = json!({"pattern": "^(a|a)*\\1b$"});
    let (good, heavy) = (json!("aab"), json!("a".repeat(60) + "!"));
    assert!(schema(&looking).is_slow() && !schema(&json!({"pattern": "^a+$"})).is_slow());
    for (own, wrap) in [
        (looking.clone(), (|value| value) as fn(Value) -> Value),
        (json!({"items": looking}), |value| json!([value])),
        (json!({"not": {"not": looking}}), |value| value),
        (json!({"properties": {"a": looking}}), |value| json!({ "a": value })),
        (json!({"additionalProperties": looking}), |value| json!({ "a": value })),
        (json!({"patternProperties": {"^a": looking}}), |value| json!({ "a": value })),
        (
            json!({"propertyNames": looking}),
            |value| json!({ value.as_str().unwrap_or_default(): 1 }),
        ),
        (json!({"anyOf": [looking, {"$ref": "#/anyOf/0"}]}), |value| value),
    ] {
        let own = schema(&own);
        assert_eq!(own.check(&wrap(good.clone())), Ok(()));
        let told = own.check(&wrap(heavy.clone())).expect_err("it is given up").sentence();
        assert_eq!(told, "the body takes too long to match with a pattern");
    }
    // What is given up is not taken for what does not match.
    let not = schema(&json!({ "not": looking }));
    assert!(not.allows(&json!("c")) && !not.allows(&heavy) && not.check(&heavy).is_err());
    let told = schema(&looking).check(&json!("c")).expect_err("refused").sentence();
    assert_eq!(told, "the body must match the pattern ^(a|a)*\\1b$");
    // Many that are each soon done are too many together.
    let list = schema(&json!({"items": {"pattern": "^(?=a)a+$"}}));
    let many = |count: usize| Value::Array(vec![json!("a".repeat(20)); count]);
    assert!(list.allows(&many(10_000)) && !list.allows(&many(100_000)));
}

#[test]
fn alternatives_that_look_into_the_same_members_end() {
    let both = schema(&json!({"type": "array", "anyOf": [
        {"items": {"$ref": "#"}}, {"items": {"$ref": "#"}, "maxItems": 9}
    ]}));
    for depth in 1..=strict_json::DEPTH_MAX {
        let mut value = json!([1]);
        for _ in 1..depth {
            value = json!([value]);
        }
        assert!(!both.allows(&value));
        // By all ways through them there would be 2 to the power of the depth to look at.
        assert!(both.check(&value).is_err());
    }
}

#[test]
fn what_is_told_has_no_value_of_the_request() {
    let secret = "hunter2-hunter2";
    for value in [
        json!({"type": "integer"}),
        json!({"enum": ["a"]}),
        json!({"const": 1}),
        json!({"format": "email"}),
        json!({"pattern": "^[0-9]+$"}),
        json!({"maxLength": 3}),
        json!({"not": {}}),
        json!(false),
        json!({"anyOf": [{"type": "integer"}, {"maxLength": 2}]}),
        json!({"oneOf": [{"type": "integer"}, {"maxLength": 2}]}),
    ] {
        let one = schema(&value).check(&json!(secret)).expect_err("refused");
        assert!(!one.sentence().contains("hunter"), "{value}: {}", one.sentence());
        let list = json!({"items": value, "type": "array"});
        let inner = schema(&list).check(&json!([1, secret])).map_err(|fault| fault.sentence());
        assert!(inner.is_err_and(|told| !told.contains("hunter")));
    }
    let unique = schema(&json!({"uniqueItems": true}));
    let told = unique.check(&json!([secret, secret])).expect_err("refused").sentence();
    assert_eq!(told, "the body must have no item twice");
}

#[test]
fn media_types_are_taken_by_the_first_that_fits() {
    let any = schema(&json!({"type": "object", "properties": {"n": {"type": "integer"},
        "l": {"type": "array", "items": {"type": "integer"}}}, "required": ["n"]}));
    let fuel = Fuel::default();
    let of = json!({"type": "object", "properties": {"n": {"type": "integer"},
        "l": {"type": "array", "items": {"type": "integer"}}}});
    let shape = Shape::of(In::whole(&of, &fuel));
    let range = |text| Range::Of(crate::policy::compress::MediaRange::parse(text).expect("one"));
    let form = "application/x-www-form-urlencoded";
    let body = Body {
        contents: vec![
            Content { range: range("application/json"), kind: Kind::Json(Some(any.clone())) },
            Content { range: range(form), kind: Kind::Form(any, shape) },
            Content { range: range("image/*"), kind: Kind::Opaque },
        ]
        .into(),
        need: Need::Usual,
        bytes_max: 64,
        depth_max: 4,
    };
    for (method, media, text, expected) in [
        (&b"POST"[..], "application/json", r#"{"n": 1}"#, ""),
        (b"POST", "APPLICATION/JSON; charset=utf-8", r#"{"n": 1}"#, ""),
        (b"POST", "application/json; Charset=\"UTF-8\"", r#"{"n": 1}"#, ""),
        (b"POST", "application/json;v=1;charset=utf-7", r#"{"n": 1}"#, "validate.media_type"),
        (b"POST", "application/json; charset = utf-16", r#"{"n": 1}"#, "validate.media_type"),
        (b"POST", "application/json;charset=utf-8;charset=x", r#"{"n": 1}"#, "validate.media_type"),
        (b"POST", "application/json;charset*=''utf-7", r#"{"n": 1}"#, "validate.media_type"),
        (b"POST", "image/png; charset=utf-7", "png", ""),
        (b"POST", "application/json", r#"{"n": 1.5}"#, "validate.body"),
        (b"POST", "application/jsonx", "{}", "validate.media_type"),
        (b"POST", form, "n=1&l=1&l=2&x=%20", ""),
        (b"POST", form, "n=1&l=1&l=a", "validate.body"),
        (b"POST", form, "n=1&n=1", "validate.malformed"),
        (b"POST", form, "n=%FF", "validate.malformed"),
        (b"POST", "image/png", "png", ""),
        (b"POST", "", "{}", "validate.media_type"),
        (b"POST", "application/json", "", "validate.body_missing"),
        (b"DELETE", "application/json", "", ""),
        (b"POST", "application/json", &format!("[{}1]", "1,".repeat(40)), "validate.body_bytes"),
    ] {
        let fields: Vec<&[u8]> = [media.as_bytes()].into_iter().filter(|m| !m.is_empty()).collect();
        let looked = Looked {
            method,
            has_body: !text.is_empty(),
            length: Some(text.len() as u64),
            media: &fields,
            is_encoded: false,
        };
        let decided = body.content(&looked).and_then(|content| match content {
            Some(at) => body.contents[at].kind.check(text.as_bytes(), body.depth_max),
            None => Ok(()),
        });
        let reason = decided.err().map_or("", |(reason, _)| reason.token);
        assert_eq!(reason, expected, "{media} {text}");
    }
}
